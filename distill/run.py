"""Wiring of a run: check everything that can be wrong, train, judge, and leave a run directory."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distill.checkpoint import load_checkpoint
from distill.config import Config
from distill.errors import DistillError
from distill.judge import Judge, make_judge
from distill.loop import Loop, Progress
from distill.losses import make_loss
from distill.models import build_model, require_size
from distill.optim import make_optimizer, make_scheduler
from distill.patches import Order, load_patches
from distill.randomness import generator
from distill.session import SUMMARY_NAME, Session, check_folder, finished_summary, restore
from distill.teacher import Teacher, load_teacher
from distill.weights import save_weights
from manifests import PatchSet, open_patchset, verify_shards
from manifests.files import describe_os_error, hold_folder, remove_parts, write_atomically
from manifests.terminal import counting, progress_bar

Say = Callable[[str], None]


def pick_device(name: str) -> torch.device:
    """The device ``name``; ``auto`` is the GPU where there is one.

    Raises:
        DistillError: there is no such device on this machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):
            raise DistillError(f"--device {name}: not supported; use auto, cpu or cuda")
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise DistillError(
            f"--device {name}: not on this machine: {str(error).splitlines()[0]}; use auto or cpu"
        ) from error
    return device


def train(config: Config, shards: Path, out: Path, *, resume: bool, device: torch.device, say: Say) -> dict[str, Any]:
    """Distil a student as ``config`` says from the set in ``shards`` into the run directory ``out``.

    Returns the summary. ``say`` hears a line whenever something worth telling is known.

    Raises:
        DistillError, PatchSetError: anything is wrong with the config, teacher, data or run directory.
        InterruptedRun: a signal came; the same call with ``resume`` goes on.
    """
    existed = check_folder(out, resume)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with hold_folder(out):
            remove_parts(out)
            return _train(config, shards, out, device, say)
    except BlockingIOError as error:
        raise DistillError(f"{out}: another run is writing here; choose another --out") from error
    except OSError as error:
        raise DistillError(f"{describe_os_error(error, out)} and go on with --resume") from error
    finally:
        if not existed and out.is_dir() and not any(out.iterdir()):
            out.rmdir()  # nothing came of it


def _train(config: Config, shards: Path, out: Path, device: torch.device, say: Say) -> dict[str, Any]:
    patchset = open_patchset(shards)
    for arch in (config.teacher.arch, config.student.arch):
        require_size(arch, config.teacher.num_classes, patchset.manifest.size)
    student = _new_student(config)
    teacher = load_teacher(config.teacher, device)
    identity = _identity(config, patchset, teacher)
    state = load_checkpoint(out, identity)
    if (done := finished_summary(out)) is not None:
        say("this run is already finished")
        return done
    judge = _judge(config, teacher, patchset, device, say)
    _verify(patchset, config, say)
    loop = _make_loop(config, student, teacher, _decode(patchset, config), device)
    progress = restore(loop, out, state)
    session = Session(
        loop=loop,
        progress=progress,
        out=out,
        identity=identity,
        judge=judge,
        every=config.eval.every,
        checkpoint_seconds=config.train.checkpoint_seconds,
        log_steps=config.train.log_steps,
    )
    session.save()
    write_atomically(out / "config.yaml", config.to_yaml().encode())
    session.train()
    teacher.require_unchanged()
    return _finish(config, loop, progress, out, patchset, judge)


def _new_student(config: Config) -> nn.Module:
    # Initialisation reads torch's global generator; nothing else in a run does.
    torch.manual_seed(generator(config.train.seed, "init", 0).initial_seed())
    return build_model(config.student.arch, config.teacher.num_classes)


def _judge(config: Config, teacher: Teacher, patchset: PatchSet, device: torch.device, say: Say) -> Judge | None:
    least = config.teacher.min_top1
    if config.eval.data is None:
        if least is not None:
            say(f"no evaluation data (--eval), so teacher.min_top1 {least} is not checked")
        return None
    judge = make_judge(config.eval.data, config.teacher, teacher, patchset.manifest.size, device)
    say(f"teacher {config.teacher.arch}: top-1 {judge.teacher_top1:.2f} % on {len(judge.data.labels)} images")
    return judge


def _verify(patchset: PatchSet, config: Config, say: Say) -> None:
    manifest = patchset.manifest
    with progress_bar("verifying (bytes)", sum(shard.bytes for shard in manifest.shards)) as update:
        verify_shards(patchset, threads=max(config.data.workers, 1), on_bytes=counting(update))
    say(
        f"set {manifest.set_id[:16]}: {manifest.n} patches of {manifest.size} px "
        f"in {len(manifest.shards)} verified shards"
    )


def _decode(patchset: PatchSet, config: Config) -> Tensor:
    with progress_bar("decoding patches", patchset.manifest.n) as update:
        return load_patches(patchset, config.data, counting(update))


def _make_loop(config: Config, student: nn.Module, teacher: Teacher, patches: Tensor, device: torch.device) -> Loop:
    batch = config.data.batch_size
    if config.train.samples is not None:
        samples = config.train.samples
    else:
        samples = round(float(config.train.epochs or 0) * len(patches))
    steps = samples // batch
    if not steps:
        raise DistillError(
            f"{samples} samples are under one batch of {batch}; raise train.samples or lower data.batch_size"
        )
    if device.type == "cuda" and patches.nbytes < torch.cuda.mem_get_info(device)[0] // 2:
        patches = patches.to(device)
    student.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = make_optimizer(config.optim, student.parameters())
    return Loop(
        student=student,
        teacher=teacher,
        loss=make_loss(config.loss),
        augment=config.augment,
        optimizer=optimizer,
        scheduler=make_scheduler(config.optim, optimizer, steps),
        patches=patches,
        order=Order(len(patches), batch, config.train.seed),
        steps=steps,
        seed=config.train.seed,
        precision=config.train.precision,
        device=device,
    )


def _identity(config: Config, patchset: PatchSet, teacher: Teacher) -> dict[str, Any]:
    """What a checkpoint must share with the run that resumes it: all that moves a weight, and no path."""
    value = config.model_dump(mode="json")
    value["teacher"] |= {"weights": None, "mean": list(teacher.mean), "std": list(teacher.std)}
    value["data"].pop("workers")
    for name in ("checkpoint_seconds", "log_steps"):
        value["train"].pop(name)
    return {
        **{group: json.dumps(value[group]) for group in value if group != "eval"},
        "set_id": patchset.manifest.set_id,
        "teacher_sha256": teacher.sha256,
    }


def _finish(
    config: Config, loop: Loop, progress: Progress, out: Path, patchset: PatchSet, judge: Judge | None
) -> dict[str, Any]:
    """Write the student and, last of all, the summary, which says that the run has ended."""
    save_weights(
        out / "student.safetensors",
        loop.student,
        arch=config.student.arch,
        num_classes=config.teacher.num_classes,
        mean=loop.teacher.mean,
        std=loop.teacher.std,
    )
    samples = progress.step * config.data.batch_size
    nothing = {"student_top1": None, "teacher_top1": None, "agreement": None}
    summary = (nothing if judge is None else judge.measure(loop.student)) | {
        "samples_seen": samples,
        "images_per_second": round(samples / progress.seconds, 1),
        "seconds": round(progress.seconds, 1),
        "set_id": patchset.manifest.set_id,
        "teacher_sha256": loop.teacher.sha256,
        "seed": config.train.seed,
    }
    write_atomically(out / SUMMARY_NAME, (json.dumps(summary, indent=1) + "\n").encode())
    return summary
