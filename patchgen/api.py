"""Build, rebuild, extend and verify patch sets from a Python program."""

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

import cv2

from manifests import PatchSet
from manifests.format.canonical_json import MAX_SAFE_INTEGER
from manifests.limits import MAX_PATCHES
from manifests.support.console import notes_to
from manifests.support.counts import counted
from manifests.support.processes import start_server, usable_cores
from manifests.verify import Fault
from manifests.verify import verify as verify_set
from patchgen.arguments import each_image, image_format, local_path, whole_number
from patchgen.errors import PatchgenError
from patchgen.limits import MAX_SHARD_PATCHES, MAX_SIZE, MIN_SIZE
from patchgen.pipeline import build as pipeline
from patchgen.pipeline.output_dir import read_manifest
from patchgen.pipeline.plan import Card, make_plan, plan_of
from patchgen.recipe import AnyRecipe, load_recipe
from patchgen.sources.photo import finding_lines, read_photo

MAX_WORKERS = 1024
_LOGGER = logging.getLogger("patchgen")
_Path = str | os.PathLike[str]


class BuildOptions(TypedDict, total=False):
    """The options of ``build`` that few programs need. They are the options of ``patchgen build``."""

    format: str | None  # png, jpg, webp or ppm; default: the recipe's format
    shard_size: int | None  # patches in a shard; default: depends on ``size``
    workers: int | None  # processes; default: one for each core
    license: str | Sequence[str] | None  # of the photo; one text, or one for each photo
    url: str | Sequence[str] | None
    attribution: str | Sequence[str] | None


def build(
    image: _Path | Sequence[_Path],
    *,
    n: int,
    out: _Path,
    recipe: AnyRecipe = "asano2023",
    seed: int = 0,
    size: int = 32,
    **options: Unpack[BuildOptions],
) -> PatchSet:
    """Write ``n`` patches of a photo into the folder ``out``, and return the set. ``image`` is a path, or several.

    The set is byte for byte the set of ``patchgen build`` with the same options. Other options are ``format``,
    ``shard_size``, ``workers``, ``license``, ``url`` and ``attribution``. A call with the same arguments continues a
    build that was interrupted, and returns a finished set at once. Notes go to the logger ``patchgen``.

    Raises:
        PatchgenError: an argument is wrong, the photo cannot be read, or the set cannot be written.
        PatchSetError: the worker processes cannot start.
    """
    if unknown := sorted(set(options) - set(BuildOptions.__annotations__)):
        known = ", ".join(BuildOptions.__annotations__)
        raise TypeError(f"build() has no argument {unknown[0]!r}; its other arguments are {known}")
    folder, cores, shard_size = local_path(out, "out"), _cores(options.get("workers")), options.get("shard_size")
    numbers = {
        "n": whole_number("n", n, 1, MAX_PATCHES),
        "size": whole_number("size", size, MIN_SIZE, MAX_SIZE),
        "seed": whole_number("seed", seed, 0, MAX_SAFE_INTEGER),
    }
    if shard_size is not None:
        shard_size = whole_number("shard_size", shard_size, 1, MAX_SHARD_PATCHES)
    chosen = load_recipe(recipe).with_format(image_format(options.get("format")))
    with _building(cores):
        photos = [read_photo(path) for path in _paths(image)]
        cards = _cards(options, len(photos))
        plan = make_plan(photos=photos, recipe=chosen, cards=cards, shard_size=shard_size, **numbers)
        for line in finding_lines(photos):
            _LOGGER.warning("%s", line)
        if chosen.inexact:
            _LOGGER.warning("%s", chosen.inexact_note)
        return PatchSet(folder=folder, manifest=pipeline.build(plan, photos, folder, workers=cores))


