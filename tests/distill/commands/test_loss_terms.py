"""Test runs with a sum of losses, with feature losses and with losses of the user."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor

import distill
from distill.config.schema import Config, make_config
from distill.models import build_model
from distill.targets.losses import hard_loss, kl_loss, make_loss, terms_of
from distill.training.checkpoint import read_checkpoint
from distill.weights.files import load_weights, save_weights
from manifests.support.user_code import source_digest
from tests.conftest import Program, assert_one_line
from tests.distill.conftest import CONFIG, MEAN, STD, Stopping
from tests.helpers.running import rows, same, timeless

FEATURES = [
    {"name": "kl", "temperature": 4, "weight": 0.9},
    {"name": "features", "student": "layer2", "teacher": "layer3", "weight": 2},
    {"name": "features", "student": "layer3", "teacher": "layer3", "kind": "attention"},
]
MODULE = """
import torch

def scaled(student, teacher, power, scale=1.0):
    return scale * (student - teacher).abs().pow(power).mean()

def constant(student, teacher):
    return torch.tensor(1.0)

def infinite(student, teacher):
    return (student - teacher).square().mean() / 0

def failing(student, teacher):
    raise KeyError("no such thing")

def leaving(student, teacher):
    raise SystemExit

def changing(student, teacher):
    value = (student.mul_(2) - teacher.mul_(2)).abs().mean()
    teacher.zero_()
    return value

def doubled(student, teacher):
    return 2 * (student - teacher).abs().mean()

def spoiled(student, teacher):
    value = (student - teacher).square()
    value.sub_(1).relu_().square().sqrt_()
    return (value.exp() * value.add_(1).exp()).mean()

def wide(student, teacher):
    return (student.double() - teacher).square().mean()

number = 3
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """Write a module of a user with losses, and return its name, which is new in each test."""
    name = f"own_{abs(hash(request.node.name))}"
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path / "modules")
    return name


def config_with(path: Path, **groups: Any) -> Path:
    path.write_text(yaml.safe_dump(CONFIG | groups))
    return path


def test_a_list_of_losses_is_their_sum() -> None:
    groups = {**CONFIG, "loss": [{"temperature": 4, "weight": 0.9}, {"name": "hard", "weight": 0.1}]}
    config = make_config(groups, "here", {}, Config)
    student, teacher = torch.randn(2, 6, 4)
    expected = 0.9 * kl_loss(student, teacher, 4) + 0.1 * hard_loss(student, teacher)
    assert torch.equal(make_loss(config.loss)(student, teacher), expected)
    one = make_config(groups | {"loss": [{"name": "mse"}]}, "here", {}, Config)
    assert torch.equal(make_loss(one.loss)(student, teacher), F.mse_loss(student, teacher))


def test_the_keys_of_a_loss_may_imply_its_name() -> None:
    pair = {"student": "layer3", "teacher": "layer3", "kind": "cosine", "weight": 2}
    own = {"function": "package.module:loss", "arguments": {"power": 2}}
    config = make_config({**CONFIG, "loss": [{"temperature": 4}, pair, own]}, "here", {}, Config)
    assert [term.name for term in terms_of(config.loss)] == ["kl", "features", "function"]


def test_a_list_of_one_loss_trains_the_same_student(
    run_distill: Program, arguments: list[Any], tmp_path: Path
) -> None:
    for name, sets in (("one", ["--set", "loss.name=mse"]), ("list", ["--set", "loss=[{name: mse}]"])):
        assert run_distill(*arguments, tmp_path / name, *sets).status == 0
    weights = [load_weights(tmp_path / name / "student.safetensors").content for name in ("one", "list")]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    kept = yaml.safe_load((tmp_path / "list/config.yaml").read_text())
    assert kept["loss"] == [{"name": "mse", "weight": 1.0}]


