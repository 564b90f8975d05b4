"""Compute mean and deviation of several runs, and check that the runs differ only in their seeds."""

import json
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distill.config.schema import Config, SupervisedConfig
from distill.errors import DistillError
from distill.training.run_dir import CONFIG_NAME, SUMMARY_NAME, finished_summary
from distill.training.run_identity import DIGESTS, first_difference, run_identity, why_no_mean
from manifests.errors import PatchSetError
from manifests.support.counts import counted
from manifests.support.files import read_regular_file, write_atomically
from manifests.support.yaml_core import parse_yaml

SEED_FOLDER = re.compile(r"seed\d+")  # the name of a run directory that is one of several seeds


def require_same_identity(
    out: Path, config: Config | SupervisedConfig, digests: Mapping[str, str | None], trained: Sequence[Path] = ()
) -> None:
    """Check that a new run of ``config`` can have a mean with the runs of other seeds in the folder ``out``.

    ``digests`` are the digests of the new run, by their keys in ``DIGESTS``. Missing digests are not compared. The
    same command also trains the runs in the folders ``trained``, so they will get the length of the new run.
    """
    folders = (path.parent for path in sorted(out.glob(f"seed*/{CONFIG_NAME}")))
    for folder in (each for each in folders if SEED_FOLDER.fullmatch(each.name)):
        before = _read_identity(folder)
        wanted = run_identity(parse_yaml(config.to_yaml()), {})
        wanted |= {key: before[key] and (digests.get(key) or before[key]) for key in DIGESTS}
        if folder in trained and isinstance(before["config"].get("train"), dict):
            length = {key: value for key, value in wanted["config"]["train"].items() if key in ("samples", "epochs")}
            kept = {
                key: value for key, value in before["config"]["train"].items() if key not in ("samples", "epochs")
            }
            before["config"]["train"] = kept | length
        if different := first_difference(before, wanted):
            label, old, new = different
            found = f"{label} is {old} here and {new} in the new run, but runs must share it to have a mean"
            raise DistillError(f"{folder}: {found}; choose another --out")


def _read_identity(folder: Path) -> dict[str, Any]:
    try:
        config = parse_yaml(read_regular_file(folder / CONFIG_NAME, 1 << 20).decode())
        summary = finished_summary(folder) or {}
    except (OSError, ValueError, PatchSetError) as error:
        raise DistillError(f"{folder}: the run cannot be read: {error}; choose another --out") from error
    if not isinstance(config, dict):
        raise DistillError(f"{folder / CONFIG_NAME}: the file is not the config of a run; choose another --out")
    return run_identity(config, summary)


def summarize_seeds(out: Path, summaries: list[dict[str, Any]], prefix: str) -> str:
    """Write ``out/summary.json`` with the figures that all ``summaries`` have. Return a line with the mean top-1.

    Each figure has ``mean``, ``deviation`` (standard deviation with n - 1; null for one run) and ``values``.
    ``prefix`` begins the names of accuracies: it is ``student_``, or empty for runs from labels.
    """
    names = [f"{prefix}top1", f"{prefix}top5", "agreement", "kl_to_teacher"]
    common = [name for name in names if all(summary.get(name) is not None for summary in summaries)]
    seeds = [summary["seed"] for summary in summaries]
    identities = {f"seed{seed}": run_identity({}, summary) for seed, summary in zip(seeds, summaries, strict=True)}
    if common and (reason := why_no_mean(identities, supervised=not prefix)):
        raise DistillError(f"{out}: the runs of these seeds have no mean: {reason}; choose another --out")
    figures: dict[str, Any] = {name: _spread([summary[name] for summary in summaries]) for name in common}
    if sets := _set_figures(summaries, names):
        figures["evaluations"] = sets
    write_atomically(out / SUMMARY_NAME, (json.dumps({"seeds": seeds, **figures}, indent=1) + "\n").encode())
    written = f"{counted(len(seeds), 'seed')}; {out / SUMMARY_NAME}"
    top1 = figures.get(f"{prefix}top1")
    if top1 is None:
        return written
    spread = "" if top1["deviation"] is None else f" ± {top1['deviation']:.2f}"
    return f"top-1 {top1['mean']:.2f}{spread} % over {written}"


def _spread(values: list[float]) -> dict[str, Any]:
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "deviation": deviation, "values": values}


def _set_figures(summaries: list[dict[str, Any]], names: list[str]) -> dict[str, Any]:
    """Return the spread of the figures ``names`` on each named evaluation set that is equal in all summaries."""
    found = {}
    for set_name, figures in summaries[0].get("evaluations", {}).items():
        every = [summary.get("evaluations", {}).get(set_name, {}) for summary in summaries]
        if all(each.get("eval_sha256") == figures["eval_sha256"] for each in every):
            common = [name for name in names if all(each.get(name) is not None for each in every)]
            found[set_name] = {name: _spread([each[name] for each in every]) for name in common}
    return found
