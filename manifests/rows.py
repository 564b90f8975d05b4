"""The Parquet file of a shard: one row per patch, in index order.

The six columns here are the contract. Columns after them are the writer's: the parameters it applied.
"""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.digest import DIGEST_BYTES
from manifests.errors import PatchSetError

CONTRACT = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("index", pa.int64(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("sha256", pa.binary(DIGEST_BYTES), nullable=False),
        pa.field("pixels", pa.binary(DIGEST_BYTES), nullable=False),
    ]
)
METADATA_KEY = b"patchset"
"""Key of the Parquet file metadata under which a writer keeps its own JSON record of the shard."""


def read_pixel_digests(path: Path) -> bytes:
    """The raw pixel digests of a shard's patches, 32 bytes each, in row order.

    Raises:
        PatchSetError: the file is not Parquet, or has no such column.
    """
    try:
        with path.open("rb") as file:  # opened here: PyArrow takes no name that is not UTF-8
            column = pq.read_table(file, columns=["pixels"]).column("pixels").combine_chunks()
    except (pa.ArrowException, KeyError, OSError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise PatchSetError(f"{path}: cannot read the column 'pixels': {first}; rebuild the shard") from error
    if column.type != pa.binary(DIGEST_BYTES) or column.null_count:
        raise PatchSetError(f"{path}: the column 'pixels' is {column.type}, expected 32-byte digests")
    # Buffer 1 of a fixed-size binary array holds the values; a slice starts at its offset.
    start = column.offset * DIGEST_BYTES
    values: bytes = column.buffers()[1][start : start + len(column) * DIGEST_BYTES].to_pybytes()
    return values


def read_metadata(path: Path) -> bytes | None:
    """The writer's JSON record in a Parquet file, or None when the file is unreadable or has none."""
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            metadata: dict[bytes, bytes] | None = pq.read_schema(file).metadata
    except (pa.ArrowException, OSError):
        return None
    return (metadata or {}).get(METADATA_KEY)


def table(contract: dict[str, Any], parameters: dict[str, Any], record: bytes) -> pa.Table:
    """A shard's table: the six contract columns, the writer's ``parameters``, and its ``record``."""
    columns = {field.name: pa.array(contract[field.name], type=field.type) for field in CONTRACT}
    columns |= {name: pa.array(values) for name, values in parameters.items()}
    fields = [*CONTRACT, *(pa.field(name, columns[name].type) for name in parameters)]
    return pa.table(columns, schema=pa.schema(fields, metadata={METADATA_KEY: record}))
