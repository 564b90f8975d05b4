"""Wiring of a run: check everything that can be wrong, train, judge, and leave a run directory."""

import dataclasses
import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from distill.checkpoint import load_checkpoint, save_checkpoint
from distill.config import Config
from distill.errors import DistillError
from distill.evaldata import LabelledImages, load_labelled
from distill.evaluate import agreement, logits_of, top1
from distill.loop import Loop, Progress, run_loop
from distill.losses import make_loss
from distill.models import build_model
from distill.optim import make_optimizer, make_scheduler
from distill.patches import Order, load_patches
from distill.randomness import generator
from distill.teacher import Teacher, load_teacher, normalisation
from distill.weights import Triple, count_classes, fill_model, load_weights, save_weights
from manifests import PatchSet, open_patchset, verify_shards
from manifests.files import write_atomically
from manifests.progress import progress_bar

Say = Callable[[str], None]


class InterruptedRun(Exception):  # noqa: N818 - it is no error: the run was asked to stop, and saved itself
    """The run was asked to stop and has written a checkpoint."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judge:
    """Evaluation data and the teacher's logits on it."""

    data: LabelledImages
    teacher_logits: Tensor

    @property
    def teacher_top1(self) -> float:
        """Percent."""
        return top1(self.teacher_logits, self.data.labels)