@pytest.mark.parametrize("more", [{}, {"ema": 0.9, "precision": "bf16"}], ids=["fp32", "bf16"])
def test_a_run_with_feature_losses_resumes_exactly(
    run_distill: Program, arguments: list[Any], config_path: Path, tmp_path: Path, stopping: Stopping, more: Any
) -> None:
    config_with(config_path, loss=FEATURES, train=CONFIG["train"] | more)  # type: ignore[operator]
    assert run_distill(*arguments, tmp_path / "whole").status == 0
    with stopping(6):
        assert run_distill(*arguments, tmp_path / "cut").status == 130
    held = read_checkpoint(tmp_path / "cut" / "checkpoint.safetensors")
    assert held["projections"].keys() == {"0.projection.weight", "0.projection.bias"}
    resumed = run_distill(*arguments, tmp_path / "cut", "--resume")
    assert resumed.status == 0 and "the run continues at step 7" in resumed.out
    assert same(tmp_path / "whole", tmp_path / "cut") and timeless(tmp_path / "whole") == timeless(tmp_path / "cut")
    held, last = (read_checkpoint(tmp_path / name / "checkpoint.safetensors") for name in ("cut", "whole"))
    for name, value in held["projections"].items():
        assert torch.equal(value, last["projections"][name])
    student = load_weights(tmp_path / "cut" / "student.safetensors")
    assert student.content.keys() == build_model("resnet8", 4).state_dict().keys()


def test_features_change_the_student_and_parts_do_not(
    run_distill: Program, arguments: list[Any], config_path: Path, tmp_path: Path
) -> None:
    runs = {"plain": [], "features": FEATURES, "parts": FEATURES}
    for name, losses in runs.items():
        optim = {"name": "sgd", "lr": 0.01} | ({"accumulate": 2} if name == "parts" else {})
        config_with(config_path, loss=[FEATURES[0], *losses[1:]], optim=optim, train={"samples": 32, "log_steps": 1})
        assert run_distill(*arguments, tmp_path / name).status == 0
    losses = {name: rows(tmp_path / name)[0]["loss"] for name in runs}
    assert losses["features"] > losses["plain"] + 0.1
    assert losses["parts"] == pytest.approx(losses["features"], rel=0.2)  # batch norms see other rows


@pytest.mark.parametrize(
    ("groups", "parts"),
    [
        ({"loss": FEATURES[1:]}, ("do not train the classifier", "{name: kl, temperature: 4}")),
        ({"loss": FEATURES, "data": {"passes": 2}}, ("data.passes 2", "set data.passes 1")),
        (
            {"loss": [*FEATURES[:2], FEATURES[1] | {"student": "layr3"}]},
            ("no module 'layr3'", "did you mean 'layer3'"),
        ),
        (
            {"loss": FEATURES, "teacher": CONFIG["teacher"] | {"others": [{"arch": "resnet8"}]}},  # type: ignore[operator]
            ("a feature loss needs one teacher", "omit teacher.others"),
        ),
        (
            {
                "student": CONFIG["student"] | {"head": "teacher"},  # type: ignore[operator]
                "teacher": CONFIG["teacher"] | {"others": [{"arch": "resnet8"}]},  # type: ignore[operator]
            },
            ("student.head: teacher needs one teacher",),
        ),
        ({"loss": []}, ("loss: List should have at least 1 item",)),
        ({"loss": [{"name": "kl", "temprature": 4}]}, ("'loss[0].temprature'", "'loss[0].temperature'")),
    ],
)
def test_wrong_losses_are_one_line(
    run_distill: Program, arguments: list[Any], config_path: Path, tmp_path: Path, groups: Any, parts: tuple[str, ...]
) -> None:
    config_with(config_path, **groups)
    assert_one_line(run_distill(*arguments, tmp_path / "run"), *parts)


def test_a_loss_by_name_is_a_loss_of_the_run(
    run_distill: Program, arguments: list[Any], config_path: Path, tmp_path: Path, stopping: Stopping, package: str
) -> None:
    own = {"function": f"{package}:scaled", "arguments": {"power": 2}, "weight": 0.5}
    config_with(config_path, loss=own)
    allowed = ["--allow-import", package]
    assert run_distill(*arguments, tmp_path / "own", *allowed).status == 0
    assert run_distill(*arguments, tmp_path / "mse", "--set", "loss=[{name: mse, weight: 0.5}]").status == 0
    pairs = zip(rows(tmp_path / "own"), rows(tmp_path / "mse"), strict=True)
    assert all(a["loss"] == pytest.approx(b["loss"], rel=1e-4) for a, b in pairs)
    kept = yaml.safe_load((tmp_path / "own/config.yaml").read_text())["loss"]
    assert kept["function"] == f"{package}:scaled" and kept["arguments"] == {"power": 2} and len(kept["sha256"]) == 64
    config_with(config_path, loss=[{"name": "hard"}, own, own | {"arguments": {"power": 1}}])
    with stopping(6):
        assert run_distill(*arguments, tmp_path / "cut", *allowed).status == 130
    assert run_distill(*arguments, tmp_path / "cut", *allowed, "--resume").status == 0
    assert run_distill(*arguments, tmp_path / "whole", *allowed).status == 0
    assert same(tmp_path / "whole", tmp_path / "cut")
    (tmp_path / "modules" / f"{package}.py").write_text(MODULE + "# changed")
    source_digest.cache_clear()
    assert_one_line(run_distill(*arguments, tmp_path / "cut", *allowed, "--resume"), "other values: loss[1].sha256")


