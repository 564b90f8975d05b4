"""Test every optimizer with every schedule: the learning rate of each step, and the options of the optimizer."""

import copy
import dataclasses
import functools
import itertools
import logging
import re
from pathlib import Path

import pytest
import torch
import yaml
from pydantic import TypeAdapter, ValidationError
from torch import nn

import distill.optim.optimizers
from distill.config import presets
from distill.config.schema import Config, parse_config
from distill.errors import DistillError
from distill.optim.config import TORCH_NAMES, OptimConfig
from distill.optim.optimizers import make_optimizer, muon_weights, state_template
from distill.optim.schedules import make_scheduler, require_length
from distill.training.checkpoint import read_checkpoint, save_checkpoint
from distill.training.cost_estimate import _make_trainer
from distill.training.resume import _require_like
from distill.training.trainer import Trainer
from distill.weights.load import put_state
from manifests.support.yaml_core import parse_yaml
from tests.distill.conftest import CONFIG

STEPS = 20


def config_of(**values: object) -> OptimConfig:
    config: OptimConfig = TypeAdapter(OptimConfig).validate_python({"name": "adam", "lr": 0.1, **values})
    return config


def rates(name: str, schedule: str, **more: object) -> list[float]:
    config = config_of(name=name, schedule=schedule, **more)
    network = torch.nn.ParameterList([torch.ones(3)])
    parameter = network[0]
    optimizer = make_optimizer(config, network)
    scheduler = make_scheduler(config, optimizer, STEPS)
    seen = []
    for _ in range(STEPS):
        seen.append(optimizer.param_groups[0]["lr"])
        parameter.sum().backward()
        optimizer.step()
        scheduler.step()
    assert not torch.equal(parameter.detach(), torch.ones(3))
    return seen


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_schedules(name: str) -> None:
    assert rates(name, "constant") == [0.1] * STEPS
    cosine = rates(name, "cosine")
    assert cosine[0] == 0.1 and cosine[10] == pytest.approx(0.05)
    assert all(a > b for a, b in itertools.pairwise(cosine)) and 0 < cosine[-1] < 0.001
    onecycle = rates(name, "onecycle")
    assert onecycle[0] == pytest.approx(0.004) and max(onecycle) == pytest.approx(0.1, rel=0.02)
    assert 4 <= onecycle.index(max(onecycle)) <= 7 and onecycle[-1] < 0.002


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_milestones_are_fractions_of_the_run(name: str) -> None:
    """The rates equal those of torch's MultiStepLR with milestones at steps 10 and 15 of 20."""
    halved = rates(name, "milestones", milestones=[0.5, 0.75], gamma=0.5)
    assert halved == pytest.approx([0.1] * 10 + [0.05] * 5 + [0.025] * 5)
    assert rates(name, "milestones", milestones=[0.15]) == pytest.approx([0.1] * 3 + [0.01] * 17)


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_a_warm_up_comes_before_every_schedule_but_onecycle(name: str) -> None:
    rise = [0.02, 0.04, 0.06, 0.08]  # one fifth of 20 steps; the fifth step has lr itself
    assert rates(name, "constant", warmup=0.2) == pytest.approx([*rise, *[0.1] * 16])
    dropped = rates(name, "milestones", warmup=0.2, milestones=[0.5])
    assert dropped == pytest.approx([*rise, *[0.1] * 6, *[0.01] * 10])
    cosine = rates(name, "cosine", warmup=0.2)
    assert cosine[:5] == pytest.approx([*rise, 0.1]) and cosine[12] == pytest.approx(0.05)
    assert all(a > b for a, b in itertools.pairwise(cosine[4:])) and 0 < cosine[-1] < 0.002


