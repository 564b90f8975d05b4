"""Several runs that differ in their seed: mean and deviation of what they reached."""

import json
import statistics
from pathlib import Path
from typing import Any

from distill.checkpoint import holds_checkpoint
from distill.errors import DistillError
from distill.session import SUMMARY_NAME
from manifests.counts import counted
from manifests.files import write_atomically
from manifests.system_files import entries

FIGURES = ("top1", "top5")
SHARED = ("agreement", "kl_to_teacher")


def check_seeds_folder(out: Path, resume: bool) -> None:
    """Make sure that runs of several seeds begin in a folder of their own.

    Raises:
        DistillError: it is a single run's, or holds something and ``resume`` was not asked for.
    """
    if holds_checkpoint(out):
        raise DistillError(f"{out}: holds a run of one seed; choose another --out for several")
    if not resume and out.is_dir() and entries(out):
        raise DistillError(f"{out}: is not empty; add --resume to go on with its runs, or choose another --out")


def summarise(out: Path, summaries: list[dict[str, Any]], prefix: str) -> str:
    """Write ``out/summary.json`` over runs' summaries, and return its top-1 as a line.

    ``mean`` and ``deviation`` (of the sample, n - 1; null for one run) are given for every figure all runs have.

    Raises:
        DistillError: they were measured on different evaluation data.
    """
    if len({summary.get("eval_sha256") for summary in summaries} - {None}) > 1:
        raise DistillError(
            f"{out}: its runs were measured on different evaluation data, so they have no mean; "
            "measure each with distill eval, or choose another --out"
        )
    names = [*(prefix + figure for figure in FIGURES), *SHARED]
    held = [name for name in names if all(summary.get(name) is not None for summary in summaries)]
    seeds = [summary["seed"] for summary in summaries]
    figures = {name: _spread([summary[name] for summary in summaries]) for name in held}
    write_atomically(out / SUMMARY_NAME, (json.dumps({"seeds": seeds, **figures}, indent=1) + "\n").encode())
    top1 = figures.get(f"{prefix}top1")
    if top1 is None:
        return f"{counted(len(seeds), 'seed')}; {out / SUMMARY_NAME}"
    deviation = "" if top1["deviation"] is None else f" ± {top1['deviation']:.2f}"
    return f"top-1 {top1['mean']:.2f}{deviation} % over {counted(len(seeds), 'seed')}; {out / SUMMARY_NAME}"


def _spread(values: list[float]) -> dict[str, Any]:
    return {
        "mean": statistics.fmean(values),
        "deviation": statistics.stdev(values) if len(values) > 1 else None,
        "values": values,
    }
