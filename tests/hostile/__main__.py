"""``list`` prints the name, the expected text and the entrances of each case; ``serve FOLDER`` makes cases on demand.

``serve`` reads one name a line. It makes the case in ``FOLDER`` and answers with an empty line, or with the error.
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
