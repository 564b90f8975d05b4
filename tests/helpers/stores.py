"""Helpers for tests of shards in a store: read and write objects, find temporary folders, wait for a condition."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from manifests.support.files import PART_PREFIX

URL = "s3://lab/sets/one"


def stored(s3: Any) -> dict[str, bytes]:
    listed = s3.list_objects_v2(Bucket="lab", Prefix="sets/one/").get("Contents", [])
    keys = [entry["Key"] for entry in listed]
    return {key.rpartition("/")[2]: s3.get_object(Bucket="lab", Key=key)["Body"].read() for key in keys}


def put(s3: Any, name: str, data: bytes) -> None:
    s3.put_object(Bucket="lab", Key=f"sets/one/{name}", Body=data)


def parts(scratch: Path) -> list[Path]:
    return [path for path in scratch.rglob(f"{PART_PREFIX}*") if path.is_dir()]


def wait_until(found: Callable[[], Any], seconds: float = 120) -> Any:
    end = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < end
        time.sleep(0.002)
    return value
