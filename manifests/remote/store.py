"""Read and write the folder of a set at a URL (http, https, S3, …) through fsspec.

fsspec and aiohttp are imported only when a store is opened, because most sets are local folders.
"""

import contextlib
import http.client
import os
import re
import socket
import ssl
import textwrap
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from manifests.errors import PatchSetError
from manifests.remote.urls import BUCKET_SCHEMES, folder_of
from manifests.support.redaction import HTTP_SCHEMES, display_url, redact
from manifests.support.system_files import is_system_file

CONNECT_SECONDS, SILENT_SECONDS, RESPONSE_SECONDS = 30.0, 30.0, 600.0
"""Longest time of an HTTP request before the connection, between two reads, and until the end of the response."""
MAX_RETRY_AFTER = 60.0  # longest wait that a busy server may demand with ``Retry-After``, in seconds
_CHUNK_BYTES = 4 << 20
_HTTP_CHUNK_BYTES = 1 << 17
_BOTO_CONFIG: dict[str, Any] = {"retries": {"max_attempts": 2, "mode": "standard"}, "connect_timeout": 15}
# For each upload, s3fs keeps ``max_concurrency`` parts of 50 MB in memory. Several uploads run at the same time.
_S3_OPTIONS: dict[str, Any] = {"max_concurrency": 2, "config_kwargs": _BOTO_CONFIG}

_PERMANENT = (
    *(FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError, ValueError, ImportError),
    *(TypeError, AttributeError, LookupError, NotImplementedError),
)
_PERMANENT_NAMES = frozenset(
    {"NoCredentialsError", "PartialCredentialsError", "ParamValidationError", "ProfileNotFound", "InvalidURL"}
)
_TEMPORARY_STATUSES = (408, 425, 429, 500, 502, 503, 504)
_IDENTITY_ENCODINGS = ("", "identity", "aws-chunked")  # S3 declares the last one for some files of plain bytes
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)")


