"""Train the lines of a table, several at a time, and append one JSON object for each finished run to a file.

    python scripts/measure/train_lines.py benchmarks/students/factors.txt --record results.jsonl

A line of the file is ``NAME | SEEDS | ARGUMENTS``: ``distill train ARGUMENTS --set train.seed=SEED`` runs once for
each seed, and ``{seed}`` in ARGUMENTS becomes the seed. After ``@WORD = TEXT``, TEXT replaces @WORD in later lines.
Empty lines and lines that start with # have no effect. The file is read again before each run, so lines can be added.

Each run has one thread and its folder ``OUT/NAME/SEED``. A run that is in the record is not repeated. An interrupted
run continues with ``--resume``.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import click

SECONDS = 2.0
TAKEN = ("seed", "teacher_sha256", "config_sha256", "sha256", "set_id", "images_per_second", "seconds")


@click.command(help=__doc__)
@click.argument("lines", type=click.Path(path_type=Path, exists=True))
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs"), show_default=True)
@click.option("--record", type=click.Path(path_type=Path), required=True)
@click.option("--jobs", type=click.IntRange(1), default=2, show_default=True)
def main(lines: Path, out: Path, record: Path, jobs: int) -> None:
    """Start the first run that is neither done nor running, until all are done."""
    running: dict[str, tuple[subprocess.Popen[bytes], str]] = {}
    failed: set[str] = set()
    while True:
        for name, (process, given) in list(running.items()):
            if process.poll() is not None:
                if process.returncode:
                    failed.add(name)
                    click.echo(f"{name}: exit status {process.returncode}, see {out / name}.log")
                else:
                    _append(record, name, out / name, given)
                del running[name]
        taken = _done(record) | failed | running.keys()
        waiting = [job for job in _jobs(lines) if job[0] not in taken]
        if waiting and len(running) < jobs:
            name, arguments = waiting[0]
            running[name] = _start(name, arguments, out), arguments
            click.echo(f"{time.strftime('%H:%M:%S')} {name}")
            continue
        if not running:
            break
        time.sleep(SECONDS)
    sys.exit(bool(failed))


def _jobs(lines: Path) -> list[tuple[str, str]]:
    """Return the name and the arguments of each run."""
    jobs: list[tuple[str, str]] = []
    words: dict[str, str] = {}
    for raw in lines.read_text().splitlines():
        line = re.sub(r"@\w+", lambda found: words.get(found[0], found[0]), raw)
        if line.startswith("@"):
            word, text = (part.strip() for part in line.split("=", 1))
            words[word] = text
        elif line.strip() and not line.startswith("#"):
            name, seeds, arguments = (part.strip() for part in line.split("|", 2))
            jobs += [(f"{name}/{seed}", arguments.replace("{seed}", seed)) for seed in seeds.split()]
    return jobs


def _done(record: Path) -> set[str]:
    rows = map(json.loads, record.read_text().splitlines()) if record.exists() else iter(())
    return {f"{row['line']}/{row['seed']}" for row in rows}


def _start(name: str, arguments: str, out: Path) -> subprocess.Popen[bytes]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    seed = name.rpartition("/")[2]
    command = [sys.executable, "-m", "distill", "train", *shlex.split(arguments), "--resume"]
    command += ["--set", f"train.seed={seed}", "--set", "data.workers=0", "--out", str(out / name)]
    log = out / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as stream:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, env=environment)


def _append(record: Path, name: str, run: Path, arguments: str) -> None:
    """Append what the summary of a finished run says to the record."""
    summary = json.loads((run / "summary.json").read_text())
    row = {"line": name.rpartition("/")[0], "samples": summary["samples_seen"], "top1": summary["student_top1"]}
    row |= {key: summary[key] for key in ("agreement", "teacher_top1")}
    row |= {name: figures["student_top1"] for name, figures in summary.get("evaluations", {}).items()}
    row |= {key: summary[key] for key in TAKEN} | {"arguments": arguments}
    row |= {key: summary["environment"][key] for key in ("processor", "precision", "threads", "torch")}
    with record.open("a") as stream:
        stream.write(json.dumps(row, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
