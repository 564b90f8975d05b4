"""Test labelled images in Parquet files and in saved data sets of Hugging Face, and what is refused."""

import io
import json
import os
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from distill.data import labelled
from distill.data.labelled import count_images, load_labelled
from distill.errors import DistillError
from manifests.foreign import tables
from tests.conftest import Program, assert_one_line
from tests.distill.conftest import png

Labelled = tuple[np.ndarray, np.ndarray]
NAMES = ["ant", "bee", "cat", "dog"]


def table(images: Labelled, *, nested: bool = True) -> pa.Table:
    encoded: list[Any] = [png(image) for image in images[0]]
    if nested:
        encoded = [{"bytes": data, "path": None} for data in encoded]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())]) if nested else pa.binary()
    return pa.table({"image": pa.array(encoded, kind), "label": pa.array(images[1].tolist(), pa.int64())})


def check(path: Path, images: Labelled) -> labelled.LabelledImages:
    data = load_labelled(path, None)
    assert torch.equal(data.images, torch.from_numpy(images[0])) and data.labels.tolist() == images[1].tolist()
    return data


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("options", [{}, {"row_group_size": 3}, {"use_dictionary": False, "compression": "zstd"}])
def test_parquet(
    images: Labelled, tmp_path: Path, nested: bool, streamed: bool, options: dict[str, Any], monkeypatch: Any
) -> None:
    if streamed:
        monkeypatch.setattr(labelled, "MAX_HELD_BYTES", 0)
    pq.write_table(table(images, nested=nested), tmp_path / "data.parquet", **options)
    data = check(tmp_path / "data.parquet", images)
    assert data.names == () and data.numbered and count_images(tmp_path / "data.parquet") == len(images[1])
    batches = dict(data.batches(6, [2, 0]))
    assert torch.equal(batches[0], torch.from_numpy(images[0][:6]))
    assert torch.equal(batches[2], torch.from_numpy(images[0][12:18]))


def test_a_data_set_of_the_hub(images: Labelled, tmp_path: Path) -> None:
    """``datasets`` writes class names into the files, which are named by their splits."""
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})
    rows = {"img": [Image.fromarray(image) for image in images[0]], "label": images[1].tolist()}
    whole = datasets.Dataset.from_dict(rows, features=features)
    whole.select(range(10)).to_parquet(tmp_path / "test-00000-of-00002.parquet")
    whole.select(range(10, 20)).to_parquet(tmp_path / "test-00001-of-00002.parquet")
    whole.select(range(3)).to_parquet(tmp_path / "train-00000-of-00001.parquet")
    assert check(tmp_path, images).names == tuple(NAMES)
    assert len(load_labelled(tmp_path, None, "train").labels) == 3
    folders = tmp_path / "folders"
    for split in ("train", "test"):
        (folders / split).mkdir(parents=True)
        whole.to_parquet(folders / split / "0.parquet")
    check(folders, images)


def test_a_saved_data_set(images: Labelled, tmp_path: Path) -> None:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})
    rows = {"image": [Image.fromarray(image) for image in images[0]], "label": images[1].tolist()}
    whole = datasets.Dataset.from_dict(rows, features=features)
    whole.save_to_disk(tmp_path / "one", num_shards=3)
    assert check(tmp_path / "one", images).names == tuple(NAMES)
    assert count_images(tmp_path / "one") == len(images[1])
    datasets.DatasetDict(train=whole.select(range(4)), validation=whole).save_to_disk(tmp_path / "splits")
    check(tmp_path / "splits", images)
    assert len(load_labelled(tmp_path / "splits", None, "train").labels) == 4
    whole.remove_columns("label").save_to_disk(tmp_path / "bare")
    with pytest.raises(DistillError, match="has no column 'label'"):
        load_labelled(tmp_path / "bare", None)
    state = next((tmp_path / "one").glob("*.arrow"))
    state.write_bytes(state.read_bytes()[:200])
    with pytest.raises(DistillError, match="one: the table cannot be read"):
        load_labelled(tmp_path / "one", None)


@pytest.mark.parametrize("kind", ["parquet", "cifar"])
def test_a_file_that_becomes_shorter(images: Labelled, tmp_path: Path, kind: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(labelled, "MAX_HELD_BYTES", 0)
    path = tmp_path / ("data.parquet" if kind == "parquet" else "test_batch.bin")

    def write(rows: int) -> None:
        if kind == "parquet":
            pq.write_table(table(images).slice(0, rows), path)
        else:
            path.write_bytes(bytes(3073 * rows))

    write(20)
    data = load_labelled(path, None)
    write(3)
    with pytest.raises(DistillError, match="missing") as caught:
        list(data.batches(10, [1]))
    assert "\n" not in str(caught.value)


@pytest.fixture
def saved(images: Labelled, tmp_path: Path) -> Path:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})
    rows = {"image": [Image.fromarray(image) for image in images[0]], "label": images[1].tolist()}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.mark.parametrize("form", ["numpy", "torch", "pandas", "arrow"])
