"""Test optimizers and schedules of the user: they are trained with, resumed exactly, and refused in one line."""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import distill
from distill.config.schema import Config, parse_config
from distill.training.checkpoint import CHECKPOINT_NAME, read_checkpoint, save_checkpoint
from manifests.support import user_code
from tests.conftest import Program, assert_one_line
from tests.distill.conftest import CONFIG, Stopping
from tests.helpers.running import same, timeless

MODULE = '''
import torch


class Lion(torch.optim.Optimizer):
    """Lion (Chen et al. 2023, arXiv 2302.06675), with values of its own in groups and states."""

    def __init__(self, params, lr, betas=(0.9, 0.99), weight_decay=0.0):
        super().__init__(params, {"lr": lr, "betas": tuple(betas), "weight_decay": weight_decay, "distance": -1.0})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            group["distance"] -= 0.5
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                state.setdefault("sum", torch.zeros_like(parameter))
                state["count"] = state.get("count", 0) + 1
                first, second = group["betas"]
                update = state["sum"].lerp(parameter.grad, 1 - first).sign_()
                state["sum"].lerp_(parameter.grad, 1 - second)
                parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"])


def staircase(step, steps, drop=0.5, every=4):
    return drop ** (step // every)


def no_optimizer(params, lr):
    return [params, lr]


def no_factor(step, steps):
    return float("nan") if step else 1.0


def late(step, steps):
    return {}[step] if step == 3 else 1


class Fails(torch.optim.SGD):
    def step(self, closure=None):
        super().step()
        if sum(parameter.numel() for group in self.param_groups for parameter in group["params"]) > 4:
            raise RuntimeError("no memory for the inverse")


class Counts(torch.optim.SGD):
    def step(self, closure=None):
        self.state[self.param_groups[0]["params"][0]]["count"] = torch.tensor(1)


class Restless(torch.optim.SGD):
    """A state with infinite and growing values, texts that change, and keys that come later."""

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            group["past"] = [*group.get("past", []), 1.0]
            group["phase"] = "first" if len(group["past"]) < 4 else "second"
            for parameter in group["params"]:
                if len(group["past"]) > 2:
                    self.state[parameter].setdefault("tensor", parameter.clone()).lerp_(parameter, 0.5)
                    parameter.lerp_(self.state[parameter]["tensor"], 0.1 if group["phase"] == "first" else 0.2)
                self.state[parameter]["best"] = float("inf")
        super().step()


class Digits(torch.optim.SGD):
    def step(self, closure=None):
        self.state[self.param_groups[0]["params"][0]]["by_number"] = {"1": 2.0}


class LateSet(torch.optim.SGD):
    def step(self, closure=None):
        count = self.param_groups[0]["count"] = self.param_groups[0].get("count", 0) + 1
        if count == 3:
            self.param_groups[0]["names"] = {"a"}
        super().step()


class Odd(torch.optim.SGD):
    def step(self, closure=None):
        self.state[self.param_groups[0]["params"][0]]["names"] = {"a"}
'''
NAME = "mine_optim"
SETS = ["--set", f"optim.name={NAME}:Lion", "--set", "optim.lr=0.001"]
SCHEDULE = ["--set", f"optim.schedule={NAME}:staircase", "--set", "optim.schedule_arguments={drop: 0.25}"]


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write the user's module. No test leaves it imported or allowed."""
    path = tmp_path / f"{NAME}.py"
    path.write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, NAME, raising=False)
    monkeypatch.setattr(user_code, "_allowed", set())
    user_code.source_digest.cache_clear()
    return path


