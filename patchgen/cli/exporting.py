"""The command that writes what other tools read beside a set: ``export``."""

import json
from pathlib import Path

import click

from manifests.remote.cli_location import LocalPath, require_local
from manifests.support.console import counting, progress_bar, say
from patchgen.cli.options import json_option, shards_argument


@click.command()
@shards_argument
@click.option("--dali", is_flag=True, help="An index for NVIDIA DALI beside each shard, too.")
@click.option(
    "--bagit",
    "bag",
    type=LocalPath(file_okay=False),
    metavar="DIR",
    help="And the set as a BagIt bag, in a new folder.",
)
@click.option("--card", "new_card", is_flag=True, help="Replace an edited card too; yours becomes README.md.edited.")
@json_option
def export(shards: Path | str, dali: bool, bag: Path | None, new_card: bool, as_json: bool) -> None:
    """Write a set's card, croissant.json, index.json and SHA256SUMS anew.

    A build writes them as well. No patch, shard or manifest changes. A card that you edited stays as it is, and goes
    into the bag.

    Example: patchgen export shards/ --dali
    """
    from patchgen.export import export as run_export  # noqa: PLC0415
    from patchgen.export import export_bag  # noqa: PLC0415

    folder = require_local(shards, "export writes into a folder; copy the set's files into one first")
    indexed = dali or any(folder.glob("patches-*.idx"))
    tables = sum(path.stat().st_size for path in folder.glob("patches-*.parquet")) if indexed else 0
    with progress_bar("indexes, bytes", tables) as update:
        written = run_export(folder, dali=dali, new_card=new_card, on_bytes=counting(update))
    if bag is not None:
        with progress_bar("bag, bytes", written.total_bytes) as update:
            export_bag(written, bag, counting(update))
    if as_json:
        value = {"files": list(written.files), "edited_card": written.edited_card, "bag": bag and str(bag)}
        click.echo(json.dumps(value))
        return
    for name in written.files:
        click.echo(name)
    if written.edited_card:
        say(
            f"{written.edited_card} is the card that you edited"
            + ("" if new_card else ": it stays; --card replaces it")
        )
    if bag is not None:
        say(f"the bag is {bag}")
