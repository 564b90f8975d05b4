"""Print digests of sets of every packaged exact recipe as JSON, for comparison with another machine.

python scripts/stress/pixel_digests.py --n 2000
"""

import json
import tempfile
from pathlib import Path

import click

from manifests.limits import IMAGE_FORMATS
from patchgen.doctor import examine
from patchgen.pipeline.build import build
from patchgen.pipeline.plan import environment, make_plan
from patchgen.recipe import Recipe, load_recipe
from patchgen.recipes import packaged_recipes
from patchgen.sources.photo import read_photo
from patchgen.sources.synthetic import make_source, write_source

SLOW = {"webp": 20, "png": 4}
"""Divisor of the number of patches for formats that are slow on an emulated machine."""


@click.command()
@click.option("--n", default=2000, show_default=True, type=click.IntRange(1))
def main(n: int) -> None:
    """Build small sets in one process and print their digests."""
    found: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image = folder / "leaves.png"
        write_source(image, make_source("dead-leaves", 800, 600, 3))
        photo = read_photo(image)

        def add(label: str, recipe: Recipe, count: int, size: int) -> None:
            plan = make_plan(photos=[photo], recipe=recipe, n=count, size=size, seed=11, shard_size=None)
            made = build(plan, [photo], folder / label, workers=1)
            found[label] = {"n": count, "pixel_root": made.pixel_root, "set_id": made.set_id}

        for recipe in map(load_recipe, packaged_recipes()):
            if recipe.profile == "portable":
                add(recipe.name, recipe, n, 32)
        for image_format in IMAGE_FORMATS:
            recipe = load_recipe("asano2023").with_format(image_format)
            add(f"asano2023-{image_format}", recipe, max(n // SLOW.get(image_format, 1), 1), 32)
        add("asano2023-224", load_recipe("asano2023"), max(n // 20, 1), 224)
    for name, expected, built in examine():
        found[f"golden {name}"] = {"n": built.n, "set_id": built.set_id, "good": built.set_id == expected.set_id}
    click.echo(json.dumps({"environment": environment("fast"), "sets": found}))


if __name__ == "__main__":
    main()
