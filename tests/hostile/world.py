"""Make the good files that cases change: a photo, its set, a teacher, stored logits, a run, evaluation data."""

import io
import shutil
import sys
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from PIL import Image

from distill.commands.make_logits import make_logits
from distill.commands.train import Distillation
from distill.config.schema import Config, parse_config
from distill.models import build_model
from distill.runtime.distributed import RunContext
from distill.training.run import run
from distill.weights.files import load_weights, save_weights
from patchgen.pipeline.build import build
from patchgen.pipeline.plan import make_plan
from patchgen.recipe import load_recipe
from patchgen.recipes import packaged_recipes
from patchgen.sources.photo import read_photo

N, SHARD, SIZE = 8, 4, 32
CONFIG = {
    "teacher": {"arch": "resnet8", "num_classes": 4},
    "student": {"arch": "resnet8"},
    "optim": {"name": "adam", "lr": 0.004, "schedule": "constant"},
    "data": {"batch_size": 4, "workers": 0},
    "train": {"epochs": 1, "precision": "fp32"},
}


def make_world(folder: Path) -> None:
    """Fill an empty folder with all files that the entrances read."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "photo.png")
    (folder / "recipe.yaml").write_bytes(_recipe())
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    _make_sets(folder)
    _make_images(folder, noise)
    _make_networks(folder)


def _recipe() -> bytes:
    import patchgen

    name = "crop" if "crop" in packaged_recipes() else packaged_recipes()[0]
    return (Path(patchgen.__file__).parent / "recipes" / f"{name}.yaml").read_bytes()


def _make_sets(folder: Path) -> None:
    photo = read_photo(folder / "photo.png")
    recipe = load_recipe("crop").with_format("png")
    plan = make_plan(photos=[photo], recipe=recipe, n=N, size=SIZE, seed=0, shard_size=SHARD)
    build(plan, [photo], folder / "set", workers=1)
    shutil.copytree(folder / "set", folder / "same")


def png(image: np.ndarray) -> bytes:
    """Return an image as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "png")
    return buffer.getvalue()


def write_tar(path: Path, members: list[tuple[str, bytes]], form: int = tarfile.USTAR_FORMAT) -> None:
    """Write a tar without compression."""
    with tarfile.open(path, "w", format=form) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def _make_images(folder: Path, noise: np.ndarray) -> None:
    """Write the same four images as tars, as folders and as CIFAR files."""
    squares = [np.ascontiguousarray(noise[16 * k : 16 * k + 32, 8 * k : 8 * k + 32]) for k in range(3)]
    squares.append(squares[0][::-1].copy())
    members = [
        (f"{k}.{end}", data)
        for k, s in enumerate(squares)
        for end, data in ((("cls"), str(k).encode()), ("png", png(s)))
    ]
    write_tar(folder / "eval.tar", members)
    write_tar(folder / "images.tar", [member for member in members if member[0].endswith("png")])
    rows = pa.table({"image": [png(square) for square in squares], "label": list(range(4))})
    pq.write_table(rows, folder / "rows.parquet")
    (folder / "images").mkdir()
    (folder / "cifar").mkdir()
    for k, square in enumerate(squares):
        (folder / "images" / f"{k}.png").write_bytes(png(square))
        (folder / "classes" / f"c{k}").mkdir(parents=True)
        (folder / "classes" / f"c{k}" / "x.png").write_bytes(png(square))
    records = b"".join(bytes([k]) + s.transpose(2, 0, 1).tobytes() for k, s in enumerate(squares))
    for name in ("test_batch.bin", *(f"data_batch_{k}.bin" for k in range(1, 6))):
        (folder / "cifar" / name).write_bytes(records)


def _make_networks(folder: Path) -> None:
    """Write a teacher in two file formats, its stored logits, and a finished run."""
    torch.manual_seed(3)
    model = build_model("resnet8", 4)
    save_weights(
        folder / "teacher.safetensors",
        model,
        arch="resnet8",
        num_classes=4,
        mean=(0.5, 0.4, 0.3),
        std=(0.2, 0.25, 0.3),
    )
    torch.save(load_weights(folder / "teacher.safetensors").content, folder / "weights.pt")
    given = {"teacher.weights": folder / "teacher.safetensors"}
    config = parse_config((folder / "config.yaml").read_text(), "config.yaml", given, Config)
    context = RunContext(device=torch.device("cpu"))
    run(lambda: Distillation(config, folder / "set", context), folder / "run", context, resume=False)
    make_logits(config, folder / "set", folder / "labels", context)


if __name__ == "__main__":
    make_world(Path(sys.argv[1]))
