"""``distill make-logits`` and ``distill verify-logits``: store a teacher's logits for a run, and check them."""

import dataclasses
import io
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill.augment import normalize
from distill.commands.train import open_judge, open_view
from distill.config.schema import Config
from distill.data.batches import View
from distill.data.labelled import require_data
from distill.errors import DistillError, Say
from distill.models import require_size
from distill.runtime.compile import Engine
from distill.runtime.precision import choose_precision
from distill.runtime.randomness import Stream
from distill.targets.lesson import LiveLesson, live_targets
from distill.targets.stored_logits import (
    MANIFEST_NAME,
    LabelFile,
    Labeller,
    LabelsManifest,
    file_name,
    open_logits,
    read_labels,
    require_same,
    require_same_view,
    steps_per_file,
    write_manifest,
)
from distill.targets.targets import LiveTeacher
from distill.targets.teacher import Teacher, load_teacher
from distill.training.run_dir import make_engine, own_folder
from manifests.format.digest import file_digest
from manifests.patchset import open_folder
from manifests.support.console import progress_bar
from manifests.support.files import write_atomically
from manifests.support.system_files import entries

PART_NAME = "labels.part.json"
TOLERANCE = {"fp32": 1e-2, "fp16": 2e-2, "bf16": 0.1}
"""Largest difference of a recomputed logit, as a share of the deviation of all logits looked at."""


def label(config: Config, shards: Path, out: Path, *, device: torch.device, say: Say) -> LabelsManifest:
    """Write the teacher's logits for every view of the run that ``config`` describes into ``out``.

    Begun again in the same folder, it goes on behind the last whole file.

    Raises:
        DistillError, PatchSetError: config, teacher or set are wrong, or ``out`` holds something else.
    """
    with own_folder(out, "run it again"):
        return _label(config, shards, out, device, say)


def check_inputs(config: Config, out: Path) -> None:
    """Look at what ``label`` needs beside its set, as long as that is not yet there.

    Raises:
        DistillError: the teacher, the evaluation data or ``out`` are missing or wrong.
    """
    load_teacher(config.teacher, torch.device("cpu"))
    if config.eval.data is not None:
        require_data(config.eval.data)
    with own_folder(out, "run it again"):
        _require_free(out)


def check_stored(config: Config, folder: Path) -> None:
    """As ``check_inputs``, for ``verify``."""
    load_teacher(config.teacher, torch.device("cpu"))
    read_labels(folder)


def _label(config: Config, shards: Path, out: Path, device: torch.device, say: Say) -> LabelsManifest:
    patchset = open_folder(shards)
    size = config.augment.output_size(patchset.manifest.size)
    require_size(config.teacher.arch, config.teacher.num_classes, size)
    teacher = load_teacher(config.teacher, device)
    seed = config.train.seed if config.data.view_seed is None else config.data.view_seed
    _require_free(out)
    engine = make_engine(config.train, device, config.train.steps(patchset.manifest.n, config.data.batch_size), say)
    open_judge(config, LiveLesson(teacher=teacher, num_classes=config.teacher.num_classes), engine, size)
    with open_view(config, patchset, seed, device, say) as view:
        return _write(engine, patchset.manifest.set_id, _labeller(config, teacher), teacher, view, out)


