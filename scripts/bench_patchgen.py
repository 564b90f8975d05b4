"""Measure the speed of patchgen in one run: whole commands, stages, bare OpenCV calls, memory, and PIL + torchvision.

Each ratio compares two figures of the same run. Measure on an idle machine.

    scripts/bench_patchgen --out benchmarks/output/patchgen.txt
"""

import functools
import hashlib
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
from measure.authors_recipe import reference_patches

from patchgen.pipeline.plan import environment
from patchgen.pipeline.shard import BuildContext, ShardTask
from patchgen.pipeline.shard_writer import PatchMaker, build_shard, configure_process
from patchgen.pixels.encode import make_encoder
from patchgen.pixels.geometry import build_pyramids
from patchgen.recipe import load_recipe
from patchgen.sources.photo import read_photo
from patchgen.sources.synthetic import make_source, write_source

MICRO = 1e6

PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
"""Runs a command from a small process, because the peak memory of a child includes that of its parent at the fork."""


def whole_command(image: Path, folder: Path, n: int, size: int, workers: int) -> dict[str, float]:
    """Run ``patchgen build`` as a user does; return its speed, and the peak memory of its largest process."""
    command = [sys.executable, "-m", "patchgen", "build", "--image", image, "--n", n, "--size", size]
    command += ["--workers", workers, "--out", folder]
    started = time.perf_counter()
    run = subprocess.run(
        [sys.executable, "-c", PEAK, *map(str, command)], check=True, stdout=subprocess.PIPE, text=True
    )
    seconds = time.perf_counter() - started
    size_mb = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    shutil.rmtree(folder)
    peak = int(run.stdout) / 1024
    return {"n": n, "seconds": seconds, "patches_per_second": n / seconds, "MB": size_mb, "peak_MiB": peak}


def stages(image: Path, folder: Path, n: int, size: int) -> dict[str, float]:
    """Return the microseconds per patch of each stage in one process, and of the whole ``build_shard``."""
    recipe, photo = load_recipe("asano2023"), read_photo(image)
    times: dict[str, float] = {}
    started = time.perf_counter()
    pyramids = build_pyramids(recipe.geometry, size, [photo.pixels])
    times["(pyramid, ms a build)"] = (time.perf_counter() - started) * 1e3

    def clock(name: str, since: float) -> float:
        now = time.perf_counter()
        times[name] = times.get(name, 0.0) + (now - since) / n * MICRO
        return now

    now = time.perf_counter()
    maker = PatchMaker(recipe, pyramids, size=size, seed=0, first_index=0, n=n)
    now = clock("parameters", now)
    encode = make_encoder(recipe.encoding)
    start = 0
    while start < n:
        patches = maker.warped(start)
        now = clock("warp", now)
        maker.augment(patches, start)
        now = clock("augment", now)
        encoded = [encode(patch) for patch in patches]
        now = clock("encode", now)
        for patch, data in zip(patches, encoded, strict=True):
            hashlib.sha256(patch).digest()
            hashlib.sha256(data).digest()
        now = clock("digests", now)
        start += len(patches)
    folder.mkdir(exist_ok=True)
    context = BuildContext(recipe=recipe, pyramids=pyramids, size=size, seed=0, plan_id="0" * 64, folder=folder)
    best = float("inf")
    for _ in range(3):
        started = time.perf_counter()
        build_shard(context, ShardTask(number=0, first_index=0, n=n), lambda count: None)
        best = min(best, time.perf_counter() - started)
    whole = best / n * MICRO
    times["tar, table, rest"] = whole - sum(value for name, value in times.items() if not name.startswith("("))
    return times | {"whole shard": whole}


