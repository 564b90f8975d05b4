"""Fixtures of the tests of ``distill``: small teachers, labeled images, and options of short runs."""

import io
import os
import signal
import tarfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from distill.models import build_model
from distill.training.trainer import Trainer
from distill.weights.files import save_weights
from tests.conftest import Result
from tests.helpers.fork_server import ForkServer

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)

Stopping = Callable[[int], AbstractContextManager[None]]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use a separate cache of decoded sets for each test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def fork_server() -> Iterator[ForkServer]:
    """Yield a server that starts programs in processes of their own without the imports of torch and distill."""
    server = ForkServer()
    yield server
    server.close()


@pytest.fixture(scope="session")
def teacher_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a ResNet-8 with random weights and four classes, and return the path."""
    torch.manual_seed(3)
    model = build_model("resnet8", 4)
    model.train()
    model(torch.randn(64, 3, 32, 32))  # sets the statistics of the batch norms
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    save_weights(path, model, arch="resnet8", num_classes=4, mean=MEAN, std=STD)
    return path


@pytest.fixture(scope="session")
def images() -> tuple[np.ndarray, np.ndarray]:
    """Return twenty images, uint8 (20, 32, 32, 3), and their labels, 0 to 3."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8), np.arange(20) % 4


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "png")
    return buffer.getvalue()


def write_tar(path: Path, members: list[tuple[str, bytes]], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture(scope="session")
def eval_path(images: tuple[np.ndarray, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the images and labels as a WebDataset tar, and return the path."""
    members = []
    for i, (image, label) in enumerate(zip(*images, strict=True)):
        members += [(f"{i:04d}.cls", str(label).encode()), (f"{i:04d}.png", png(image))]
    return write_tar(tmp_path_factory.mktemp("eval") / "test.tar", members)


@pytest.fixture(scope="session")
def train_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write twenty other images and labels as a WebDataset tar for training, and return the path."""
    images = np.random.default_rng(1).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    members = []
    for i, image in enumerate(images):
        members += [(f"{i:04d}.cls", str(i % 4).encode()), (f"{i:04d}.png", png(image))]
    return write_tar(tmp_path_factory.mktemp("train") / "train.tar", members)


CONFIG = {
    "teacher": {"arch": "resnet8", "num_classes": 4},
    "student": {"arch": "resnet8"},
    "optim": {"name": "adam", "lr": 0.004, "schedule": "onecycle"},
    "data": {"batch_size": 16, "workers": 2},
    "train": {"epochs": 1, "precision": "fp32", "log_steps": 4},
}
TEACHER = {
    "network": {"arch": "resnet8", "num_classes": 4},
    "optim": {"name": "sgd", "lr": 0.05},
    "data": {"batch_size": 16},
    "train": {"samples": 96, "precision": "fp32"},
}


@pytest.fixture
def config_path(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(CONFIG))
    return path


@pytest.fixture
def arguments(patchset_path: Path, config_path: Path, teacher_path: Path, eval_path: Path) -> list[Any]:
    base = ["train", "--shards", patchset_path, "--config", config_path, "--teacher", teacher_path]
    return [*base, "--eval", eval_path, "--device", "cpu", "--out"]


def assert_stopped(result: Result, *parts: str) -> None:
    """Check that a signal stopped a run: a note at once, and a last line that contains every part."""
    first, *_, last = result.err.strip().splitlines()
    assert result.status == 130 and first.startswith("stopping after this step"), result
    assert all(part in last for part in parts), result


@pytest.fixture
def stopping(monkeypatch: pytest.MonkeyPatch) -> Stopping:
    """Return a context manager that sends SIGTERM to runs during a given step."""
    original = Trainer.train_step

    @contextmanager
    def at(last: int) -> Iterator[None]:
        def train_step(self: Trainer, step: int) -> torch.Tensor:
            if step == last:
                os.kill(os.getpid(), signal.SIGTERM)
            return original(self, step)

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "train_step", train_step)
            yield

    return at
