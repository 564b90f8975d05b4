"""The claim file of a store: it says for which build files are being sent there, so that two builds do not mix."""

import json
import re
from functools import partial

from manifests.remote.download import read_small_file, retry
from manifests.remote.store import ShardStore
from manifests.remote.transfers import direct_channel
from manifests.verify import BUILD_MARKER

CLAIM_NAME = f"{BUILD_MARKER}-upload.json"
"""Name of the claim file. Readers of a set ignore it."""
UNCLAIMED, INVALID_CLAIM = "", "?"
_MAX_CLAIM_BYTES = 1 << 16
_ID = re.compile(r"[0-9a-z]{0,64}")


def read_claim(store: ShardStore) -> str:
    """Return the id of the build that the claim file of a store names, ``UNCLAIMED`` or ``INVALID_CLAIM``."""
    data = read_small_file(store, CLAIM_NAME, _MAX_CLAIM_BYTES, direct_channel())
    try:
        claim = json.loads(data)["build"]
        return claim if _ID.fullmatch(claim) else INVALID_CLAIM
    except (ValueError, RecursionError, TypeError, LookupError):
        return INVALID_CLAIM


def write_claim(store: ShardStore, build_id: str) -> None:
    """Claim a store for a build."""
    store.make_folder()
    retry(partial(store.put, json.dumps({"build": build_id}).encode(), CLAIM_NAME), direct_channel())


def claimed_message(store: ShardStore, found: str, build_id: str | None) -> str:
    """Return an error message for a store that is claimed for the build ``found``, and not for ``build_id``."""
    what = f"belongs to an unfinished upload of the build {found}, this is the build {build_id}"
    return f"{store.display(CLAIM_NAME)}: {what}; choose another --out, or remove what lies there"