@pytest.mark.parametrize(
    ("loss", "parts"),
    [
        ({"function": "PACKAGE:scaled"}, ("cannot be called with (student_logits, teacher_logits)", "power")),
        ({"function": "PACKAGE:scaled", "arguments": {"power": 2, "scal": 1}}, ("did you mean scale?",)),
        ({"function": "PACKAGE:constant"}, ("without a gradient", "expected a scalar tensor")),
        ({"function": "PACKAGE:infinite"}, ("returned inf for random logits",)),
        ({"function": "PACKAGE:number"}, ("loss.function: ", "expected a function")),
        ({"function": "PACKAGE:scale"}, ("has no function 'scale'; did you mean scaled?",)),
        ({"function": "missing.module:f"}, ("--allow-import missing",)),
        ({"function": "PACKAGE:scaled", "arguments": {"power": 2}, "sha256": "0" * 64}, ("0000000000000000…",)),
    ],
)
def test_a_wrong_loss_by_name_is_one_line(
    run_distill: Program,
    arguments: list[Any],
    config_path: Path,
    tmp_path: Path,
    package: str,
    loss: dict[str, Any],
    parts: tuple[str, ...],
) -> None:
    config_with(config_path, loss=loss | {"function": loss["function"].replace("PACKAGE", package)})
    assert_one_line(run_distill(*arguments, tmp_path / "run", "--allow-import", package), *parts)


@pytest.mark.parametrize(
    ("name", "start", "error"),
    [
        ("failing", "loss", "KeyError"),
        ("leaving", "loss", "SystemExit"),
        ("spoiled", "the backward pass of loss", ""),
    ],
)
def test_an_exception_of_a_loss_has_its_traceback_below_the_line(
    run_distill: Program,
    arguments: list[Any],
    config_path: Path,
    tmp_path: Path,
    package: str,
    name: str,
    start: str,
    error: str,
) -> None:
    config_with(config_path, loss={"function": f"{package}:{name}"})
    result = run_distill(*arguments, tmp_path / "run", "--allow-import", package)
    first = result.err.splitlines()[0]
    assert result.status == 1 and f"{start} {package}:{name} (your code) raised {error}" in first, result
    assert f"in {name}" in result.err or not error


def test_a_loss_that_changes_its_arguments_changes_no_other_loss_and_no_later_pass(
    run_distill: Program, arguments: list[Any], config_path: Path, tmp_path: Path, package: str
) -> None:
    for name in ("changing", "doubled"):
        losses = [{"function": f"{package}:{name}"}, {"name": "kl"}]
        config_with(config_path, loss=losses, data={"batch_size": 16, "passes": 2})
        assert run_distill(*arguments, tmp_path / name, "--allow-import", package).status == 0
    assert timeless(tmp_path / "changing") == timeless(tmp_path / "doubled")


def test_a_run_with_a_loss_in_float64_resumes_exactly(
    run_distill: Program, arguments: list[Any], config_path: Path, tmp_path: Path, stopping: Stopping, package: str
) -> None:
    config_with(config_path, loss={"function": f"{package}:wide"})
    allowed = ["--allow-import", package]
    with stopping(6):  # between two rows of the log
        assert run_distill(*arguments, tmp_path / "cut", *allowed).status == 130
    assert run_distill(*arguments, tmp_path / "cut", *allowed, "--resume").status == 0
    assert run_distill(*arguments, tmp_path / "whole", *allowed).status == 0
    assert same(tmp_path / "whole", tmp_path / "cut") and timeless(tmp_path / "whole") == timeless(tmp_path / "cut")