def require_exact_resume(
    run_distill: Program, arguments: list[Any], given: list[str], tmp_path: Path, stopping: Stopping
) -> None:
    """Check that a run that is stopped after six steps and resumed equals a whole run."""
    assert run_distill(*arguments, tmp_path / "whole", *given).status == 0
    with stopping(6):
        assert run_distill(*arguments, tmp_path / "cut", *given).status == 130
    resumed = run_distill(*arguments, tmp_path / "cut", *given, "--resume")
    assert resumed.status == 0 and "the run continues at step 7" in resumed.out, resumed
    assert same(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize("more", [[], ["--set", "optim.warmup=48"]])
def test_a_run_with_an_own_optimizer_and_schedule_resumes_exactly(
    run_distill: Program, arguments: list[Any], tmp_path: Path, stopping: Stopping, more: list[str]
) -> None:
    given = [*SETS, *SCHEDULE, *more, "--set", "optim.weight_decay=0.1", "--set", "optim.no_decay=norms_and_biases"]
    given += ["--set", "optim.arguments={betas: [0.8, 0.9]}", "--set", "train.log_steps=1", "--allow-import", NAME]
    require_exact_resume(run_distill, arguments, given, tmp_path, stopping)
    assert timeless(tmp_path / "whole") == timeless(tmp_path / "cut")
    rates = [row["lr"] for row in timeless(tmp_path / "cut")]
    if not more:  # the rate in a row is that of the next step
        assert rates == [0.001 * 0.25 ** (step // 4) for step in range(1, 13)]
    kept = yaml.safe_load((tmp_path / "cut" / "config.yaml").read_text())["optim"]
    assert (kept["name"], kept["function"]) == ("function", f"{NAME}:Lion")
    digests = json.loads((tmp_path / "cut" / "summary.json").read_text())["code_sha256"]
    assert digests.keys() == {"optim.name", "optim.schedule"}


def test_the_state_of_an_own_optimizer_may_change_its_keys_and_texts(
    run_distill: Program, arguments: list[Any], tmp_path: Path, stopping: Stopping
) -> None:
    given = ["--set", f"optim.name={NAME}:Restless", "--set", "optim.lr=0.001", "--allow-import", NAME]
    require_exact_resume(run_distill, arguments, given, tmp_path, stopping)


def test_the_state_of_an_own_optimizer_belongs_to_its_parameters(
    run_distill: Program, arguments: list[Any], tmp_path: Path, stopping: Stopping
) -> None:
    given = [*arguments, tmp_path / "run", *SETS, "--allow-import", NAME]
    with stopping(6):
        assert run_distill(*given).status == 130
    state = read_checkpoint(tmp_path / "run" / CHECKPOINT_NAME)
    state["optimizer"]["state"][0]["sum"] = torch.zeros(3)
    save_checkpoint(tmp_path / "run", state)
    assert_one_line(run_distill(*given, "--resume"), "optimizer.state.0.sum is torch.float32 (3,), expected")
    state["optimizer"]["param_groups"][0]["params"] = [1, 0]
    save_checkpoint(tmp_path / "run", state)
    assert_one_line(run_distill(*given, "--resume"), "optimizer belongs to other parameters")


def test_another_source_is_another_run(
    run_distill: Program, arguments: list[Any], tmp_path: Path, stopping: Stopping, module: Path
) -> None:
    given = [*arguments, tmp_path / "run", *SETS, "--allow-import", NAME]
    with stopping(6):
        assert run_distill(*given).status == 130
    module.write_text(MODULE.replace("sign_()", "sign_().mul_(2)"))
    sys.modules.pop(NAME)
    user_code.source_digest.cache_clear()
    assert_one_line(run_distill(*given, "--resume"), "source of optim.name was ", "resume the run with the options")


@pytest.mark.parametrize(
    ("sets", "parts"),
    [
        ({"optim.name": "Lion"}, ("optim.name: the import of mine_optim:Lion", "add --allow-import mine_optim")),
        ({"optim.name": "Loin"}, ("optim.name: ", "has no function 'Loin'; did you mean Lion?")),
        ({"optim.name": "no_optimizer"}, ("returned list, expected a torch.optim.Optimizer; derive",)),
        ({"optim.name": "Fails"}, ("optimizer mine_optim:Fails (your code) raised RuntimeError", "inverse")),
        (
            {"optim.name": "Counts"},
            ("its state 'count' is torch.int64, but torch reads it", "as torch.float32; keep"),
        ),
        ({"optim.name": "Digits"}, ("its state has the key '1', but checkpoints keep",)),
        ({"optim.name": "LateSet"}, ("its state has a set, but checkpoints keep",)),
        ({"optim.name": "Odd"}, ("its state has a set, but checkpoints keep",)),
        (
            {"optim.arguments": "{betta: [0, 0]}"},
            ("optim.arguments.betta: ", "no such argument; did you mean 'betas'?"),
        ),
        ({"optim.name": "no_optimizer", "optim.weight_decay": 0.1}, ("optim.weight_decay: ", "no such argument")),
        ({"optim.schedule": "stair"}, ("optim.schedule: ", "has no function 'stair'; did you mean staircase?")),
        ({"optim.schedule": "no_factor"}, ("returned nan for step ", "a finite number of at least 0; return")),
        ({"optim.schedule": "late"}, ("schedule mine_optim:late (your code) raised KeyError: 3",)),
        ({"optim.schedule": "staircase", "optim.schedule_arguments": "{dorp: 1}"}, ("raised TypeError", "'dorp'")),
        ({"optim.schedule_arguments": "{drop: 1}"}, ("schedule_arguments need a schedule of yours",)),
        ({"optim.schedule": "=constat"}, ("'constat', expected one of constant, cosine", "did you mean 'constant'?")),
    ],
)
def test_a_wrong_optimizer_or_schedule_is_one_line(
    run_distill: Program, arguments: list[Any], tmp_path: Path, sets: dict[str, Any], parts: tuple[str, ...]
) -> None:
    allowed = [] if "--allow-import" in str(parts) else ["--allow-import", NAME]
    options = ["--set", f"optim.name={NAME}:Lion", "--set", "optim.schedule=constant"]
    for key, value in sets.items():
        own = key in ("optim.name", "optim.schedule") and not value.startswith("=")
        options += ["--set", f"{key}={NAME}:{value}" if own else f"{key}={str(value).removeprefix('=')}"]
    result = run_distill(*arguments, tmp_path / "run", *options, *allowed)
    assert result.status == 1 and "distill" not in result.err.partition("\n")[2].partition("Traceback")[0], result
    first = result.err.splitlines()[0]
    assert all(part in first for part in parts), first


def test_python_and_the_program_train_the_same(
    run_distill: Program, arguments: list[Any], tmp_path: Path, patchset_path: Path, teacher_path: Path
) -> None:
    assert run_distill(*arguments, tmp_path / "program", *SETS, "--allow-import", NAME).status == 0
    distill.allow_import(NAME)
    config = CONFIG | {"optim": {"name": f"{NAME}:Lion", "lr": 0.001, "schedule": "onecycle"}}
    distill.train(patchset_path, config=config, teacher=teacher_path, out=tmp_path / "run", device="cpu")
    assert same(tmp_path / "program", tmp_path / "run")
    user_code._allowed.clear()  # objects are allowed, because the caller has imported them
    module = importlib.import_module(NAME)
    given: dict[str, Any] = {"teacher": teacher_path, "device": "cpu"}
    objects = {"name": module.Lion, "lr": 0.001, "schedule": "onecycle"}
    distill.train(patchset_path, config=CONFIG | {"optim": objects}, out=tmp_path / "objects", **given)
    assert same(tmp_path / "program", tmp_path / "objects")
    settings = {"optim.schedule": lambda step, steps: 1.0}
    with pytest.raises(
        distill.DistillError, match=r"^optim\.schedule: .*<lambda>.* is not a function at the top level"
    ):
        distill.train(patchset_path, config=CONFIG, settings=settings, out=tmp_path / "lambda", **given)


def test_settings_replace_keys_that_have_no_use() -> None:
    def parse(optim: dict[str, Any], **settings: Any) -> Any:
        groups = CONFIG | {"optim": {"lr": 0.1} | optim}
        text = yaml.safe_dump(groups)
        return parse_config(text, "c.yaml", {f"optim.{key}": value for key, value in settings.items()}, Config).optim

    assert parse({"name": "adam", "betas": [0.5, 0.5]}, name="a:b").function == "a:b"
    own = {"name": "a:b", "arguments": {"x": 1}, "schedule": "a:c", "schedule_arguments": {"y": 1}}
    other = parse(own, name="a:d", schedule="a:e")
    assert (other.function, other.arguments, other.schedule_arguments) == ("a:d", {}, None)
    assert parse(own, schedule="a:c").schedule_arguments == {"y": 1}
    assert parse(own, name="sgd").name == "sgd"
    drops = {"name": "adam", "schedule": "milestones", "milestones": [0.5]}
    assert parse(drops, schedule="a:c").milestones == ()


def test_a_program_never_imports_without_leave(run_distill: Program, arguments: list[Any], tmp_path: Path) -> None:
    assert_one_line(run_distill(*arguments, tmp_path / "run", *SETS), "--allow-import mine_optim")
    assert NAME not in sys.modules
