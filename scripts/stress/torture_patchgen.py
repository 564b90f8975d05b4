"""Kill builds at random moments and compare the results; damage sets and check that verify finds it.

python scripts/stress/torture_patchgen.py --kills 20 --flips 1000
"""

import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import pyarrow.parquet as pq

from manifests import open_patchset
from manifests.format import tar
from manifests.verify import verify
from patchgen.sources.synthetic import make_source, write_source

KEPT_SHARDS = 4


def build(image: Path, out: Path, n: int, *extra: str) -> list[str]:
    """Return the command that builds ``n`` patches in shards of 5000."""
    shared = ["--image", str(image), "--n", str(n), "--shard-size", "5000", "--out", str(out)]
    return [sys.executable, "-m", "patchgen", "build", *shared, *extra]


def kill_builds(image: Path, folder: Path, kills: int, chance: random.Random) -> None:
    """Kill ``kills`` builds with SIGKILL at random moments, run each again, and compare every file."""
    good = folder / "good"
    started = time.monotonic()
    subprocess.run(build(image, good, 60_000), check=True, stdout=subprocess.DEVNULL)
    seconds = time.monotonic() - started
    expected = {path.name: path.read_bytes() for path in good.iterdir()}
    finished = 0
    for number in range(kills):
        out, moment = folder / "killed", chance.uniform(0.1, seconds)
        extra = ("--workers", str(chance.choice((1, 2, 3))))
        process = subprocess.Popen(
            build(image, out, 60_000, *extra), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(moment)
        if process.poll() is not None:
            finished += 1
        process.send_signal(signal.SIGKILL)
        process.wait()
        left = sorted(path.name for path in out.iterdir()) if out.exists() else []
        done = sum(name.endswith(".parquet") for name in left)
        subprocess.run(build(image, out, 60_000), check=True, stdout=subprocess.DEVNULL)
        found = {path.name: path.read_bytes() for path in out.iterdir()}
        if found != expected:
            sys.exit(
                f"kill {number} at {moment:.2f} s: {sorted(found.keys() ^ expected.keys())} differ or lie around"
            )
        click.echo(
            f"kill {number + 1} at {moment:.2f} s, {done} shards done: the same {len(found)} files after a rerun"
        )
        shutil.rmtree(out)
    click.echo(
        f"{kills} killed builds ended in set_id {open_patchset(good).manifest.set_id}; {finished} had ended before"
    )


def flip_bits(folder: Path, flips: int, chance: random.Random) -> None:
    """Flip one random bit at a time in the files of a set; verify must find each."""
    files = sorted(folder.iterdir())
    sizes = [path.stat().st_size for path in files]
    missed = 0
    for number in range(flips):
        # Half of the flips choose a byte of the set, half a file: otherwise small files would rarely be hit.
        path = chance.choices(files, sizes)[0] if number % 2 else chance.choice(files)
        with path.open("r+b") as file:
            position, bit = chance.randrange(path.stat().st_size), chance.randrange(8)
            file.seek(position)
            byte = file.read(1)[0]
            file.seek(position)
            file.write(bytes([byte ^ 1 << bit]))
        report = verify(folder)
        if not report.faults:
            missed += 1
            click.echo(f"MISSED: {path.name}, byte {position}, bit {bit}")
        with path.open("r+b") as file:
            file.seek(position)
            file.write(bytes([byte]))
    if verify(folder).faults:
        sys.exit("a false alarm after the flips were undone")
    click.echo(f"{flips} flipped bits over {len(files)} files: {missed} missed")


def cut_and_shuffle(folder: Path, chance: random.Random) -> None:
    """Truncate shards; remove, add, rename and duplicate files; verify must find each fault."""
    shards = sorted(folder.glob("*.tar"))
    caught = tried = 0

    def expect_fault(what: str) -> None:
        nonlocal caught, tried
        tried += 1
        if verify(folder).faults and verify(folder, fast=True).faults:
            caught += 1
        else:
            click.echo(f"MISSED: {what}")

    for path in shards:
        data = path.read_bytes()
        offsets = pq.read_table(path.with_suffix(".parquet"), columns=["offset"]).column("offset").to_pylist()
        cuts = [chance.choice(offsets) - tar.BLOCK for _ in range(10)] + [
            chance.randrange(len(data)) for _ in range(10)
        ]
        for cut in [*cuts, 0, len(data) - 1, len(data) - len(tar.END)]:
            path.write_bytes(data[:cut])
            expect_fault(f"{path.name} cut at {cut}")
        path.write_bytes(data + b"\x00" * tar.BLOCK)
        expect_fault(f"{path.name} longer")
        path.write_bytes(data)
    for path in sorted(folder.iterdir()):
        path.rename(folder.parent / "away")
        expect_fault(f"{path.name} missing")
        (folder.parent / "away").rename(path)
    for path in [*shards, *sorted(folder.glob("*.parquet"))]:
        for name in (f"copy-of-{path.name}", path.name.replace("0000", "0001"), path.name.replace(".", " (1).")):
            shutil.copy(path, folder / name)
            expect_fault(f"{name} extra")
            path.rename(folder.parent / "away")
            expect_fault(f"{path.name} renamed to {name}")
            (folder.parent / "away").rename(path)
            (folder / name).unlink()
    if verify(folder).faults:
        sys.exit("a false alarm after everything was undone")
    click.echo(f"{tried} truncations, missing, extra, renamed and doubled files: {tried - caught} missed")


def good_sets(image: Path, folder: Path, chance: random.Random) -> None:
    """Verify twenty good sets of different formats; verify must find no fault."""
    alarms = 0
    for number in range(20):
        out = folder / f"good-{number}"
        extra = ["--format", chance.choice(("png", "jpg", "webp", "ppm")), "--seed", str(chance.randrange(1000))]
        extra += ["--size", str(chance.choice((8, 32, 33, 64))), "--shard-size", str(chance.randrange(1, 400))]
        subprocess.run(build(image, out, chance.randrange(1, 900), *extra), check=True, stdout=subprocess.DEVNULL)
        alarms += bool(verify(out).faults) + bool(verify(out, fast=True).faults)
        shutil.rmtree(out)
    click.echo(f"20 good sets: {alarms} false alarms")


@click.command()
@click.option("--kills", default=20, show_default=True)
@click.option("--flips", default=1000, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(kills: int, flips: int, seed: int) -> None:
    """Run the tests; the exit status is 1 at the first wrong byte."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="torture-") as name:
        folder = Path(name)
        image = folder / "leaves.png"
        write_source(image, make_source("dead-leaves", 1600, 1200, 0))
        kill_builds(image, folder, kills, chance)
        good_sets(image, folder, chance)
        for image_format in ("jpg", "png"):
            out = folder / f"damaged-{image_format}"
            command = build(image, out, 100 * KEPT_SHARDS, "--format", image_format)
            command[command.index("5000")] = "100"
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            flip_bits(out, flips // 2, chance)
            cut_and_shuffle(out, chance)


if __name__ == "__main__":
    main()
