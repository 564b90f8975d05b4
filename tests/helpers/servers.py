"""Servers on loopback: a plain web server with bad manners on request."""

import contextlib
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

BLOCK = 1 << 14


@dataclass
class Manners:
    """How a server behaves, and what it was asked for. Files are named by their last part."""

    folder: Path
    cut: int | None = None
    """Bytes after which every connection ends."""
    cuts: int = 1 << 30
    """How often it does."""
    cuts_of: dict[str, Iterator[int]] = field(default_factory=dict)
    """Bytes of a file after which its next connections end."""
    ranges: bool = True
    wrong_range: bool = False
    length: bool = True
    flips: Counter[str] = field(default_factory=Counter)
    """How often a byte of a file is flipped."""
    extra: dict[str, bytes] = field(default_factory=dict)
    """What follows a file's own bytes."""
    statuses: dict[str, list[int]] = field(default_factory=dict)
    """What is answered first."""
    after: int | None = None
    """What Retry-After says then."""
    pages: dict[str, list[bytes]] = field(default_factory=dict)
    """What is answered first in place of a file, as if it were one."""
    encoding: str | None = None
    chatter: dict[str, tuple[bytes, bytes]] = field(default_factory=dict)
    """What is sent once, and then again and again, in place of an answer."""
    redirects: dict[str, str] = field(default_factory=dict)
    endless: set[str] = field(default_factory=set)
    stalled: set[str] = field(default_factory=set)
    """Files of which half is sent, and then nothing."""
    released: threading.Event = field(default_factory=threading.Event)
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    """Path with query, and what range, of each request."""
    headers: list[dict[str, str]] = field(default_factory=list)
    sent: Counter[str] = field(default_factory=Counter)
    """Bytes sent of each file."""
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/set"

    def names(self) -> list[str]:
        """The files that were asked for, in order."""
        return [urlsplit(path).path.rpartition("/")[2] for path, _ in self.asked]


@contextlib.contextmanager
def serving(folder: Path, host: str = "127.0.0.1", **manners: Any) -> Iterator[Manners]:
    """A server of a set's files, whatever folder their URL names."""
    state = Manners(folder=folder, **manners)

    class Server(ThreadingHTTPServer):
        address_family = ThreadingHTTPServer.address_family if ":" not in host else socket.AF_INET6

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that leaves is no news."""

    server = Server((host, 0), _handler(state))
    state.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state
    finally:
        state.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(state: Manners) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            """Nothing."""

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            name = unquote(path).rpartition("/")[2]
            asked = self.headers.get("Range")
            state.asked.append((self.path, asked))
            state.headers.append(dict(self.headers))
            if state.statuses.get(name) or state.pages.get(name):
                return self.send_instead(name)
            if name in state.chatter:
                return self.send_chatter(*state.chatter[name])
            if name in state.redirects:
                self.send_response(302)
                self.send_header("Location", state.redirects[name])
                return self.end_headers()
            if name in state.endless:
                return self.send_for_ever(name)
            file = state.folder / name
            if not file.is_file():
                return self.send_error(404)
            return self.send_file(name, file.read_bytes(), asked)

        def send_instead(self, name: str) -> None:
            page = b""
            if state.statuses.get(name):
                self.send_response(state.statuses[name].pop(0))
            else:
                self.send_response(200)
                page = state.pages[name].pop(0)
            if state.after is not None:
                self.send_header("Retry-After", str(state.after))
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def send_chatter(self, first: bytes, again: bytes) -> None:
            with contextlib.suppress(OSError):
                self.wfile.write(first)
                while not state.released.wait(0.01):
                    self.wfile.write(again)

        def send_for_ever(self, name: str) -> None:
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                while True:
                    self.wfile.write(b" " * BLOCK)
                    state.sent[name] += BLOCK

        def send_file(self, name: str, data: bytes, asked: str | None) -> None:
            whole = data + state.extra.get(name, b"")
            if state.flips[name] > 0:
                state.flips[name] -= 1
                middle = len(whole) // 2
                whole = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
            start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and state.ranges else 0
            body = whole[start:]
            self.send_response(206 if start else 200)
            if start:
                told = start + 7 if state.wrong_range else start
                self.send_header("Content-Range", f"bytes {told}-{len(whole) - 1}/{len(whole)}")
            if state.length:
                self.send_header("Content-Length", str(len(body)))
            if state.encoding is not None:
                self.send_header("Content-Encoding", state.encoding)
            self.end_headers()
            if state.cut is not None and state.cuts > 0 and len(body) > state.cut:
                state.cuts -= 1
                body = body[: state.cut]
            body = body[: next(state.cuts_of.get(name, iter(())), None)]
            if name in state.stalled:
                body = body[: len(body) // 2]
            with contextlib.suppress(OSError):
                for begin in range(0, len(body), BLOCK):
                    block = body[begin : begin + BLOCK]
                    self.wfile.write(block)
                    state.sent[name] += len(block)
            if name in state.stalled:
                state.released.wait()

    return Handler
