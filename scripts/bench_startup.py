"""Measure the CPU time (user and system) of both programs for help, completion and usage errors.

Each figure is the minimum over several processes, so that other work on the machine changes it little. The first
lines are Python alone, and Python with click.

    python scripts/bench_startup.py
"""

import os
import resource
import subprocess
import sys
import sysconfig
from pathlib import Path

import click

import distill.cli
import patchgen.cli

PROGRAMS = {"patchgen": patchgen.cli.cli, "distill": distill.cli.cli}
LIMIT = 0.25
"""Maximum CPU seconds of help and usage errors."""


def cpu_seconds(command: list[str], rounds: int, environment: dict[str, str]) -> float:
    """Return the CPU seconds (user and system) of a command, the minimum over ``rounds`` processes."""
    found = []
    for _ in range(rounds):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, env=os.environ | environment, capture_output=True, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(found)


def calls(program: str) -> list[tuple[str, dict[str, str]]]:
    """Return command lines of a program without its name, each with its environment variables."""
    commands = PROGRAMS[program].commands
    lines = ["", "--help", "--version", "nonsense", "--nonsense"]
    for name in commands:
        lines += [f"{name} --help", f"{name} --nonsense"]
    first = next(iter(commands))
    lines += [first, f"{first} {'--n x' if program == 'patchgen' else '--seeds x'}"]
    typed = {
        "COMP_WORDS": f"{program} {first} --",
        "COMP_CWORD": "2",
        f"_{program.upper()}_COMPLETE": "bash_complete",
    }
    return [*((line, {}) for line in lines), ("", typed)]


@click.command()
@click.option("--rounds", default=7, show_default=True, type=click.IntRange(1), help="Processes per command.")
def main(rounds: int) -> None:
    """Print a table of CPU seconds; the exit status is 1 if one is above the limit."""
    for code in ("pass", "import click"):
        print(f"{cpu_seconds([sys.executable, '-c', code], rounds, {}):.3f} s  python -c '{code}'")
    slow = 0
    for program in PROGRAMS:
        script = str(Path(sysconfig.get_path("scripts")) / program)
        for line, environment in calls(program):
            seconds = cpu_seconds([script, *line.split()], rounds, environment)
            shown = f"{program} {line}" if not environment else f"completion of {environment['COMP_WORDS']!r}"
            print(f"{seconds:.3f} s  {shown}{'  ABOVE THE LIMIT' if seconds > LIMIT else ''}")
            slow += seconds > LIMIT
    sys.exit(bool(slow))


if __name__ == "__main__":
    main()
