"""Runs that differ only in their seed: mean and deviation of their figures."""

import json
import re
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from distill.config.schema import Config, SupervisedConfig
from distill.errors import DistillError
from distill.training import provenance
from distill.training.checkpoint import holds_checkpoint
from distill.training.run_dir import CONFIG_NAME, SUMMARY_NAME, finished_summary
from manifests.errors import PatchSetError
from manifests.support.counts import counted
from manifests.support.files import read_regular_file, write_atomically
from manifests.support.system_files import entries
from manifests.support.yaml_core import parse_yaml

_SEED_FOLDER = re.compile(r"seed\d+")
_MOST_BYTES = 1 << 20
FIGURES = ("top1", "top5")
SHARED = ("agreement", "kl_to_teacher")


def check_seeds_folder(out: Path, resume: bool) -> None:
    """Check that ``out`` is free for runs of several seeds, or holds some to go on with.

    Raises:
        DistillError: it is a single run's, or holds something and ``resume`` was not asked for.
    """
    if holds_checkpoint(out):
        raise DistillError(f"{out}: holds a run of one seed; choose another --out for several")
    if not resume and out.is_dir() and entries(out):
        raise DistillError(f"{out}: is not empty; add --resume to go on with its runs, or choose another --out")


Known = Mapping[str, Callable[[], str | None]]
"""Functions that compute the digests of a run's summary, by their keys in ``provenance.DIGESTS``."""


def require_same_origin(out: Path, config: Config | SupervisedConfig, known: Known) -> None:
    """Check that runs of ``config`` differ from the seeds in ``out`` in nothing but the seed.

    Raises:
        DistillError: a seed there is of another config, set, teacher or other data, or is damaged.
    """
    digests: dict[str, str | None] = {}
    for folder in sorted(out.glob("seed*")):
        if not (_SEED_FOLDER.fullmatch(folder.name) and (folder / CONFIG_NAME).is_file()):
            continue
        held = _origin_of(folder)
        for key in known:
            if held[key] is not None and key not in digests:
                digests[key] = known[key]()
        wanted = provenance.origin(parse_yaml(config.to_yaml()), {})
        wanted |= {key: digests.get(key) or held[key] for key in provenance.DIGESTS}  # unknown: no difference
        if different := provenance.difference(held, wanted):
            label, old, new = different
            raise DistillError(
                f"{folder}: {label} was {old}, is now {new}, and a mean is over seeds that share it; "
                "choose another --out"
            )


def _origin_of(folder: Path) -> dict[str, Any]:
    try:
        config = parse_yaml(read_regular_file(folder / CONFIG_NAME, _MOST_BYTES).decode())
        summary = finished_summary(folder) or {}
    except (OSError, ValueError, PatchSetError) as error:
        raise DistillError(f"{folder}: damaged: {error}; choose another --out") from error
    if not isinstance(config, dict):
        raise DistillError(f"{folder / CONFIG_NAME}: damaged: expected groups of keys; choose another --out")
    return provenance.origin(config, summary)


def summarise(out: Path, summaries: list[dict[str, Any]], prefix: str) -> str:
    """Write ``out/summary.json`` over the summaries of runs, and return a line with top-1.

    ``mean`` and ``deviation`` (of the sample, n - 1; null for one run) are given for every figure all runs have.

    Raises:
        DistillError: the runs differ in more than their seeds.
    """
    names = [*(prefix + figure for figure in FIGURES), *SHARED]
    held = [name for name in names if all(summary.get(name) is not None for summary in summaries)]
    seeds = [summary["seed"] for summary in summaries]
    origins = {f"seed{seed}": provenance.origin({}, summary) for seed, summary in zip(seeds, summaries, strict=True)}
    if held and (reason := provenance.no_mean(origins, supervised=not prefix)):
        raise DistillError(f"{out}: its seeds have no mean; {reason}; choose another --out")
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
