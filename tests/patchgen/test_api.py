"""Test the Python API: ``patchgen.build`` and ``patchgen.Patches``."""

import logging
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader

import patchgen
import patchgen.patches
from manifests import verify_shards
from tests.conftest import Program, make_photo, write_image
from tests.helpers.editing import contents

SCRIPT = """
import patchgen
print("running")
patchset = patchgen.build({photo!r}, n=40, out="out", shard_size=10, workers=2)
print(len(patchset))
"""


def copied(patches: patchgen.Patches) -> patchgen.Patches:
    """Return the object that another process would receive."""
    return pickle.loads(pickle.dumps(patches))  # noqa: S301 - our own


def test_a_build_writes_the_bytes_of_the_command(run_patchgen: Program, tmp_path: Path, photo_path: Path) -> None:
    words = ["--n", 50, "--size", 16, "--seed", 3, "--recipe", "crop", "--format", "webp", "--shard-size", 20]
    words += ["--license", "CC0", "--url", "https://host/photo", "--attribution", "A. Author", "--workers", 1]
    assert run_patchgen("build", "--image", photo_path, "--out", tmp_path / "a", *words).status == 0
    cards = {"license": "CC0", "url": ["https://host/photo"], "attribution": "A. Author"}
    options: Any = {"recipe": "crop", "seed": 3, "size": 16, "format": "webp", "shard_size": 20, "workers": 1}
    patchset = patchgen.build(str(photo_path), n=50, out=str(tmp_path / "b"), **options, **cards)
    verify_shards(patchset)
    assert contents(tmp_path / "a") == contents(tmp_path / "b") and patchset.folder == tmp_path / "b"
    again = patchgen.build(photo_path, n=5e1, out=tmp_path / "b", **options)
    assert again.manifest == patchset.manifest


@pytest.mark.parametrize("image_format", ["jpg", "png", "webp", "ppm"])
@pytest.mark.parametrize("recipe", ["asano2023", "asano2023-black"])
def test_a_patch_is_the_patch_of_the_built_set(
    tmp_path: Path, photo_path: Path, recipe: str, image_format: str
) -> None:
    photos = [photo_path, write_image(tmp_path / "second.png", make_photo(90, 70, seed=3))]
    options: Any = {"recipe": recipe, "seed": 2, "format": image_format}
    patchset = patchgen.build(photos, n=60, out=tmp_path / "out", **options)
    patches = patchgen.Patches(photos, n=60, **options)
    assert len(patches) == len(patchset) == 60
    for i in range(60):
        assert np.array_equal(patches[i], patchset[i])
    patch = patches[np.int64(59)]
    assert (
        (patch.dtype, patch.shape) == (np.uint8, (32, 32, 3)) and patch.flags.writeable and patch.flags.c_contiguous
    )


def test_images_in_memory(tmp_path: Path) -> None:
    pixels = make_photo()
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    expected = patchgen.Patches(tmp_path / "photo.png")[5]
    turned = Image.fromarray(pixels[::-1, ::-1])
    turned.getexif()[0x0112] = 3  # turned by 180 degrees
    for image in (pixels, Image.fromarray(pixels), Image.fromarray(pixels).convert("RGBA"), turned):
        assert np.array_equal(patchgen.Patches(image)[5], expected)
    patches = patchgen.Patches(pixels)
    pixels[:] = 0
    assert np.array_equal(copied(patches)[5], expected)
    assert repr(patches) == "Patches(array(120, 160, 3), recipe='asano2023', seed=0, size=32, n=None)"


def test_an_index_outside_the_patches(photo_path: Path) -> None:
    patches = patchgen.Patches(photo_path, n=10)
    for index in (10, -1):
        with pytest.raises(IndexError, match=f"^there is no patch {index}; use an index from 0 to 9$"):
            patches[index]
    with pytest.raises(TypeError, match="slice"):
        patches[:3]
    assert len(list(patches)) == 10
    with pytest.raises(TypeError, match="have no length, because there is no end of patches; give n=50_000"):
        len(patchgen.Patches(photo_path))
    assert patchgen.Patches(photo_path)[999_999_999].shape == (32, 32, 3)


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_processes_of_a_data_loader(photo_path: Path, context: str) -> None:
    patches = patchgen.Patches(photo_path, n=12)
    loader = DataLoader(patches, batch_size=4, num_workers=2, multiprocessing_context=context)
    batches = [batch.numpy() for batch in loader]
    assert np.array_equal(np.concatenate(batches), np.stack([patches[i] for i in range(12)]))


