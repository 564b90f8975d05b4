"""Read and write the claim file of a store. The file contains the id of the build that uploads a set to the store."""

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
    """Return the build id in a store's claim file. Return ``INVALID_CLAIM`` if the file is damaged."""
    data = read_small_file(store, CLAIM_NAME, _MAX_CLAIM_BYTES, direct_channel())
    try:
        claim = json.loads(data)["build"]
        return claim if _ID.fullmatch(claim) else INVALID_CLAIM
    except (ValueError, RecursionError, TypeError, LookupError):
        return INVALID_CLAIM


def write_claim(store: ShardStore, build_id: str) -> None:
    """Write a claim file with the id of a build into a store, so that no other build uses the store."""
    store.make_folder()
    retry(partial(store.put, json.dumps({"build": build_id}).encode(), CLAIM_NAME), direct_channel())


def claimed_message(store: ShardStore, found: str) -> str:
    """Return the error message for a store that another build has claimed. ``found`` is the id of the other build."""
    owner = "an unknown build" if found == INVALID_CLAIM else f"the build {found}, which has other options"
    what = f"this file belongs to an unfinished upload of {owner}"
    return f"{store.display(CLAIM_NAME)}: {what}; choose another --out, or remove all files in the remote folder"
