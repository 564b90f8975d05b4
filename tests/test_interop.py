"""Test that other tools read a set of 5,000 patches in three shards. A test is skipped without the tool's package."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import make_photo, write_image

N = 5_000


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build and export a set with the command-line programs, as a user would, and return its folder."""
    folder = tmp_path_factory.mktemp("published")
    photo = write_image(folder / "photo.png", make_photo())
    out = folder / "shards"
    card = ("--license", "CC-BY-4.0", "--url", "https://example.org/photo", "--attribution", "A. Person")
    options = ("--n", str(N), "--size", "8", "--shard-size", "2000", "--out", str(out), *card)
    for command in (("build", "--image", str(photo), *options), ("export", str(out), "--bagit", str(folder / "bag"))):
        subprocess.run([sys.executable, "-m", "patchgen", *command], check=True, capture_output=True)
    return out


def test_sha256sum(published: Path) -> None:
    done = subprocess.run(
        ["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=published, capture_output=True, text=True, check=True
    )
    assert done.stdout.count(": OK\n") == len(list(published.iterdir())) - 2  # SHA256SUMS omits itself and the card


def test_webdataset(published: Path) -> None:
    wds = pytest.importorskip("webdataset")
    shards = sorted(map(str, published.glob("*.tar")))
    keys = [sample["__key__"] for sample in wds.WebDataset(shards, shardshuffle=False)]
    assert keys == [f"{index:09d}" for index in range(N)]
    first = next(iter(wds.WebDataset(shards, shardshuffle=False).decode("rgb8").to_tuple("jpg")))[0]
    assert first.shape == (8, 8, 3)


def test_wids(published: Path, tmp_path: Path) -> None:
    wids = pytest.importorskip("wids")
    dataset = wids.ShardListDataset(str(published / "index.json"), keep=True, cache_dir=str(tmp_path))
    assert len(dataset) == N
    assert dataset[N - 1]["__key__"] == f"{N - 1:09d}"
    assert dataset[17][".jpg"].size == (8, 8)


def test_hugging_face_datasets(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    files = sorted(map(str, published.glob("*.tar")))
    loaded = datasets.load_dataset("webdataset", data_files=files, split="train", cache_dir=str(tmp_path))
    assert len(loaded) == N
    assert loaded[N - 1]["__key__"] == f"{N - 1:09d}" and loaded[0]["jpg"].size == (8, 8)
    by_card = datasets.load_dataset(str(published), split="train", streaming=True)  # the card names files
    assert next(iter(by_card))["__key__"] == "000000000"


def test_croissant(published: Path) -> None:
    pytest.importorskip("mlcroissant")
    done = subprocess.run(
        [Path(sys.executable).with_name("mlcroissant"), "validate", "--jsonld", str(published / "croissant.json")],
        capture_output=True,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Done" in done.stdout + done.stderr and "ERROR" not in done.stdout + done.stderr


def test_croissant_records(published: Path, tmp_path: Path) -> None:
    pytest.importorskip("mlcroissant")
    code = """import sys, mlcroissant
records = mlcroissant.Dataset(jsonld=sys.argv[1]).records("patches")
first = next(iter(records))
print(first["patches/key"], first["patches/image"].size)"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(published / "croissant.json")],
        capture_output=True,
        text=True,
        env=os.environ | {"CROISSANT_CACHE": str(tmp_path)},  # a cache for this set only
        check=True,
    )
    assert done.stdout == "b'000000000.jpg' (8, 8)\n"


def test_bagit(published: Path) -> None:
    pytest.importorskip("bagit")
    bag = published.parent / "bag"
    subprocess.run([sys.executable, "-m", "bagit", "--validate", str(bag)], check=True, capture_output=True)
    (bag / "data" / "index.json").unlink()  # the bag has a copy: the set keeps its file
    done = subprocess.run([sys.executable, "-m", "bagit", "--validate", str(bag)], check=False, capture_output=True)
    assert done.returncode != 0 and (published / "index.json").exists()