def pick_device(name: str) -> torch.device:
    """The device ``name``; ``auto`` is the GPU where there is one.

    Raises:
        DistillError: there is no such device on this machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise DistillError(
            f"--device {name}: not on this machine: {str(error).splitlines()[0]}; use auto or cpu"
        ) from error
    return device


def train(
    config: Config, shards: Path, out: Path, *, resume: bool, device: torch.device, say: Say
) -> dict[str, Any]:
    """Distil a student as ``config`` says from the set in ``shards`` into the run directory ``out``.

    Returns the summary. ``say`` hears a line whenever something worth telling is known.

    Raises:
        DistillError, PatchSetError: anything is wrong with the config, teacher, data or run directory.
        InterruptedRun: a signal came; the same call with ``resume`` goes on.
    """
    _prepare_folder(out, resume)
    if resume and (done := _finished(out)) is not None:
        say("this run is already finished")
        return done
    student = _new_student(config)
    teacher = load_teacher(config.teacher, device)
    patchset = open_patchset(shards)
    judge = _judge(config, teacher, patchset.manifest.size, device, say)
    _verify(patchset, config, say)
    identity = _identity(config, patchset, teacher)
    loop = _make_loop(config, student, teacher, _decode(patchset, config), device)
    progress = _restore(loop, out, identity)
    write_atomically(out / "config.yaml", config.to_yaml().encode())
    _train(config, loop, progress, out, identity, judge)
    teacher.require_unchanged()
    save_weights(
        out / "student.safetensors",
        loop.student,
        arch=config.student.arch,
        num_classes=config.teacher.num_classes,
        mean=teacher.mean,
        std=teacher.std,
    )
    summary = _summarise(config, loop, progress, patchset, judge)
    write_atomically(out / "summary.json", (json.dumps(summary, indent=1) + "\n").encode())
    return summary


def _prepare_folder(out: Path, resume: bool) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        occupied = any(out.iterdir())
    except OSError as error:
        raise DistillError(f"{out}: cannot be a run directory: {error.strerror}") from error
    if occupied and not resume:
        raise DistillError(f"{out}: is not empty; add --resume to go on with its run, or choose another --out")


def _finished(out: Path) -> dict[str, Any] | None:
    path = out / "summary.json"
    return json.loads(path.read_bytes()) if path.exists() else None  # type: ignore[no-any-return]


def _new_student(config: Config) -> nn.Module:
    # Initialisation reads torch's global generator; nothing else in a run does.
    torch.manual_seed(generator(config.train.seed, "init", 0).initial_seed())
    return build_model(config.student.arch, config.teacher.num_classes)


def _judge(config: Config, teacher: Teacher, size: int, device: torch.device, say: Say) -> Judge | None:
    if config.eval.data is None:
        if config.teacher.min_top1 is not None:
            say(f"no evaluation data (--eval), so teacher.min_top1 {config.teacher.min_top1} is not checked")
        return None
    data = load_labelled(config.eval.data, size)
    data.require_classes(config.teacher.num_classes, config.eval.data)
    judge = Judge(data=data, teacher_logits=logits_of(teacher.model, data, teacher.mean, teacher.std, device))
    say(f"teacher {config.teacher.arch}: top-1 {judge.teacher_top1:.2f} % on {len(data.labels)} images")
    least = config.teacher.min_top1
    if least is not None and judge.teacher_top1 < least:
        raise DistillError(
            f"{config.teacher.weights}: top-1 is {judge.teacher_top1:.2f} %, teacher.min_top1 is {least} %; "
            "check teacher.mean, teacher.std and that the evaluation data has the teacher's classes"
        )
    return judge


def _verify(patchset: PatchSet, config: Config, say: Say) -> None:
    manifest = patchset.manifest
    done = 0
    with progress_bar("verifying (bytes)", sum(shard.bytes for shard in manifest.shards)) as update:

        def add(count: int) -> None:
            nonlocal done
            done += count
            update(done)

        verify_shards(patchset, threads=max(config.data.workers, 1), on_bytes=add)
    say(
        f"set {manifest.set_id[:16]}: {manifest.n} patches of {manifest.size} px "
        f"in {len(manifest.shards)} verified shards"
    )


def _decode(patchset: PatchSet, config: Config) -> Tensor:
    done = 0
    with progress_bar("decoding patches", patchset.manifest.n) as update:

        def add(count: int) -> None:
            nonlocal done
            done += count
            update(done)

        return load_patches(patchset, config.data, add)


def _make_loop(
    config: Config, student: nn.Module, teacher: Teacher, patches: Tensor, device: torch.device
) -> Loop:
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


def _restore(loop: Loop, out: Path, identity: dict[str, Any]) -> Progress:
    state = load_checkpoint(out, identity)
    metrics = out / "metrics.jsonl"
    if state is None:
        metrics.unlink(missing_ok=True)
        return Progress()
    loop.student.load_state_dict(state["student"])
    loop.optimizer.load_state_dict(state["optimizer"])
    loop.scheduler.load_state_dict(state["scheduler"])
    progress = Progress(step=state["step"], seconds=state["seconds"], losses=list(state["losses"]))
    if metrics.exists():  # lines written after the checkpoint belong to steps that will be done again
        rows = [line for line in metrics.read_text().splitlines() if _row_step(line) <= progress.step]
        write_atomically(metrics, "".join(row + "\n" for row in rows).encode())
    return progress


def _row_step(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError):
        return float("inf")  # a line cut short by a crash


def _train(
    config: Config, loop: Loop, progress: Progress, out: Path, identity: dict[str, Any], judge: Judge | None
) -> None:
    batch = config.data.batch_size
    saved_at = time.monotonic()
    signals: list[int] = []

    def save() -> None:
        state = {
            "identity": identity,
            "student": loop.student.state_dict(),
            "optimizer": loop.optimizer.state_dict(),
            "scheduler": loop.scheduler.state_dict(),
            **{name: getattr(progress, name) for name in ("step", "seconds", "losses")},
        }
        save_checkpoint(out, state)

    with progress_bar("samples", loop.steps * batch) as update, (out / "metrics.jsonl").open("a") as log:

        def write(row: dict[str, Any]) -> None:
            log.write(json.dumps({"step": progress.step, "samples": progress.step * batch} | row) + "\n")
            log.flush()

        def on_log(progress: Progress, values: dict[str, Any]) -> None:
            rate = values["steps_per_second"] * batch
            lr = loop.scheduler.get_last_lr()[0]
            write({"loss": values["loss"], "lr": lr, "images_per_second": round(rate, 1)})
            update(progress.step * batch, f"loss {values['loss']:.3f}")

        def on_step(progress: Progress) -> None:
            nonlocal saved_at
            every = config.eval.every
            if judge is not None and every and progress.step * batch % every < batch:
                logits = _student_logits(loop, judge)
                write({"student_top1": top1(logits, judge.data.labels)})
            if signals or time.monotonic() - saved_at >= config.train.checkpoint_seconds:
                save()
                saved_at = time.monotonic()
            if signals:
                raise InterruptedRun(f"stopped at step {progress.step} of {loop.steps}")

        with _signals_into(signals):
            run_loop(loop, progress, log_steps=config.train.log_steps, on_log=on_log, on_step=on_step)
            save()


@contextmanager
def _signals_into(received: list[int]) -> Iterator[None]:
    """Collect SIGINT and SIGTERM instead of dying of them; the second one acts as usual."""

    def receive(signum: int, frame: FrameType | None) -> None:
        received.append(signum)
        signal.signal(signum, previous[signum])

    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in previous:
        signal.signal(number, receive)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _student_logits(loop: Loop, judge: Judge) -> Tensor:
    return logits_of(loop.student, judge.data, loop.teacher.mean, loop.teacher.std, loop.device)


def _summarise(
    config: Config, loop: Loop, progress: Progress, patchset: PatchSet, judge: Judge | None
) -> dict[str, Any]:
    samples = progress.step * config.data.batch_size
    results: dict[str, Any] = {"student_top1": None, "teacher_top1": None, "agreement": None}
    if judge is not None:
        logits = _student_logits(loop, judge)
        results = {
            "student_top1": top1(logits, judge.data.labels),
            "teacher_top1": judge.teacher_top1,
            "agreement": agreement(logits, judge.teacher_logits),
        }
    return results | {
        "samples_seen": samples,
        "images_per_second": round(samples / progress.seconds, 1),
        "seconds": round(progress.seconds, 1),
        "set_id": patchset.manifest.set_id,
        "teacher_sha256": loop.teacher.sha256,
        "seed": config.train.seed,
    }


def evaluate_weights(
    path: Path,
    arch: str | None,
    data: Path,
    *,
    mean: Triple | None,
    std: Triple | None,
    size: int | None,
    device: torch.device,
) -> dict[str, Any]:
    """Top-1 in percent of the network in a weight file; what the file says of itself need not be given.

    Raises:
        DistillError: the file, the network's name or the data is wrong.
    """
    weights = load_weights(path)
    arch = arch or weights.arch
    if arch is None:
        raise DistillError(f"{path}: does not say which network it is; give --arch")
    num_classes = weights.num_classes or count_classes(weights)
    model = build_model(arch, num_classes)
    fill_model(model, weights, arch=arch, num_classes=num_classes)
    mean, std = normalisation(weights, mean, std, prefix="--")
    labelled = load_labelled(data, size)
    labelled.require_classes(num_classes, data)
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    logits = logits_of(model, labelled, mean, std, device)
    return {"arch": arch, "top1": top1(logits, labelled.labels), "images": len(labelled.labels)}
