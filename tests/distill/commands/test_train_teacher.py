"""Test networks that learn from labels: files of a run, targets, result, and resuming."""

import copy
import json
import os
import pickle
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import distill.training.run
import distill.training.trainer
from distill.augment import AugmentConfig
from distill.commands.train_teacher import channel_statistics
from distill.data.batches import Resident, View
from distill.data.labelled import load_labelled
from distill.data.sampler import Order
from distill.runtime.distributed import RunContext
from distill.targets.targets import LabelTargets
from distill.training.checkpoint import CHECKPOINT_NAME, read_checkpoint
from distill.training.trainer import new_network
from tests.conftest import Program, assert_one_line
from tests.distill.conftest import assert_stopped

CPU = torch.device("cpu")
CONFIG = {
    "network": {"arch": "resnet8", "num_classes": 4},
    "labels": {"smoothing": 0.1},
    "optim": {"name": "sgd", "lr": 0.05, "nesterov": True, "weight_decay": 0.0005, "schedule": "cosine"},
    "data": {"batch_size": 16},
    "train": {"epochs": 6, "precision": "fp32", "log_steps": 4},
}


def dataset(count: int, seed: int) -> tuple[np.ndarray, list[int]]:
    """Return images, uint8 (count, 32, 32, 3), and labels. A label is the position of the bright corner."""
    rng = np.random.default_rng(seed)
    labels = [i % 4 for i in range(count)]
    images = rng.integers(0, 120, (count, 32, 32, 3), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        y, x = 16 * (label // 2), 16 * (label % 2)
        image[y : y + 16, x : x + 16] += 100
    return images, labels


@pytest.fixture
def cifar(tmp_path: Path) -> Path:
    """Write CIFAR-10's Python files with 32 images each and four classes, and return their folder."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for number, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        images, labels = dataset(32, number)
        value = {b"data": images.transpose(0, 3, 1, 2).reshape(32, -1), b"labels": labels}
        (folder / name).write_bytes(pickle.dumps(value))
    return folder


@pytest.fixture
def arguments(cifar: Path, tmp_path: Path) -> list[Any]:
    path = tmp_path / "supervised.yaml"
    path.write_text(yaml.safe_dump(CONFIG))
    sets = ["--set", "augment.flip=false", "--set", "augment.pad_crop=2"]
    return ["train-teacher", "--data", cifar, "--config", path, "--eval", cifar, "--device", "cpu", *sets, "--out"]


def test_a_student_does_not_begin_where_its_teacher_began(
    run_distill: Program,
    arguments: list[Any],
    tmp_path: Path,
    patchset_path: Path,
    config_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A student and its teacher have different initial weights, even with one architecture and one seed."""
    first: dict[str, torch.nn.Module] = {}

    def watched(*given: Any, **more: Any) -> torch.nn.Module:
        network = new_network(*given, **more)
        first[given[3]] = copy.deepcopy(network)
        return network

    monkeypatch.setattr(distill.training.run, "new_network", watched)
    assert run_distill(*arguments, tmp_path / "t", "--set", "train.seed=3").status == 0
    given = ["--config", config_path, "--teacher", tmp_path / "t" / "teacher.safetensors", "--set", "train.seed=3"]
    assert run_distill("train", "--shards", patchset_path, *given, "--out", tmp_path / "s").status == 0
    teacher, student = (first[name].state_dict() for name in ("init from labels", "init"))
    drawn = [name for name, value in teacher.items() if value.is_floating_point() and len(value.unique()) > 1]
    assert len(drawn) == 9  # seven convolutions, and the linear layer's weight and bias
    for name in drawn:
        assert float((teacher[name] == student[name]).float().mean()) < 0.01, name


@pytest.mark.parametrize(
    ("seed", "purpose", "weights"),
    [
        (0, "init", [0.2391488, 0.0107132, 0.2852725, -0.4953937]),
        (0, "init from labels", [-0.2880092, 0.4246953, -0.0843306, -0.0758547]),
        (1, "init", [-0.0645898, -0.0544498, -0.0886467, -0.1398438]),
        (1, "init from labels", [0.27847, -0.1264548, 0.0768707, -0.0023436]),
    ],
)
def test_first_weights_stay(seed: int, purpose: Any, weights: list[float]) -> None:
    """A seed always draws the same initial weights, also in later versions.

    On another CPU the weights differ only by rounding.
    """
    found = new_network("resnet8", 10, seed, purpose).state_dict()["conv1.weight"].flatten()[:4]
    torch.testing.assert_close(found, torch.tensor(weights), rtol=1e-4, atol=1e-6)


def test_it_learns_and_may_teach(
    run_distill: Program, arguments: list[Any], tmp_path: Path, cifar: Path, patchset_path: Path, config_path: Path
) -> None:
    """A network trained from labels reaches more than 90 %, and can be the teacher of another run."""
    out = tmp_path / "run"
    result = run_distill(*arguments, out, "--set", "eval.every=480")
    assert result.status == 0 and "training data: 160 images of 4 classes in " in result.out, result
    assert sorted(path.name for path in out.iterdir()) == [
        *(
            "checkpoint.previous.safetensors",
            "checkpoint.safetensors",
            "classes.json",
            "config.yaml",
            "metrics.jsonl",
        ),
        *("report.html", "summary.json", "teacher.safetensors"),
    ]
    summary = json.loads((out / "summary.json").read_text())
    assert summary["top1"] > 90 and len(summary["per_class"]) == 4 and summary["samples_seen"] == 960
    assert summary["eval_sha256"] == load_labelled(cifar, None).sha256
    measured = run_distill("eval", "--weights", out / "teacher.safetensors", "--data", cifar, "--json")
    assert json.loads(measured.out)["top1"] == summary["top1"]
    base = ["--shards", patchset_path, "--config", config_path, "--eval", cifar, "--device", "cpu"]
    weights = out / "teacher.safetensors"
    taught = run_distill("train", *base, "--teacher", weights, "--out", tmp_path / "student")
    assert taught.status == 0 and f"teacher resnet8: top-1 {summary['top1']:.2f} %" in taught.out


def test_a_stopped_run_resumes_exactly(
    run_distill: Program, arguments: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = ["--set", "train.ema=0.9", "--set", "train.epochs=2", "--set", "augment.cutmix_alpha=1"]
    assert run_distill(*arguments, tmp_path / "whole", *sets).status == 0
    original = distill.training.trainer.Trainer.train_step

    def stop_at_7(self: distill.training.trainer.Trainer, step: int) -> torch.Tensor:
        if step == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(distill.training.trainer.Trainer, "train_step", stop_at_7)
        assert_stopped(run_distill(*arguments, tmp_path / "cut", *sets), "stopped at step 8 of 20")
    assert run_distill(*arguments, tmp_path / "cut", *sets, "--resume").status == 0
    first, second = ((tmp_path / name / "teacher.safetensors").read_bytes() for name in ("whole", "cut"))
    assert first == second


@pytest.mark.parametrize("box", ["batch", "sample"])
def test_targets_are_mixed_as_pixels_are(box: str) -> None:
    """If two images are mixed, their classes are weighted by the shares of the pixels.

    In this test each class has one color. So the share of a color is the weight of the class.
    """
    labels = torch.arange(24) % 4
    samples = (labels * 60).to(torch.uint8)[:, None, None, None].expand(24, 8, 8, 3).contiguous()
    augment = AugmentConfig(pad_crop=0, flip=False, cutmix_alpha=1, cutmix_box=box)
    view = View(
        source=Resident(samples=samples, order=Order(24, 6, 0), context=RunContext(device=CPU)),
        augment=augment,
        seed=0,
        period=99,
    )
    targets = LabelTargets(
        labels=labels, order=view.source.order, num_classes=4, smoothing=0.2, context=RunContext(device=CPU)
    )
    for step in range(12):
        batch = view.batch(step)
        shares = torch.stack([(batch.images == 60 * c).double().mean(dim=(1, 2, 3)) for c in range(4)], dim=1)
        assert torch.allclose(targets(batch, batch.images).double(), 0.8 * shares + 0.05, atol=1e-6)


def test_channel_statistics() -> None:
    images = torch.randint(0, 256, (5000, 8, 8, 3), dtype=torch.uint8)
    mean, std = channel_statistics(images)
    wide = images.double().div(255).reshape(-1, 3)
    assert mean == tuple(round(float(v), 4) for v in wide.mean(dim=0))
    assert std == tuple(round(float(v), 4) for v in wide.std(dim=0, correction=0))
    assert channel_statistics(torch.zeros(4, 8, 8, 3, dtype=torch.uint8)) == ((0, 0, 0), (0.001, 0.001, 0.001))


def test_the_average_is_the_result(run_distill: Program, arguments: list[Any], tmp_path: Path) -> None:
    """With ``train.ema``, the weight file of the run contains the averaged weights."""
    for name, extra in (("plain", []), ("ema", ["--set", "train.ema=0.99"])):
        assert run_distill(*arguments, tmp_path / name, *extra, "--set", "train.epochs=1").status == 0
    plain, ema = (json.loads((tmp_path / n / "summary.json").read_text()) for n in ("plain", "ema"))
    assert plain["weights"] == "last step" and ema["weights"] == "average (train.ema) at the last step"
    state = read_checkpoint(tmp_path / "ema" / CHECKPOINT_NAME)
    last = read_checkpoint(tmp_path / "plain" / CHECKPOINT_NAME)["student"]
    assert all(torch.equal(last[name], value) for name, value in state["student"].items())

    from distill.weights.files import load_weights

    saved = load_weights(tmp_path / "ema" / "teacher.safetensors").content
    assert all(torch.equal(saved[name], state["average"][f"module.{name}"]) for name in saved)
    assert not torch.equal(saved["conv1.weight"], last["conv1.weight"])


@pytest.mark.parametrize(
    ("extra", "part"),
    [
        (["--data", "none"], "none: the training data does not exist"),
        (["--set", "network.num_classes=3"], "the labels are from 0 to 3, expected 0 to 2"),
        (["--set", "network.arch=resnet9"], "6n + 2 layers"),
        (["--set", "loss.name=kl"], "unknown key 'loss'"),
        (["--seeds", "1,x"], "expected whole numbers with commas"),
    ],
)
def test_bad_input(run_distill: Program, arguments: list[Any], tmp_path: Path, extra: list[str], part: str) -> None:
    result = run_distill(*arguments, tmp_path / "run", *extra)
    assert result.status in (1, 2) and part in result.err
    assert not (tmp_path / "run").exists()


def test_a_missing_batch_file_is_named(
    run_distill: Program, arguments: list[Any], tmp_path: Path, cifar: Path
) -> None:
    (cifar / "data_batch_4").unlink()
    assert_one_line(run_distill(*arguments, tmp_path / "run"), "data_batch_4: this file of CIFAR is missing")
