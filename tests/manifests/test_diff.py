"""Test the comparison of two sets."""

from pathlib import Path

import pytest

from manifests import PatchSet, open_patchset
from manifests.diff import diff_manifests, diff_sets, differences


@pytest.fixture(scope="module")
def make_set(photo_path: Path, tmp_path_factory: pytest.TempPathFactory):
    from patchgen.pipeline.build import build
    from patchgen.pipeline.plan import make_plan
    from patchgen.recipe import load_recipe
    from patchgen.sources.photo import read_photo

    def make(n: int = 120, shard_size: int = 50, image_format: str = "png", seed: int = 0) -> PatchSet:
        folder = tmp_path_factory.mktemp("diff") / "set"
        photo, recipe = read_photo(photo_path), load_recipe("asano2023").with_format(image_format)
        plan = make_plan(photos=[photo], recipe=recipe, n=n, size=32, seed=seed, shard_size=shard_size)
        build(plan, [photo], folder, workers=1)
        return open_patchset(folder)

    return make


@pytest.mark.parametrize(
    ("change", "summary", "keys"),
    [
        ({}, "the same set", []),
        ({"image_format": "ppm"}, "the same pixels in 120 patches, encoded in other bytes", ["encoding.compression"]),
        ({"shard_size": 7}, "the same 120 patches, but the manifests differ", ["shard sizes[0]"]),
        ({"n": 200}, "the same 120 patches; B has more patches", ["n"]),
        (
            {"n": 60, "image_format": "ppm"},
            "the same pixels in 60 patches, encoded in other bytes; A has more patches",
            ["n"],
        ),
        ({"seed": 1}, "different sets: no patch has the same pixels", ["seed"]),
        (
            {"image_format": "jpg"},
            "the same pixels before encoding in 120 patches, encoded in other bytes; "
            "jpg is lossy, so the decoded patches may differ",
            ["encoding.format"],
        ),
    ],
)
def test_summaries(make_set, change: dict, summary: str, keys: list[str]) -> None:
    found = diff_sets(make_set(), make_set(**change))
    assert found.summary() == summary
    assert set(keys) <= {path for path, _, _ in found.keys}
    assert found.same_set == (not change)


def test_manifests_alone(make_set) -> None:
    first, second = make_set().manifest, make_set(image_format="ppm").manifest
    assert diff_manifests(first, first).summary() == "the same set"
    assert diff_manifests(first, second).summary() == "the same pixels, but the manifests differ"
    assert diff_manifests(first, make_set(seed=1).manifest).summary() == "different sets"
    jpg = diff_manifests(make_set(image_format="jpg").manifest, first)
    assert jpg.lossy and jpg.summary() == "the same pixels before encoding, but the manifests differ"


def test_differences() -> None:
    a, b = {"x": [1, {"y": 2}], "z": 0}, {"x": [1, {"y": 3}], "w": "ü"}
    assert list(differences(a, b)) == [("w", "null", '"ü"'), ("x[1].y", "2", "3"), ("z", "0", "null")]


def test_reading_single_patches(make_set) -> None:
    import numpy as np

    a, b = make_set(), make_set(shard_size=7)
    indices = [119, 0, 50, 49, 3, 3]
    for left, right in ((a[index], b[index]) for index in indices):
        assert left.shape == (32, 32, 3) and np.array_equal(left, right)
    assert a.shard_of(50).name == "patches-000001.tar"
    from manifests import PatchSetError

    with pytest.raises(PatchSetError, match="no patch 120; use an index from 0 to 119"):
        a[120]
