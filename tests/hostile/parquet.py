"""Hostile Parquet files of labelled images: decompression bombs, false counts, other types, and pipes."""

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.hostile.case import Case
from tests.hostile.forge import Make

NAME = "rows.parquet"
READ = ("eval-parquet", "pack-parquet")


def _table(change: Callable[[pa.Table], pa.Table], **options: Any) -> Make:
    def make(world: Path) -> None:
        pq.write_table(change(pq.read_table(world / NAME)), world / NAME, **options)

    return make


def _bytes(change: Callable[[bytes], bytes]) -> Make:
    def make(world: Path) -> None:
        (world / NAME).write_bytes(change((world / NAME).read_bytes()))

    return make


def _images(*values: Any) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.set_column(0, "image", pa.array(list(values)))


def _labels(*values: Any) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.set_column(1, "label", pa.array(list(values)))


def _nested(table: pa.Table) -> pa.Table:
    kind = pa.binary()
    for _ in range(30):
        kind = pa.struct([("bytes", kind)])
    return table.set_column(0, "image", pa.nulls(table.num_rows, kind))


def _pipe(world: Path) -> None:
    (world / NAME).unlink()
    os.mkfifo(world / NAME)


BOMB = b"\0" * (80 << 20)
CASES = (
    Case(
        name="parquet: an image of 80 MB in a small page",
        make=_table(_images(BOMB, b"x", b"x", b"x"), compression="zstd", use_dictionary=False),
        entrances=READ,
        said="expected at most",
    ),
    Case(
        name="parquet: a dictionary of 80 MB",
        make=_table(_images(BOMB, b"x", BOMB, b"x"), compression="zstd", dictionary_pagesize_limit=1 << 30),
        entrances=READ,
        said="expected at most",
    ),
    Case(
        name="parquet: an image of 40 MB in 20 rows",
        make=_table(
            lambda table: pa.table(
                {
                    "image": pa.array([BOMB[: 40 << 20]]).take(pa.array([0] * 20)),
                    "label": pa.array([1] * 20),
                }
            ),
            compression="zstd",
            dictionary_pagesize_limit=1 << 30,
        ),
        entrances=READ,
        said="not a whole image",
    ),
    Case(
        name="parquet: labels that are long texts",
        make=_table(_labels(*["0" * (12 << 20)] * 4), compression="zstd"),
        entrances=("eval-parquet",),
        said="more data than 4 rows can need",
    ),
    Case(name="parquet: lists", make=_table(_images([b"x"], [], [], [])), entrances=READ, said="its columns are"),
    Case(name="parquet: deep groups", make=_table(_nested), entrances=READ, said="its columns are|damaged|nested"),
    Case(
        name="parquet: no images", make=_table(_images(None, None, None, None)), entrances=READ, said="rows.parquet"
    ),
    Case(
        name="parquet: labels above all classes",
        make=_table(_labels(999_999, 1, 2, 3)),
        entrances=("eval-parquet",),
        said="expected 0 to 3",
    ),
    Case(
        name="parquet: a label of 2^63",
        make=_table(lambda table: table.set_column(1, "label", pa.array([2**63, 1, 2, 3], pa.uint64()))),
        entrances=("eval-parquet",),
        said="expected class numbers from 0",
    ),
    Case(name="parquet: cut off", make=_bytes(lambda data: data[:-9]), entrances=READ, said="Parquet file"),
    Case(
        name="parquet: a footer of 2 GB",
        make=_bytes(lambda data: data[:-8] + struct.pack("<I", 2**31) + b"PAR1"),
        entrances=READ,
        said="its footer has",
    ),
    Case(name="parquet: encrypted", make=_bytes(lambda data: data[:-4] + b"PARE"), entrances=READ, said="encrypted"),
    Case(
        name="parquet: no rows",
        make=_table(lambda table: table.slice(0, 0)),
        entrances=READ,
        said="no image|declares",
    ),
    Case(name="parquet: a pipe", make=_pipe, entrances=READ, said="rows.parquet"),
)
