"""Helpers that start web servers on loopback. A server can misbehave in chosen ways."""

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
    """Settings of a server, and a record of its requests. The key of a file is the last part of its path."""

    folder: Path
    cut: int | None = None
    """The number of bytes after which the server closes a connection."""
    cuts: int = 1 << 30
    """How many connections the server closes after ``cut`` bytes."""
    cuts_of: dict[str, Iterator[int]] = field(default_factory=dict)
    """For each file: the numbers of bytes after which the server closes the next connections."""
    ranges: bool = True
    wrong_range: bool = False
    length: bool = True
    flips: Counter[str] = field(default_factory=Counter)
    """For each file: how many of its next answers have one wrong byte."""
    extra: dict[str, bytes] = field(default_factory=dict)
    """For each file: the bytes that the server adds after the file's own bytes."""
    statuses: dict[str, list[int]] = field(default_factory=dict)
    """For each file: the HTTP statuses of the first answers."""
    after: int | None = None
    """The value of the header Retry-After in answers by ``statuses`` and ``pages``."""
    pages: dict[str, list[bytes]] = field(default_factory=dict)
    """For each file: the bodies that the server sends first in place of the file, with status 200."""
    encoding: str | None = None
    chatter: dict[str, tuple[bytes, bytes]] = field(default_factory=dict)
    """For each file: bytes to send once, and bytes to repeat without end, in place of an HTTP answer."""
    redirects: dict[str, str] = field(default_factory=dict)
    endless: set[str] = field(default_factory=set)
    stalled: set[str] = field(default_factory=set)
    """Files of which the server sends half. Then the connection stays open."""
    released: threading.Event = field(default_factory=threading.Event)
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    """Path with query, and value of the header Range, of each request."""
    headers: list[dict[str, str]] = field(default_factory=list)
    sent: Counter[str] = field(default_factory=Counter)
    """The number of bytes sent of each file."""
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/set"

    def names(self) -> list[str]:
        """Return the names of the requested files, in order."""
        return [urlsplit(path).path.rpartition("/")[2] for path, _ in self.asked]


@contextlib.contextmanager
def serving(folder: Path, host: str = "127.0.0.1", **manners: Any) -> Iterator[Manners]:
    """Start a server of a set's files, and yield its settings. The server ignores the folder part of URLs."""
    state = Manners(folder=folder, **manners)

    class Server(ThreadingHTTPServer):
        address_family = ThreadingHTTPServer.address_family if ":" not in host else socket.AF_INET6

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Print nothing: tests close connections early."""

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
            """Print nothing."""

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
