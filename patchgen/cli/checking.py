"""Define the commands that only read sets: ``verify``, ``diff``, ``info``, ``doctor``."""

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from manifests.errors import PatchSetError
from manifests.remote.cli_location import Location, local_folder, location_name
from manifests.support.cli_options import allow_import_option
from manifests.support.console import counting, printable, progress_bar
from manifests.support.counts import counted
from manifests.support.numbers import Count
from patchgen.cli import options
from patchgen.errors import PatchgenError

if TYPE_CHECKING:
    from manifests import Manifest
    from manifests.verify import Fault, Report
    from patchgen.sources.photo import Photo


@click.command()
@options.shards_argument
@click.option("--fast", is_flag=True, help="Check only names, sizes and counts. Read no shard.")
@click.option("--regenerate", type=Count(1), metavar="K", help="Build K random patches again from --image.")
@options.images(required=False, help_text="The photo of the set, for --regenerate.")
@options.workers_option
@allow_import_option
@options.json_option
def verify(
    shards: Path | str, fast: bool, regenerate: int | None, images: options.Paths, workers: int | None, as_json: bool
) -> None:
    """Check every file, tar member, table row and digest of a set.

    SHARDS is the folder or the URL of a set. For a URL, the command reads every file from the server, even if the
    cache contains the file. The exit status is 1 if the set has a fault.

    Example: patchgen verify shards/ --regenerate 100 --image photo.jpg
    """
    if fast and regenerate:
        raise click.UsageError("--fast reads no shard, so it cannot be used with --regenerate; remove one of them.")
    if fast and isinstance(shards, str):
        raise click.UsageError("--fast needs a folder; for a URL run 'patchgen info', which reads only the manifest.")
    if bool(regenerate) != bool(images):
        raise click.UsageError("--regenerate K and --image must be given together; add the missing option.")
    from manifests.export.bagit import set_in_bag  # noqa: PLC0415
    from manifests.export.finalize import BY_EXPORT  # noqa: PLC0415
    from manifests.patchset import RUN_AGAIN, open_folder  # noqa: PLC0415
    from manifests.verify import verify as run_verify  # noqa: PLC0415

    photos: list[Photo] = []
    if images:
        from patchgen.sources.photo import read_photos  # noqa: PLC0415 - it loads OpenCV

        photos = read_photos(images)
    folder = local_folder(shards, reread=True)
    if not folder.is_dir():
        what = "this is a file, expected a folder" if folder.exists() else "the folder does not exist"
        raise PatchgenError(f"{folder}: {what}; give the folder of a set")
    if (inner := set_in_bag(folder)) is not None:
        raise PatchgenError(f"{folder}: this folder is a BagIt bag, expected a set; run 'patchgen verify {inner}'")
    expected = 0
    with contextlib.suppress(PatchSetError):
        expected = open_folder(folder).manifest.n
    with progress_bar("verifying patches", expected) as update:
        report = run_verify(folder, fast=fast, workers=options.cores(workers), on_patches=counting(update))
    faults, again = list(report.faults), 0
    if regenerate and report.manifest is not None:
        from patchgen.pipeline.regenerate import regenerate as run_regenerate  # noqa: PLC0415

        again = min(regenerate, report.manifest.n)
        with progress_bar("building again", again) as update:
            faults += run_regenerate(open_folder(folder), photos, again, counting(update))
    _print_report(report, faults, fast, again, as_json)
    if faults:
        many = counted(len(faults), "fault")
        advice = "rebuild the set, or copy the files with faults from a good copy"
        for remedy in (BY_EXPORT, RUN_AGAIN):
            advice = remedy if all(fault.what.endswith(remedy) for fault in faults) else advice
        raise PatchgenError(f"{location_name(shards)}: {many}; {advice}")


def _print_report(report: "Report", faults: "list[Fault]", fast: bool, again: int, as_json: bool) -> None:
    manifest = report.manifest
    if as_json:
        value = {
            "good": not faults,
            "level": "fast" if fast else "full",
            "set_id": manifest and manifest.set_id,
            "n": manifest and manifest.n,
            "patches_read": report.patches,
            "patches_regenerated": again,
            "faults": [dataclasses.asdict(fault) for fault in faults],
        }
        click.echo(json.dumps(value))
        return
    for fault in faults:
        click.echo(printable(str(fault)))
    if manifest is not None and not faults:
        patches, shards = counted(manifest.n, "patch"), counted(len(manifest.shards), "shard")
        what = "names, sizes and counts (no contents)" if fast else "every file, member, row and digest"
        click.echo(f"good: {what} of {patches} in {shards}")
        if again:
            click.echo(f"good: {again} of {patches} built again from the photo")
        click.echo(f"set_id {manifest.set_id}")


