"""Test every optimizer with every schedule: the learning rate of each step, and the options of the optimizer."""

import itertools

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from distill.optim import OptimConfig, make_optimizer, make_scheduler

STEPS = 20


def config_of(**values: object) -> OptimConfig:
    config: OptimConfig = TypeAdapter(OptimConfig).validate_python({"name": "adam", "lr": 0.1, **values})
    return config


def rates(name: str, schedule: str, **more: object) -> list[float]:
    config = config_of(name=name, schedule=schedule, **more)
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = make_optimizer(config, [parameter])
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
        optimizer = make_optimizer(config, [torch.nn.Parameter(torch.ones(1))])
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
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = make_optimizer(config_of(name=name, betas=[0.5, 0.75], eps=1.0), [parameter])
    assert optimizer.param_groups[0]["betas"] == (0.5, 0.75)
    parameter.sum().backward()
    optimizer.step()
    assert parameter.item() == pytest.approx(-0.05)
    group = make_optimizer(config_of(name=name), [parameter]).param_groups[0]
    assert (group["betas"], group["eps"]) == ((0.9, 0.999), 1e-8)


def test_weight_decay_and_momentum_reach_the_optimiser() -> None:
    sgd = {"name": "sgd", "lr": 0.1, "momentum": 0.8, "nesterov": True, "weight_decay": 0.01}
    group = make_optimizer(
        TypeAdapter(OptimConfig).validate_python(sgd), [torch.nn.Parameter(torch.ones(1))]
    ).param_groups[0]
    assert {key: group[key] for key in sgd if key != "name"} == {k: v for k, v in sgd.items() if k != "name"}