def test_another_process_opens_the_photo_once(
    tmp_path: Path, photo_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(photo_path.read_bytes())
    patches = patchgen.Patches(path)
    assert len(pickle.dumps(patches)) < 10_000
    opened: list[Any] = []
    original = patchgen.patches.open_image
    monkeypatch.setattr(patchgen.patches, "open_image", lambda image: opened.append(image) or original(image))
    copy, late_copy = copied(patches), copied(patches)
    assert opened == [] and np.array_equal(copy[1], patches[1]) and np.array_equal(copy[2], patches[2])
    assert opened == [path]
    write_image(path, make_photo(seed=1))
    with pytest.raises(patchgen.PatchgenError, match=r"photo\.png: the photo has the pixel sha256 .*; restore"):
        late_copy[1]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"n": 0}, "n is 0, expected a whole number from 1 to 1000000000; give another n"),
    ({"n": True}, "n is True, expected a whole number"),
    ({"seed": -1}, "seed is -1, expected a whole number from 0 to 9007199254740991"),
    ({"seed": 1.5}, "seed is 1.5, expected"),
    ({"size": 7}, "size is 7, expected a whole number from 8 to 1024"),
    ({"size": 200}, "the photo has 160×120 pixels, but a patch has 200×200"),
    ({"format": "gif"}, "format is 'gif', expected one of png, jpg, webp, ppm"),
    ({"recipe": "asano"}, "did you mean asano2023?"),
    ({"recipe": 5}, "the recipe is a int, expected a name, a path or a dict"),
    ({"recipe": {"name": "x"}}, "recipe x: required keys 'version', 'geometry', 'encoding' are missing"),
    ({"image": "nothing.jpg"}, "nothing.jpg: the photo cannot be read"),
    ({"image": "s3://bucket/photo.jpg"}, "image is the URL s3://bucket/photo.jpg, expected a path"),
    ({"image": []}, "image is an empty list, expected at least one photo"),
    ({"image": 3}, "image is a int, expected a path, a PIL image or an array"),
    ({"image": np.zeros((9, 9, 3))}, r"image is an array of float64 of shape (9, 9, 3), expected uint8"),
    ({"image": np.zeros((9, 9), np.uint8)}, "of shape (9, 9), expected uint8 (height, width, 3)"),
    ({"image": np.zeros((0, 9, 3), np.uint8)}, "of shape (0, 9, 3), expected uint8 (height, width, 3)"),
    ({"image": np.zeros((1, 40000, 3), np.uint8)}, "image has 40000×1 pixels, expected at most 32766 a side"),
    ({"image": Image.new("I;16", (64, 64))}, "image is a PIL image of mode I;16, expected 8 bits a channel"),
]


@pytest.mark.parametrize(("changed", "part"), WRONG)
def test_wrong_arguments(photo_path: Path, tmp_path: Path, changed: dict[str, Any], part: str) -> None:
    options: dict[str, Any] = {"image": photo_path, "n": 5} | changed
    image = options.pop("image")
    with pytest.raises(patchgen.PatchgenError) as caught:
        patchgen.Patches(image, **options)
    assert part in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(patchgen.PatchgenError) as caught:
        patchgen.build(image, out=tmp_path / "out", **options)
    assert part in str(caught.value) and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        ({"workers": 0}, "workers is 0, expected a whole number from 1 to 1024"),
        ({"shard_size": 10**6}, "shard_size is 1000000, expected a whole number from 1 to 100000"),
        ({"out": "s3://bucket/set"}, "out is the URL s3://bucket/set, expected a path"),
        ({"out": None}, "out is a NoneType, expected a path"),
        ({"image": make_photo()}, "save it as a PNG file and give the path, or use patchgen.Patches"),
        ({"out": "a\0b"}, "out: 'a\\x00b' has a null character, expected a path"),
        ({"out": "a\ud800"}, "out: 'a\\ud800' is not valid Unicode text, expected a path"),
        ({"image": "a\0b"}, "image: 'a\\x00b' has a null character, expected a path"),
        ({"format": np.array(["png", "jpg"])}, "expected one of png, jpg, webp, ppm"),
        ({"license": 5}, "license has 5, expected a text; give one text, or a list of one for each photo"),
        ({"license": b"x"}, "license has 120, expected a text"),
        ({"size": np.array([32])}, "size is array([32]), expected a whole number from 8 to 1024"),
        ({"license": ["a", "b"]}, "license has 2 texts for 1 photo; give one text, or one for each photo"),
        ({"url": "https://user:word@host/"}, "--url: the URL contains a user, a password or a key"),
    ],
)
def test_wrong_arguments_of_a_build(photo_path: Path, tmp_path: Path, changed: dict[str, Any], part: str) -> None:
    options: dict[str, Any] = {"image": photo_path, "out": tmp_path / "out", "n": 5} | changed
    with pytest.raises(patchgen.PatchgenError) as caught:
        patchgen.build(options.pop("image"), **options)
    assert part in str(caught.value) and "\n" not in str(caught.value)


