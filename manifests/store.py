"""Files of a set in a store that fsspec knows: S3 and others."""

import sys
from collections.abc import Iterator
from pathlib import Path

from manifests.errors import PassingError, PatchSetError
from manifests.urls import Answer, shown, trimmed

INSTALL = "pip install 'single-image-distillation[remote]'"
_PIECE = 4 << 20
_BUCKETS = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "az", "adl", "oci", "oss", "tos"})
"""Stores without folders, where to make one might make a bucket."""

_OPTIONS = {scheme: {"max_concurrency": 2} for scheme in ("s3", "s3a")}
"""Parts of a file that s3fs holds in memory at once, 50 MB each; several files are sent at a time."""

_KINDS = (
    *(("botocore.exceptions", "BotoCoreError"), ("botocore.exceptions", "ClientError"), ("aiohttp", "ClientError")),
    *(("azure.core.exceptions", "AzureError"), ("google.auth.exceptions", "GoogleAuthError")),
    *(("gcsfs.retry", "HttpError"), ("paramiko", "SSHException"), ("httpx", "HTTPError")),
)
"""Errors of stores' packages that are none of Python's own."""
_FINAL = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError, ValueError, ImportError)
_FINAL_NAMES = frozenset({"NoCredentialsError", "PartialCredentialsError", "ParamValidationError", "ProfileNotFound"})


class StorePlace:
    """A set's folder in a store. What fsspec needs to know besides, such as keys, it finds as it does everywhere."""

    def __init__(self, url: str) -> None:
        self._shown = shown(url).rstrip("/")
        try:
            from fsspec.core import url_to_fs  # noqa: PLC0415 - most sets are local, and it may not be installed

            self.fs, root = url_to_fs(url, **_OPTIONS.get(url.partition("://")[0].lower(), {}))
        except ImportError as error:
            raise PatchSetError(f"{self._shown}: {error}; {INSTALL} reads S3") from error
        except faults() as error:
            raise self._fault("", error) from error
        self.root = trimmed(root)

    def shown(self, name: str = "") -> str:
        """See ``Place``."""
        return f"{trimmed(self._shown)}/{name}" if name else trimmed(self._shown)

    def path(self, name: str) -> str:
        """A file's path, as fsspec has it."""
        return f"{self.root}/{name}"

    def open(self, name: str, start: int) -> Answer:
        """See ``Place``."""
        try:
            self.fs.invalidate_cache()
            size = int(self.fs.info(self.path(name))["size"])
        except faults() as error:
            raise self._fault(name, error) from error
        begin = start if start <= size else 0
        return Answer(start=begin, total=size, pieces=self._pieces(name, begin, size))

    def _pieces(self, name: str, start: int, size: int) -> Iterator[bytes]:
        while start < size:
            try:
                piece = self.fs.cat_file(self.path(name), start=start, end=min(start + _PIECE, size))
            except faults() as error:
                raise self._fault(name, error) from error
            if not piece:
                return
            yield piece
            start += len(piece)

    def names(self) -> dict[str, int | None]:
        """What lies in the place: names with sizes in bytes, None of what is no file; empty where nothing does.

        Raises:
            PatchSetError: it cannot be looked at.
        """
        try:
            self.fs.invalidate_cache()
            entries = self.fs.ls(self.root, detail=True)
        except FileNotFoundError:
            return {}
        except faults() as error:
            raise self._fault("", error) from error
        found: dict[str, int | None] = {}
        for entry in entries:
            name = str(entry["name"]).rstrip("/").rpartition("/")[2]
            if str(entry["name"]).strip("/") != self.root.strip("/"):  # a store may list the folder itself
                found[name] = int(entry["size"] or 0) if entry["type"] == "file" else None
        return found

    def make(self) -> None:
        """Make the folder, in a store that has folders.

        Raises:
            PatchSetError: it cannot be made.
        """
        protocol = self.fs.protocol
        if _BUCKETS & ({protocol} if isinstance(protocol, str) else set(protocol)):
            return
        try:
            self.fs.makedirs(self.root, exist_ok=True)
        except faults() as error:
            raise self._fault("", error) from error

    def send(self, source: Path, name: str) -> None:
        """Write a local file there.

        Raises:
            PassingError: it may be written when tried again.
            PatchSetError: it cannot be.
        """
        try:
            self.fs.put_file(str(source), self.path(name))
        except faults() as error:
            raise self._fault(name, error) from error

    def remove(self, name: str) -> None:
        """Remove a file there.

        Raises:
            PatchSetError: it cannot be.
        """
        try:
            self.fs.rm_file(self.path(name))
        except faults() as error:
            raise self._fault(name, error) from error

    def _fault(self, name: str, error: Exception) -> PatchSetError:
        said = " ".join(str(error).split())[:200] or type(error).__name__
        if isinstance(error, FileNotFoundError):
            return PatchSetError(f"{self.shown(name)}: there is no such file or bucket; check the URL")
        if isinstance(error, _FINAL) or type(error).__name__ in _FINAL_NAMES:
            return PatchSetError(f"{self.shown(name)}: {said}; check the URL, and what you may do there")
        return PassingError(f"{self.shown(name)}: {said}; try again later")


def faults() -> tuple[type[Exception], ...]:
    """What a store may raise: Python's errors, and those of the packages that are loaded."""
    found = (getattr(sys.modules.get(module), name, None) for module, name in _KINDS)
    known = [kind for kind in found if isinstance(kind, type) and issubclass(kind, Exception)]
    return (OSError, ValueError, RuntimeError, ImportError, TypeError, LookupError, *known)
