"""``distill make-logits`` and ``distill verify-logits``: store a teacher's logits for a run, and check them."""

import dataclasses
import io
import platform
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from distill.augment import normalize
from distill.commands.train import open_evaluator, open_view
from distill.config.schema import Config
from distill.data.batches import View
from distill.data.labelled import require_data
from distill.errors import DistillError
from distill.models import require_size
from distill.runtime.compile import Accelerator, make_accelerator
from distill.runtime.context import RunContext
from distill.runtime.randomness import Stream
from distill.targets.stored_logits import (
    MANIFEST_NAME,
    LogitsFile,
    LogitsManifest,
    describe_teacher,
    file_name,
    open_logits,
    read_manifest,
    require_same,
    require_same_view,
    steps_per_file,
)
from distill.targets.targets import TeacherTargets
from distill.targets.teacher import Network, load_teacher
from distill.training.run_dir import own_folder
from manifests.format.digest import file_digest
from manifests.patchset import open_folder
from manifests.support.console import progress_bar
from manifests.support.files import write_atomically
from manifests.support.system_files import entries

PART_NAME = "labels.part.json"
TOLERANCE = {"fp32": 1e-2, "fp16": 2e-2, "bf16": 0.1}
"""The largest difference of a logit computed again, as a fraction of the deviation of all logits compared."""


def make_logits(config: Config, shards: Path, out: Path, context: RunContext) -> LogitsManifest:
    """Write the teacher's logits for every batch of the run that ``config`` describes into ``out``.

    Called again for the same folder, it goes on after the last whole file.
    """
    with own_folder(out, "run it again"):
        patchset = open_folder(shards)
        size, arch, num_classes = patchset.manifest.size, config.teacher.arch, config.teacher.num_classes
        require_size(arch, num_classes, config.augment.output_size(size))
        teacher = load_teacher(config.teacher, context.device)
        _require_free(out)
        steps = config.train.steps(patchset.manifest.n, config.data.batch_size)
        accelerator = make_accelerator(context, config.train.precision, config.train.compile, steps)
        info = describe_teacher(teacher)
        open_evaluator(config, size, teacher, info, accelerator, accelerator.precision)
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
                files=[],
                environment=versions,
            )
            return _write(_LiveTeacher(teacher, view, accelerator), manifest, out)


def check_inputs(config: Config, out: Path) -> None:
    """Check all inputs of ``make_logits`` but its set, before that is downloaded."""
    load_teacher(config.teacher, torch.device("cpu"))
    if config.eval.data is not None:
        require_data(config.eval.data)
    with own_folder(out, "run it again"):
        _require_free(out)


def check_stored(config: Config, folder: Path) -> None:
    """Check all inputs of ``verify_logits`` but its set, before that is downloaded."""
    load_teacher(config.teacher, torch.device("cpu"))
    read_manifest(folder)


class _LiveTeacher:
    """A teacher that computes the logits of the batches of a view."""

    def __init__(self, teacher: Network, view: View, accelerator: Accelerator) -> None:
        self.view, self._mean, self._std = view, teacher.mean, teacher.std
        self.targets = TeacherTargets(network=accelerator.frozen(teacher.model, view.example()))

    def logits(self, step: int) -> Tensor:
        """Compute the logits of ``step``: (B, classes), on the CPU."""
        batch = self.view.batch(step)
        return self.targets(batch, normalize(batch.images, self._mean, self._std)).cpu()