class Late(torch.autograd.Function):
    """A function whose gradient fails for batches of 16 samples."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        if len(gradient) == 16:
            raise LookupError("no gradient")
        return gradient


def scaled_by(factor: float) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda student, teacher: factor * (student - teacher).square().mean()


@pytest.mark.parametrize(
    ("loss", "parts"),
    [
        ([scaled_by(1), scaled_by(2)], ("two functions have the name", "<lambda> and the same source")),
        ({"function": hard_loss, "arguments": {1: 2}}, ("arguments are {1: 2}, expected a dict",)),
        ({"function": hard_loss, "arguments": [1]}, ("arguments are [1], expected a dict",)),
        (lambda s, t: Late.apply(s).mean(), ("the backward pass of the loss", "(your code) raised LookupError: no")),
    ],
)
def test_a_wrong_loss_in_python_is_one_line(
    patchset_path: Path, teacher_path: Path, tmp_path: Path, loss: Any, parts: tuple[str, ...]
) -> None:
    with pytest.raises(distill.DistillError) as caught:
        distill.train(patchset_path, config=CONFIG, teacher=teacher_path, loss=loss, out=tmp_path / "run")
    assert all(part in str(caught.value) for part in parts) and "\n" not in str(caught.value), caught.value


def margin(student: Tensor, teacher: Tensor, scale: float = 1.0) -> Tensor:
    return scale * (student - teacher).square().mean()


def test_a_list_in_python_mixes_names_and_functions(patchset_path: Path, teacher_path: Path, tmp_path: Path) -> None:
    short = CONFIG | {"train": {"samples": 64, "precision": "fp32"}}
    train: Callable[..., Any] = lambda name, loss: distill.train(  # noqa: E731
        patchset_path, config=short, teacher=teacher_path, loss=loss, out=tmp_path / name, device="cpu"
    )
    own = {"function": margin, "arguments": {"scale": 2.0}, "weight": 0.25}
    mixed = train("mixed", [{"name": "hard"}, own, margin, FEATURES[1]])
    names = train("names", [{"name": "hard"}, {"name": "mse", "weight": 1.5}, FEATURES[1]])
    assert mixed.metrics["seed"] == names.metrics["seed"]
    for name, value in names.student.state_dict().items():
        assert torch.allclose(value.float(), mixed.student.state_dict()[name].float(), atol=1e-3), name
    with pytest.raises(distill.DistillError, match=r"loss: is int, expected a function, a dict"):
        train("wrong", 3)
    summary = json.loads((tmp_path / "mixed/summary.json").read_text())
    assert summary["sha256"] == mixed.metrics["sha256"]


def test_a_teacher_of_another_width_has_features(
    run_distill: Program, arguments: list[Any], config_path: Path, tmp_path: Path
) -> None:
    torch.manual_seed(3)
    model = build_model("wrn-10-2", 4)
    save_weights(tmp_path / "wide.safetensors", model, arch="wrn-10-2", num_classes=4, mean=MEAN, std=STD)
    losses = [FEATURES[0], {"name": "features", "student": "layer3", "teacher": "block3", "kind": "cosine"}]
    teacher = {"arch": "wrn-10-2", "num_classes": 4, "weights": str(tmp_path / "wide.safetensors")}
    config_with(config_path, loss=losses, teacher=teacher, augment={"cutmix_alpha": 1.0, "cutmix_box": "sample"})
    given = [each for each in arguments if each not in ("--teacher", arguments[arguments.index("--teacher") + 1])]
    assert run_distill(*given, tmp_path / "run").status == 0


def test_features_without_modules_are_those_before_the_classifier(
    run_distill: Program, arguments: list[Any], tmp_path: Path
) -> None:
    head = ["--set", "student.head=teacher", "--set", "loss.name=features"]
    named = ["--set", "loss.student=layer3", "--set", "loss.teacher=layer3"]
    for name, more in {"default": [], "named": named}.items():
        assert run_distill(*arguments, tmp_path / name, *head, *more).status == 0
    assert same(tmp_path / "default", tmp_path / "named")
