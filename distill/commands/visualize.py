"""``distill visualize``: images that excite the classes of the networks of a run, or of one network."""

import dataclasses
import io
import logging
import math
from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from distill.commands.evaluate import Network, load_network
from distill.errors import DistillError
from distill.evaluation.neurons import excite
from distill.models import require_size
from distill.report.collect import NEURONS_PREFIX, RunRecord, read_run
from distill.training.run_dir import STUDENT_NAME, TEACHER_NAME
from manifests.format.digest import file_digest
from manifests.support.console import progress_bar
from manifests.support.files import describe_os_error, write_atomically

COLUMNS, TILE, LABEL, GAP = 5, 96, 18, 4
MAX_CLASSES = 20
"""The number of classes shown if none are chosen."""
logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """The ``classes`` to show by number (None: the first 20), and how: ``steps`` steps from noise of ``seed``."""

    classes: list[int] | None
    steps: int
    seed: int
    device: torch.device


def visualize_run(folder: Path, teacher: Path | None, options: ImageOptions) -> list[Path]:
    """Write ``neurons-student.png`` into a run directory, and ``neurons-teacher.png`` if the teacher's file is found.

    A run of labels has ``neurons-network.png``. ``teacher`` is used instead of the file that the config names.
    """
    record = read_run(folder)
    if record.summary is None:
        raise DistillError(f"{folder}: this run has not ended; go on with it, by --resume, first")
    if record.summary.size is None:
        raise DistillError(f"{folder}: is of an earlier version; give its weight file itself, with --size")
    names = record.classes.names if record.classes else None
    written = []
    for role, network in _networks(record, teacher, options.device):
        out = folder / f"{NEURONS_PREFIX}{role}.png"
        _write(network, record.summary.size, names, out, options, role)
        written.append(out)
    return written


def _networks(record: RunRecord, teacher: Path | None, device: torch.device) -> Iterator[tuple[str, Network]]:
    part = record.config.teacher
    if part is None:
        yield "network", _load(record.folder / TEACHER_NAME, record.figure("sha256"), device)
        return
    student = _load(record.folder / STUDENT_NAME, record.figure("sha256"), device)
    yield "student", student
    path = teacher or (Path(part.weights) if part.weights else None)
    if path is None or (teacher is None and not path.exists()):
        logger.info("the teacher's file is not where the run's config says; --teacher FILE shows it too")
        return
    network = load_network(path, part.arch, student.mean, student.std, device)
    _require_digest(path, record.figure("teacher_sha256"))
    yield "teacher", network


def _load(path: Path, sha256: str | None, device: torch.device) -> Network:
    network = load_network(path, None, None, None, device)
    _require_digest(path, sha256)  # after loading, which bounds the length of the file
    return network


def _require_digest(path: Path, sha256: str | None) -> None:
    """Check that a file is the one whose digest is in the run's summary."""
    if path.is_file() and sha256 is not None and (found := file_digest(path)) != sha256:
        raise DistillError(f"{path}: sha256 is {found}, the run's is {sha256}; give the file the run was made with")


def visualize_weights(network: Network, size: int, out: Path, options: ImageOptions) -> None:
    """Write what ``network``, which takes images of ``size`` pixels, wants to see as PNG ``out``."""
    _write(network, size, None, out, options, network.arch)


def _write(network: Network, size: int, names: list[str] | None, out: Path, options: ImageOptions, what: str) -> None:
    require_size(network.arch, network.num_classes, size)
    classes = list(range(min(network.num_classes, MAX_CLASSES))) if options.classes is None else options.classes
    if max(classes) >= network.num_classes:
        raise DistillError(f"--classes {max(classes)}: the network has classes 0 to {network.num_classes - 1}")
    network.model.eval().requires_grad_(False)
    with progress_bar(what, options.steps) as update:
        images = excite(
            *(network.model, torch.tensor(classes), size, (network.mean, network.std)),
            steps=options.steps,
            seed=options.seed,
            update=update,
        )
    labels = [names[number] if names and number < len(names) else str(number) for number in classes]
    buffer = io.BytesIO()
    _sheet(images, labels).save(buffer, "PNG", optimize=True)
    try:
        write_atomically(out, buffer.getvalue())
    except OSError as error:
        raise DistillError(f"{describe_os_error(error, out)}; choose another --out") from error


def _sheet(images: Tensor, labels: list[str]) -> Image.Image:
    """Draw images, uint8 (n, size, size, 3), in rows of five, each above its label."""
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
