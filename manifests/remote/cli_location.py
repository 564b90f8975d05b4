"""Define the types of command line options that accept a path or the URL of a set."""

from pathlib import Path
from typing import Any

import click

from manifests.errors import PatchSetError
from manifests.remote.urls import is_url, parse_url
from manifests.support.console import InterruptedProgram, counting, progress_bar
from manifests.support.files import expand_home
from manifests.support.redaction import HTTP_SCHEMES, display_url


class LocalPath(click.Path):
    """Option type for a local path. Expands ``~``, because shells do not expand ``~`` in quotes or after ``=``."""

    def __init__(self, **options: Any) -> None:
        super().__init__(path_type=Path, **options)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and is_url(value):  # it would become a folder with the name "s3:"
            self.fail(f"{display_url(value)}: this is a URL, expected a path; use a local path.", param, ctx)
        return super().convert(_expanded(self, value, param, ctx), param, ctx)


class Location(LocalPath):
    """Option type for a path or the URL of a set. With ``to_write``, refuses http URLs, which are read-only."""

    def __init__(self, *, to_write: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.to_write = to_write

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str) or not is_url(value):
            return super().convert(value, param, ctx)
        try:
            url = parse_url(value)
        except PatchSetError as error:
            self.fail(f"{error}.", param, ctx)
        if isinstance(url, Path):
            return super().convert(url, param, ctx)
        if self.to_write and url.partition("://")[0] in HTTP_SCHEMES:
            advice = "build into a folder and upload the folder, or use the URL of a store, such as s3://bucket/set."
            self.fail(f"{display_url(url)}: no set can be written to a web server; {advice}", param, ctx)
        return url


class NameOrPath(click.ParamType):  # type: ignore[type-arg]  # generic only in new versions of click
    """Option type for a path, or for the name of a file that the program contains. Expands ``~`` in a path."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return _expanded(self, value, param, ctx)


def _expanded(kind: Any, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
    try:
        return expand_home(value) if isinstance(value, str) else value
    except ValueError as error:
        return kind.fail(f"{error}.", param, ctx)


def local_folder(location: str | Path, *, reread: bool = False) -> Path:
    """Return the local folder of a set. Download a set at a URL first. With ``reread``, verify all remote files."""
    if isinstance(location, Path):
        return location
    from manifests.remote.fetch import fetch_set, find_set  # noqa: PLC0415 - most sets are local

    try:
        remote = find_set(location)
        with progress_bar("reading (bytes)" if reread else "fetching (bytes)", remote.num_bytes) as update:
            return fetch_set(remote, counting(update), reread=reread)
    except KeyboardInterrupt as stop:
        how = "read the set from the beginning" if reread else "continue the download"
        raise InterruptedProgram(f"interrupted; run the same command again to {how}") from stop


def require_local(location: str | Path, advice: str) -> Path:
    """Return ``location`` if it is a path. If it is a URL, raise an error with the URL and ``advice``."""
    if isinstance(location, Path):
        return location
    raise PatchSetError(f"{display_url(location)}: {advice}")


def location_name(location: str | Path) -> str:
    """Return a path or a URL as text for a message. Remove the secrets of a URL."""
    return str(location) if isinstance(location, Path) else display_url(location)
