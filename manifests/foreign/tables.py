"""Read labelled images in Parquet files and in data sets that Hugging Face ``datasets`` has saved.

A row has the encoded bytes of an image and a class number. Parquet files are untrusted: before Arrow decodes a
column, the declared sizes of its pages are checked.
"""

import contextlib
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.errors import PatchSetError
from manifests.support.counts import counted
from manifests.support.files import read_regular_file
from manifests.untrusted.arrow_limits import require_plain_arrow
from manifests.untrusted.parquet_limits import Footer, read_footer, require_bounded_pages

PARQUET_SUFFIX = ".parquet"
IMAGE_COLUMNS, LABEL_COLUMNS = ("image", "img"), ("label", "fine_label")
MAX_PAGE_BYTES = 64 << 20  # of a column of images; a page has at least one image
MAX_ROWS, MAX_LABEL = 10_000_000, 10**9
MAX_STATE_BYTES = 16 << 20  # of each file that describes a saved data set
BATCH_ROWS = 8  # that are decoded at once: a row of a dictionary may have as many bytes as a page
_BUFFER = 1 << 20  # bytes that are read ahead in a column, because a row group may be larger than the memory
_FORM = "a column 'image' of encoded images (bytes, or a group with 'bytes') and a column 'label' of class numbers"


def read_table(path: Path, *, with_labels: bool) -> tuple[int, tuple[int, ...], tuple[str, ...]]:
    """Return the number of rows, the labels and the class names of a Parquet file. Unknown names are an empty tuple.

    Without ``with_labels``, only the column of images is checked, and the labels are empty.
    """
    with _errors(path), _open(path) as file:
        footer = read_footer(file)
        _image_leaf(path, footer)
        if footer.rows > MAX_ROWS:
            raise ValueError(f"it has {counted(footer.rows, 'row')}, expected at most {MAX_ROWS}")
        if not with_labels:
            return footer.rows, (), ()
        name = next((name for name in LABEL_COLUMNS if name in footer.flat), None)
        if name is None:
            raise ValueError(f"its columns are {', '.join(footer.columns)[:100]}, expected {_FORM}")
        require_bounded_pages(file, footer, [name])
        column = pq.ParquetFile(file, pre_buffer=False).read(columns=[name], use_threads=False).column(name)
        if not pa.types.is_integer(column.type) or column.null_count:
            found = f"is {column.type} with {counted(column.null_count, 'null')}"
            raise ValueError(f"the column {name!r} {found}, expected whole numbers without nulls")
        labels = _checked(column.to_pylist(), name)
        return footer.rows, labels, _class_names(footer.metadata.get(b"huggingface", b""), name)


def _checked(labels: list[Any], column: str) -> tuple[int, ...]:
    for label in labels:
        if not isinstance(label, int) or not 0 <= label < MAX_LABEL:
            raise ValueError(f"the column {column!r} has the label {str(label)[:40]}, expected class numbers from 0")
    return tuple(labels)


def _image_leaf(path: Path, footer: Footer) -> str:
    """Return the path in the schema of the column with encoded images."""
    leaves = [leaf for name in IMAGE_COLUMNS for leaf in (name, f"{name}.bytes") if leaf in footer.flat]
    if not leaves:
        raise ValueError(f"its columns are {', '.join(footer.columns)[:100]}, expected {_FORM}")
    return leaves[0]


