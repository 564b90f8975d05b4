"""``distill make-logits`` and ``distill verify-logits``: store the logits of a teacher, and check stored logits."""

import dataclasses
import itertools
import platform
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from distill.augment import normalize
from distill.commands.student import require_one_teacher
from distill.commands.train import open_evaluators, open_view, student_normalization
from distill.config.schema import Config
from distill.data.batches import View
from distill.errors import DistillError
from distill.models import build_model
from distill.runtime.compile import Accelerator, make_accelerator
from distill.runtime.device import Precision
from distill.runtime.distributed import RunContext
from distill.runtime.randomness import Stream
from distill.targets import stored_logits
from distill.targets.features import FeatureMatch, match_features
from distill.targets.live import Normalization, require_inputs
from distill.targets.losses import feature_terms
from distill.targets.stored_logits import MANIFEST_NAME, LogitsFile, LogitsManifest, TeacherInfo, require_same
from distill.targets.targets import Targets, feature_targets, live_targets
from distill.targets.teacher import Network, load_teacher
from distill.training.run_dir import own_folder
from manifests.format.digest import file_digest
from manifests.patchset import open_folder
from manifests.support.console import Update, progress_bar
from manifests.support.files import atomic_file, is_plain, write_atomically
from manifests.support.system_files import entries

PART_NAME = "labels.part.json"
TOLERANCE = {"fp32": 1e-2, "fp16": 2e-2, "bf16": 0.1}
"""Largest allowed difference of a stored and a new logit, by precision, as a fraction of the logits' deviation."""


def make_logits(config: Config, shards: Path, out: Path, context: RunContext) -> LogitsManifest:
    """Write the teacher's logits for every batch of a run into the folder ``out``. ``config`` describes the run.

    If the config has feature losses, also write the teacher's features.

    A second call with the same arguments continues after the last complete file. Return the manifest.
    """
    check_folder(out)
    with own_folder(out, "run the same command again"):
        patchset = open_folder(shards)
        size, teacher = patchset.manifest.size, load_storable(config, context.device)
        require_inputs(teacher, config.augment.output_size(size))
        steps = config.train.steps(patchset.manifest.n, config.data.batch_size)
        accelerator = make_accelerator(context, config.train.precision, config.train.compile, steps)
        info = TeacherInfo.model_validate(teacher)
        open_evaluators(config, size, teacher, info, accelerator)
        match = _match(config, teacher, size)
        seed = config.train.seed if config.data.view_seed is None else config.data.view_seed
        with open_view(config, patchset, seed, context) as view:
            versions = {"torch": str(torch.__version__), "device": context.device.type, "machine": platform.machine()}
            manifest = LogitsManifest(
                format="labels/1",
                set_id=patchset.manifest.set_id,
                teacher=info,
                view=view.describe(),
                batch_size=view.batch_size,
                precision=accelerator.precision,
                features=[] if match is None else list(match.stored),
                files=[],
                environment=versions,
            )
            normalization = student_normalization(config, info)
            return _write(_LiveTeacher(teacher, match, normalization, view, accelerator), manifest, out)


def load_storable(config: Config, device: torch.device) -> Network:
    """Load the teachers of ``config``. Their logits are stored as one value for each class."""
    if config.teacher.combine == "losses":
        found = "the loss of each teacher needs the logits of every teacher, and stored logits have one of each class"
        raise DistillError(
            f"teacher.combine losses: {found}; set logits or probabilities, or train with live teachers"
        )
    return load_teacher(config.teacher, device)


def _match(config: Config, teacher: Network, size: int) -> FeatureMatch | None:
    """Return the features that the losses of ``config`` compare; None if no loss compares features."""
    if not (features := feature_terms(config.loss)):
        return None
    require_one_teacher(config, several=bool(config.teacher.others))
    student, images = build_model(config.student.arch, config.teacher.num_classes), config.augment.output_size(size)
    return match_features(features, student, teacher.model, (images, teacher.size or images), seed=0)


class _LiveTeacher:
    """Compute the logits and features of a teacher for the augmented batches of a run."""

    def __init__(
        self,
        teacher: Network,
        match: FeatureMatch | None,
        normalization: Normalization,
        view: View,
        accelerator: Accelerator,
    ) -> None:
        self.view, self._normalization = view, normalization
        self.targets: Targets = live_targets(teacher, normalization, view, accelerator)
        if match is not None:
            self.targets = feature_targets(teacher, match, normalization, view, accelerator)

    def outputs(self, step: int) -> Tensor:
        """Return the logits, and then the features, of batch ``step`` on the CPU: (B, columns)."""
        batch = self.view.batch(step)
        result = self.targets(batch, normalize(batch.images, *self._normalization))
        return torch.cat(
            [each.flatten(1).cpu() for each in (result if isinstance(result, tuple) else (result,))], dim=1
        )


