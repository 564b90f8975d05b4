"""Sets on the command line: a path or a URL in, a local folder out."""

from pathlib import Path
from typing import Any

import click

from manifests.errors import PatchSetError
from manifests.remote.urls import HTTP_SCHEMES, display_url, is_url, parse_url
from manifests.support.console import InterruptedProgram, counting, progress_bar
from manifests.support.home import expand_home


class LocalPath(click.Path):
    """A path with ``~`` expanded, which no shell does in quotes or after ``=``, and no URL."""

    def __init__(self, **options: Any) -> None:
        super().__init__(path_type=Path, **options)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a ``Path``."""
        if isinstance(value, str) and is_url(value):  # it would become a folder called "s3:"
            self.fail(f"{display_url(value)}: is a URL, expected a path; only a set may be at a URL.", param, ctx)
        return super().convert(_expanded(self, value, param, ctx), param, ctx)


class Location(LocalPath):
    """A path, or the URL of a set as text; with ``to_write`` no http URL, where nothing can be written."""

    def __init__(self, *, to_write: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.to_write = to_write

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a ``Path``, or a valid URL."""
        if not isinstance(value, str) or not is_url(value):
            return super().convert(value, param, ctx)
        try:
            url = parse_url(value)
        except PatchSetError as error:
            self.fail(f"{error}.", param, ctx)
        if isinstance(url, Path):
            return super().convert(url, param, ctx)
        if self.to_write and url.partition("://")[0] in HTTP_SCHEMES:
            advice = "build into a folder and upload that, or give the store behind it, such as s3://bucket/set."
            self.fail(f"{display_url(url)}: no set can be written to a web server; {advice}", param, ctx)
        return url


class NameOrPath(click.ParamType):  # type: ignore[type-arg]  # generic in new versions of click alone
    """The name of a file that comes with a program, or a path with ``~`` expanded."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a text."""
        return _expanded(self, value, param, ctx)


def _expanded(kind: Any, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
    try:
        return expand_home(value) if isinstance(value, str) else value
    except ValueError as error:
        return kind.fail(f"{error}.", param, ctx)


def local_folder(location: str | Path, *, reread: bool = False) -> Path:
    """Return the folder of a set; a set at a URL is fetched into the cache. ``reread``: see ``fetch_set``."""
    if isinstance(location, Path):
        return location
    from manifests.remote.fetch import fetch_set, find_set  # noqa: PLC0415 - most sets are local

    try:
        remote = find_set(location)
        with progress_bar("reading (bytes)" if reread else "fetching (bytes)", remote.num_bytes) as update:
            return fetch_set(remote, counting(update), reread=reread)
    except KeyboardInterrupt as stop:
        how = "read it from the beginning" if reread else "go on fetching"
        raise InterruptedProgram(f"interrupted; run the same command again to {how}") from stop


def require_local(location: str | Path, advice: str) -> Path:
    """Return a path. ``advice`` ends the error for a URL: why it cannot be used, and what to do."""
    if isinstance(location, Path):
        return location
    raise PatchSetError(f"{display_url(location)}: {advice}")


def location_name(location: str | Path) -> str:
    """Return a location for a message, without secrets."""
    return str(location) if isinstance(location, Path) else display_url(location)
