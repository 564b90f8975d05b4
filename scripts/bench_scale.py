"""Measure how time and memory of building, verifying, opening and training grow with the number of patches.

Each step is a separate program. Memory is the largest resident set of any of its processes (as the kernel reports it)
and the maximum of all its processes together (sum of proportional sets, sampled several times a second). The first
batch is measured for a set that is decoded once and cached, and for a set that is streamed.

    python scripts/bench_scale.py --n 100000 --n 1000000 --n 10000000 --folder DIR --out benchmarks/output/scale.txt

``--shard-size 1`` measures the cost per shard, because the cost of the patches is then negligible.
"""

import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click

from patchgen.sources.synthetic import make_source, write_source

OPEN = "from manifests import open_patchset; p = open_patchset('set'); p[len(p) // 2]; p.row(len(p) - 1)"
EVERY = 0.2


class Used(NamedTuple):
    """Seconds, MiB of the largest process, and MiB of all processes together."""

    seconds: float
    largest: float
    together: float


def measured(command: list[str], folder: Path) -> Used:
    """Run ``command`` in ``folder`` in a new session and measure its processes."""
    started = time.monotonic()
    largest = together = 0.0
    environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}
    with subprocess.Popen(
        command, cwd=folder, env=environment, start_new_session=True, stdout=subprocess.DEVNULL
    ) as process:
        while process.poll() is None:
            sets = [_memory(pid) for pid in _of_session(process.pid)]
            largest = max([largest, *(peak for peak, _ in sets)])
            together = max(together, sum(share for _, share in sets))
            time.sleep(EVERY)
    if process.returncode:
        raise click.ClickException(f"{' '.join(command[:6])} …: ended with status {process.returncode}")
    return Used(time.monotonic() - started, largest, together)


def _of_session(leader: int) -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                if os.getsid(int(entry.name)) == leader:
                    yield int(entry.name)
            except OSError:
                continue  # it has ended


def _memory(pid: int) -> tuple[float, float]:
    """Return the peak resident set of a process and its current proportional set, both in MiB."""
    try:
        peak = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        share = next(line for line in rollup if line.startswith("Pss:"))
    except (OSError, StopIteration):
        return 0.0, 0.0
    return int(peak.split()[1]) / 1024, int(share.split()[1]) / 1024


def steps(n: int, photo: Path, size: int, shard_size: int | None) -> dict[str, list[str]]:
    """Return the measured steps in order."""
    patchgen = [sys.executable, "-m", "patchgen"]
    build = [*patchgen, "build", "--image", str(photo), "--n", str(n), "--size", str(size), "--out", "set", "-q"]
    build += ["--shard-size", str(shard_size)] if shard_size else []
    return {
        "build": build,
        "build, all there": build,
        "verify --fast": [*patchgen, "verify", "set", "--fast", "-q"],
        "verify": [*patchgen, "verify", "set", "-q"],
        "open, one patch": [sys.executable, "-c", OPEN],
        "first batch, decoded": [sys.executable, __file__, "--batch", "auto"],
        "first batch, streamed": [sys.executable, __file__, "--batch", "none"],
    }


def first_batch(cache: str) -> None:
    """Read one batch of 512 patches of the set in this folder as ``distill train`` does."""
    import torch  # noqa: PLC0415 - only this step's process loads it

    from distill.data.cache import open_source  # noqa: PLC0415
    from distill.data.config import DataConfig  # noqa: PLC0415
    from distill.runtime.distributed import RunContext  # noqa: PLC0415
    from manifests import open_patchset  # noqa: PLC0415

    config = DataConfig(batch_size=512, cache=cache)  # type: ignore[arg-type]
    with open_source(open_patchset(Path("set")), config, 0, RunContext(device=torch.device("cpu"))) as source:
        print(source.images(0).shape)


@click.command()
@click.option("--n", "counts", multiple=True, type=int, default=(100_000, 1_000_000), show_default=True)
@click.option("--size", default=8, show_default=True, type=click.IntRange(8), help="Pixels a side.")
@click.option("--shard-size", type=click.IntRange(1), help="Patches a shard.  [default: as a build has it]")
@click.option("--folder", type=click.Path(path_type=Path), default=Path("scale"), show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Also write the report here.")
@click.option("--batch", hidden=True)
def main(
    counts: tuple[int, ...], size: int, shard_size: int | None, folder: Path, out: Path | None, batch: str | None
) -> None:
    """Measure sets of the given numbers of patches. FOLDER needs 1.8 KB of disk for each patch of 8 px."""
    if batch is not None:
        first_batch(batch)
        return
    folder.mkdir(parents=True, exist_ok=True)
    photo = folder.resolve() / "leaves.png"
    write_source(photo, make_source("dead-leaves", 2560, 1920, 0))
    lines = [
        f"patches of {size} px, {os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    ]
    print(lines[0])
    for n in counts:
        place = folder.resolve() / str(n)
        place.mkdir()
        for name, command in steps(n, photo, size, shard_size).items():
            used = measured(command, place)
            lines.append(
                f"{n:>12,} {name:24s} {used.seconds:9.1f} s {used.largest:8.0f} MiB the largest process, "
                f"{used.together:8.0f} MiB all"
            )
            print(lines[-1], flush=True)
        files = list((place / "set").iterdir())
        manifest = (place / "set" / "manifest.json").stat().st_size
        total = sum(path.stat().st_size for path in files)
        tables = sum(path.stat().st_size for path in files if path.suffix == ".parquet")
        lines.append(
            f"{n:>12,} {len(files)} files, {total / 1e9:.2f} GB, of which tables {tables / 1e9:.2f} GB, manifest "
            f"{manifest:,} bytes"
        )
        print(lines[-1], flush=True)
        shutil.rmtree(place)
    if out is not None:
        out.write_text("\n".join([f"$ python scripts/bench_scale.py {' '.join(sys.argv[1:])}", *lines]) + "\n")


if __name__ == "__main__":
    main()
