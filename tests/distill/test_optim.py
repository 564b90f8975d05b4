"""Every optimiser with every schedule: the learning rate it has at each step."""

import itertools

import pytest
import torch
from pydantic import TypeAdapter

from distill.optim import OptimConfig, make_optimizer, make_scheduler

STEPS = 20


def rates(name: str, schedule: str, lr: float = 0.1) -> list[float]:
    config = TypeAdapter(OptimConfig).validate_python({"name": name, "lr": lr, "schedule": schedule})
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


def test_weight_decay_and_momentum_reach_the_optimiser() -> None:
    sgd = {"name": "sgd", "lr": 0.1, "momentum": 0.8, "nesterov": True, "weight_decay": 0.01}
    group = make_optimizer(
        TypeAdapter(OptimConfig).validate_python(sgd), [torch.nn.Parameter(torch.ones(1))]
    ).param_groups[0]
    assert {key: group[key] for key in sgd if key != "name"} == {k: v for k, v in sgd.items() if k != "name"}
