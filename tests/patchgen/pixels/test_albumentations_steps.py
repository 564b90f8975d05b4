"""Test recipes with Albumentations transforms, sets of several photos, and mirrored patches."""

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from manifests import open_patchset
from manifests.format.canonical_json import canonical_json
from patchgen.errors import PatchgenError
from patchgen.pixels.albumentations_steps import PORTABLE, REFUSED
from patchgen.recipe import load_recipe, parse_recipe
from tests.conftest import Program, assert_one_line, make_photo, write_image

PLAIN = "geometry: {crop: 1, area: [1, 1], aspect: [1, 1], oversize: 1, rotation: 0, shear: 0, corners: photo%s}"


def recipe_text(augment: str, geometry: str = "") -> str:
    return f"name: mine\nversion: 1\n{PLAIN % geometry}\naugment: [{augment}]\nencoding: {{format: ppm}}\n"


def build(run: Program, tmp_path: Path, text: str, *images: Path, n: int = 60, **options: Any) -> Path:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(text)
    out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
    extra = [item for key, value in options.items() for item in (f"--{key.replace('_', '-')}", value)]
    photos = [item for image in images for item in ("--image", image)]
    result = run("build", *photos, "--recipe", recipe, "--n", n, "--out", out, *extra)
    assert result.status == 0, result
    return out


