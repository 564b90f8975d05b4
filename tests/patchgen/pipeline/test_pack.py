"""Test sets of other people's images: copied byte for byte if a set allows such files, else cropped and encoded."""

import io
import json
import os
import pickle
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
from PIL import Image

import patchgen.sources.packed_images
from manifests import open_patchset
from manifests.format.digest import pixel_digest
from patchgen.sources.packed_images import fit
from tests.conftest import Program, assert_one_line, make_photo, write_image
from tests.helpers.editing import contents

Pixels = npt.NDArray[np.uint8]


def image(seed: int, size: int = 16) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def encoded(pixels: Pixels, image_format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, image_format, **options)
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write fifty PNGs in two folders, and two files that are not images."""
    root = tmp_path / "images"
    for k in range(50):
        path = root / ("b" if k < 20 else "a") / f"{k:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(image(k)))
    (root / "notes.txt").write_text("none")
    (root / ".hidden.png").write_bytes(b"none")
    return root


def packed(out: Path) -> tuple[list[Pixels], list[str]]:
    patchset = open_patchset(out)
    files: list[str] = []
    for shard in patchset.manifest.shards:
        files += pq.read_table(out / shard.parquet.name).column("file").to_pylist()
    return [patchset[index] for index in range(len(patchset))], files


def test_squares_of_one_format_are_copied(folder: Path, tmp_path: Path, run_patchgen: Program) -> None:
    command = ["pack", folder, "--shard-size", 20, "--license", "CC0-1.0"]
    result = run_patchgen(*command, "--out", tmp_path / "one", "--workers", 1)
    assert result.status == 0, result.err
    assert "encoded again" not in result.out
    patches, files = packed(tmp_path / "one")
    assert files == [f"a/{k:02d}.png" for k in range(20, 50)] + [f"b/{k:02d}.png" for k in range(20)]
    assert all(np.array_equal(patch, image(int(file[2:4]))) for patch, file in zip(patches, files, strict=True))
    with tarfile.open(tmp_path / "one" / "patches-000001.tar") as archive:
        member = archive.extractfile("000000020.png")
        assert member is not None and member.read() == (folder / files[20]).read_bytes()
    manifest = open_patchset(tmp_path / "one").manifest
    assert manifest.recipe == {"name": "packed", "version": 1, "fit": "none", "profile": "portable"}
    assert manifest.encoding.model_dump() == {"format": "png"} and manifest.sources[0].licence == "CC0-1.0"
    assert run_patchgen("verify", tmp_path / "one").status == 0
    shutil.copytree(folder, tmp_path / "elsewhere")
    again = ["pack", tmp_path / "elsewhere", "--shard-size", 20, "--workers", 2, "--out", tmp_path / "two"]
    assert run_patchgen(*again).status == 0
    assert open_patchset(tmp_path / "two").manifest.set_id == manifest.set_id
    before = contents(tmp_path / "one")
    assert run_patchgen(*command, "--out", tmp_path / "one").status == 0
    assert contents(tmp_path / "one") == before


def test_a_pack_goes_on_where_it_stopped(folder: Path, tmp_path: Path, run_patchgen: Program) -> None:
    command = ["pack", folder, "--shard-size", 20, "--workers", 1, "--out", tmp_path / "out"]
    assert run_patchgen(*command).status == 0
    whole, kept = contents(tmp_path / "out"), (tmp_path / "out" / "patches-000000.tar").stat().st_mtime_ns
    (tmp_path / "out" / "patches-000002.tar").unlink()
    (tmp_path / "out" / "patches-000001.tar").write_bytes(b"damaged")
    assert run_patchgen(*command).status == 0
    assert contents(tmp_path / "out") == whole
    assert (tmp_path / "out" / "patches-000000.tar").stat().st_mtime_ns == kept
    (folder / "a").rename(folder / "aa")  # the same images in the same order
    assert run_patchgen(*command).status == 0
    assert packed(tmp_path / "out")[1][0] == "aa/20.png"
    (folder / "aa").rename(folder / "a")
    assert run_patchgen(*command).status == 0
    (folder / "a" / "30.png").write_bytes(encoded(image(99)))
    assert_one_line(run_patchgen(*command), "contains a finished set with sources[0].pixels", "choose another --out")


TURNED = Image.Exif()
TURNED[0x0112] = 6
NOT_AS_THEY_ARE = {
    "gray.png": encoded(image(0)[..., 0]),
    "alpha.png": encoded(np.dstack([image(0), image(0)[..., :1]])),
    "palette.gif.png": encoded(image(0)[..., 0] // 128 * 255),
    "turned.jpg": encoded(image(0), "JPEG", exif=TURNED),
    "lossy.webp": encoded(image(0), "WEBP", quality=90),
    "plain.bmp": encoded(image(0), "BMP"),
    "other.ppm": b"P6 16 16 65535\n" + image(0).astype(">u2").tobytes(),
}


@pytest.mark.parametrize("name", NOT_AS_THEY_ARE)
def test_what_a_set_must_not_hold_is_stored_anew(name: str, tmp_path: Path, run_patchgen: Program) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / name).write_bytes(NOT_AS_THEY_ARE[name])
    result = run_patchgen("pack", tmp_path / "images", "--out", tmp_path / "out")
    assert result.status == 0, result.err
    assert "encoded again as 16 px png" in result.out
    assert run_patchgen("verify", tmp_path / "out").status == 0
    assert packed(tmp_path / "out")[1] == [name]


@pytest.mark.parametrize(("suffix", "name", "options"), [("jpg", "JPEG", {"quality": 60}), ("ppm", "PPM", {})])
def test_other_formats_are_copied_too(
    suffix: str, name: str, options: dict[str, Any], tmp_path: Path, run_patchgen: Program
) -> None:
    (tmp_path / "images").mkdir()
    for k in range(3):
        (tmp_path / "images" / f"{k}.{suffix}").write_bytes(encoded(image(k), name, **options))
    assert run_patchgen("pack", tmp_path / "images", "--out", tmp_path / "out").status == 0
    assert open_patchset(tmp_path / "out").manifest.encoding.model_dump() == {"format": suffix}
    assert run_patchgen("verify", tmp_path / "out").status == 0
    recoded = ["pack", tmp_path / "images", "--format", "webp", "--out", tmp_path / "webp"]
    assert run_patchgen(*recoded).status == 0
    patches, _ = packed(tmp_path / "webp")
    with Image.open(tmp_path / "images" / f"1.{suffix}") as opened:
        assert np.abs(patches[1].astype(int) - np.asarray(opened).astype(int)).max() <= 1  # JPEG decoders differ by 1
    assert open_patchset(tmp_path / "webp").manifest.encoding.format == "webp"


def test_a_folder_has_no_size_in_pixels(tmp_path: Path, run_patchgen: Program) -> None:
    (tmp_path / "mixed").mkdir()
    for k, size in enumerate((40, 64, 90)):
        write_image(tmp_path / "mixed" / f"{k}.png", make_photo(2 * size, size, k))
    out = tmp_path / "out"
    assert run_patchgen("pack", tmp_path / "mixed", "--size", 32, "--out", out).status == 0
    digest = open_patchset(out).manifest.sources[0].sha256
    assert f"- **mixed**, 3 images, SHA-256 of its files `{digest}`" in (out / "README.md").read_text()
    told = run_patchgen("info", out)
    assert (
        f"mixed, 3 images, file sha256 {digest}" in told.out
        and "180×90" not in told.out + (out / "README.md").read_text()
    )


def test_other_sizes_are_cut_and_scaled(tmp_path: Path, run_patchgen: Program) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    write_image(photos / "wide.png", make_photo(300, 200))
    write_image(photos / "high.png", make_photo(120, 400, seed=1))
    assert_one_line(
        run_patchgen("pack", photos, "--out", tmp_path / "out"), "the images have 2 sizes, for example", "give --size"
    )
    assert not (tmp_path / "out").exists()
    assert run_patchgen("pack", photos, "--size", 32, "--out", tmp_path / "out").status == 0
    patches, files = packed(tmp_path / "out")
    assert files == ["high.png", "wide.png"]
    with Image.open(photos / "wide.png") as opened:
        wanted = opened.convert("RGB").crop((50, 0, 250, 200)).resize((32, 32), Image.Resampling.BICUBIC)
    assert np.abs(patches[1].astype(int) - np.asarray(wanted).astype(int)).mean() < 4
    source = open_patchset(tmp_path / "out").manifest.sources[0]
    assert (source.width, source.height, source.name) == (300, 400, "photos")
    assert fit(image(0), 16) is not None and np.array_equal(fit(image(0), 16), image(0))
    assert fit(image(0, 12), 16).shape == (16, 16, 3)


@pytest.mark.parametrize(("suffix", "mode"), [("tar", "w:"), ("tar.gz", "w:gz"), ("tgz", "w:gz")])
def test_tars_and_only_those_for_training(
    suffix: str, mode: Any, folder: Path, tmp_path: Path, run_patchgen: Program
) -> None:
    (tmp_path / "tars").mkdir()
    (folder / "link.png").hardlink_to(folder / "b" / "00.png")
    for name in ("train-0", "train-1", "test-0"):
        with tarfile.open(tmp_path / "tars" / f"{name}.{suffix}", mode) as archive:
            archive.add(folder / "b" / "00.png", "000.png")
            archive.add(folder / "notes.txt", "000.cls")
            archive.add(folder / "link.png", "001.png")
            assert archive.getmember("001.png").islnk()
    assert run_patchgen("pack", tmp_path / "tars", "--out", tmp_path / "out").status == 0
    patches, files = packed(tmp_path / "out")
    assert files == [f"train-{k}.{suffix}/{name}.png" for k in (0, 1) for name in ("000", "001")]
    assert all(np.array_equal(patch, image(0)) for patch in patches)
    (tmp_path / "split" / "train").mkdir(parents=True)
    shutil.copytree(folder / "a", tmp_path / "split" / "test")
    shutil.copy(folder / "b" / "01.png", tmp_path / "split" / "train")
    assert run_patchgen("pack", tmp_path / "split", "--out", tmp_path / "parts").status == 0
    assert packed(tmp_path / "parts")[1] == ["train/01.png"]
    (tmp_path / "split" / "test").rename(tmp_path / "split" / "Validation")
    result = run_patchgen("pack", tmp_path / "split", "--out", tmp_path / "again")
    assert result.err == f"only {tmp_path / 'split' / 'train'} was packed; these were not packed: Validation\n"
    shutil.copytree(folder / "b", tmp_path / "split" / "extra")
    result = run_patchgen("pack", tmp_path / "split", "--out", tmp_path / "third")
    assert f"skipped 1 (files and folders beside the splits), such as {tmp_path / 'split' / 'extra'}\n" in result.err
    assert packed(tmp_path / "third")[1] == ["train/01.png"]
    (tmp_path / "split" / "Validation").rename(tmp_path / "split" / "bus")
    assert run_patchgen("pack", tmp_path / "split", "--out", tmp_path / "classes").status == 0
    assert len(packed(tmp_path / "classes")[1]) == 51  # "train" is now a class, like "bus" and "extra"


@pytest.mark.parametrize("form", ["binary", "python"])
def test_cifar_without_its_test_images(form: str, tmp_path: Path, run_patchgen: Program) -> None:
    data, pixels = tmp_path / "cifar", np.random.default_rng(0).integers(0, 256, (6, 4, 3, 32, 32), dtype=np.uint8)
    data.mkdir()
    for number, name in enumerate([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]):
        rows = pixels[number].reshape(4, -1)
        if form == "binary":
            (data / f"{name}.bin").write_bytes(np.column_stack([np.zeros(4, np.uint8), rows]).tobytes())
        else:
            (data / name).write_bytes(pickle.dumps({b"data": rows, b"labels": [0] * 4}, protocol=2))
    assert run_patchgen("pack", data, "--out", tmp_path / "out").status == 0
    patches, files = packed(tmp_path / "out")
    assert len(patches) == 20 and files[5] == f"data_batch_2{'.bin' if form == 'binary' else ''}/00001"
    assert np.array_equal(patches[5], pixels[1, 1].transpose(1, 2, 0))
    assert run_patchgen("verify", tmp_path / "out").status == 0


def test_links_to_folders_outside_are_not_followed(tmp_path: Path, run_patchgen: Program) -> None:
    given, private = tmp_path / "given", tmp_path / "private"
    for number, path in enumerate((given / "a" / "0.png", given / "1.png", private / "2.png")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(image(number)))
    (given / "in.png").symlink_to(given / "1.png")
    (given / "again").symlink_to(given / "a")  # the same folder: packed once
    assert run_patchgen("pack", given, "--out", tmp_path / "one").err == ""
    assert sorted(name.rpartition("/")[2] for name in packed(tmp_path / "one")[1]) == ["0.png", "1.png", "in.png"]
    (given / "out").symlink_to(private)
    result = run_patchgen("pack", given, "--out", tmp_path / "two")
    assert_one_line(
        result._replace(status=1),
        "given: skipped 1 (links to folders outside are not followed",
        f"such as {given / 'out'}",
    )
    assert packed(tmp_path / "two")[1] == packed(tmp_path / "one")[1]
    (given / "out").unlink()
    (given / "kept elsewhere.png").symlink_to(private / "2.png")  # DVC stores files as such links
    assert run_patchgen("pack", given, "--out", tmp_path / "three").err == ""
    assert len(packed(tmp_path / "three")[1]) == 4


def test_bad_images_are_named(folder: Path, tmp_path: Path, run_patchgen: Program) -> None:
    out, whole = tmp_path / "out", encoded(image(0))
    for damaged in (whole[:200], whole[:-12], whole[:60] + b"x" + whole[61:], b""):
        (folder / "a" / "33.png").write_bytes(damaged)
        result = run_patchgen("pack", folder, "--out", tmp_path / "b")
        assert_one_line(result, "33.png: the data is not a whole image", "new folder")
        assert not (tmp_path / "b").exists()
    (folder / "a" / "33.png").write_bytes(encoded(image(0), "TIFF")[:-8])
    result = run_patchgen("pack", folder, "--out", tmp_path / "b", "--workers", 1)
    assert_one_line(result, "33.png: the data is not a whole image", "new folder")
    jpeg = encoded(image(0), "JPEG")
    (tmp_path / "jpegs").mkdir()
    (tmp_path / "jpegs" / "cut.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    result = run_patchgen("pack", tmp_path / "jpegs", "--out", tmp_path / "c", "--workers", 1)
    assert_one_line(result, "cut.jpg: the data is not a whole image", "new folder")
    (tmp_path / "jpegs" / "one.gif").write_bytes(b"")
    (tmp_path / "jpegs" / "cut.jpg").unlink()
    assert_one_line(run_patchgen("pack", tmp_path / "jpegs", "--out", out), "one.gif: the data is not a whole image")


def test_data_that_is_none(folder: Path, tmp_path: Path, run_patchgen: Program) -> None:
    out = tmp_path / "out"
    assert_one_line(
        run_patchgen("pack", tmp_path / "none", "--out", out), "none: the path does not exist", "a folder of images"
    )
    (tmp_path / "empty").mkdir()
    assert_one_line(run_patchgen("pack", tmp_path / "empty", "--out", out), "empty: no image was found")
    (tmp_path / "empty" / "a.tar.gz").write_bytes(b"")
    assert_one_line(
        run_patchgen("pack", tmp_path / "empty", "--out", out),
        "a.tar.gz: the tar cannot be read",
        "download the tar again",
    )
    (tmp_path / "empty" / "a.tar.gz").rename(tmp_path / "empty" / "a.tar")
    (tmp_path / "empty" / "a.tar").write_bytes(b"no tar" * 200)
    assert_one_line(
        run_patchgen("pack", tmp_path / "empty", "--out", out),
        "a.tar: ",
        "the tar cannot be read",
        "download the tar again",
    )
    shutil.copy(folder / "a" / "30.png", tmp_path / "empty")
    assert_one_line(
        run_patchgen("pack", tmp_path / "empty", "--out", out), "contains tars (a.tar) and images (30.png)"
    )
    (tmp_path / "large").mkdir()
    write_image(tmp_path / "large" / "one.png", make_photo(2000, 2000))
    assert_one_line(
        run_patchgen("pack", tmp_path / "large", "--out", out), "the images have 2000 px a side", "give --size"
    )


def test_names_that_are_no_text(tmp_path: Path, run_patchgen: Program) -> None:
    (tmp_path / "images").mkdir()
    with open(os.fsencode(tmp_path / "images") + b"/\xff.png", "wb") as file:  # noqa: PTH123 - Path takes no bytes
        file.write(encoded(image(0)))
    assert run_patchgen("pack", tmp_path / "images", "--out", tmp_path / "out").status == 0
    assert packed(tmp_path / "out")[1] == ["\\udcff.png"]


def test_an_image_that_changes_meanwhile(
    folder: Path, tmp_path: Path, run_patchgen: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patchgen.sources.packed_images, "content_digest", lambda content: bytes(32))
    result = run_patchgen("pack", folder, "--out", tmp_path / "out", "--workers", 1)
    assert_one_line(result, "20.png: the image changed while it was packed")


def test_no_photo_makes_a_packed_set(folder: Path, photo_path: Path, tmp_path: Path, run_patchgen: Program) -> None:
    out = tmp_path / "out"
    assert run_patchgen("pack", folder, "--out", out).status == 0
    photo = ["--image", photo_path]
    for command in (
        ["rebuild", "--manifest", out, *photo, "--out", tmp_path / "copy"],
        ["extend", out, "--n", 100, *photo],
        ["verify", out, "--regenerate", 3, *photo],
        ["preview", out, "--out", tmp_path / "sheet.png", *photo],
    ):
        assert_one_line(run_patchgen(*command), "packed from image files", "patchgen pack")
    assert run_patchgen("preview", out, "--out", tmp_path / "sheet.png").status == 0
    shown = json.loads(run_patchgen("info", out, "--json").out)
    assert shown["recipe"]["name"] == "packed"
    table = pq.read_table(out / "patches-000000.parquet")
    assert table.column("pixels")[0].as_py() == pixel_digest(image(20))