@click.command()
@click.argument("a", type=Location())
@click.argument("b", type=Location())
@options.json_option
def diff(a: Path | str, b: Path | str, as_json: bool) -> None:
    """Compare two sets, or two manifests. The exit status is 1 if they differ.

    Two sets are compared patch by patch, by the digests in their tables. The command trusts these digests, so verify
    both sets first. Two manifests are compared key by key.

    Example: patchgen diff shards/ other-shards/
    """
    from manifests.diff import diff_manifests, diff_sets  # noqa: PLC0415
    from manifests.patchset import open_folder  # noqa: PLC0415
    from manifests.verify import verify as run_verify  # noqa: PLC0415
    from patchgen.pipeline.output_dir import read_manifest  # noqa: PLC0415

    if all(x.is_dir() if isinstance(x, Path) else "/manifest.json" not in urlsplit(x).path for x in (a, b)):
        folders = local_folder(a), local_folder(b)
        first, second = map(open_folder, folders)
        for folder in folders:
            if faults := run_verify(folder, fast=True).faults:
                raise PatchgenError(f"{folder}: the set has a fault: {faults[0]}; run 'patchgen verify' to list all")
        with progress_bar("comparing patches", min(first.manifest.n, second.manifest.n)) as update:
            found = diff_sets(first, second, counting(update))
    else:
        found = diff_manifests(read_manifest(a), read_manifest(b))
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(found) | {"summary": found.summary()}))
    else:
        click.echo(found.summary())
        for path, left, right in found.keys:
            click.echo(printable(f"  {path}: {left} → {right}"))
        if found.patches and found.patches.first_changed:
            click.echo(f"  first patches with other pixels: {', '.join(map(str, found.patches.first_changed))}")
    if not found.same_set:
        click.get_current_context().exit(1)


@click.command()
@options.shards_argument
@options.json_option
def info(shards: Path | str, as_json: bool) -> None:
    """Print the facts in the manifest of a set.

    SHARDS is a set's folder, a set's URL, or a manifest.json. The command reads only the manifest.

    Example: patchgen info shards/
    """
    from patchgen.pipeline.output_dir import read_manifest  # noqa: PLC0415

    manifest = read_manifest(shards)
    size = sum(shard.bytes + shard.parquet.bytes for shard in manifest.shards)
    if as_json:
        value = manifest.model_dump(mode="json") | {"total_bytes": size, "shards": len(manifest.shards)}
        click.echo(json.dumps(value))  # in ASCII: untrusted text may contain control characters
        return
    for name, value in _summary(manifest, size):
        click.echo(f"{name:<12} {printable(str(value))}")


def _summary(manifest: "Manifest", size: int) -> list[tuple[str, Any]]:
    from manifests.export.dataset_card import what_of  # noqa: PLC0415

    encoding = manifest.encoding.model_dump(mode="json")
    options = ", ".join(f"{key} {value}" for key, value in encoding.items() if key != "format")
    recipe = dict(manifest.recipe)
    lines: list[tuple[str, Any]] = [
        ("set_id", manifest.set_id),
        ("patches", f"{manifest.n} of {manifest.size}×{manifest.size} px, seed {manifest.seed}"),
        ("stored as", f"{encoding['format']}{f' ({options})' if options else ''}"),
        ("shards", f"{len(manifest.shards)}, {size / 1e6:,.1f} MB with tables"),
        ("pixel_root", manifest.pixel_root),
        ("recipe", f"{recipe.pop('name', '?')}, version {recipe.pop('version', '?')}, {recipe.pop('profile', '?')}"),
        ("", json.dumps(recipe, ensure_ascii=False)),
    ]
    for source in manifest.sources:
        card = [source.licence or "no license given", source.attribution, source.url]
        lines.append(("source", f"{source.name}, {what_of(manifest, source)}, file sha256 {source.sha256}"))
        lines.append(("", "; ".join(text for text in card if text)))
    lines.append(("built with", ", ".join(f"{key} {value}" for key, value in manifest.environment.items())))
    return lines


@click.command()
@options.json_option
def doctor(as_json: bool) -> None:
    """Check that this machine produces the same bytes as other machines.

    The command rebuilds small reference sets and compares them. This takes a few seconds.

    Example: patchgen doctor
    """
    from patchgen.doctor import examine  # noqa: PLC0415
    from patchgen.pipeline.plan import environment  # noqa: PLC0415

    found, sets = environment("fast"), {}
    for name, value in found.items() if not as_json else ():
        click.echo(f"{name:<26} {value}")
    for name, expected, built in examine():
        good, same_pixels = built.set_id == expected.set_id, built.pixel_root == expected.pixel_root
        sets[name] = {"good": good, "set_id": built.set_id, "pixel_root": built.pixel_root}
        if not as_json:
            click.echo(f"{name:<26} {'same bytes' if good else 'OTHER BYTES' if same_pixels else 'OTHER PIXELS'}")
    wrong = sum(not entry["good"] for entry in sets.values())
    if as_json:
        click.echo(json.dumps({"good": not wrong, "environment": found, "sets": sets}))
    if wrong:
        what = f"{wrong} of {len(sets)} reference sets differ on this machine, so the sets that it builds differ too"
        raise PatchgenError(f"{what}; report this to the authors of this package with the output above")
