"""Measure many readers that fetch one set at the same time from a server that serves only a few requests at once.

Every reader is a thread with its own cache and fetches as ``--shards URL`` does. Readers share processes, because a
thousand Python processes need more memory than most machines have. The server answers 503 while it is busy with
``--at-once`` requests, and cuts every ``--cut-every``-th answer in the middle.

    python scripts/bench_readers.py --readers 1000 --at-once 64 --seconds 0.1 --out benchmarks/output/readers.txt
"""

import contextlib
import dataclasses
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import click

from manifests.errors import PatchSetError
from manifests.remote.fetch import fetch_set, find_set
from manifests.verify import verify
from patchgen.sources.synthetic import make_source, write_source

PATCHES, SHARD = 10_000, 1_000


class Read(NamedTuple):
    """The result of one reader: seconds, and an error message or an empty text."""

    seconds: float
    fault: str


class Server(ThreadingHTTPServer):
    """Serves the files of ``folder``, ``at_once`` requests at a time."""

    request_queue_size = 4096
    daemon_threads = True

    def __init__(self, folder: Path, at_once: int, seconds: float, cut_every: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.seconds, self.cut_every = folder, seconds, cut_every
        self.slots, self.lock = threading.Semaphore(at_once), threading.Lock()
        self.count: Counter[str] = Counter()

    def note(self, what: str, count: int = 1) -> int:
        """Count an event and return how often it has happened."""
        with self.lock:
            self.count[what] += count
            return self.count[what]

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore readers that close the connection."""


class Handler(BaseHTTPRequestHandler):
    """Handle one request."""

    server: Server

    def log_message(self, *arguments: object) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        """Send a file or the range asked for; answer 503 while ``at_once`` requests are being served."""
        number = self.server.note("requests")
        if not self.server.slots.acquire(blocking=False):
            self.server.note("turned away")
            self.send_response(503)
            self.send_header("Retry-After", "1")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        try:
            self._send(cut=bool(self.server.cut_every) and number % self.server.cut_every == 0)
        finally:
            self.server.slots.release()
        return None

    def _send(self, *, cut: bool) -> None:
        path = self.server.folder / Path(self.path).name
        if not path.is_file():
            return self.send_error(404)
        start, size = int(self.headers.get("Range", "bytes=0-")[6:].rstrip("-")), path.stat().st_size
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.send_header("Content-Length", str(size - start))
        self.end_headers()
        time.sleep(self.server.seconds)
        with path.open("rb") as file:
            file.seek(start)
            data = file.read((size - start) // 2 if cut else size)
        self.wfile.write(data)
        self.server.note("bytes", len(data))
        if cut:
            self.server.note("cut")
        return None


def read_all(url: str, home: Path, names: list[int]) -> list[Read]:
    """Run readers in this process, all at the same time, and discard what they print."""
    with (
        Path(os.devnull).open("w") as devnull,
        contextlib.redirect_stderr(devnull),
        ThreadPoolExecutor(len(names)) as pool,
    ):
        return list(pool.map(lambda name: read_one(url, home / str(name)), names))


def read_one(url: str, folder: Path) -> Read:
    """Fetch the set into a folder, verify it there, and remove it."""
    start, fault = time.monotonic(), ""
    try:
        fetched = fetch_set(dataclasses.replace(find_set(url), folder=folder))
        seconds = time.monotonic() - start
        fault = "; ".join(map(str, verify(fetched, fast=True).faults))
    except PatchSetError as error:
        seconds, fault = time.monotonic() - start, str(error)
    shutil.rmtree(folder, ignore_errors=True)
    return Read(seconds, fault)


@contextlib.contextmanager
def served_set(folder: Path, *options: Any) -> Iterator[Server]:
    """Build a set of small patches and serve it over HTTP while the block runs."""
    photo = folder / "leaves.png"
    write_source(photo, make_source("dead-leaves", 640, 480, 0))
    build = ["build", "--image", str(photo), "--n", str(PATCHES), "--size", "8", "--shard-size", str(SHARD)]
    subprocess.run([sys.executable, "-m", "patchgen", *build, "--out", str(folder / "set"), "-q"], check=True)
    server = Server(folder / "set", *options)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@click.command()
@click.option("--readers", default=1000, show_default=True, type=click.IntRange(1))
@click.option(
    "--processes", default=8, show_default=True, type=click.IntRange(1), help="Processes shared by the readers."
)
@click.option(
    "--at-once",
    default=64,
    show_default=True,
    type=click.IntRange(1),
    help="Requests that the server serves at once.",
)
@click.option("--seconds", default=0.0, show_default=True, type=click.FloatRange(0), help="Delay of each answer.")
@click.option(
    "--cut-every", default=50, show_default=True, type=click.IntRange(0), help="Cut every Nth answer; 0: none."
)
@click.option("--out", type=click.Path(path_type=Path), help="Also write the report to this file.")
def main(readers: int, processes: int, at_once: int, seconds: float, cut_every: int, out: Path | None) -> None:
    """Let many readers fetch one set at the same time and print the results."""
    with (
        tempfile.TemporaryDirectory() as name,
        served_set(Path(name), at_once, seconds, cut_every) as server,
        ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool,
    ):
        url = f"http://127.0.0.1:{server.server_address[1]}/set"
        size = sum(path.stat().st_size for path in server.folder.iterdir())
        files = len(list(server.folder.iterdir()))
        start = time.monotonic()
        shares = [list(range(process, readers, processes)) for process in range(processes)]
        futures = [pool.submit(read_all, url, Path(name), share) for share in shares if share]
        reads = [read for future in futures for read in future.result()]
        took = time.monotonic() - start
    good = sorted(read.seconds for read in reads if not read.fault)
    faults = Counter(read.fault.rpartition("/")[2] for read in reads if read.fault)
    count = server.count
    lines = [
        f"a set of {files} files, {size / 1e6:.1f} MB; {os.cpu_count()} cores for server and readers together",
        f"{readers} readers at once; {at_once} requests served at a time, {seconds:g} s each and what sending takes, "
        f"one of {cut_every} cut",
        f"{len(good)} read the set whole; {len(reads) - len(good)} gave up",
        f"{took:.1f} s, {count['bytes'] / 1e9:.2f} GB sent, {count['bytes'] / took / 1e6:.0f} MB/s",
        f"{count['requests']:,} requests, {count['turned away']:,} of them turned away, {count['cut']:,} cut",
        *([f"a reader: median {statistics.median(good):.1f} s, the last {good[-1]:.1f} s"] if good else []),
        *(f"{many} × {fault}" for fault, many in faults.most_common(5)),
    ]
    print("\n".join(lines))
    if out is not None:
        out.write_text("\n".join([f"$ python scripts/bench_readers.py {' '.join(sys.argv[1:])}", *lines]) + "\n")


if __name__ == "__main__":
    main()