def _write(live: _LiveTeacher, manifest: LogitsManifest, out: Path) -> LogitsManifest:
    view, files = live.view, _finished_files(out, manifest)
    per_file = stored_logits.steps_per_file(view.batch_size, sum(manifest.widths))
    with progress_bar("samples", view.period * view.batch_size) as update:
        for number in range(-(-view.period // per_file)):
            first, last = number * per_file, min((number + 1) * per_file, view.period)
            if number >= len(files) or files[number].steps != last - first:
                files[number:] = [_write_file(out, number, live, range(first, last), update)]
                write_atomically(out / PART_NAME, manifest.model_copy(update={"files": files}).to_json())
            update(last * view.batch_size)
    live.targets.require_unchanged()
    manifest = manifest.model_copy(update={"files": files})
    write_atomically(out / MANIFEST_NAME, manifest.to_json())
    (out / PART_NAME).unlink(missing_ok=True)
    for path in set(out.glob("logits-*")) - {out / file.name for file in files}:
        path.unlink()  # of an interrupted call for a longer run
    return manifest


def check_folder(out: Path) -> None:
    """Check that the folder ``out`` is new, empty, or contains unfinished logits."""
    with own_folder(out, "run the same command again"):
        names = {path.name for path in entries(out)}
    if MANIFEST_NAME in names:
        raise DistillError(f"{out}: the folder already contains stored logits; choose another --out")
    if names and PART_NAME not in names:
        raise DistillError(f"{out}: the folder is not empty and contains no unfinished logits; choose another --out")


def _finished_files(out: Path, manifest: LogitsManifest) -> list[LogitsFile]:
    """Return the undamaged files that an interrupted call with the same manifest has written."""
    path = out / PART_NAME
    if not path.exists():
        write_atomically(path, manifest.to_json())
        return []
    try:
        before = LogitsManifest.model_validate_json(path.read_bytes())
    except ValueError as error:
        raise DistillError(f"{path}: the file is damaged; delete {out} and run make-logits again") from error
    old, new = (each.model_dump(exclude={"files"}) for each in (before, manifest))
    require_same(out, "a run with", old, new, "choose another --out")
    paths = {file: out / file.name for file in before.files}
    return list(itertools.takewhile(lambda f: is_plain(paths[f]) and file_digest(paths[f]) == f.sha256, paths))


def _write_file(out: Path, number: int, live: _LiveTeacher, steps: range, update: Update) -> LogitsFile:
    parts = []
    for step in steps:
        parts.append(live.outputs(step).half())
        update((step + 1) * live.view.batch_size)
    logits = torch.cat(parts)
    if not bool(torch.isfinite(logits).all()):
        found = f"steps {steps.start} to {steps.stop - 1}: the teacher's outputs exceed the range of float16"
        action = "check teacher.mean and teacher.std, or train with --teacher instead of stored logits"
        raise DistillError(f"{found}; {action}")
    path = out / stored_logits.file_name(number)
    with atomic_file(path) as file:
        np.save(file, logits.numpy(), allow_pickle=False)
    return LogitsFile(name=path.name, steps=len(steps), sha256=file_digest(path))


def verify_logits(
    config: Config, folder: Path, shards: Path, context: RunContext, *, sample: int, seed: int
) -> dict[str, float]:
    """Check every digest of the stored logits in ``folder``, and compute the logits of some random steps again.

    ``seed`` selects the ``sample`` steps. Features are compared like logits. Return figures by name: the number of
    ``steps``, the ``largest_difference`` of a stored and a new logit, the standard ``deviation`` of new logits, and
    ``same_class``: the percentage of images whose most probable class is the same.
    """
    manifest = stored_logits.read_manifest(folder)
    patchset = open_folder(shards)
    require_same(folder, "the set", manifest.set_id, patchset.manifest.set_id)
    teacher = load_storable(config, context.device)
    info = TeacherInfo.model_validate(teacher)
    require_same(folder, "a teacher with", manifest.teacher.model_dump(), info.model_dump())
    accelerator = make_accelerator(context, config.train.precision, config.train.compile, manifest.steps)
    require_same(folder, "a run with precision", manifest.precision, accelerator.precision)
    stored = stored_logits.open_logits(folder, manifest, manifest.steps)
    steps = sorted(Stream(seed, "verify", 0).permutation(manifest.steps)[:sample].tolist())
    stored_seed = manifest.view.get("seed")
    with open_view(config, patchset, stored_seed if isinstance(stored_seed, int) else 0, context) as opened:
        stored_logits.require_same_view(folder, manifest.view, opened.describe())
        view = dataclasses.replace(opened, period=manifest.steps)  # the config may describe a longer or shorter run
        match = _match(config, teacher, patchset.manifest.size)
        wanted = () if match is None else match.stored
        have, needed = (", ".join(map(str, each)) or "none" for each in (manifest.features, wanted))
        require_same(folder, "a run with the features", have, needed)
        live = _LiveTeacher(teacher, match, student_normalization(config, info), view, accelerator)
        pairs = [(stored.of_step(step).float(), live.outputs(step).float()) for step in steps]
    old, new = (torch.cat(part).split(manifest.widths, dim=1) for part in zip(*pairs, strict=True))
    (mine, theirs), *features = zip(old, new, strict=True)
    difference, deviation = _require_near(folder, "logit", mine, theirs, manifest.precision)
    for stored_feature, new_feature in features:
        _require_near(folder, "feature", stored_feature, new_feature, manifest.precision)
    same = 100 * float((mine.argmax(dim=1) == theirs.argmax(dim=1)).double().mean())
    return {"steps": len(steps), "largest_difference": difference, "deviation": deviation, "same_class": same}


def _require_near(folder: Path, what: str, stored: Tensor, new: Tensor, precision: Precision) -> tuple[float, float]:
    """Check that values ``stored`` in ``folder`` are close to ``new`` ones. Return the largest difference and std."""
    difference, deviation = float((stored - new).abs().max()), float(new.std())
    if not difference <= (allowed := TOLERANCE[precision] * deviation):
        found = f"a stored {what} differs by {difference:.4f} from the same {what} computed again"
        action = "run make-logits with this set and this teacher into another folder"
        raise DistillError(f"{folder}: {found}, expected at most {allowed:.4f}; {action}")
    return difference, deviation
