"""Test the Python interface: networks, losses and data of the user give the results of the programs."""

import functools
import json
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import distill
import distill.api
from distill.errors import DistillError
from distill.report import write_report
from distill.training.checkpoint import read_checkpoint
from distill.user_code import import_user
from manifests import open_patchset
from tests.conftest import Program
from tests.distill.conftest import CONFIG, MEAN, STD, TEACHER, Stopping

SHORT: dict[str, Any] = CONFIG | {"train": {"samples": 64, "precision": "fp32", "log_steps": 2}}


class Net(nn.Module):
    """A small network with a batch norm, dropout and tied weights."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.Dropout(0.1)
        self.linear = nn.Linear(8, classes)
        self.same = self.linear

    def forward(self, x: Tensor) -> Tensor:
        return self.same(self.drop(self.norm(self.conv(x)).relu().mean(dim=(2, 3))))


class Pairs:
    """A map-style data set of images and labels."""

    def __init__(self, images: Any, labels: Any = None) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        return self.images[index] if self.labels is None else (self.images[index], self.labels[index])


def mean_square(student: Tensor, teacher: Tensor) -> Tensor:
    return F.mse_loss(student, teacher)


@pytest.fixture
def train(patchset_path: Path, teacher_path: Path, tmp_path: Path) -> Callable[..., distill.TrainResult]:
    """Return ``distill.train`` with default arguments for a short run in ``tmp_path / "run"``."""

    def call(shards: Any = patchset_path, **given: Any) -> distill.TrainResult:
        default = {"config": SHORT, "teacher": teacher_path, "out": tmp_path / "run", "device": "cpu"}
        return distill.train(shards, **default | given)

    return call


Train = Callable[..., distill.TrainResult]


def refused(call: Callable[[], Any], *parts: str) -> distill.DistillError:
    """Check that a call raises a DistillError of one line with all ``parts``."""
    with pytest.raises(distill.DistillError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message and "; " in message, message
    for part in parts:
        assert part in message, (part, message)
    return caught.value


def test_python_and_the_program_train_the_same_student(
    train: Train, arguments: list[Any], tmp_path: Path, run_distill: Program, eval_path: Path
) -> None:
    assert run_distill(*arguments, tmp_path / "program").status == 0
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    result = train(config=tmp_path / "tiny.yaml", eval=str(eval_path))
    assert torch.equal(torch.get_rng_state(), state) and torch.get_num_threads() == threads
    name = "student.safetensors"
    assert (result.out / name).read_bytes() == (tmp_path / "program" / name).read_bytes()
    assert (result.out / "config.yaml").read_text() == (tmp_path / "program/config.yaml").read_text()
    summary = json.loads((tmp_path / "program/summary.json").read_text())
    assert result.metrics == json.loads((result.out / "summary.json").read_text())
    assert result.metrics.keys() == summary.keys() and result.metrics["sha256"] == summary["sha256"]
    assert not result.student.training and next(result.student.parameters()).requires_grad
    measured = distill.evaluate(result.out / name, eval_path, device="cpu")
    assert measured["top1"] == result.metrics["student_top1"]


def test_objects_give_the_result_of_names(
    train: Train, patchset_path: Path, teacher_path: Path, images: Any, eval_path: Path, tmp_path: Path
) -> None:
    named = train(out=tmp_path / "named", loss={"name": "mse"}, eval=eval_path, settings={"data.cache": "ram"})
    loaded = distill.load_network(teacher_path)
    torch.manual_seed(5)
    objects = train(
        Pairs(open_patchset(patchset_path)),
        out=tmp_path / "objects",
        teacher=distill.Teacher(loaded.model, MEAN, STD),
        loss=mean_square,
        eval=Pairs(*images),
    )
    for key in ("student_top1", "teacher_top1", "agreement", "eval_sha256", "seed"):
        assert objects.metrics[key] == named.metrics[key], key
    for key, value in named.student.state_dict().items():
        assert torch.equal(value, objects.student.state_dict()[key]), key
    assert objects.metrics["teacher_arch"] == "distill.models.resnet:CifarResNet"
    assert objects.metrics["config_sha256"] != named.metrics["config_sha256"]
    text = (objects.out / "config.yaml").read_text()
    assert "function: tests.distill.test_api:mean_square" in text and "weights" not in text


def test_a_module_is_the_student(train: Train, tmp_path: Path, images: Any) -> None:
    module = Net().half().eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    result = train(student=module, settings={"optim.lr": 1e-9, "optim.schedule": "constant"})
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert isinstance(result.student, Net) and not result.student.training
    trained = result.student.state_dict()
    assert torch.allclose(trained["linear.weight"], before["linear.weight"].float(), atol=1e-6)
    assert result.metrics["arch"] == "tests.distill.test_api:Net" and result.metrics["initial_sha256"]
    assert (result.out / "report.html").exists() and repr(result) == f"TrainResult(out={result.out!r})"
    loaded = distill.load_network(result.out / "student.safetensors", arch=Net())
    assert all(torch.equal(value, trained[name]) for name, value in loaded.model.state_dict().items())
    data = Pairs(*images)
    own = distill.evaluate(distill.Teacher(result.student, MEAN, STD), data, device="cpu", teacher=loaded)
    assert own["agreement"] == 100 and own["top1"] == distill.evaluate(loaded, data, device="cpu")["top1"]
    refused(lambda: distill.load_network(result.out / "student.safetensors"), "test_api:Net", "--allow-import tests")
    refused(lambda: distill.load_network(result.out / "student.safetensors", arch=Net(5)), "another shape")
    write_report([result.out], None, [])


def test_a_run_with_objects_resumes_to_the_same_weights(
    train: Train, tmp_path: Path, stopping: Stopping, images: Any
) -> None:
    given = {"student": Net(), "loss": mean_square, "eval": Pairs(*images)}
    whole = train(out=tmp_path / "whole", **given)
    with stopping(2), pytest.raises(KeyboardInterrupt, match="resume=True"):
        train(**given)
    refused(lambda: train(**given | {"loss": lambda s, t: (s - t).square().mean()}, resume=True), "function was")
    refused(lambda: train(**given | {"student": Net()}, resume=True), "initial_sha256 was")
    assert read_checkpoint(tmp_path / "run/checkpoint.safetensors")["step"] == 3
    resumed = train(**given, resume=True)
    name = "student.safetensors"
    assert (resumed.out / name).read_bytes() == (whole.out / name).read_bytes()
    again = train(**given, resume=True)
    assert again.metrics == resumed.metrics


def test_train_teacher_accepts_data_sets_and_modules(tmp_path: Path, train_path: Path, eval_path: Path) -> None:
    arrays = np.random.default_rng(1).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    common: dict[str, Any] = {"config": TEACHER, "eval": eval_path, "device": "cpu"}
    named = distill.train_teacher(str(train_path), out=tmp_path / "named", **common)
    objects = distill.train_teacher(Pairs(arrays, np.arange(20) % 4), out=tmp_path / "objects", **common)
    assert objects.metrics["sha256"] == named.metrics["sha256"]
    own = distill.train_teacher(Pairs(arrays, torch.arange(20) % 4), network=Net(), out=tmp_path / "own", **common)
    assert own.metrics["arch"] == "tests.distill.test_api:Net" and isinstance(own.student, Net)
    wrong = functools.partial(distill.train_teacher, train_path, out=tmp_path / "wrong", **common)
    refused(lambda: wrong(network=Net(5)), "network tests.distill.test_api:Net: has 5 classes, expected 4")


class Recorder(distill.Callback):
    def __init__(self, fail: str = "", error: type[BaseException] = RuntimeError) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.fail, self.error = fail, error

    def _add(self, name: str, *values: Any) -> None:
        torch.rand(3)
        self.calls.append((name, values))
        if name == self.fail:
            raise self.error("no network")
        for value in values:
            if isinstance(value, dict):
                value.clear()

    def on_start(self, out: Path, config: dict[str, Any], samples: int) -> None:
        self._add("start", samples, config)

    def on_log(self, samples: int, figures: dict[str, float]) -> None:
        self._add("log", samples, sorted(figures))

    def on_evaluation(self, samples: int, figures: dict[str, float]) -> None:
        self._add("evaluation", samples, sorted(figures))

    def on_checkpoint(self, samples: int, path: Path) -> None:
        assert path.exists()
        self._add("checkpoint", samples)

    def on_end(self, summary: dict[str, Any]) -> None:
        self._add("end", summary)


def test_callbacks_are_called_and_change_nothing(train: Train, tmp_path: Path, eval_path: Path) -> None:
    recorder = Recorder()
    given = {"eval": eval_path, "settings": {"eval.every": 32}}
    plain = train(out=tmp_path / "plain", **given)
    watched = train(**given, callbacks=[recorder])
    assert watched.metrics["sha256"] == plain.metrics["sha256"] and watched.metrics["seed"] == 0
    names = [name for name, _ in recorder.calls]
    assert names == ["start", "log", "evaluation", "log", "evaluation", "checkpoint", "end"]
    assert recorder.calls[1][1] == (32, ["images_per_second", "loss", "lr"])
    failing = Recorder("log")
    error = refused(lambda: train(out=tmp_path / "failing", callbacks=[failing]), "Recorder.on_log", "no network")
    assert isinstance(error.__cause__, RuntimeError)
    train(out=tmp_path / "failing", resume=True)
    leaving = Recorder("log", SystemExit)
    refused(lambda: train(out=tmp_path / "leaving", callbacks=[leaving]), "Recorder.on_log", "raised SystemExit")
    for wrong in (recorder, None, [Recorder]):
        refused(lambda wrong=wrong: train(out=tmp_path / "wrong", callbacks=wrong), "callbacks: ")  # type: ignore[misc]


def broken(student: Tensor, teacher: Tensor) -> Tensor:
    raise KeyError("missing layer")


@pytest.mark.parametrize(
    ("loss", "parts"),
    [
        (broken, ("loss tests.distill.test_api:broken", "(your code) raised KeyError", "missing layer")),
        (
            lambda student: student.mean(),
            ("cannot be called with (student_logits, teacher_logits)", "positional argument"),
        ),
        (lambda student, teacher: student - teacher, ("returned a torch.float32 of shape (8, 4)", "scalar")),
        (lambda student, teacher: 1.0, ("returned float", "scalar tensor")),
        (lambda student, teacher: teacher.mean(), ("without a gradient",)),
        (lambda student, teacher: student.mean() * float("nan"), ("returned nan for random logits",)),
        (lambda student, teacher: (student / (len(student) == 8)).mean(), ("the loss became", "at step 0")),
        ({"name": "function", "function": "a:b", "sha256": "0" * 64}, ("the import of a:b", "--allow-import a")),
        ({"name": "nonsense"}, ("loss.name is 'nonsense'",)),
    ],
)
def test_a_wrong_loss_is_one_line(train: Train, loss: Any, parts: tuple[str, ...]) -> None:
    error = refused(lambda: train(loss=loss), *parts)
    if loss is broken:
        assert "raise KeyError" in "".join(traceback.format_exception(error))


class Wrong(nn.Module):
    def __init__(self, result: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.result, self.weight = result, nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Any:
        return self.result(x)


@pytest.mark.parametrize(
    ("result", "parts"),
    [
        (lambda x: x, ("returns a tensor of shape (2, 3, 32, 32)", "expected logits (2, classes)")),
        (lambda x: {"logits": x}, ("returns dict",)),
        (lambda x: x.mean(dim=(2, 3)) / 0, ("logits are not finite",)),
        (lambda x: x.nonsense(), ("raised AttributeError",)),
        (lambda x: x.mean(dim=(2, 3)), ("3 classes", "4")),
    ],
)
def test_a_wrong_module_is_one_line(train: Train, result: Callable[[Tensor], Any], parts: tuple[str, ...]) -> None:
    name = "network tests.distill.test_api:Wrong"
    refused(lambda: train(student=Wrong(result)), name, *parts)
    refused(lambda: train(teacher=distill.Teacher(Wrong(result), MEAN, STD)), name, *parts)


def test_a_weight_file_gives_missing_keys_of_the_config(
    train: Train, patchset_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = {key: value for key, value in SHORT.items() if key != "teacher"}
    patchset = open_patchset(patchset_path)
    result = train(patchset, config=config, out=None)
    assert result.metrics["teacher_arch"] == "resnet8"
    assert result.out == Path(f"runs/python-{patchset.manifest.set_id[:8]}-seed0") and result.out.is_dir()


class Faulty(Net):
    """A network that fails in training mode, or after some calls."""

    def __init__(self, fails: str) -> None:
        super().__init__()
        self.fails, self.calls = fails, 0

    def forward(self, x: Tensor) -> Any:
        self.calls += self.training
        if self.fails == "late" and self.calls > 2:
            raise ValueError("two calls only")
        logits = super().forward(x)
        if self.fails == "precision":
            return logits + (
                x.mean(dim=(2, 3)) @ torch.ones(3, 4 * bool(len(x)))
            )  # len stops torch.fx, which would convert the constant
        return (logits, logits) if self.fails == "training" and self.training else logits


def test_a_network_that_fails_later_is_one_line(train: Train, tmp_path: Path) -> None:
    name = "network tests.distill.test_api:Faulty"
    refused(lambda: train(student=Faulty("training")), f"{name}: returns tuple", "in training mode")
    error = refused(lambda: train(student=Faulty("late"), settings={"train.compile": "off"}), name, "two calls only")
    assert isinstance(error.__cause__, ValueError)
    teacher, half = distill.Teacher(Faulty("precision"), MEAN, STD), {"train.precision": "bf16"}
    refused(
        lambda: train(teacher=teacher, settings=half, out=tmp_path / "half"),
        f"{name} in bf16",
        "train.precision fp32",
        "dtype",
    )
    refused(lambda: train(student=Net().requires_grad_(False), out=tmp_path / "frozen"), "requires_grad_(True)")


def test_a_teacher_states_its_classes(train: Train, tmp_path: Path, images: Any) -> None:
    teacher = distill.Teacher(Net(), MEAN, STD, ("ant", "bee", "cat", "dog"))
    config = {key: value for key, value in SHORT.items() if key != "teacher"}
    result = train(config=config, teacher=teacher, eval=Pairs(*images))
    assert result.metrics["num_classes"] == 4 and result.metrics["classes"] == list(teacher.classes)
    assert distill.load_network(result.out / "student.safetensors").classes == teacher.classes
    with_three = distill.Teacher(Net(), MEAN, STD, ("ant", "bee", "cat"))
    refused(lambda: train(teacher=with_three), "returns 4 logits, but classes has 3 names")
    refused(lambda: train(teacher=Net()), "teacher: is Net", "distill.Teacher(module, mean, std)")
    refused(lambda: distill.Teacher(Net(), [125, 120, 110], STD), "mean is 125, 120, 110", "divide it by 255")
    refused(lambda: distill.Teacher(Net(), MEAN, 0.2), "std is 0.2, expected three numbers")  # type: ignore[arg-type]
    refused(lambda: distill.Teacher("a.pt", MEAN, STD), "expected a torch.nn.Module")  # type: ignore[arg-type]
    refused(
        lambda: distill.evaluate(teacher, Pairs(*images), teacher=distill.Teacher(Net(5), MEAN, STD)), "5 classes"
    )


@pytest.mark.parametrize(
    ("data", "parts"),
    [
        (Pairs(np.zeros((40, 3, 32, 32), np.uint8)), ("ndarray uint8 of shape (3, 32, 32)", "(height, width, 3)")),
        (Pairs(torch.zeros(40, 32, 32, 3)), ("Tensor torch.float32 of shape (32, 32, 3)", "expected RGB as uint8")),
        (Pairs(np.zeros((40, 32, 16, 3), np.uint8)), ("16×32 px is not square",)),
        (Pairs([np.zeros((side, side, 3), np.uint8) for side in (32, 16)]), ("[1]: has 16×16 px, but image 0",)),
        (Pairs(np.zeros((40, 32, 32, 3), np.uint8), [0] * 40), ("a tuple of 2 values", "return only the image")),
        (Pairs([]), ("contains no image",)),
        (3, ("data set builtins:int: has no __len__",)),
    ],
)
def test_wrong_patches_are_one_line(train: Train, data: Any, parts: tuple[str, ...]) -> None:
    refused(lambda: train(data), *parts)


@pytest.mark.parametrize(
    ("labels", "parts"),
    [
        (None, ("is ndarray uint8 of shape (32, 32, 3)", "pair of an image and a class number")),
        ([-1] * 20, ("[0]: the label is -1",)),
        ([0.5] * 20, ("is a tuple of 2 values",)),
        ([7] * 20, ("labels are from 7 to 7, expected 0 to 3",)),
        ([0], ("test_api:Pairs[1] (your code) raised IndexError",)),
    ],
)
def test_wrong_labelled_data_is_one_line(train: Train, images: Any, labels: Any, parts: tuple[str, ...]) -> None:
    refused(lambda: train(eval=Pairs(images[0], labels)), *parts)


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"out": 5}, "5 is a int, expected a path; give a text or a Path"),
        ({"out": b"run"}, "b'run' is a bytes, expected a path"),
        ({"out": "a\0b"}, "'a\\x00b' has a null character, expected a path"),
        ({"out": "a\ud800"}, "'a\\ud800' is not valid Unicode text, expected a path"),
        ({"settings": ["train.samples"]}, "expected a dict of values by config key"),
    ],
)
def test_arguments_of_other_types_are_one_line(train: Train, given: dict[str, Any], part: str) -> None:
    refused(lambda: train(**given), part)


def test_evaluation_images_must_not_be_patches(train: Train, images: Any) -> None:
    refused(lambda: train(Pairs(images[0]), eval=Pairs(*images)), "20 of 20 evaluation images", "training images")


def test_wrong_arguments_are_one_line(train: Train, eval_path: Path, tmp_path: Path) -> None:
    refused(lambda: train(config="fast-cifr"), "did you mean 'fast-cifar'")
    refused(lambda: train(config={"nonsense": 1}), "config from Python", "nonsense")
    refused(lambda: train(settings={"optim.lrr": 1}), "optim.lrr")
    refused(lambda: train(settings={1: 2}), "settings: is {1: 2}, expected a dict")
    refused(lambda: train(settings=[("optim.lr", 1)]), "settings: is [('optim.lr', 1)], expected a dict")
    refused(lambda: train(eval=eval_path, settings={"eval.data": "x"}), "settings eval.data", "give only one")
    refused(lambda: train(student=Net), "student: is type", "give an instance")
    refused(lambda: train(device="tpu"), "--device tpu")
    refused(lambda: train(teacher=tmp_path / "none"), "does not exist")


def test_import_user_names_the_fault_and_keeps_the_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_ok.py").write_text("def double(x):\n    return 2 * x\n")
    (tmp_path / "mine_broken.py").write_text("raise RuntimeError('no licence')\n")
    monkeypatch.syspath_prepend(tmp_path)  # type: ignore[no-untyped-call]
    with pytest.raises(DistillError, match=r"^loss: the import of mine_ok:double .* --allow-import mine_ok"):
        import_user("mine_ok:double", "loss")
    for package in ("mine_ok", "mine_broken", "mine_missing"):
        distill.allow_import(package)
    assert import_user("mine_ok:double", "loss")(2) == 4
    with pytest.raises(DistillError, match=r"^loss: .* no function 'duoble'; did you mean double\?$"):
        import_user("mine_ok:duoble", "loss")
    with pytest.raises(DistillError, match=r"^loss: there is no module 'mine_missing'; install it"):
        import_user("mine_missing:double", "loss")
    with pytest.raises(DistillError, match=r"^loss: .*\(your code\) raised RuntimeError: no licence") as raised:
        import_user("mine_broken:double", "loss")
    first, *_, last = raised.value.user_traceback.splitlines()
    assert first.startswith("Traceback") and "mine_broken.py" in raised.value.user_traceback.splitlines()[1]
    assert last == "RuntimeError: no licence"
