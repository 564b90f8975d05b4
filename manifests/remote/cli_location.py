"""A set on the command line: a path or a URL, which becomes a local folder."""

from pathlib import Path
from typing import Any

import click

from manifests.errors import PatchSetError
from manifests.remote.urls import WEB_SCHEMES, is_url, parse_url, shown
from manifests.support.console import InterruptedProgram, counting, progress_bar
from manifests.support.home import expand_home


class LocalPath(click.Path):
    """A path, and no URL: a folder that was made for one would be called ``s3:``. ``~`` is a home folder in it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(path_type=Path, **options)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """A ``Path``."""
        if isinstance(value, str) and is_url(value):
            self.fail(f"{shown(value)}: is a URL, expected a path; only sets are taken from elsewhere.", param, ctx)
        return super().convert(_expanded(self, value, param, ctx), param, ctx)


class Location(click.Path):
    """A path, or a URL as text; with ``to_write`` none of a web server, which takes no files."""

    def __init__(self, *, to_write: bool = False, **options: Any) -> None:
        super().__init__(path_type=Path, **options)
        self.to_write = to_write

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """A ``Path``, or a URL of which ``parse_url`` thinks well."""
        if not isinstance(value, str) or not is_url(value):
            return super().convert(_expanded(self, value, param, ctx), param, ctx)
        try:
            url = parse_url(value)
        except PatchSetError as error:
            self.fail(f"{error}.", param, ctx)
        if isinstance(url, Path):
            return super().convert(str(url), param, ctx)
        if self.to_write and url.partition("://")[0].lower() in WEB_SCHEMES:
            self.fail(
                f"{shown(url)}: a web server takes no set; build into a folder and upload that, or give "
                "the store behind it, such as s3://bucket/set.",
                param,
                ctx,
            )
        return url


class NameOrPath(click.ParamType):  # type: ignore[type-arg]  # generic in new versions of click alone
    """The name of a file that comes with a program, or a path."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the text, with the home folder in place of ``~``."""
        return _expanded(self, value, param, ctx)


def _expanded(
    kind: "click.ParamType[Any]", value: Any, param: click.Parameter | None, ctx: click.Context | None
) -> Any:
    """Replace ``~``, which no shell replaces in quotes or behind ``=``."""
    try:
        return expand_home(value) if isinstance(value, str) else value
    except ValueError as error:
        kind.fail(f"{error}.", param, ctx)


def local_folder(location: str | Path, *, anew: bool = False) -> Path:
    """The folder of a set: where it is, or where the cache has it once it was fetched; ``anew`` as ``fetch_set``.

    Raises:
        PatchSetError: as ``remote.fetch``.
        InterruptedProgram: the user stopped; what has come is kept.
    """
    if isinstance(location, Path):
        return location
    from manifests.remote.fetch import fetch_set, find_set  # noqa: PLC0415 - most sets are local

    try:
        found = find_set(location)
        with progress_bar("reading (bytes)" if anew else "fetching (bytes)", found.bytes) as update:
            return fetch_set(found, counting(update), anew=anew)
    except KeyboardInterrupt as stop:
        how = "read it from the beginning" if anew else "go on fetching"
        raise InterruptedProgram(f"interrupted; run the same command again to {how}") from stop


def require_local(location: str | Path, what: str) -> Path:
    """A path, where a set is to be changed; ``what`` says of a URL why it cannot be, and what to do.

    Raises:
        PatchSetError: it is a URL.
    """
    if isinstance(location, Path):
        return location
    raise PatchSetError(f"{shown(location)}: {what}")


def location_name(location: str | Path) -> str:
    """A location for a message."""
    return str(location) if isinstance(location, Path) else shown(location)