def bare_calls(image: Path, folder: Path, n: int, size: int) -> dict[str, float]:
    """Return microseconds per patch of the OpenCV calls, the hashes and the write that the recipe needs."""
    recipe, photo = load_recipe("asano2023"), read_photo(image)
    pyramids = build_pyramids(recipe.geometry, size, [photo.pixels])
    maker = PatchMaker(recipe, pyramids, size=size, seed=0, first_index=0, n=n)
    warp = maker._warp
    patches = [warp[i] for i in range(n)]
    encode = make_encoder(recipe.encoding)
    encoded = [encode(patch) for patch in patches]
    table, matrix = np.arange(256, dtype=np.uint8), np.eye(3, dtype=np.float32)
    options = [cv2.IMWRITE_JPEG_QUALITY, 75, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    reads = list(zip(warp._levels, warp._matrices, warp._borders, strict=True))

    def time_calls(call: Callable[[int], Any], share: float = 1.0) -> float:
        best = float("inf")
        for _ in range(3):
            started = time.perf_counter()
            for i in range(n):
                call(i)
            best = min(best, time.perf_counter() - started)
        return best / n * MICRO * share

    with (folder / "bare").open("wb") as file:
        return {
            "warpAffine": time_calls(
                lambda i: cv2.warpAffine(reads[i][0], reads[i][1], (size, size), flags=flags, borderMode=reads[i][2])
            ),
            "LUT, twice for half the patches": time_calls(lambda i: cv2.LUT(patches[i], table)),
            "transform, twice for half": time_calls(lambda i: cv2.transform(patches[i], matrix)),
            "gray and its sum, for half": time_calls(
                lambda i: cv2.sumElems(cv2.cvtColor(patches[i], cv2.COLOR_RGB2GRAY)), 0.5
            ),
            "RGB to BGR": time_calls(lambda i: cv2.cvtColor(patches[i], cv2.COLOR_RGB2BGR)),
            "imencode": time_calls(lambda i: cv2.imencode(".jpg", patches[i], options)),
            "two SHA-256": time_calls(
                lambda i: (hashlib.sha256(patches[i]).digest(), hashlib.sha256(encoded[i]).digest())
            ),
            "write": time_calls(lambda i: file.write(encoded[i])),
        }


def reference_rate(image: Path, n: int, size: int, workers: int) -> float:
    """Return patches per second of PIL and torchvision in ``workers`` processes, without start-up."""
    make = functools.partial(reference_patches, image, size, 0, "jpg")
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        pool.map(make, [range(workers)] * workers, chunksize=1)  # start-up: imports, the photo
        started = time.perf_counter()
        pool.map(make, [range(k, n, workers) for k in range(workers)], chunksize=1)
        return n / (time.perf_counter() - started)


def bench_size(image: Path, folder: Path, size: int, counts: list[int], workers: int, scale: float) -> list[str]:
    """Return all measurements of one patch size as lines of text."""
    shard = 20_000 if size <= 32 else 1000
    lines = [f"## {size} px, {workers} processes", ""]
    rates = []
    for n in counts:
        found = whole_command(image, folder / "set", max(1, int(n * scale)), size, workers)
        rates.append(found["patches_per_second"])
        lines.append(
            f"whole command, {found['n']:>9,} patches: {found['patches_per_second']:>9,.0f} patches/s "
            f"({found['seconds']:.1f} s, {found['MB']:,.0f} MB, largest process {found['peak_MiB']:.0f} MiB)"
        )
    times = stages(image, folder / "stages", shard, size)
    bare = bare_calls(image, folder, shard, size)
    lines += ["", "stage, one process, µs a patch:"]
    lines += [f"  {name:<34} {value:8.2f}" for name, value in times.items()]
    lines += ["bare calls, one process, µs a patch:"]
    lines += [f"  {name:<34} {value:8.2f}" for name, value in bare.items()]
    total = sum(bare.values())
    lines.append(f"  {'sum':<34} {total:8.2f}")
    lines.append(f"share of the bare-call limit: {total / times['whole shard']:.0%}")
    reference = reference_rate(image, max(workers, int((4000 if size <= 32 else 600) * scale)), size, workers)
    lines.append(f"PIL + torchvision, {workers} processes, start-up excluded: {reference:,.0f} patches/s")
    lines.append(f"whole command / PIL + torchvision: {max(rates) / reference:.1f} ×")
    return [*lines, ""]


@click.command()
@click.option("--image", type=click.Path(path_type=Path, exists=True), help="A photo [default: dead leaves].")
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1))
@click.option("--scale", default=1.0, show_default=True, help="Multiply all lengths by this.")
@click.option("--long", is_flag=True, help="Also build 2,000,000 patches, to check that the rate is constant.")
@click.option("--out", type=click.Path(path_type=Path), help="Also append the report to this file.")
def main(image: Path | None, workers: int, scale: float, long: bool, out: Path | None) -> None:
    """Measure patchgen in one run."""
    configure_process()
    with tempfile.TemporaryDirectory(prefix="bench-", dir=os.environ.get("BENCH_DIR")) as name:
        folder = Path(name)
        if image is None:
            image = folder / "leaves.png"
            write_source(image, make_source("dead-leaves", 2560, 1920, 0))
        photo = read_photo(image)
        lines = [f"# patchgen build, {photo.width}×{photo.height} px photo, recipe asano2023, JPEG 75", ""]
        lines += [json.dumps(environment("fast")), f"{os.cpu_count()} CPUs", ""]
        counts = [100_000, 400_000, *([2_000_000] if long else [])]
        for size, numbers in ((32, counts), (224, [40_000])):
            lines += bench_size(image, folder, size, numbers, workers, scale)
            click.echo("\n".join(lines))
            if out is not None:
                with out.open("a") as file:
                    file.write("\n".join(lines) + "\n")
            lines = []


if __name__ == "__main__":
    main()
