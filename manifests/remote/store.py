"""Files of a set in a store that fsspec knows: S3 and others."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from manifests.errors import PassingError, PatchSetError
from manifests.remote.urls import BUCKET_SCHEMES, Answer, shown, trimmed
from manifests.support.system_files import is_system_file

INSTALL = "pip install 'single-image-distillation[remote]'"
_PIECE = 4 << 20
_ATTEMPTS: dict[str, Any] = {"retries": {"max_attempts": 2, "mode": "standard"}, "connect_timeout": 15}
_OPTIONS = {scheme: {"max_concurrency": 2, "config_kwargs": _ATTEMPTS} for scheme in ("s3", "s3a")}
"""Parts of a file that s3fs holds in memory at once, 50 MB each; several files are sent at a time. And how long
botocore tries: s3fs tries again by itself, and so does whoever asks here, who says so."""

_FINAL = (
    *(FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError, ValueError, ImportError),
    *(TypeError, AttributeError, LookupError, NotImplementedError),
)
_FINAL_NAMES = frozenset({"NoCredentialsError", "PartialCredentialsError", "ParamValidationError", "ProfileNotFound"})


class StorePlace:
    """A set's folder in a store. What fsspec needs to know besides, such as keys, it finds as it does everywhere."""

    def __init__(self, url: str) -> None:
        self._shown = shown(url).rstrip("/")
        self._secrets = _secrets(url)
        with self._asking():
            try:
                from fsspec.core import url_to_fs  # noqa: PLC0415 - most sets are local, and it may not be installed

                self.fs, root = url_to_fs(url, **_OPTIONS.get(url.partition("://")[0].lower(), {}))
            except ImportError as error:
                raise PatchSetError(f"{self._shown}: {error}; {INSTALL} reads S3") from error
            self.root = trimmed(root)

    def shown(self, name: str = "") -> str:
        """See ``Place``."""
        return f"{trimmed(self._shown)}/{name}" if name else trimmed(self._shown)

    def path(self, name: str) -> str:
        """A file's path, as fsspec has it."""
        return f"{self.root}/{name}"

    def open(self, name: str, start: int) -> Answer:
        """See ``Place``."""
        with self._asking(name):
            self.fs.invalidate_cache()
            size = int(self.fs.info(self.path(name))["size"])
        begin = start if start <= size else 0
        return Answer(start=begin, total=size, pieces=self._pieces(name, begin, size))

    def _pieces(self, name: str, start: int, size: int) -> Iterator[bytes]:
        while start < size:
            with self._asking(name):
                piece = self.fs.cat_file(self.path(name), start=start, end=min(start + _PIECE, size))
            if not piece:
                return
            yield piece
            start += len(piece)

    def names(self) -> dict[str, int | None]:
        """Return the names of what lies in the place, with sizes in bytes, None of what is no file.

        Empty where nothing does. System files are left out.

        Raises:
            PatchSetError: it cannot be looked at.
        """
        found: dict[str, int | None] = {}
        with self._asking(), contextlib.suppress(FileNotFoundError):
            self.fs.invalidate_cache()
            for entry in self.fs.ls(self.root, detail=True):
                name = str(entry["name"]).rstrip("/").rpartition("/")[2]
                itself = str(entry["name"]).strip("/") == self.root.strip("/")  # some stores list the folder too
                if not itself and not is_system_file(name):
                    found[name] = int(entry["size"] or 0) if entry["type"] == "file" else None
        return found

    def make(self) -> None:
        """Make the folder, in a store that has folders.

        Raises:
            PatchSetError: it cannot be made.
        """
        protocol = self.fs.protocol
        if BUCKET_SCHEMES & ({protocol} if isinstance(protocol, str) else set(protocol)):
            return  # where to make a folder might make a bucket
        with self._asking():
            self.fs.makedirs(self.root, exist_ok=True)

    def send(self, source: Path, name: str) -> None:
        """Write a local file there.

        Raises:
            PassingError: it may be written when tried again.
            PatchSetError: it cannot be.
        """
        with self._asking(name):
            self.fs.put_file(str(source), self.path(name))

    def remove(self, name: str) -> None:
        """Remove a file there.

        Raises:
            PatchSetError: it cannot be.
        """
        with self._asking(name):
            self.fs.rm_file(self.path(name))

    @contextlib.contextmanager
    def _asking(self, name: str = "") -> Iterator[None]:
        """What goes wrong in the block is the place's error, or that of a file in it."""
        try:
            yield
        except PatchSetError:
            raise
        except Exception as error:  # what stands behind fsspec may raise anything, of any package
            raise self._fault(name, error) from error

    def _fault(self, name: str, error: Exception) -> PatchSetError:
        if isinstance(error, FileNotFoundError):
            return PatchSetError(f"{self.shown(name)}: there is no such file or bucket; check the URL")
        said = str(error)
        for secret in self._secrets:
            said = said.replace(secret, "…")
        said = " ".join(said.split())[:200] or type(error).__name__
        if isinstance(error, _FINAL) or type(error).__name__ in _FINAL_NAMES:
            return PatchSetError(f"{self.shown(name)}: {said}; check the URL, and what you may do there")
        return PassingError(f"{self.shown(name)}: {said}; try again later")


def _secrets(url: str) -> list[str]:
    """What a store's words must not repeat: user with password, the password alone, and a query."""
    parts = urlsplit(url)
    user = parts.netloc.rpartition("@")[0]
    found = {user, user.partition(":")[2], parts.query} - {""}
    return sorted(found | {unquote(secret) for secret in found}, key=len, reverse=True)
