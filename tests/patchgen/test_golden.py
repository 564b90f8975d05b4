"""Test the reference sets. Their manifests are in ``manifests/golden``. Every machine must make the same bytes."""

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import patchgen.pipeline.shard_writer
import patchgen.pixels.warp
from manifests.limits import IMAGE_FORMATS
from patchgen.doctor import golden_photos, goldens
from patchgen.pipeline.build import build
from patchgen.pipeline.plan import make_plan, plan_of
from patchgen.recipe import load_recipe, parse_recipe
from patchgen.recipes import packaged_recipes
from patchgen.sources.photo import read_photo
from patchgen.sources.synthetic import make_source, write_source
from tests.conftest import Program

FOLDER = Path(__file__).parents[2] / "manifests" / "golden"
LEAVES, FRACTAL, NOISE = "dead-leaves-640x480-0.png", "fractal-320x240-7.png", "noise-200x100-3.png"

NAMED = """
name: named
version: 1
geometry: {crop: 0.9, area: [0.01, 0.5], aspect: [0.5, 2], oversize: 1, rotation: 180, shear: 10, corners: photo,
           hflip: 0.5, vflip: 0.25}
augment:
  - {name: HorizontalFlip, p: 0.5}
  - {name: VerticalFlip, p: 0.5}
  - {name: Transpose, p: 0.5}
  - {name: ToGray, p: 0.2}
  - {name: Solarize, p: 0.3, threshold_range: [0.3, 0.7]}
  - {name: Posterize, p: 0.3, num_bits: [2, 6]}
  - {name: InvertImg, p: 0.2}
encoding: {format: png}
"""


def definitions() -> dict[str, dict[str, Any]]:
    """Return the definitions of the reference sets, by name.

    They are every packaged recipe in its own format, asano2023 in every format and at 224 px, a set of three photos,
    and a recipe with named steps.
    """
    sets: dict[str, dict[str, Any]] = {}
    for recipe in packaged_recipes():
        sets[f"{recipe}-32-jpg"] = {"recipe": load_recipe(recipe)}
    for image_format in IMAGE_FORMATS:
        sets[f"asano2023-32-{image_format}"] = {"recipe": load_recipe("asano2023").with_format(image_format)}
    sets["asano2023-224-jpg"] = {"recipe": load_recipe("asano2023"), "size": 224, "n": 12}
    sets["three-photos-48-ppm"] = {
        "recipe": load_recipe("asano2023").with_format("ppm"),
        "size": 48,
        "names": (LEAVES, FRACTAL, NOISE),
    }
    sets["named-32-png"] = {"recipe": parse_recipe(NAMED, "named")}
    return sets


@pytest.mark.parametrize("name", sorted(definitions()))
def test_the_bytes_are_the_golden_ones(name: str, tmp_path: Path, update_goldens: bool) -> None:
    definition = {"n": 150, "size": 32, "names": (LEAVES,), **definitions()[name]}
    photos = []
    for source in definition["names"]:
        kind, extent, seed = source.removesuffix(".png").rsplit("-", 2)
        write_source(tmp_path / source, make_source(kind, *map(int, extent.split("x")), int(seed)))
        photos.append(read_photo(tmp_path / source))
    plan = make_plan(
        photos=photos,
        recipe=definition["recipe"],
        n=definition["n"],
        size=definition["size"],
        seed=5,
        shard_size=None,
        cards=[{"licence": "CC0-1.0"}] * len(photos),
    )
    manifest = build(plan, photos, tmp_path / "out", workers=1)
    if update_goldens:
        FOLDER.mkdir(exist_ok=True)
        (FOLDER / f"{name}.json").write_bytes(manifest.to_json())
    expected = goldens()[name]
    assert (manifest.pixel_root, manifest.set_id) == (expected.pixel_root, expected.set_id)


def test_every_packaged_recipe_and_format_has_a_golden() -> None:
    assert set(goldens()) == set(definitions())


def test_formats_change_bytes_and_no_pixels() -> None:
    known = goldens()
    sets = [known[f"asano2023-32-{image_format}"] for image_format in IMAGE_FORMATS]
    assert len({manifest.pixel_root for manifest in sets}) == 1
    assert len({manifest.set_id for manifest in sets}) == len(IMAGE_FORMATS)


@pytest.mark.parametrize("shard_size", [1, 7, 149])
def test_shards_workers_and_their_order_change_no_patch(
    shard_size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import patchgen.pipeline.build

    expected = goldens()["asano2023-32-png"]
    photos = golden_photos(expected, tmp_path)
    whole = plan_of(expected, photos, n=expected.n)
    plan = dataclasses.replace(whole, shard_size=shard_size)
    build_shards = patchgen.pipeline.build.build_shards

    def shuffled(workers: int, job: Any, tasks: list[Any], *rest: Any) -> Any:
        return build_shards(workers, job, random.Random(3).sample(tasks, len(tasks)), *rest)

    found = [build(plan, photos, tmp_path / str(workers), workers=workers) for workers in (1, 2, 4)]
    monkeypatch.setattr(patchgen.pipeline.build, "build_shards", shuffled)
    found += [build(plan, photos, tmp_path / f"shuffled-{workers}", workers=workers) for workers in (1, 2)]
    assert len({made.set_id for made in found}) == 1 and found[0].set_id != expected.set_id
    assert {made.pixel_root for made in found} == {expected.pixel_root}
    encoded = [_encoded_digests(tmp_path / str(workers)) for workers in (1, 4)]
    build(whole, photos, tmp_path / "whole", workers=1)
    assert encoded[0] == encoded[1] == _encoded_digests(tmp_path / "whole")


def _encoded_digests(folder: Path) -> list[bytes]:
    tables = (pq.read_table(path, columns=["sha256"]) for path in sorted(folder.glob("*.parquet")))
    return [digest for table in tables for digest in table.column("sha256").to_pylist()]


def test_doctor(run_patchgen: Program) -> None:
    result = run_patchgen("doctor", "--json")
    assert result.status == 0, result
    found = json.loads(result.out)
    assert found["good"]
    assert set(found["sets"]) == set(goldens())
    assert "cpu_features" in found["environment"]


def test_doctor_notices_other_pixels(run_patchgen: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(patchgen.pixels.warp.Warp):
        def __getitem__(self, i: Any) -> Any:
            return super().__getitem__(i) ^ np.uint8(1)

    monkeypatch.setattr(patchgen.pipeline.shard_writer, "Warp", Other)
    result = run_patchgen("doctor")
    assert result.status == 1, result
    assert result.out.count("OTHER PIXELS") == len(goldens())
    assert "reference sets differ on this machine" in result.err.splitlines()[-1]