def test_an_image_that_pillow_cannot_decode(photo_path: Path, tmp_path: Path) -> None:
    """Pillow decodes an image from a file when its pixels are used."""
    cut = tmp_path / "cut.png"
    cut.write_bytes(photo_path.read_bytes()[:2000])
    closed = Image.open(photo_path)
    closed.close()
    for image in (Image.open(cut), closed):
        with pytest.raises(patchgen.PatchgenError, match="image is a PIL image that cannot be decoded: ") as caught:
            patchgen.Patches(image)
        assert "\n" not in str(caught.value)


def test_an_unknown_argument(photo_path: Path, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="no argument 'wrkers'; its other arguments are format, shard_size, workers"):
        patchgen.build(photo_path, n=5, out=tmp_path, wrkers=2)


def test_another_set_in_the_folder(photo_path: Path, tmp_path: Path) -> None:
    patchgen.build(photo_path, n=5, out=tmp_path / "out")
    with pytest.raises(
        patchgen.PatchgenError, match="contains a finished set with seed 0, but this build has seed 1"
    ):
        patchgen.build(photo_path, n=5, out=tmp_path / "out", seed=1)


def test_notes_go_to_the_log(
    tmp_path: Path, photo_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    image = Image.open(photo_path).convert("RGBA")
    image.putalpha(100)
    image.save(tmp_path / "clear.png")
    recipe = patchgen.load_recipe("hflip").model_dump() | {"augment": [{"name": "GaussNoise"}]}
    threads = cv2.getNumThreads()
    with caplog.at_level(logging.DEBUG, logger="patchgen"):
        for _ in range(2):
            options: Any = {"recipe": recipe, "workers": 1, "shard_size": 10}
            (tmp_path / "out" / "manifest.json").unlink(missing_ok=True)
            patchgen.build(tmp_path / "clear.png", n=20, out=tmp_path / "out", **options)
    found = {(record.levelname, record.getMessage().split(": ")[-1][:30]) for record in caplog.records}
    assert ("WARNING", "the alpha channel is dropped, ") in found
    assert ("WARNING", "the recipe 'hflip' has profile") in found
    assert ("INFO", "2 intact shards kept, 0 to bui") in found
    caplog.clear()
    copied(patchgen.Patches(tmp_path / "clear.png"))[0]
    assert [record.levelname for record in caplog.records] == ["WARNING"] and "alpha channel" in caplog.text
    assert capfd.readouterr() == ("", "") and cv2.getNumThreads() == threads


def test_a_script_without_a_main_guard(tmp_path: Path, photo_path: Path) -> None:
    """The worker processes must not run the script of the user again."""
    (tmp_path / "script.py").write_text(SCRIPT.format(photo=str(photo_path)))
    result = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "running\n40\n", "")


def test_a_set_is_rebuilt_extended_and_verified(tmp_path: Path, photo_path: Path) -> None:
    options: Any = {"size": 16, "shard_size": 20, "workers": 1}
    patchgen.build(photo_path, n=50, out=tmp_path / "set", **options)
    patchgen.build(photo_path, n=90, out=tmp_path / "long", **options)
    for manifest in (tmp_path / "set", str(tmp_path / "set" / "manifest.json")):
        again = patchgen.rebuild(manifest, photo_path, out=tmp_path / "again", workers=1)
    assert contents(tmp_path / "again") == contents(tmp_path / "set") and len(again) == 50
    longer = patchgen.extend(str(tmp_path / "set"), [photo_path], n=90)
    assert contents(tmp_path / "set") == contents(tmp_path / "long") and len(longer) == 90
    assert patchgen.verify(tmp_path / "set") == patchgen.verify(tmp_path / "set", fast=True) == ()
    shard = tmp_path / "again" / "patches-000001.tar"
    shard.write_bytes(shard.read_bytes()[:-1] + b"!")
    faults = patchgen.verify(tmp_path / "again", workers=1)
    assert (
        {fault.file for fault in faults} == {shard.name}
        and "sha256 is" in str(faults)
        and patchgen.verify(tmp_path / "again", fast=True) == ()
    )
    patchgen.rebuild(tmp_path / "set", photo_path, out=tmp_path / "repaired")
    other = write_image(tmp_path / "other.png", make_photo(90, 70, seed=3))
    for call, part in (
        (lambda: patchgen.rebuild(tmp_path / "set", other, out=tmp_path / "other"), "sha256"),
        (lambda: patchgen.extend(tmp_path / "set", photo_path, n=10), "the set has 90 patches already"),
        (lambda: patchgen.extend("https://host/set", photo_path, n=10), "is the URL https://host/set"),
        (lambda: patchgen.verify(tmp_path / "none"), "this is no folder, expected the folder of a set; check"),
    ):
        with pytest.raises(patchgen.PatchgenError, match=part) as caught:
            call()
        assert "\n" not in str(caught.value)