def table(folder: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def test_any_transform_with_its_parameters(run_patchgen: Program, tmp_path: Path, photo_path: Path) -> None:
    text = recipe_text("{name: GaussianBlur, p: 0.5, blur_limit: [3, 7]}, {name: HorizontalFlip, p: 1}")
    one = build(run_patchgen, tmp_path, text, photo_path, workers=1)
    three = build(run_patchgen, tmp_path, text, photo_path, workers=3, shard_size=13)
    manifest = open_patchset(one).manifest
    assert manifest.pixel_root == open_patchset(three).manifest.pixel_root
    assert manifest.recipe["profile"] == "fast"
    assert "AVX" in manifest.environment["cpu_features"] or manifest.environment["machine"] != "x86_64"
    assert manifest.recipe["augment"][0]["sigma_limit"]  # the manifest contains defaults
    rows = table(one)
    assert 10 < sum(row["augment0_GaussianBlur_applied"] for row in rows) < 50
    for row in rows:
        assert (row["augment0_GaussianBlur_params"] is None) != row["augment0_GaussianBlur_applied"]
    drawn = [json.loads(row["augment0_GaussianBlur_params"]) for row in rows if row["augment0_GaussianBlur_applied"]]
    assert len({str(params) for params in drawn}) > 3


def test_numbers_of_recipes_as_people_write_them() -> None:
    """All notations of numbers in YAML 1.2 lead to the same recipe."""
    plain = recipe_text("{name: ColorJitter, p: 0.5, brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1}")
    other = recipe_text("{name: ColorJitter, p: 5e-1, brightness: 4e-1, contrast: .4, saturation: +0.40, hue: 1e-1}")
    other = other.replace("rotation: 0", "rotation: 0e0").replace("version: 1", "version: 1.0")
    jpg = "{format: jpg, quality: %s, subsampling: 4:2:0}"
    texts = [text.replace("{format: ppm}", jpg % quality) for text, quality in ((plain, 75), (other, "7.5e1"))]
    recipes = [parse_recipe(text, "r") for text in (*texts, other.replace("{format: ppm}", jpg % "075"))]
    assert recipes[0] == recipes[1] == recipes[2]
    assert canonical_json(recipes[0].pixels_json()) == canonical_json(recipes[1].pixels_json())


@pytest.mark.parametrize("value", ["1:30", "yes", "true", "75.5", "1_0", "0b11", "'75'"])
def test_what_is_no_number_in_a_recipe(value: str) -> None:
    text = recipe_text("").replace("{format: ppm}", f"{{format: jpg, quality: {value}}}")
    with pytest.raises(
        PatchgenError, match=r"^recipe r: encoding\.quality: Input should be a valid integer"
    ) as caught:
        parse_recipe(text, "r")
    assert "\n" not in str(caught.value)


def test_counts_and_home_folders_of_options(
    run_patchgen: Program, photo_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "r.yaml").write_text(recipe_text(""))
    (tmp_path / "photo.png").write_bytes(photo_path.read_bytes())
    options = ["--n", "2e1", "--seed", "007", "--size", "8", "--workers", "1"]
    result = run_patchgen("build", "--image=~/photo.png", "--recipe=~/r.yaml", "--out=~/out", *options)
    assert result.status == 0, result
    manifest = open_patchset(tmp_path / "out").manifest
    assert (manifest.n, manifest.seed) == (20, 7)
    assert_one_line(run_patchgen("build", "--image", photo_path, "--out", "o", "--n", "1.5"), "--n", status=2)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_transforms_that_read_files_are_not_taken(name: str) -> None:
    with pytest.raises(PatchgenError, match=f"{name} reads other files than the photos") as caught:
        parse_recipe(recipe_text(f"{{name: {name}, reference_images: [/etc/passwd]}}"), "r.yaml")
    assert "\n" not in str(caught.value)


def test_every_other_transform_reads_nothing() -> None:
    """Only the refused transforms of Albumentations read files.

    If a new transform reads paths or metadata, add the transform to the list.
    """
    import albumentations

    kinds = (albumentations.ImageOnlyTransform, albumentations.DualTransform)
    words = ("path", "read_fn", "reference", "metadata", "font")
    found = {
        name
        for name, kind in vars(albumentations).items()
        if isinstance(kind, type) and issubclass(kind, kinds)
        if any(word in key for key in inspect.signature(kind.__init__).parameters for word in words)
    }
    assert found == REFUSED


def test_the_user_is_told_once_that_a_recipe_is_fast(run_patchgen: Program, tmp_path: Path, photo_path: Path) -> None:
    for augment, told in (("{name: GaussNoise}", 1), ("{name: Transpose}", 0), ("", 0)):
        (tmp_path / "r.yaml").write_text(recipe_text(augment))
        command = ["build", "--image", photo_path, "--recipe", tmp_path / "r.yaml", "--n", 3]
        result = run_patchgen(*command, "--out", tmp_path / f"o{told}{len(augment)}")
        assert result.status == 0 and result.err.count(" uses GaussNoise, so ") == told == len(
            result.err.splitlines()
        )


def test_exact_transforms_do_what_their_names_say(run_patchgen: Program, tmp_path: Path, photo_path: Path) -> None:
    photo = make_photo()
    plain = build(run_patchgen, tmp_path, recipe_text(""), photo_path, n=12)
    meanings = {
        "HorizontalFlip": lambda p: p[:, ::-1],
        "VerticalFlip": lambda p: p[::-1],
        "Transpose": lambda p: p.swapaxes(0, 1),
        "InvertImg": lambda p: 255 - p,
    }
    assert set(meanings) < PORTABLE and photo.shape
    for name, meaning in meanings.items():
        changed = build(run_patchgen, tmp_path, recipe_text(f"{{name: {name}, p: 1}}"), photo_path, n=12)
        pairs = zip(*(map(open_patchset(folder).__getitem__, range(12)) for folder in (plain, changed)), strict=True)
        assert all(np.array_equal(meaning(before), after) for before, after in pairs)


@pytest.mark.parametrize(
    ("augment", "part"),
    [
        ("{name: GausianBlur}", "has no transform 'GausianBlur' for single images; did you mean GaussianBlur?"),
        ("{name: ColourJitter}", "did you mean ColorJitter?"),
        ("{name: GaussianBlur, blur_limits: 3}", "Argument(s) 'blur_limits' are not valid"),
        ("{name: GaussianBlur, blur_limit: many}", "augment[0]: GaussianBlur: blur_limit: "),
        ("{name: GaussianBlur, p: 1.5}", "augment[0].p: Input should be less than or equal to 1"),
        ("{name: Compose}", "has no transform 'Compose' for single images"),
        ("{name: Lambda}", "has no transform 'Lambda'"),
        ("{name: os.system}", "augment[0].name: String should match pattern"),
        ("{p: 1}", "required key 'augment[0].name' is missing"),
        ("{name: ColorJitter, p: 1}", "required keys 'augment[0].brightness', 'augment[0].contrast'"),
        (
            "{name: ColorJitter, p: 1, brightnes: 0}",
            "unknown key 'augment[0].brightnes'; did you mean 'augment[0].brightness'?",
        ),
    ],
)
def test_what_a_recipe_may_not_name(augment: str, part: str) -> None:
    with pytest.raises(PatchgenError) as caught:
        parse_recipe(recipe_text(augment), "mine.yaml")
    assert str(caught.value).startswith("recipe mine.yaml: ") and part in str(caught.value), caught.value
    assert "\n" not in str(caught.value)


def test_patches_of_several_photos(run_patchgen: Program, tmp_path: Path) -> None:
    photos = [
        write_image(tmp_path / f"{k}.png", np.full((60 + 20 * k, 80, 3), 40 * k + 20, np.uint8)) for k in range(3)
    ]
    out = build(run_patchgen, tmp_path, recipe_text(""), *photos, n=300)
    manifest, rows = open_patchset(out).manifest, table(out)
    assert [source.name for source in manifest.sources] == ["0.png", "1.png", "2.png"]
    patches = map(open_patchset(out).__getitem__, range(300))
    assert all((patch == 40 * row["source"] + 20).all() for patch, row in zip(patches, rows, strict=True))
    counts = np.bincount([row["source"] for row in rows])
    assert counts.min() > 70
    again = tmp_path / "again"
    command = ["rebuild", "--manifest", out / "manifest.json", "--out", again]
    pictures = [item for photo in photos for item in ("--image", photo)]
    assert run_patchgen(*command, *pictures).status == 0
    wrong_order = run_patchgen(*command, *pictures[2:], *pictures[:2])
    assert_one_line(wrong_order, f"the photos are not in the set's order; give {photos[0]} before {photos[1]}")


def test_one_of_several_photos_gives_the_patches_it_gives_alone(photo_path: Path) -> None:
    from patchgen.pipeline.shard_writer import PatchMaker
    from patchgen.pixels.pyramid import build_pyramid
    from patchgen.sources.photo import read_photo

    pixels = [read_photo(photo_path).pixels, make_photo(90, 70, seed=3)]
    pyramids = [build_pyramid(photo, enlarge=True) for photo in pixels]
    recipe = load_recipe("asano2023")

    def make(chosen: list[Any]) -> list[np.ndarray]:
        maker = PatchMaker(recipe, chosen, size=32, seed=0, first_index=0, n=80)
        sources.append(maker.columns()["source"])
        return [patch for patches in maker.chunks() for patch in patches]

    sources: list[np.ndarray] = []
    both, alone = make(pyramids), make(pyramids[:1])
    equal = [np.array_equal(a, b) for a, b in zip(both, alone, strict=True)]
    assert equal == (sources[0] == 0).tolist() and 20 < sum(equal) < 60


def test_mirrored_patches(run_patchgen: Program, tmp_path: Path, photo_path: Path) -> None:
    plain = build(run_patchgen, tmp_path, recipe_text(""), photo_path)
    for option, axis in (("hflip", 1), ("vflip", 0)):
        flipped = build(run_patchgen, tmp_path, recipe_text("", f", {option}: 0.5"), photo_path)
        rows = table(flipped)
        assert 15 < sum(row[option] for row in rows) < 45
        pairs = zip(*(map(open_patchset(folder).__getitem__, range(60)) for folder in (plain, flipped)), strict=True)
        for (before, after), row in zip(pairs, rows, strict=True):
            expected = np.flip(before, axis) if row[option] else before
            assert np.abs(expected.astype(int) - after).max() <= 1


def test_a_transform_need_fit_no_other_size(tmp_path: Path, photo_path: Path, run_patchgen: Program) -> None:
    text = recipe_text("{name: CenterCrop, p: 1, height: 64, width: 64}")
    assert len(table(build(run_patchgen, tmp_path, text, photo_path, n=5, size=64))) == 5


def test_a_transform_that_fails_on_one_patch(tmp_path: Path, photo_path: Path, run_patchgen: Program) -> None:
    """A transform that fails, or that changes the shape or type of a patch, is refused, and no set is written."""
    for augment, part in (
        ("{name: CenterCrop, p: 1, height: 20, width: 20, pad_if_needed: true}", "expected uint8 of shape"),
        ("{name: Resize, p: 1, height: 48, width: 48}", "returns uint8 of shape (48, 48, 3)"),
        ("{name: RandomCrop, height: 8, width: 8}", "expected uint8 of shape"),
        ("{name: CenterCrop, height: 64, width: 64}", "augment[0]: a black patch: CenterCrop fails: "),
        ("{name: ToFloat}", "returns float32"),
    ):
        (tmp_path / "r.yaml").write_text(recipe_text(augment))
        command = ["build", "--image", photo_path, "--recipe", tmp_path / "r.yaml", "--n", 3, "--size", 24]
        assert_one_line(run_patchgen(*command, "--out", tmp_path / "out"), "recipe", part)
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("name: a\nname: b\n", "the key 'name' appears twice"),
        ("a: &a [*a]\n", "an alias refers to a value that contains the alias"),
        (
            "a: &a [1,1,1,1,1,1,1,1,1,1]\n"
            + "".join(f"{chr(98 + k)}: &{chr(98 + k)} [{', '.join([f'*{chr(97 + k)}'] * 10)}]\n" for k in range(8)),
            "values after its aliases are expanded",
        ),
        (recipe_text("").replace("version: 1", "version: true"), "version: Input should be a valid integer"),
        (recipe_text("").replace("crop: 1", "crop: true"), "geometry.crop: Input should be a valid number"),
        (recipe_text("").replace("area: [1, 1]", "area: 0.5"), "geometry.area: Input should be a list"),
        (recipe_text("").replace("ppm", "jpeg"), "encoding.format is 'jpeg', expected one of"),
        ("name: x\n", "required keys 'version', 'geometry', 'encoding' are missing"),
    ],
)
def test_yaml_that_says_something_else_than_it_seems(text: str, part: str) -> None:
    with pytest.raises(PatchgenError) as caught:
        parse_recipe(text, "mine.yaml")
    assert part in str(caught.value), caught.value