def _write(live: _LiveTeacher, manifest: LogitsManifest, out: Path) -> LogitsManifest:
    view = live.view
    files = _finished_files(out, manifest)
    per_file = steps_per_file(view.batch_size, manifest.teacher.num_classes)
    with progress_bar("labelling (samples)", view.period * view.batch_size) as update:
        for number in range(-(-view.period // per_file)):
            first, last = number * per_file, min((number + 1) * per_file, view.period)
            if number >= len(files) or files[number].steps != last - first:
                files[number:] = [_write_file(out, number, live, range(first, last))]
                write_atomically(out / PART_NAME, manifest.model_copy(update={"files": files}).to_json())
            update(last * view.batch_size, "")
    live.targets.require_unchanged()
    manifest = manifest.model_copy(update={"files": files})
    write_atomically(out / MANIFEST_NAME, manifest.to_json())
    (out / PART_NAME).unlink(missing_ok=True)
    for path in sorted(set(out.glob("logits-*")) - {out / file.name for file in files}):
        path.unlink()  # of an unfinished, longer call
    return manifest


def _require_free(out: Path) -> None:
    names = {path.name for path in entries(out)}
    if MANIFEST_NAME in names:
        raise DistillError(f"{out}: holds stored logits already; choose another --out")
    if names and PART_NAME not in names:
        raise DistillError(f"{out}: is not empty and holds no unfinished labels; choose another --out")


def _finished_files(out: Path, manifest: LogitsManifest) -> list[LogitsFile]:
    """Return the undamaged files of an interrupted call with the same set, teacher and view."""
    path = out / PART_NAME
    if not path.exists():
        write_atomically(path, manifest.to_json())
        return []
    try:
        held = LogitsManifest.model_validate_json(path.read_bytes())
    except ValueError as error:
        raise DistillError(f"{path}: damaged; delete {out} and label again") from error
    require_same(out, "a run with", held.model_dump(exclude={"files"}), manifest.model_dump(exclude={"files"}))
    good = []
    for file in held.files:
        path = out / file.name
        if not path.is_file() or file_digest(path) != file.sha256:
            break
        good.append(file)
    return good


def _write_file(out: Path, number: int, live: _LiveTeacher, steps: range) -> LogitsFile:
    logits = torch.cat([live.logits(step).half() for step in steps])
    if not bool(torch.isfinite(logits).all()):
        raise DistillError(
            f"the teacher's logits of steps {steps.start} to {steps.stop} are beyond float16; "
            "check teacher.mean and teacher.std, or train with the live teacher"
        )
    buffer = io.BytesIO()
    np.save(buffer, logits.numpy(), allow_pickle=False)
    path = out / file_name(number)
    write_atomically(path, buffer.getvalue())
    return LogitsFile(name=path.name, steps=len(steps), sha256=file_digest(path))


def verify_logits(
    config: Config, folder: Path, shards: Path, context: RunContext, *, sample: int, seed: int
) -> dict[str, float]:
    """Check every digest of stored logits, and compute ``sample`` random steps again.

    Returns the number of these ``steps``; the ``largest_difference`` of a logit; the ``deviation`` of all
    their logits; and ``same_class``, the percent of equal predictions.
    """
    manifest = read_manifest(folder)
    patchset = open_folder(shards)
    require_same(folder, "the set", manifest.set_id, patchset.manifest.set_id)
    teacher = load_teacher(config.teacher, context.device)
    require_same(folder, "a teacher with", manifest.teacher.model_dump(), describe_teacher(teacher).model_dump())
    accelerator = make_accelerator(context, config.train.precision, config.train.compile, manifest.steps)
    require_same(folder, "the precision", manifest.precision, accelerator.precision)
    stored = open_logits(folder, manifest, manifest.steps)
    steps = sorted(Stream(seed, "verify", 0).permutation(manifest.steps)[:sample].tolist())
    stored_seed = manifest.view.get("seed")
    with open_view(config, patchset, stored_seed if isinstance(stored_seed, int) else 0, context) as opened:
        require_same_view(folder, manifest.view, opened.describe())
        view = dataclasses.replace(opened, period=manifest.steps)  # the run of this config may have another length
        live = _LiveTeacher(teacher, view, accelerator)
        pairs = [(stored.of_step(step).float(), live.logits(step).float()) for step in steps]
    mine, theirs = (torch.cat(part) for part in zip(*pairs, strict=True))
    difference, deviation = float((mine - theirs).abs().max()), float(theirs.std())
    allowed = TOLERANCE[manifest.precision] * deviation
    if not difference <= allowed:
        raise DistillError(
            f"{folder}: a logit computed again differs by {difference:.4f}, rounding explains {allowed:.4f}; "
            "the labels are not what this teacher says of this set"
        )
    same_class = 100 * float((mine.argmax(dim=1) == theirs.argmax(dim=1)).double().mean())
    return {
        "steps": len(steps),
        "largest_difference": difference,
        "deviation": deviation,
        "same_class": same_class,
    }
