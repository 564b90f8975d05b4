"""List the hostile cases, or make them on request.

``list`` prints the name, the expected text and the entrances of each case. ``serve FOLDER`` reads names of cases from
stdin, one a line. For each name it makes the case in ``FOLDER``, and prints an empty line or an error.
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
        except Exception as error:  # noqa: BLE001 - any error of a case's own code
            print(repr(error), flush=True)