def _write(
    engine: Engine, set_id: str, labeller: Labeller, teacher: Teacher, view: View, out: Path
) -> LabelsManifest:
    manifest = LabelsManifest(
        format="labels/1",
        set_id=set_id,
        teacher=labeller,
        view=view.describe(),
        batch_size=view.batch_size,
        precision=engine.precision,
        files=[],
        environment={
            "torch": str(torch.__version__),
            "device": view.source.device.type,
            "machine": platform.machine(),
        },
    )
    targets = live_targets(teacher, view, engine)
    views = view.period
    files = _finished_files(out, manifest)
    per_file = steps_per_file(view.batch_size, labeller.num_classes)
    with progress_bar("labelling (samples)", views * view.batch_size) as update:
        for number in range(-(-views // per_file)):
            first, last = number * per_file, min((number + 1) * per_file, views)
            if number >= len(files) or files[number].steps != last - first:
                files[number:] = [_write_file(out, number, view, targets, teacher, range(first, last))]
                part = manifest.model_copy(update={"files": files})
                write_atomically(out / PART_NAME, part.to_json())
            update(last * view.batch_size, "")
    targets.require_unchanged()
    whole = manifest.model_copy(update={"files": files})
    write_manifest(out, whole)
    (out / PART_NAME).unlink(missing_ok=True)
    for path in sorted(set(out.glob("logits-*")) - {out / file.name for file in files}):
        path.unlink()  # of a longer labelling that was given up
    return whole


def _labeller(config: Config, teacher: Teacher) -> Labeller:
    return Labeller(
        arch=config.teacher.arch,
        sha256=teacher.sha256,
        num_classes=config.teacher.num_classes,
        mean=list(teacher.mean),
        std=list(teacher.std),
        classes=list(teacher.classes),
    )


def _require_free(out: Path) -> None:
    names = {path.name for path in entries(out)}
    if MANIFEST_NAME in names:
        raise DistillError(f"{out}: holds stored logits already; choose another --out")
    if names and PART_NAME not in names:
        raise DistillError(f"{out}: is not empty and holds no unfinished labels; choose another --out")


def _finished_files(out: Path, manifest: LabelsManifest) -> list[LabelFile]:
    """The whole files of an interrupted call with the same set, teacher and view."""
    path = out / PART_NAME
    if not path.exists():
        write_atomically(path, manifest.to_json())
        return []
    try:
        held = LabelsManifest.model_validate_json(path.read_bytes())
    except ValueError as error:
        raise DistillError(f"{path}: damaged; delete {out} and label again") from error
    for name in ("set_id", "view", "precision", "environment"):
        require_same(out, name, getattr(held, name), getattr(manifest, name))
    require_same(out, "a teacher with", held.teacher.model_dump(), manifest.teacher.model_dump())
    good = []
    for file in held.files:
        there = out / file.name
        if not there.is_file() or file_digest(there) != file.sha256:
            break
        good.append(file)
    return good


def _write_file(
    out: Path, number: int, view: View, targets: LiveTeacher, teacher: Teacher, steps: range
) -> LabelFile:
    logits = torch.cat([_logits(view, targets, teacher, step).half() for step in steps])
    if not bool(torch.isfinite(logits).all()):
        raise DistillError(
            f"the teacher's logits of steps {steps.start} to {steps.stop} are beyond float16; "
            "check teacher.mean and teacher.std, or train with the live teacher"
        )
    buffer = io.BytesIO()
    np.save(buffer, logits.numpy(), allow_pickle=False)
    path = out / file_name(number)
    write_atomically(path, buffer.getvalue())
    return LabelFile(name=path.name, steps=len(steps), sha256=file_digest(path))


def _logits(view: View, targets: LiveTeacher, teacher: Teacher, step: int) -> Tensor:
    """What a live teacher says of ``step``: (B, classes), on the CPU."""
    batch = view.batch(step)
    return targets(batch, normalize(batch.images, teacher.mean, teacher.std)).cpu()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """Outcome of ``verify``: over the steps recomputed, in units of the logits and as a share of their deviation."""

    steps: int
    largest_difference: float
    deviation: float
    same_class: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self)


def verify(
    config: Config, folder: Path, shards: Path, *, sample: int, seed: int, device: torch.device, say: Say
) -> Check:
    """Compare every digest of stored logits, and ``sample`` random steps with the teacher's logits computed again.

    Raises:
        DistillError, PatchSetError: they are not of this set, teacher and view, a file is damaged, or a logit
            differs by more than rounding can explain.
    """
    labels = read_labels(folder)
    patchset = open_folder(shards)
    require_same(folder, "the set", labels.set_id, patchset.manifest.set_id)
    teacher = load_teacher(config.teacher, device)
    require_same(folder, "a teacher with", labels.teacher.model_dump(), _labeller(config, teacher).model_dump())
    held_seed = labels.view.get("seed")
    precision = choose_precision(config.train.precision, device, say)
    require_same(folder, "the precision", labels.precision, precision)
    stored = open_logits(folder, labels, labels.steps)
    steps = sorted(Stream(seed, "verify", 0).permutation(labels.steps)[:sample].tolist())
    with open_view(config, patchset, held_seed if isinstance(held_seed, int) else 0, device, say) as opened:
        require_same_view(folder, labels.view, opened.describe())
        view = dataclasses.replace(opened, period=labels.steps)  # whatever the length of this config's run
        targets = live_targets(teacher, view, make_engine(config.train, device, labels.steps, say))
        pairs = [(stored.of_step(step).float(), _logits(view, targets, teacher, step).float()) for step in steps]
    mine, theirs = (torch.cat(part) for part in zip(*pairs, strict=True))
    check = Check(
        steps=len(steps),
        largest_difference=float((mine - theirs).abs().max()),
        deviation=float(theirs.std()),
        same_class=100 * float((mine.argmax(dim=1) == theirs.argmax(dim=1)).double().mean()),
    )
    allowed = TOLERANCE[labels.precision] * check.deviation
    if not check.largest_difference <= allowed:
        raise DistillError(
            f"{folder}: a logit computed again differs by {check.largest_difference:.4f}, rounding explains "
            f"{allowed:.4f}; the labels are not what this teacher says of this set"
        )
    return check