def test_a_fraction_is_that_many_steps_whatever_its_digits() -> None:
    """A fraction of the run is a whole number of steps.

    In floating point, 0.07 · 100 and 0.29 · 100 are not whole numbers.
    """
    for hundredth in range(1, 99):
        config = config_of(schedule="milestones", milestones=[hundredth / 100], warmup=hundredth / 100)
        optimizer = make_optimizer(config, torch.nn.Linear(1, 1))
        factor = make_scheduler(config, optimizer, 100).lr_lambdas[0]
        assert factor(hundredth - 1) == pytest.approx(hundredth / (hundredth + 1))
        assert factor(hundredth) == factor(99) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"milestones": [0.5]}, "milestones needs the schedule milestones, but schedule is constant"),
        ({"schedule": "cosine", "gamma": 0.5}, "gamma needs the schedule milestones, but schedule is cosine"),
        ({"schedule": "milestones"}, "schedule milestones needs the key milestones; set milestones, such as"),
        ({"schedule": "milestones", "milestones": [0.75, 0.5]}, "expected increasing fractions of the run"),
        ({"schedule": "milestones", "milestones": [0.5, 0.5]}, "expected increasing fractions of the run"),
        ({"schedule": "milestones", "milestones": [100, 150]}, "less than 1"),
        (
            {"schedule": "milestones", "milestones": [0.1], "warmup": 0.2},
            "is 0.1, but warmup is 0.2; lower warmup to 0.1",
        ),
        ({"schedule": "onecycle", "warmup": 0.1}, "schedule onecycle already has a warm-up"),
        (
            {"schedule": "onecycle", "betas": [0.8, 0.99]},
            "the first value of betas, so 0.8 has no effect; set the first value of betas to 0.9",
        ),
        (
            {"name": "sgd", "schedule": "onecycle", "momentum": 0.8},
            "changes momentum, so 0.8 has no effect; set momentum to 0.9",
        ),
        ({"name": "sgd", "eps": 1e-3}, "eps"),
        ({"name": "sgd", "betas": [0.9, 0.99]}, "betas"),
        ({"betas": [0.9, 1]}, "less than 1"),
        ({"eps": 0}, "greater than 0"),
    ],
)
def test_a_key_without_a_use_is_refused(values: dict[str, object], part: str) -> None:
    with pytest.raises(ValidationError, match=part):
        config_of(**values)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_betas_and_eps_reach_the_optimiser(name: str) -> None:
    """Betas and eps are passed to the optimizer.

    In the first step, a gradient of 1 changes a weight by lr / (1 + eps), here by 0.1 / 2.
    """
    network = torch.nn.ParameterList([torch.zeros(1)])
    parameter = network[0]
    optimizer = make_optimizer(config_of(name=name, betas=[0.5, 0.75], eps=1.0), network)
    assert optimizer.param_groups[0]["betas"] == (0.5, 0.75)
    parameter.sum().backward()
    optimizer.step()
    assert parameter.item() == pytest.approx(-0.05)
    group = make_optimizer(config_of(name=name), network).param_groups[0]
    assert (group["betas"], group["eps"]) == ((0.9, 0.999), 1e-8)


def test_weight_decay_and_momentum_reach_the_optimiser() -> None:
    sgd = {"name": "sgd", "lr": 0.1, "momentum": 0.8, "nesterov": True, "weight_decay": 0.01}
    config: OptimConfig = TypeAdapter(OptimConfig).validate_python(sgd)
    group = make_optimizer(config, torch.nn.Linear(1, 1)).param_groups[0]
    assert {key: group[key] for key in sgd if key != "name"} == {k: v for k, v in sgd.items() if k != "name"}


def test_a_line_to_zero() -> None:
    assert rates("sgd", "linear") == pytest.approx([0.1 * (20 - step) / 20 for step in range(20)])
    warm = rates("sgd", "linear", warmup=0.2)
    assert warm == pytest.approx([0.02, 0.04, 0.06, 0.08, *(0.1 * (16 - step) / 16 for step in range(16))])


def test_a_warm_up_of_samples() -> None:
    """64 samples in batches of 16 are a fifth of 20 steps. A last batch that is not full counts as a step."""
    for samples in (64, 49):
        config = config_of(schedule="cosine", warmup=samples)
        optimizer = make_optimizer(config, nn.Linear(1, 1))
        factors = [make_scheduler(config, optimizer, STEPS, batch_size=16).lr_lambdas[0](step) for step in range(5)]
        assert factors == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


