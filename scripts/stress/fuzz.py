"""Fuzz one target by coverage with atheris.

    pip install atheris
    python scripts/stress/fuzz.py manifest --seconds 600 [--corpus DIR]

The exit status is 0 if every input was accepted or refused with one line; the number of executions is printed. An
input that breaks the target is written beside the corpus. Minimize it and add it to ``tests/seeds/TARGET``: the
tests run it.
"""

import argparse
import faulthandler
import resource
import sys
import tempfile
from pathlib import Path

import atheris

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
with atheris.instrument_imports(
    include=[
        *("manifests", "patchgen", "webdataset", "tarfile", "pickle", "zipfile"),
        *(
            "distill.config.schema",
            "distill.data",
            "distill.weights.torch_files",
        ),
    ]
):
    from tests.fuzz.targets import MOST, TARGETS

LONGEST = {"manifest": 40_000, "signed": 4_000, "table": 12_000, "archive": 6_000, "labelled": 12_000, "image": 4_000}
SECONDS_EACH = 10
MEMORY = 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--corpus", type=Path)
    options = parser.parse_args()
    target = TARGETS[options.target]
    corpus = options.corpus or Path(tempfile.mkdtemp(prefix=f"corpus-{options.target}-"))
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(target.good()):
        (corpus / f"good-{number}").write_bytes(data)
    for path in (ROOT / "tests" / "seeds" / options.target).glob("*"):
        (corpus / path.name).write_bytes(path.read_bytes())
    faulthandler.enable()

    def run(data: bytes) -> None:
        if len(data) <= MOST:
            target.run(data)

    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    arguments = [
        *(sys.argv[0], str(corpus), f"-max_total_time={options.seconds}", f"-timeout={SECONDS_EACH}"),
        *(f"-rss_limit_mb={start + MEMORY}", f"-max_len={LONGEST.get(options.target, 4_000)}"),
        *(f"-artifact_prefix={corpus}/../{options.target}-", "-print_final_stats=1", "-verbosity=1"),
    ]
    atheris.Setup(arguments, run)
    atheris.Fuzz()


main()