def rebuild(manifest: _Path, image: _Path | Sequence[_Path], *, out: _Path, workers: int | None = None) -> PatchSet:
    """Build the set of a manifest again in the folder ``out``, as ``patchgen rebuild`` does. Return the set.

    ``manifest`` is the path of a manifest, or the folder of a set. ``image`` are the photos of the set. Every
    tar must have the bytes that the manifest states. A second call continues after an interruption, or repairs a set.

    Raises:
        PatchgenError: a tar differs, an argument is wrong, a photo is another one, or the set cannot be written.
        PatchSetError: the manifest cannot be read, or is invalid.
    """
    folder, cores = local_path(out, "out"), _cores(workers)
    expected = read_manifest(local_path(manifest, "manifest"))
    with _building(cores):
        photos = [read_photo(path) for path in _paths(image)]
        plan = plan_of(expected, photos, n=expected.n)
        built = pipeline.build(plan, photos, folder, workers=cores, expected=expected)
    return PatchSet(folder=folder, manifest=built)


def extend(shards: _Path, image: _Path | Sequence[_Path], *, n: int, workers: int | None = None) -> PatchSet:
    """Add patches to the set in the folder ``shards`` until it has ``n``, as ``patchgen extend``. Return the set.

    ``image`` are the photos of the set. No existing patch changes, and ``build`` with ``n`` patches writes the same
    set. The errors are those of ``rebuild``.
    """
    folder, cores, number = local_path(shards, "shards"), _cores(workers), whole_number("n", n, 1, MAX_PATCHES)
    with _building(cores):
        photos = [read_photo(path) for path in _paths(image)]
        return PatchSet(folder=folder, manifest=pipeline.extend(folder, number, photos, workers=cores))


def verify(shards: _Path, *, fast: bool = False, workers: int | None = None) -> tuple[Fault, ...]:
    """Check every file, tar member, table row and digest of the set in the folder ``shards``. Return all faults.

    The result is empty if the set is good. A fault has the attributes ``file`` and ``what``. With ``fast``, only
    names, sizes and counts are checked.
    """
    folder, cores = local_path(shards, "shards"), _cores(workers)
    if not folder.is_dir():
        raise PatchgenError(f"{folder}: this is no folder, expected the folder of a set; check the path")
    with notes_to(_LOGGER):
        return verify_set(folder, fast=fast, workers=cores).faults


def _cores(workers: int | None) -> int:
    return usable_cores() if workers is None else whole_number("workers", workers, 1, MAX_WORKERS)


@contextlib.contextmanager
def _building(cores: int) -> Iterator[None]:
    """Send notes to the logger, and restore OpenCV's number of threads, which a build in this process sets to one."""
    threads = cv2.getNumThreads()
    with notes_to(_LOGGER):
        if cores > 1:
            start_server("patchgen.pipeline.shard_writer")  # it imports libraries while this process reads the photo
        try:
            yield
        finally:
            cv2.setNumThreads(threads)


def _paths(image: Any) -> list[Path]:
    """Return the paths of the photos. A manifest names files, so other images are refused."""
    images = each_image(image)
    paths = [item for item in images if isinstance(item, Path)]
    if len(paths) < len(images):
        what = "a set records the file of its photo, but image is an array or a PIL image"
        raise PatchgenError(f"{what}; save it as a PNG file and give the path, or use patchgen.Patches")
    return paths


def _cards(options: BuildOptions, photos: int) -> list[Card]:
    """Return license, URL and attribution of each of ``photos`` photos. One text is for all photos."""
    cards: list[Card] = [{} for _ in range(photos)]
    for name, key in {"license": "licence", "url": "url", "attribution": "attribution"}.items():
        given: Any = options.get(name)
        texts = [given] * photos if given is None or isinstance(given, str) else list(_texts(name, given))
        if len(texts) != photos:
            what = f"{name} has {counted(len(texts), 'text')} for {counted(photos, 'photo')}"
            raise PatchgenError(f"{what}; give one text, or one for each photo")
        for card, text in zip(cards, texts, strict=True):
            if text is not None:
                card[key] = text
    return cards


def _texts(name: str, given: Any) -> Iterator[str | None]:
    """Yield the texts of the argument ``name``, one for each photo. A photo may have None."""
    for text in given if isinstance(given, Iterable) else [given]:
        if not isinstance(text, str | None):
            what = f"{name} has {text!r:.100}, expected a text"
            raise PatchgenError(f"{what}; give one text, or a list of one for each photo")
        yield text
