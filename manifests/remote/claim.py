"""Read and write the claim file of a store. It contains the id of the build whose upload is not finished."""

import json
import re
from functools import partial

from manifests.remote.download import read_small_file, retry
from manifests.remote.store import ShardStore
from manifests.remote.transfers import direct_channel
from manifests.verify import BUILD_MARKER

CLAIM_NAME = f"{BUILD_MARKER}-upload.json"  # readers of a set ignore this file
UNCLAIMED, INVALID_CLAIM = "", "?"
_MAX_CLAIM_BYTES = 1 << 16
_ID = re.compile(r"[0-9a-z]{0,64}")


def read_claim(store: ShardStore) -> str:
    """Return the build id in the claim file of a store, which may be ``UNCLAIMED``, or ``INVALID_CLAIM``."""
    data = read_small_file(store, CLAIM_NAME, _MAX_CLAIM_BYTES, direct_channel())
    try:
        claim = json.loads(data)["build"]
        return claim if _ID.fullmatch(claim) else INVALID_CLAIM
    except (ValueError, RecursionError, TypeError, LookupError):
        return INVALID_CLAIM


def write_claim(store: ShardStore, build_id: str) -> None:
    """Write a claim file with the id of a build into a store, so that no other build writes into it."""
    store.make_folder()
    retry(partial(store.put, json.dumps({"build": build_id}).encode(), CLAIM_NAME), direct_channel())


def claimed_message(store: ShardStore, found: str, build_id: str | None) -> str:
    """Return an error message: a store is claimed for the build ``found`` and not for ``build_id``."""
    what = f"belongs to an unfinished upload of the build {found}, expected the build {build_id}"
    return f"{store.display(CLAIM_NAME)}: {what}; choose another --out, or remove the files in this folder"
