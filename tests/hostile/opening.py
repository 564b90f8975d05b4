"""Use a set as a user's program does: open the set, verify its shards, read rows and patches."""

import sys
from pathlib import Path

from manifests import PatchSetError, open_patchset, verify_shards


def main(folder: str) -> int:
    """Read a set. Return 0, or return 1 after one line on stderr."""
    try:
        patchset = open_patchset(Path(folder))
        verify_shards(patchset)
        for index in range(min(len(patchset), 100)):
            patchset.row(index)
            _ = patchset[index]
    except PatchSetError as error:
        print(f"opening: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