def _class_names(metadata: bytes, column: str) -> tuple[str, ...]:
    """Return the class names in the metadata that Hugging Face ``datasets`` writes into Parquet files."""
    try:
        names = json.loads(metadata)["info"]["features"][column]["names"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return ()
    is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return tuple(names) if is_list else ()


class ParquetRows:
    """The encoded images of a Parquet file. Reading the rows in order decodes each page once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with _errors(path):
            self._file = _open(path)
            footer = read_footer(self._file)
            self._leaf = _image_leaf(path, footer)
            require_bounded_pages(self._file, footer, [self._leaf], page_bytes=MAX_PAGE_BYTES)
            self._table = pq.ParquetFile(self._file, pre_buffer=False, buffer_size=_BUFFER)
            counts = [self._table.metadata.row_group(k).num_rows for k in range(self._table.num_row_groups)]
        self._ends = [sum(counts[: k + 1]) for k in range(len(counts))]
        self._values: Iterator[Any] = iter(())
        self._next = self._end = 0  # the next row, and the end of its row group

    def read(self, row: int) -> bytes:
        """Return the encoded image of a row."""
        with _errors(self._path):
            if not self._next <= row < self._end:
                group = next((k for k, end in enumerate(self._ends) if row < end), None)
                if group is None:
                    raise ValueError(f"row {row} is missing; the file has changed while it was read")
                self._next, self._end = ([0, *self._ends][group], self._ends[group])
                self._values = self._group(group)
            for value in self._values:
                self._next += 1
                if self._next > row:
                    if not isinstance(value, bytes):
                        raise ValueError(f"row {row} has no bytes of an image; write the images into the file")
                    return value
            raise ValueError(f"row {row} is missing")

    def _group(self, group: int) -> Iterator[Any]:
        batches = self._table.iter_batches(BATCH_ROWS, row_groups=[group], columns=[self._leaf], use_threads=False)
        for batch in batches:
            column = batch.column(0)
            column = column.field("bytes") if pa.types.is_struct(column.type) else column
            if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
                raise ValueError(f"the column {self._leaf!r} is {column.type}, expected binary")
            yield from column.to_pylist()


def saved_splits(folder: Path) -> tuple[str, ...] | None:
    """Return the splits of a saved ``DatasetDict``; () for a saved ``Dataset``; None for another folder."""
    if (folder / "dataset_dict.json").is_file():
        names = sorted(path.name for path in folder.iterdir() if (path / "state.json").is_file())
        if not names:
            raise PatchSetError(f"{folder}: the saved data set has no splits; save it again with save_to_disk")
        return tuple(names)
    return () if all((folder / name).is_file() for name in ("state.json", "dataset_info.json")) else None


class SavedRows:
    """The images and labels of a ``Dataset`` that Hugging Face ``datasets`` has saved with ``save_to_disk``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            import datasets  # noqa: PLC0415 - an optional dependency, which takes seconds to import
        except ImportError as error:
            found = f"{folder}: a saved data set needs the package datasets, which is not installed"
            raise PatchSetError(f"{found}; run pip install datasets") from error
        with _errors(folder):
            _require_own_files(folder)
            datasets.disable_progress_bars()
            opened = datasets.load_from_disk(str(folder)).with_format(
                None
            )  # it may be saved with format numpy or torch
            opened.data.table.validate(full=True)
            image = next((name for name in IMAGE_COLUMNS if name in opened.features), None)
            label = next((name for name in LABEL_COLUMNS if name in opened.features), None)
            kinds = {name: type(feature).__name__ for name, feature in opened.features.items()}
            if image is None or not isinstance(opened.features[image], datasets.Image):
                raise ValueError(f"its columns are {str(kinds)[:100]}, expected {_FORM}")
            self.classes = tuple(map(str, getattr(opened.features.get(label), "names", None) or ()))
            self.labels: tuple[int, ...] | None = None
            if label is not None:
                self.labels = _checked(opened.select_columns([label])[:][label], label)
            self._rows = opened.select_columns([image]).cast_column(image, datasets.Image(decode=False))
            self._image = image

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, row: int) -> bytes:
        """Return the encoded image of a row."""
        with _errors(self._folder):
            value = self._rows[row][self._image]
            if not isinstance(value, dict) or not isinstance(value.get("bytes"), bytes):
                raise ValueError(f"row {row} has no bytes of an image; save the data set with its images")
            return value["bytes"]


def _require_own_files(folder: Path) -> None:
    """Raise ValueError if a saved data set has no regular files of its own, because ``datasets`` opens any file."""
    read_regular_file(folder / "dataset_info.json", MAX_STATE_BYTES)
    files = json.loads(read_regular_file(folder / "state.json", MAX_STATE_BYTES))["_data_files"]
    names = [file["filename"] for file in files]
    for name in names:
        if Path(name).name != name or names.count(name) > 1 or not (folder / name).is_file():
            raise ValueError(f"state.json names {str(name)[:100]!r}, expected different files beside it")
        require_plain_arrow(folder / name)
    if not names:
        raise ValueError("state.json names no file, expected a data set with images")


@functools.lru_cache(maxsize=1)
def open_rows(path: str, version: tuple[int, int]) -> ParquetRows | SavedRows:
    """Open a Parquet file or a saved data set, and keep it open until its ``version`` changes."""
    return SavedRows(Path(path)) if Path(path).is_dir() else ParquetRows(Path(path))


@contextlib.contextmanager
def _errors(path: Path) -> Iterator[None]:
    """Turn the errors of damaged tables into PatchSetErrors of one line."""
    try:
        yield
    except PatchSetError:
        raise
    except (
        pa.ArrowException,
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        MemoryError,
        RuntimeError,
    ) as error:
        reason = (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0][:300]
        raise PatchSetError(f"{path}: the table cannot be read: {reason}; correct the table") from error


def _open(path: Path) -> BinaryIO:
    if not path.is_file():  # reading a pipe would wait forever
        raise ValueError("it is not a regular file")
    return path.open("rb")
