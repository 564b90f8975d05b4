"""``list``: a line a case, its name, what is said, and its entrances. ``serve HERE``: make cases as they are asked.

It reads a name a line and answers each, once the case is made in the folder ``HERE``, with a line that is empty or
says what went wrong.
"""

import os
import sys
from pathlib import Path

from tests.hostile.corpus import CASES

if sys.argv[1] == "list":
    for case in CASES:
        print(case.name, case.said, *case.entrances, sep="\t")
else:
    makers = {case.name: case.make for case in CASES}
    for line in sys.stdin:
        os.chdir(sys.argv[2])
        try:
            makers[line.strip("\n")](Path.cwd())
            print(flush=True)
        except Exception as error:  # noqa: BLE001 - whatever a case's own code does
            print(repr(error), flush=True)
