"""``distill visualize``: draw images that maximize the logits of a network's classes."""

import dataclasses
import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from distill.commands.evaluate import load_network
from distill.errors import DistillError
from distill.evaluation.neurons import excite
from distill.models import require_size
from distill.report.collect import NEURONS_PREFIX, RunRecord, read_run
from distill.targets.teacher import Network
from distill.training.run_dir import STUDENT_NAME, TEACHER_NAME, explain_errors
from distill.weights.files import Triple
from manifests.support.console import progress_bar
from manifests.support.files import atomic_file

COLUMNS, TILE, LABEL, GAP = 5, 96, 18, 4
MAX_CLASSES = 20  # shown if the user chooses none
logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """Options for images that maximize the logits of classes."""

    classes: Sequence[int] | None  # numbers of the classes; None: the first 20
    steps: int  # of the optimizer for each image
    seed: int  # of the noise that an image starts from
    device: torch.device


def visualize_run(folder: Path, teacher: Path | None, options: ImageOptions) -> list[Path]:
    """Write ``neurons-student.png`` into a run directory, and ``neurons-teacher.png`` if the teacher's weights exist.

    For a run from labels, write only ``neurons-network.png``. ``teacher`` replaces the weight file in the config.
    """
    record = read_run(folder)
    if record.summary is None:
        raise DistillError(f"{folder}: the run has not finished; continue the run with --resume first")
    if record.summary.size is None:
        raise DistillError(f"{folder}: the summary has no image size; visualize the weight file in this folder")
    names = record.classes.names if record.classes else None
    written = []
    for role, network in _networks(record, teacher, options.device):
        written.append(folder / f"{NEURONS_PREFIX}{role}.png")
        size = (
            record.config.teacher.size if role == "teacher" and record.config.teacher else None
        ) or record.summary.size
        visualize_weights(network, size, written[-1], options, names)
    return written


def _networks(record: RunRecord, teacher: Path | None, device: torch.device) -> Iterator[tuple[str, Network]]:
    """Yield role and network for the student of a run, and for the teacher if its weight file exists."""
    part = record.config.teacher
    role, name = ("network", TEACHER_NAME) if part is None else ("student", STUDENT_NAME)
    own = load_network(record.folder / name, None, None, None, device)
    _require_digest(own, record.figure("sha256"), "restore the file, or train again")
    yield role, own
    if part is None:
        return
    path = teacher or (Path(part.weights) if part.weights else None)
    if path is None or (teacher is None and not path.exists()):
        logger.info("the teacher is not shown, because its weight file is not found; name the file with --teacher")
        return
    if part.others:
        logger.info("the teacher is not shown, because the run has several teachers; visualize their weight files")
        return
    found = load_network(path, part.arch, *_normalization(record, own), device)
    _require_digest(found, record.figure("teacher_sha256"), "choose the teacher of the run with --teacher")
    yield "teacher", found


def _normalization(record: RunRecord, student: Network) -> tuple[Triple | None, Triple | None]:
    """Return mean and std of the teacher: of the config, else of the student, or None."""
    teacher, own = (getattr(record.config, role) for role in ("teacher", "student"))
    given = [
        getattr(teacher, name) or (None if getattr(own, name) else getattr(student, name)) for name in ("mean", "std")
    ]
    return given[0], given[1]


def _require_digest(network: Network, sha256: str | None, action: str) -> None:
    if sha256 not in (None, network.sha256):
        raise DistillError(f"{network.path}: sha256 is {network.sha256}, but the summary has {sha256}; {action}")


def visualize_weights(
    network: Network, size: int, out: Path, options: ImageOptions, names: list[str] | None = None
) -> None:
    """Write the PNG file ``out`` with images of ``size`` pixels that maximize the logits of ``network``.

    ``names`` are the names of the classes, if known.
    """
    require_size(network.arch, network.num_classes, size)
    classes = options.classes or range(min(network.num_classes, MAX_CLASSES))
    if max(classes) > (last := network.num_classes - 1):
        raise DistillError(f"--classes {max(classes)}: the network has classes 0 to {last}; choose from these")
    network.model.eval().requires_grad_(False)
    with progress_bar(network.arch, options.steps) as update:
        start = (network.model, torch.tensor(classes), size, (network.mean, network.std))
        images = excite(*start, steps=options.steps, seed=options.seed, update=update)
    labels = [names[number] if names and number < len(names) else str(number) for number in classes]
    with explain_errors(out, "run the same command again, or choose another --out"), atomic_file(out) as file:
        _sheet(images, labels).save(file, "PNG", optimize=True)


def _sheet(images: Tensor, labels: list[str]) -> Image.Image:
    """Return a sheet of images, uint8 (n, size, size, 3), in rows of five, with a label below each image."""
    tile = images.shape[1] * max(1, TILE // images.shape[1])
    rows = math.ceil(len(images) / COLUMNS)
    width, height = tile + GAP, tile + LABEL + GAP
    sheet = Image.new("RGBA", (min(len(images), COLUMNS) * width - GAP, rows * height - GAP))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        x, y = number % COLUMNS * width, number // COLUMNS * height
        sheet.paste(Image.fromarray(image.numpy()).resize((tile, tile), Image.Resampling.NEAREST), (x, y))
        while draw.textlength(label, font) > tile:
            label = label.removesuffix("…")[:-1] + "…"  # noqa: PLW2901
        draw.text((x + tile // 2, y + tile + 2), label, fill=(128, 128, 128, 255), font=font, anchor="ma")
    return sheet