def test_a_saved_data_set_with_a_format(images: Labelled, saved: Path, form: str) -> None:
    """The format in which a program read its rows does not matter."""
    datasets.load_from_disk(str(saved)).with_format(form).save_to_disk(saved.with_name(form))
    assert check(saved.with_name(form), images).names == tuple(NAMES)


@pytest.mark.parametrize(
    ("names", "part"),
    [
        (["pipe"], "state.json names 'pipe', expected different files beside it"),
        (["../other.arrow"], "state.json names '../other.arrow', expected different files"),
        (["data-00000-of-00001.arrow"] * 2, "state.json names 'data-00000-of-00001.arrow', expected different"),
        ([], "state.json names no file"),
    ],
)
def test_a_saved_data_set_with_other_files(saved: Path, names: list[str], part: str) -> None:
    """``datasets`` would wait for a pipe, or read a file again and again."""
    os.mkfifo(saved / "pipe")
    state = json.loads((saved / "state.json").read_text())
    (saved / "state.json").write_text(json.dumps(state | {"_data_files": [{"filename": name} for name in names]}))
    with pytest.raises(DistillError, match="saved: the table cannot be read: ") as caught:
        load_labelled(saved, None)
    assert part in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["state.json", "dataset_info.json"])
def test_a_saved_data_set_with_nested_json(saved: Path, name: str) -> None:
    (saved / name).write_text("[" * 100_000)
    with pytest.raises(DistillError, match="saved: the table cannot be read: "):
        load_labelled(saved, None)


def test_a_saved_data_set_that_is_compressed(saved: Path) -> None:
    """Arrow would allocate as many bytes as a compressed buffer declares."""
    (file,) = saved.glob("*.arrow")
    rows = pa.ipc.open_stream(file.read_bytes()).read_all()
    with pa.ipc.new_stream(file, rows.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as stream:
        stream.write_table(rows)
    with pytest.raises(DistillError, match=r"arrow is compressed, expected Arrow data as datasets writes it"):
        load_labelled(saved, None)


def test_a_parquet_file_beside_class_folders_is_not_read(images: Labelled, tmp_path: Path) -> None:
    for image, label in zip(*images, strict=True):
        (tmp_path / NAMES[label]).mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / NAMES[label] / f"{image[0, 0, 0]}-{image[0, 0, 1]}.png")
    pq.write_table(table(images), tmp_path / "metadata.parquet")
    assert load_labelled(tmp_path, None).names == tuple(NAMES)


def corrupted(images: Labelled, fault: str, monkeypatch: pytest.MonkeyPatch) -> bytes:
    rows = table(images)
    match fault:
        case "columns":
            rows = rows.rename_columns(["picture", "label"])
        case "label":
            rows = rows.rename_columns(["image", "y"])
        case "text":
            rows = rows.set_column(1, "label", pa.array(["a"] * len(rows)))
        case "null":
            rows = rows.set_column(1, "label", pa.array([None, *[1] * (len(rows) - 1)]))
        case "negative":
            rows = rows.set_column(1, "label", pa.array([-1] * len(rows)))
        case "list":
            rows = rows.set_column(0, "image", pa.array([[b"x"]] * len(rows)))
        case "path":
            value = {"bytes": None, "path": "a.png"}
            rows = rows.set_column(0, "image", pa.array([value] * len(rows), rows.column(0).type))
        case "noise":
            rows = rows.set_column(0, "image", pa.array([b"noise"] * len(rows)))
        case "numbers":
            rows = rows.set_column(0, "image", pa.array([5] * len(rows)))
        case "page":
            monkeypatch.setattr(tables, "MAX_PAGE_BYTES", 1000)
    target = io.BytesIO()
    pq.write_table(rows, target)
    return target.getvalue()[:-20] if fault == "cut" else target.getvalue()


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        ("columns", "its columns are picture, label, expected a column 'image'"),
        ("label", "its columns are image, y, expected a column 'image'"),
        ("text", "the column 'label' is string"),
        ("null", "with 1 null"),
        ("negative", "the label -1, expected class numbers from 0"),
        ("list", "its columns are image, label, expected"),
        ("path", "row 0 has no bytes of an image"),
        ("noise", "not in a format that Pillow reads"),
        ("numbers", "the column 'image' is int64, expected binary"),
        ("page", "expected at most 1000"),
        ("cut", "its end is not that of a Parquet file"),
    ],
)
def test_bad_parquet(
    run_distill: Program,
    teacher_path: Path,
    images: Labelled,
    tmp_path: Path,
    fault: str,
    found: str,
    monkeypatch: Any,
) -> None:
    path = tmp_path / "data.parquet"
    path.write_bytes(corrupted(images, fault, monkeypatch))
    assert_one_line(run_distill("eval", "--weights", teacher_path, "--data", path), str(path), found)


def test_pack_reads_the_same_images(run_patchgen: Program, images: Labelled, tmp_path: Path) -> None:
    pq.write_table(table(images), tmp_path / "train.parquet")
    result = run_patchgen("pack", tmp_path / "train.parquet", "--out", tmp_path / "set", "--workers", 2)
    assert result.status == 0, result
    assert json.loads((tmp_path / "set" / "manifest.json").read_text())["n"] == len(images[1])