def network_of(seed: int = 0) -> nn.Module:
    """Return a network with convolutions, a batch norm and a classifier, for images of 8 × 8 pixels."""
    torch.manual_seed(seed)
    features = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3, groups=2), nn.Flatten()]
    return nn.Sequential(*features, nn.Linear(96, 4)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def train(network: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        x = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        network(x).square().mean().backward()
        optimizer.step()


EVERY = [
    *({"name": name} for name in TORCH_NAMES),
    {"name": "adam"},
    {"name": "sgd"},
    {"name": "AdamW", "arguments": {"amsgrad": True}, "weight_decay": 0.1, "no_decay": "norms_and_biases"},
    {"name": "RMSprop", "arguments": {"momentum": 1.5, "centered": True}},
    {"name": "Muon", "weight_decay": 0.1, "no_decay": "norms_and_biases"},
    {"name": "Muon", "partner": {"name": "SGD", "lr": 0.5, "arguments": {"momentum": 0.9}}},
]
if not hasattr(torch.optim, "Muon"):
    EVERY = [values for values in EVERY if values["name"] != "Muon"]


@pytest.mark.parametrize("values", EVERY, ids=str)
def test_every_optimizer_of_torch_resumes_exactly(values: dict[str, object], tmp_path: Path) -> None:
    """Weights after a checkpoint and more steps equal those of an uninterrupted run."""
    config = config_of(lr=0.01, **{key: item for key, item in values.items() if key != "name"}, name=values["name"])
    network = network_of()
    before = copy.deepcopy(network.state_dict())
    optimizer = make_optimizer(config, network)
    train(network, optimizer, range(3))
    assert all(not torch.equal(value, before[name]) for name, value in network.named_parameters() if value.ndim > 1)
    state = {"student": network.state_dict(), "optimizer": optimizer.state_dict()}
    save_checkpoint(tmp_path, state)
    train(network, optimizer, range(3, 6))
    held = read_checkpoint(tmp_path / "checkpoint.safetensors")
    other = network_of(1)
    _require_like(held["optimizer"]["state"], state_template(config, other), "state", moving=True)
    put_state(other, held["student"])
    resumed = make_optimizer(config, other)
    resumed.load_state_dict(held["optimizer"])
    train(other, resumed, range(3, 6))
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in network.state_dict().items())


def test_the_arguments_reach_the_optimizer_of_torch() -> None:
    group = make_optimizer(config_of(name="RMSprop", arguments={"alpha": 0.5}), nn.Linear(1, 1)).param_groups[0]
    assert (group["lr"], group["alpha"], group["weight_decay"]) == (0.1, 0.5, 0.0)


def test_norms_and_biases_have_no_decay() -> None:
    network = network_of()
    config = config_of(name="adamw", weight_decay=0.1, no_decay="norms_and_biases")
    groups = make_optimizer(config, network).param_groups
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
    assert [{value.ndim for value in group["params"]} for group in groups] == [{2, 4}, {1}]
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")
def test_muon_changes_convolutions_of_one_pixel_in_channels_last_memory() -> None:
    """Such a weight (O, I, 1, 1) and its matrix share their memory."""
    plain = nn.Conv2d(4, 6, 1)
    last = copy.deepcopy(plain).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for network in (plain, last):
        network(torch.ones(2, 4, 3, 3)).square().sum().backward()
        make_optimizer(config_of(name="Muon"), network).step()
    assert torch.allclose(plain.weight, last.weight, atol=1e-6)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")
@pytest.mark.parametrize("rate", [None, "original", "match_rms_adamw", "spectral_unclamped"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_muon_changes_matrices_and_flattened_convolutions(
    rate: str | None, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights equal those that torch's Muon gives for matrices, in bfloat16, and the others those of the partner."""
    monkeypatch.setattr(distill.optim.optimizers, "_muon_dtype", lambda device: dtype)
    values = {"momentum": 0.9, "nesterov": rate is None, "adjust_lr_fn": rate}
    partner = {"lr": 0.02, "arguments": {"eps": 1e-4}}
    config = config_of(name="Muon", lr=0.05, weight_decay=0.1, arguments=values, partner=partner)
    network, twin = network_of(), network_of()
    optimizer = make_optimizer(config, network)
    weights = [value for value in twin.parameters() if value.ndim > 1]
    matrices = [nn.Parameter(value.detach().flatten(1).clone()) for value in weights]
    others = [value for value in twin.parameters() if value.ndim == 1]
    muon = torch.optim.Muon(matrices, lr=0.05, weight_decay=0.1, **values)
    adamw = torch.optim.AdamW(others, lr=0.02, weight_decay=0.1, eps=1e-4)
    assert [value.shape for value in muon_weights(network)] == [value.shape for value in weights]
    for step in range(3):
        train(network, optimizer, range(step, step + 1))
        twin.zero_grad()
        twin(torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(step))).square().mean().backward()
        for weight, matrix in zip(weights, matrices, strict=True):
            assert weight.grad is not None
            matrix.grad = weight.grad.flatten(1)
        muon.step()
        adamw.step()
        for weight, matrix in zip(weights, matrices, strict=True):
            weight.detach().copy_(matrix.detach().view_as(weight))
    same = torch.equal if dtype == torch.bfloat16 else functools.partial(torch.allclose, rtol=0.02, atol=0.005)
    assert all(same(a, b) for a, b in zip(network.parameters(), twin.parameters(), strict=True))
    embedding = nn.ModuleList([nn.Embedding(3, 4), nn.Linear(4, 4)])
    assert [id(value) for value in muon_weights(embedding)] == [id(embedding[1].weight)]
    lone = nn.Linear(2, 2, bias=False)  # the partner has nothing to do
    lone.weight.grad = torch.ones(2, 2)
    make_optimizer(config, lone).step()


@pytest.mark.parametrize("schedule", ["cosine", "onecycle"])
@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")
def test_muon_and_its_partner_have_one_schedule(schedule: str) -> None:
    config = config_of(name="Muon", lr=0.1, partner={"lr": 0.01}, schedule=schedule)
    network = network_of()
    optimizer = make_optimizer(config, network)
    scheduler = make_scheduler(config, optimizer, STEPS)
    for step in range(STEPS):
        first, second = optimizer.param_groups
        assert first["lr"] == pytest.approx(10 * second["lr"]) and first["momentum"] == 0.95
        assert second["betas"] == (0.9, 0.999)
        train(network, optimizer, range(step, step + 1))
        scheduler.step()


@pytest.mark.parametrize(
    ("values", "part"),
    [
        (
            {"name": "RMSprop", "arguments": {"alhpa": 0.9}},
            r"arguments.alhpa: torch.optim.RMSprop has no such argument",
        ),
        ({"name": "RMSprop", "arguments": {"alhpa": 0.9}}, r"did you mean 'alpha'\?"),
        (
            {"name": "NAdam", "arguments": {"zzz": 1}},
            "expected some of betas, decoupled_weight_decay, eps, foreach, max",
        ),
        ({"name": "NAdam", "arguments": {"lr": 1}}, "arguments.lr: this value has a key of its own; set lr beside"),
        ({"name": "NAdam", "arguments": {"capturable": True}}, "arguments.capturable: torch.optim.NAdam has no such"),
        (
            {"name": "RMSprop", "arguments": {"alpha": -1}},
            "torch.optim.RMSprop refuses a value of arguments: Invalid alpha value: -1; correct arguments",
        ),
        (
            {"name": "Adadelta", "arguments": {"rho": "much"}},
            "Adadelta refuses a value of arguments: .*; correct arg",
        ),
        ({"name": "Rprop", "weight_decay": 0.1}, "torch.optim.Rprop has no weight decay; omit weight_decay"),
        ({"name": "Muon", "arguments": {"ns_step": 3}}, "did you mean 'ns_steps'"),
        (
            {"name": "Muon", "partner": {"name": "SGD", "arguments": {"beta": 1}}},
            "partner.arguments.beta: torch.optim",
        ),
        ({"name": "LBFGS"}, "does not match any of the expected tags: 'adam', 'adamw', 'sgd', 'Muon', 'ASGD'"),
        ({"no_decay": "norms_and_biases"}, "no_decay has no effect, because weight_decay is 0; set weight_decay"),
        ({"clip_norm": 0}, "greater than 0"),
        ({"accumulate": 0}, "greater than or equal to 1"),
        ({"warmup": 1.5}, "warmup is 1.5, expected a fraction of the run below 1 or a whole number of samples"),
    ],
)
def test_faults_of_optimizers(values: dict[str, object], part: str) -> None:
    with pytest.raises(ValidationError, match=part):
        config_of(**values)


@pytest.mark.parametrize(
    ("values", "ranks", "message"),
    [
        (
            {"warmup": 321},
            1,
            "optim.warmup: a warm-up of 321 samples in a run of 320 samples, expected at most 320 s",
        ),
        (
            {"warmup": 161, "schedule": "milestones", "milestones": [0.5]},
            1,
            "expected at most 160 samples, the first milestone; lower optim.warmup, or set more train.samples",
        ),
        (
            {"accumulate": 9},
            1,
            "optim.accumulate: a batch of 16 samples is too small for 9 parts, expected at least 2",
        ),
        (
            {"accumulate": 5},
            2,
            "too small for 5 parts on each of 2 ranks, expected at least 2 samples in each part; l",
        ),
    ],
)
def test_what_does_not_fit_the_run(values: dict[str, object], ranks: int, message: str) -> None:
    with pytest.raises(DistillError) as caught:
        require_length(config_of(**values), STEPS, 16, ranks)
    assert message in str(caught.value)
    require_length(config_of(accumulate=8, warmup=320), STEPS, 16, 1)


def trainer_of(groups: dict[str, object] | None = None, **optim: object) -> Trainer:
    """Return a trainer of a linear network, which sees each row of its batch of 16 images alone."""
    sgd = {"name": "sgd", "lr": 1.0, "momentum": 0, **optim}
    config = Config.model_validate(CONFIG | {"optim": sgd} | (groups or {}))
    made = _make_trainer(config, 16, 8, torch.device("cpu"))
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    return Trainer(config, network, made.view, made.targets, made.loss, made.normalization, made.accelerator)


def step_of(trainer: Trainer) -> tuple[float, torch.Tensor, list[int]]:
    """Train one step. Return the loss, the change of the weights, and the rows of each forward pass."""
    rows: list[int] = []
    student = trainer.state.student
    student.register_forward_pre_hook(lambda module, inputs: rows.append(len(inputs[0])))
    before = torch.cat([value.detach().flatten() for value in student.parameters()])
    loss = float(trainer.train_step(0))
    return loss, torch.cat([value.detach().flatten() for value in student.parameters()]) - before, rows


def test_a_batch_in_parts_has_the_gradient_of_the_batch() -> None:
    loss, change, rows = step_of(trainer_of())
    parts_loss, parts_change, parts = step_of(trainer_of(accumulate=3))
    assert (rows, parts) == ([16], [6, 6, 4])
    assert parts_loss == pytest.approx(loss, rel=1e-5)
    torch.testing.assert_close(parts_change, change, rtol=1e-4, atol=1e-6)
    assert config_of(accumulate=1).accumulate is None


def test_a_long_gradient_is_clipped() -> None:
    _, change, _ = step_of(trainer_of())
    _, clipped, _ = step_of(trainer_of(clip_norm=0.01))
    assert change.norm() > 0.02 and float(clipped.norm()) == pytest.approx(0.01, rel=1e-3)
    torch.testing.assert_close(clipped, change * (0.01 / change.norm()), rtol=1e-3, atol=1e-6)
    assert torch.equal(step_of(trainer_of(clip_norm=1e6))[1], change)


def test_a_student_in_parts_is_not_compiled(caplog: pytest.LogCaptureFixture) -> None:
    accelerator = dataclasses.replace(trainer_of().accelerator, compile="on")
    network = nn.Linear(2, 2)
    with caplog.at_level(logging.INFO):
        assert accelerator.student(network, torch.zeros(2, 2), parts=2) is network
    assert "the student is not compiled, because optim.accumulate computes batches in parts" in caplog.text


@pytest.mark.filterwarnings("error")
def test_a_first_step_that_overflows_is_skipped_without_a_warning() -> None:
    """The gradient overflows float16, and clipping does not make it finite. So the weights stay the same."""
    groups = {"train": {"samples": 96, "precision": "fp16"}, "loss": {"weight": 1e6}}
    optim = {"name": "RMSprop", "lr": 0.1, "clip_norm": 1.0}
    trainer = trainer_of(groups | {"optim": optim})
    assert step_of(trainer)[1].abs().max() == 0 and trainer.state.scaler.get_scale() == 2**15


def test_the_configs_of_the_manual_are_valid() -> None:
    page = (Path(__file__).parents[2] / "docs" / "losses-and-augmentation.md").read_text()
    blocks = [yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)]
    groups = [block["optim"] for block in blocks if "optim" in block]
    known = [group for group in groups if group["name"] != "Muon" or hasattr(torch.optim, "Muon")]
    assert {"adam", "RMSprop"} <= {config_of(**group).name for group in known} and len(groups) == 4


def test_arguments_on_the_command_line() -> None:
    settings = {"optim.name": "RMSprop", "optim.arguments": parse_yaml("{alpha: 9e-1}")}
    optim = parse_config(presets.text(presets.CONFIGS, "fast-cifar"), "fast-cifar", settings, Config).optim
    assert optim.arguments == {"alpha": 0.9} and optim.weight_decay == 0.0005
    with pytest.raises(DistillError, match=r"optim: arguments\.alpa: .*did you mean 'alpha'\?$"):
        parse_config(presets.text(presets.CONFIGS, "wrn"), "wrn", settings | {"optim.arguments": {"alpa": 1}}, Config)
