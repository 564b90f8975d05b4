"""``list``: a line a case, its name, what is said, and its entrances. ``make NAME``: the case, in this folder."""

import sys
from pathlib import Path

from tests.hostile.corpus import CASES

if sys.argv[1] == "list":
    for case in CASES:
        print(case.name, case.said, *case.entrances, sep="\t")
else:
    next(case for case in CASES if case.name == sys.argv[2]).make(Path())
