"""Runs that differ only in their seed: mean and deviation of their results."""

import json
import re
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from distill.config.schema import Config, SupervisedConfig
from distill.errors import DistillError
from distill.training.checkpoint import holds_checkpoint
from distill.training.run_dir import CONFIG_NAME, SUMMARY_NAME, finished_summary
from distill.training.run_identity import DIGESTS, first_difference, run_identity, why_no_mean
from manifests.errors import PatchSetError
from manifests.support.counts import counted
from manifests.support.files import read_regular_file, write_atomically
from manifests.support.system_files import entries
from manifests.support.yaml_core import parse_yaml

SEED_FOLDER = re.compile(r"seed\d+")  # the name of a run directory that is one of several seeds
MAX_CONFIG_BYTES = 1 << 20


def check_seeds_folder(out: Path, resume: bool) -> None:
    """Check that runs of several seeds may start in ``out``."""
    if holds_checkpoint(out):
        raise DistillError(f"{out}: holds a run of one seed; choose another --out for several")
    if not resume and out.is_dir() and entries(out):
        raise DistillError(f"{out}: is not empty; add --resume to go on with its runs, or choose another --out")


def require_same_identity(
    out: Path, config: Config | SupervisedConfig, digests: Callable[[], Mapping[str, str | None]]
) -> None:
    """Check that new runs of ``config`` may have a mean with the runs that ``out`` already holds.

    ``digests`` computes those that the summaries of new runs will have, by their keys in ``DIGESTS``; what it or a
    held run lacks is not compared.
    """
    folders = [path for path in sorted(out.glob("seed*")) if SEED_FOLDER.fullmatch(path.name)]
    folders = [path for path in folders if (path / CONFIG_NAME).is_file()]
    known = digests() if folders else {}
    for folder in folders:
        held = _held_identity(folder)
        wanted = run_identity(parse_yaml(config.to_yaml()), {})
        wanted |= {key: held[key] and (known.get(key) or held[key]) for key in DIGESTS}
        if different := first_difference(held, wanted):
            label, old, new = different
            raise DistillError(
                f"{folder}: {label} was {old}, is now {new}, and a mean is over seeds that share it; "
                "choose another --out"
            )


def _held_identity(folder: Path) -> dict[str, Any]:
    try:
        config = parse_yaml(read_regular_file(folder / CONFIG_NAME, MAX_CONFIG_BYTES).decode())
        summary = finished_summary(folder) or {}
    except (OSError, ValueError, PatchSetError) as error:
        raise DistillError(f"{folder}: damaged: {error}; choose another --out") from error
    if not isinstance(config, dict):
        raise DistillError(f"{folder / CONFIG_NAME}: damaged: expected groups of keys; choose another --out")
    return run_identity(config, summary)


def summarize_seeds(out: Path, summaries: list[dict[str, Any]], prefix: str) -> str:
    """Write ``out/summary.json`` over the runs' ``summaries``, and return the top-1 as a line.

    Every figure that all runs have gets ``mean``, ``deviation`` (of the sample, n - 1; null for one run) and
    ``values``. ``prefix`` stands before the keys of accuracies: ``student_``, or nothing for supervised runs.
    """
    names = [f"{prefix}top1", f"{prefix}top5", "agreement", "kl_to_teacher"]
    common = [name for name in names if all(summary.get(name) is not None for summary in summaries)]
    seeds = [summary["seed"] for summary in summaries]
    identities = {f"seed{seed}": run_identity({}, summary) for seed, summary in zip(seeds, summaries, strict=True)}
    if common and (reason := why_no_mean(identities, supervised=not prefix)):
        raise DistillError(f"{out}: its seeds have no mean; {reason}; choose another --out")
    figures = {name: _spread([summary[name] for summary in summaries]) for name in common}
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