class TemporaryError(PatchSetError):
    """A remote file is not available now. Another attempt may succeed after ``wait_seconds``."""

    def __init__(self, message: str, wait_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.wait_seconds = wait_seconds


@dataclass(frozen=True, kw_only=True)
class RemoteStream:
    """The content of a remote file, from byte ``start`` to its end."""

    start: int  # the requested offset, or 0 if the server can only send the whole file
    total: int | None  # size of the whole file in bytes, if the server declares it
    chunks: Generator[bytes, None, None]
    close: Callable[[], None]  # end the transfer, also if ``chunks`` was not read


class ShardStore:
    """The remote folder of a set. If the URL has no credentials, fsspec uses the credentials of this machine."""

    def __init__(self, url: str) -> None:
        self._display = folder_of(display_url(url).rstrip("/"))
        self._secrets = _secrets(url)
        scheme = urlsplit(url).scheme.lower()
        self.is_http = scheme in HTTP_SCHEMES
        with self._one_line_errors():
            try:
                if self.is_http:
                    self.fs = _http_file_system()
                    parts = urlsplit(_escaped(url))
                    self._query = parts.query
                    self.root = urlunsplit(parts._replace(path=folder_of(parts.path), query=""))
                    self._display = display_url(self.root)
                else:
                    from fsspec.core import url_to_fs  # noqa: PLC0415

                    self.fs, root = url_to_fs(url, **(_S3_OPTIONS if scheme in ("s3", "s3a") else {}))
                    self.root, self._query = folder_of(root), ""
            except ImportError as error:
                advice = "install the missing package; for S3, run pip install 'single-image-distillation[remote]'"
                raise PatchSetError(f"{self._display}: {error}; {advice}") from error

    def display(self, name: str = "") -> str:
        """Return the URL of the store, or of the file ``name`` in the store, without secrets."""
        return f"{self._display}/{name}" + ("?…" if self._query else "") if name else self._display

    def path(self, name: str) -> str:
        """Return the path of the file ``name``, as fsspec's functions expect it."""
        return f"{self.root}/{name}" + (f"?{self._query}" if self._query else "")

    def list(self) -> dict[str, int | None]:
        """Return a dict: sizes in bytes by file name, and None by subfolder name. Omit system files."""
        found: dict[str, int | None] = {}
        with self._one_line_errors(), contextlib.suppress(FileNotFoundError):
            self.fs.invalidate_cache()
            for entry in self.fs.ls(self.root, detail=True):
                name = str(entry["name"]).rstrip("/").rpartition("/")[2]
                is_root = str(entry["name"]).strip("/") == self.root.strip("/")  # some stores list the folder itself
                if not is_root and not is_system_file(name):
                    found[name] = int(entry["size"] or 0) if entry["type"] == "file" else None
        return found

    def open(self, name: str, start: int = 0) -> RemoteStream:
        """Open a file at byte ``start``. If the server cannot skip bytes, the stream begins at byte 0."""
        with self._one_line_errors(name):
            if self.is_http:
                return self._open_http_file(name, start)
            self.fs.invalidate_cache()
            size = int(self.fs.info(self.path(name))["size"])
        start = start if start <= size else 0
        chunks = self._chunks(name, start, size)
        return RemoteStream(start=start, total=size, chunks=chunks, close=chunks.close)

    def put(self, source: Path | bytes, name: str) -> None:
        """Upload a local file, or bytes, as the file ``name`` of the store."""
        with self._one_line_errors(name):
            if isinstance(source, bytes):
                self.fs.pipe_file(self.path(name), source)
            else:
                self.fs.put_file(str(source), self.path(name))

    def remove(self, name: str) -> None:
        """Remove the file ``name`` from the store."""
        with self._one_line_errors(name):
            self.fs.rm_file(self.path(name))

    def make_folder(self) -> None:
        """Create the remote folder. Do nothing in an object store, because fsspec might create a bucket."""
        protocol = self.fs.protocol
        if BUCKET_SCHEMES.isdisjoint({protocol} if isinstance(protocol, str) else set(protocol)):
            with self._one_line_errors():
                self.fs.makedirs(self.root, exist_ok=True)

    def _chunks(self, name: str, start: int, size: int) -> Generator[bytes, None, None]:
        while start < size:
            with self._one_line_errors(name):
                chunk = self.fs.cat_file(self.path(name), start=start, end=min(start + _CHUNK_BYTES, size))
            if not chunk:
                return
            yield chunk
            start += len(chunk)

    def _open_http_file(self, name: str, start: int) -> RemoteStream:
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
        try:
            # With block_size 0, fsspec streams one response. With a size, it sends no HEAD request.
            file = self.fs.open(self.path(name), block_size=0, size=1, headers=headers)
        except Exception as error:
            if start and getattr(error, "status", None) == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                return self._open_http_file(name, 0)
            raise
        response = file.r
        where = self.display(name)
        with contextlib.ExitStack() as on_error:
            on_error.callback(file.close)
            if response.status not in (http.HTTPStatus.OK, http.HTTPStatus.PARTIAL_CONTENT):
                raise _describe_status(where, response.status, response.headers)
            if self.root.startswith("https:") and any(r.url.scheme != "https" for r in (*response.history, response)):
                raise PatchSetError(f"{where}: the server redirects from https: to http:; check the URL")
            encoding = response.headers.get("Content-Encoding", "").strip().lower()
            if encoding not in _IDENTITY_ENCODINGS:
                what = f"the server uses the encoding {encoding[:20]!a}, expected an unencoded file"
                raise PatchSetError(f"{where}: {what}; report this to the publisher of the set")
            offset, total = 0, response.content_length
            if response.status == http.HTTPStatus.PARTIAL_CONTENT:
                content_range = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
                if content_range is None or int(content_range[1]) != start:
                    if start == 0:
                        raise TemporaryError(f"{where}: the server sent a wrong part of the file; try again later")
                    return self._open_http_file(name, 0)
                offset, total = start, None if content_range[2] == "*" else int(content_range[2])
            on_error.pop_all()
        return RemoteStream(start=offset, total=total, chunks=self._http_chunks(file, name), close=file.close)

    def _http_chunks(self, file: Any, name: str) -> Generator[bytes, None, None]:
        while True:
            with self._one_line_errors(name):
                chunk = file.read(_HTTP_CHUNK_BYTES)
            if not chunk:
                return
            yield chunk

    @contextlib.contextmanager
    def _one_line_errors(self, name: str = "") -> Iterator[None]:
        """Turn every error in the block into a ``PatchSetError`` without secrets."""
        try:
            yield
        except PatchSetError:
            raise
        except Exception as error:  # noqa: BLE001 - packages behind fsspec may raise anything
            cause = None if self.is_http else error  # -v would print the URL in an error of aiohttp
            raise self._describe(self.display(name), error) from cause

    def _describe(self, where: str, error: Exception) -> PatchSetError:
        status = http.HTTPStatus.NOT_FOUND if isinstance(error, FileNotFoundError) else getattr(error, "status", None)
        # Of an answer that aiohttp cannot parse. For such an answer, ``status`` is 400, which no server sent.
        fault = getattr(error.__cause__, "message", None) if self.is_http else None
        if self.is_http and status and fault is None:
            return _describe_status(where, status, getattr(error, "headers", None) or {})
        if isinstance(error, FileNotFoundError):
            return PatchSetError(f"{where}: no such file or bucket; check the URL")
        cause = getattr(error, "certificate_error", getattr(error, "os_error", error))  # aiohttp wraps these
        said = os.strerror(cause.errno) if isinstance(cause, OSError) and cause.errno else str(cause)
        kind = type(error).__name__
        is_permanent = isinstance(cause, _PERMANENT) or kind in _PERMANENT_NAMES
        if "Redirect" in kind:  # aiohttp's
            said, is_permanent = "the server redirects too often, or to a URL that is not http", True
        elif isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_NONAME:
            said, is_permanent = "a host with this name does not exist", True
        elif isinstance(cause, ssl.SSLCertVerificationError):
            said, is_permanent = f"the server's certificate is invalid: {cause.verify_message}", True
        elif kind in ("ClientPayloadError", "ServerDisconnectedError"):
            said = "the connection was cut"
        elif fault is not None:
            said = f"the answer of the server is not valid HTTP ({fault.partition(':')[0]})"
        elif isinstance(cause, TimeoutError):
            said = "the server did not answer in time"
        for secret in self._secrets:
            said = said.replace(secret, "…")
        said = textwrap.shorten(redact(said), 200, placeholder=" …") or type(cause).__name__
        if is_permanent:
            return PatchSetError(f"{where}: {said}; check the URL and your permissions")
        return TemporaryError(f"{where}: {said}; try again later")


def _http_file_system() -> Any:
    import aiohttp  # noqa: PLC0415
    from fsspec.implementations.http import HTTPFileSystem  # noqa: PLC0415

    timeout = aiohttp.ClientTimeout(RESPONSE_SECONDS, sock_connect=CONNECT_SECONDS, sock_read=SILENT_SECONDS)
    # aiohttp drops its buffer when a connection is cut, so the buffer is small. ``trust_env`` makes aiohttp use the
    # proxies of the environment.
    options = {"timeout": timeout, "read_bufsize": 1 << 12, "trust_env": True}
    fs = HTTPFileSystem(client_kwargs=options, encoded=True, skip_instance_cache=True)
    # Without this handler, asyncio prints "Unclosed connection" if the program ends before a connection is closed.
    fs.loop.set_exception_handler(lambda loop, context: None)
    return fs


def _escaped(url: str) -> str:
    """Escape the invalid characters of a URL, and remove its fragment. Do not change escapes such as ``%20``."""
    parts = urlsplit(url)

    def escape(text: str) -> str:
        return re.sub(r"%(?![0-9A-Fa-f]{2})|[^A-Za-z0-9\-._~/:@!$&'()*+,;=?%]", lambda found: quote(found[0]), text)

    user, at, host = parts.netloc.rpartition("@")
    netloc = parts.netloc if host.isascii() else user + at + host.encode("idna").decode("ascii")
    return urlunsplit((parts.scheme, netloc, escape(parts.path), escape(parts.query), ""))


def _describe_status(where: str, status: int, headers: Mapping[str, str]) -> PatchSetError:
    reason = http.client.responses.get(status, "")
    said = f"{where}: the server answers {status} {reason}".rstrip()
    if status in _TEMPORARY_STATUSES:
        wait = headers.get("Retry-After", "").strip()
        seconds = min(float(wait), MAX_RETRY_AFTER) if re.fullmatch(r"\d{1,18}", wait) else 0.0
        return TemporaryError(f"{said}; try again later", seconds)
    if status in (http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN):
        return PatchSetError(f"{said}; check your permissions, or get a new URL if the URL has expired")
    return PatchSetError(f"{said}; check the URL, or ask the publisher of the set")


def _secrets(url: str) -> list[str]:
    """Return the secret parts of a URL: user with password, password, and query. No message may contain them."""
    parts = urlsplit(url)
    users = [parts.netloc.rpartition("@")[0], *re.findall(r"/([^/:@]*:[^/]*)@", parts.path)]
    found = {parts.query, *users, *(user.partition(":")[2] for user in users)} - {""}
    return sorted(found | {unquote(secret) for secret in found}, key=len, reverse=True)
