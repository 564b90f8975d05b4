"""Test how runs stop and resume after a signal, a kill or a crash.

Also test which runs must not be resumed.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import torch
import yaml

import distill.commands.train
import distill.training.resume
import distill.training.run_dir
import distill.training.trainer
from distill.models import build_model
from distill.runtime.compile import Accelerator
from distill.training.checkpoint import CHECKPOINT_NAME, load_checkpoint, read_checkpoint, save_checkpoint
from distill.weights.files import save_weights
from tests.conftest import Program, assert_one_line
from tests.distill.conftest import CONFIG, MEAN, STD, Stopping, assert_stopped, png, write_tar
from tests.helpers.fork_server import ForkServer
from tests.helpers.running import same, timeless


def test_two_runs_of_one_seed_are_equal(run_distill: Program, arguments: list[Any], tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert run_distill(*arguments, tmp_path / name, "--set", f"train.seed={seed}").status == 0
    assert same(tmp_path / "a", tmp_path / "b")
    assert timeless(tmp_path / "a") == timeless(tmp_path / "b")
    assert not same(tmp_path / "a", tmp_path / "c")


SCHEDULES = {
    "constant": [],
    "cosine": [],
    "onecycle": [],
    "milestones": ["--set", "optim.milestones=[0.3, 0.7]", "--set", "optim.warmup=0.2"],
}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_stopped_run_resumes_exactly(
    run_distill: Program, arguments: list[Any], tmp_path: Path, stopping: Stopping, schedule: str
) -> None:
    """SIGTERM stops a run after a checkpoint. The resumed run has the weights and the log of an uninterrupted run."""
    sets = ["--set", f"optim.schedule={schedule}", *SCHEDULES[schedule], "--set", "train.epochs=2"]
    assert run_distill(*arguments, tmp_path / "whole", *sets).status == 0
    with stopping(7):
        stopped = run_distill(*arguments, tmp_path / "cut", *sets)
    assert_stopped(stopped, "stopped at step 8 of 25", "--resume")
    assert not (tmp_path / "cut" / "summary.json").exists()
    resumed = run_distill(*arguments, tmp_path / "cut", *sets, "--resume")
    assert resumed.status == 0 and "the run continues at step 8 of 25" in resumed.out
    assert same(tmp_path / "whole", tmp_path / "cut")
    assert timeless(tmp_path / "whole") == timeless(tmp_path / "cut")


WARM = {"schedule": "linear", "warmup": 64, "clip_norm": 0.5, "accumulate": 3}
OPTIMIZERS = {
    "Muon": WARM | {"weight_decay": 0.01, "no_decay": "norms_and_biases", "partner": {"lr": 0.01}},
    "Adafactor": {"schedule": "onecycle", "arguments": {"eps": [None, 0.01]}},
    "RMSprop": WARM | {"arguments": {"momentum": 1.5, "alpha": 0.9}, "lr": 0.0001},
}


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if hasattr(torch.optim, name)])
def test_a_run_with_an_optimizer_of_torch_resumes_exactly(
    run_distill: Program, arguments: list[Any], config_path: Path, tmp_path: Path, stopping: Stopping, name: str
) -> None:
    optim = {"name": name, "lr": 0.004} | OPTIMIZERS[name]
    config_path.write_text(yaml.safe_dump(CONFIG | {"optim": optim}))
    assert run_distill(*arguments, tmp_path / "whole").status == 0
    with stopping(6):
        assert run_distill(*arguments, tmp_path / "cut").status == 130
    resumed = run_distill(*arguments, tmp_path / "cut", "--resume")
    assert resumed.status == 0 and "the run continues at step 7" in resumed.out
    assert same(tmp_path / "whole", tmp_path / "cut")
    assert timeless(tmp_path / "whole") == timeless(tmp_path / "cut")
    kept = yaml.safe_load((tmp_path / "cut" / "config.yaml").read_text())["optim"]
    assert {key: kept[key] for key in optim if key != "partner"} == {k: v for k, v in optim.items() if k != "partner"}
    (tmp_path / "cut" / "summary.json").unlink()
    for checkpoint in ("checkpoint.safetensors", "checkpoint.previous.safetensors"):
        held = read_checkpoint(tmp_path / "cut" / checkpoint)
        first = held["optimizer"]["state"][0]
        first.update({key: value[..., :1] for key, value in first.items() if value.ndim})
        save_checkpoint(tmp_path / "cut", held)
    refused = run_distill(*arguments, tmp_path / "cut", "--resume")
    assert_one_line(refused, "checkpoint.safetensors: optimizer.state.0.", "expected torch.float32")


def test_a_killed_run_resumes_exactly(arguments: list[Any], fork_server: ForkServer, tmp_path: Path) -> None:
    """Each run has a process of its own."""
    command = [sys.executable, "-m", "distill", *map(str, arguments)]
    sets = ["--set", "train.epochs=4", "--set", "train.checkpoint_seconds=0.001", "--resume"]
    assert fork_server.run("distill", [*arguments, tmp_path / "whole", *sets], tmp_path / "output") == 0
    run = subprocess.Popen([*command, tmp_path / "cut", *sets], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (tmp_path / "cut" / "checkpoint.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    run.kill()
    run.wait()
    assert not (tmp_path / "cut" / "summary.json").exists()
    assert fork_server.run("distill", [*arguments, tmp_path / "cut", *sets], tmp_path / "output") == 0
    assert same(tmp_path / "whole", tmp_path / "cut")
    assert timeless(tmp_path / "whole") == timeless(tmp_path / "cut")


def test_resume_refuses_another_run(
    run_distill: Program, arguments: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    assert run_distill(*arguments, out).status == 0
    assert_one_line(run_distill(*arguments, out), "is not empty", "--resume")
    finished = run_distill(*arguments, out, "--resume")
    assert finished.status == 0 and "already finished" in finished.out
    (out / "summary.json").unlink()
    other = run_distill(*arguments, out, "--resume", "--set", "optim.lr=0.1")
    assert_one_line(other, "belongs to a run with other values: optim.lr was 0.004, is now 0.1; resume")
    student = (out / "student.safetensors").read_bytes()
    damaged = bytearray((out / "checkpoint.safetensors").read_bytes())
    damaged[len(damaged) // 2] ^= 16  # a bit of a weight, so the file still has a valid form
    (out / "checkpoint.safetensors").write_bytes(damaged)
    resumed = run_distill(*arguments, out, "--resume")
    assert (
        resumed.status == 0
        and "its content differs from the SHA-256" in resumed.out
        and "the run continues from" in resumed.out
    )
    assert (out / "student.safetensors").read_bytes() == student
    (out / "student.safetensors").write_bytes(student[:-1])
    again = run_distill(*arguments, out, "--resume")
    assert (
        again.status == 0
        and "student.safetensors: the file is missing or damaged; it will be written again" in again.out
    )
    assert (out / "student.safetensors").read_bytes() == student
    (out / "summary.json").unlink()
    for name in ("checkpoint.safetensors", "checkpoint.previous.safetensors"):
        (out / name).write_bytes(b"torn")
    assert_one_line(run_distill(*arguments, out, "--resume"), "the file is corrupt; choose another --out")


@pytest.fixture
def other_path(images: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> Path:
    """Write the evaluation data with one label changed, and return the path."""
    members = []
    for i, (image, label) in enumerate(zip(*images, strict=True)):
        members += [(f"{i:04d}.cls", str(0 if i == 3 else label).encode()), (f"{i:04d}.png", png(image))]
    return write_tar(tmp_path / "other.tar", members)


def test_seeds_that_differ_in_more_are_refused_before_they_run(
    run_distill: Program, arguments: list[Any], tmp_path: Path, other_path: Path
) -> None:
    """If seeds have different settings, evaluation data or teachers, the command is refused before a run starts."""
    out = tmp_path / "seeds"
    given = [*arguments, out, "--resume", "--seeds"]
    assert run_distill(*given, "0").status == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    longer = tmp_path / "longer.safetensors"
    torch.manual_seed(4)
    save_weights(longer, build_model("resnet8", 4), arch="resnet8", num_classes=4, mean=MEAN, std=STD)
    for seeds in ("1", "1,0"):
        for more, part in (
            (["--set", "optim.lr=0.01"], "optim.lr is 0.004 here and 0.01 in the new run"),
            (["--set", "data.view_seed=0"], "data.view_seed is nothing here and 0 in the new run"),
            (["--eval", other_path], "evaluation images and labels (eval_sha256) is "),
            (["--teacher", longer], "teacher's file (teacher_sha256) is "),
        ):
            result = run_distill(*given, seeds, *more)
            assert_one_line(result, f"{out / 'seed0'}: {part}", "runs must share it to have a mean; choose")
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert run_distill(*given, "0,1", "--set", "train.log_steps=2", "--set", "eval.every=32").status == 0
    for folder in ("seed0", "seed1"):
        path = out / folder / "summary.json"
        text = path.read_text()
        path.write_text(json.dumps(json.loads(text) | {"eval_sha256": "0" * 64}))
        result = run_distill(*given, "0,1")
        assert result.status == 1 and "eval_sha256" in result.err and "choose another --out" in result.err
        path.write_text(text)


def test_resume_leaves_a_folder_that_is_no_run_alone(
    run_distill: Program, arguments: list[Any], tmp_path: Path
) -> None:
    out = tmp_path / "mine"
    out.mkdir()
    (out / "config.yaml").write_text("precious")
    assert_one_line(run_distill(*arguments, out, "--resume"), "contains no checkpoint.safetensors")
    assert [(p.name, p.read_text()) for p in out.iterdir()] == [("config.yaml", "precious")]


def test_a_network_with_dropout_resumes_exactly(
    run_distill: Program, arguments: list[Any], tmp_path: Path, stopping: Stopping
) -> None:
    sets = ["--set", "student.arch=torchvision/mobilenet_v2", "--set", "train.samples=96"]
    assert run_distill(*arguments, tmp_path / "whole", *sets).status == 0
    with stopping(2):
        assert run_distill(*arguments, tmp_path / "cut", *sets).status == 130
    assert run_distill(*arguments, tmp_path / "cut", *sets, "--resume").status == 0
    assert same(tmp_path / "whole", tmp_path / "cut")


def test_fp16_resumes_with_its_loss_scale(
    run_distill: Program, arguments: list[Any], tmp_path: Path, stopping: Stopping, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resumed run continues with the loss scale of its checkpoint.

    The loss overflows float16 at first, so steps change weights only after the scale has fallen.
    """
    sets = ["--set", "train.precision=fp16", "--set", "train.samples=112"]
    make_loss = distill.commands.train.make_loss
    monkeypatch.setattr(
        distill.commands.train, "make_loss", lambda config, function: lambda s, t: 64 * make_loss(config)(s, t)
    )
    assert run_distill(*arguments, tmp_path / "whole", *sets).status == 0
    with stopping(3):
        assert run_distill(*arguments, tmp_path / "cut", *sets).status == 130
    scaler = read_checkpoint(tmp_path / "cut" / CHECKPOINT_NAME)["scaler"]
    assert scaler["scale"] < 2**16
    assert run_distill(*arguments, tmp_path / "cut", *sets, "--resume").status == 0
    assert same(tmp_path / "whole", tmp_path / "cut")


def test_a_run_killed_in_its_first_checkpoint_begins_again(
    run_distill: Program, arguments: list[Any], tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".patchset-part-77-checkpoint.safetensors").write_bytes(b"half")
    assert run_distill(*arguments, tmp_path / "run").status == 0
    assert not list((tmp_path / "run").glob(".patchset-part-*"))


def test_a_checkpoint_that_may_not_be_read_is_not_called_damaged(
    run_distill: Program, arguments: list[Any], tmp_path: Path, stopping: Stopping, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stopping(5):
        assert run_distill(*arguments, tmp_path / "run").status == 130
    before = sorted(path.name for path in (tmp_path / "run").iterdir())

    open_file = safetensors.safe_open

    def deny(path: Path, framework: str) -> Any:
        if path.name == CHECKPOINT_NAME:
            raise PermissionError(13, "Permission denied", str(path))
        return open_file(path, framework=framework)

    with monkeypatch.context() as patch:
        patch.setattr(safetensors, "safe_open", deny)
        refused = run_distill(*arguments, tmp_path / "run", "--resume")
    assert_one_line(refused, "checkpoint.safetensors: cannot be read: Permission denied")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == before


def test_a_compiler_that_went_is_told(
    run_distill: Program, arguments: list[Any], tmp_path: Path, stopping: Stopping, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a compiled run resumes uncompiled, a message says that the weights will differ."""

    def compiled(self: Accelerator, model: torch.nn.Module, *_: object) -> torch.nn.Module:
        self.compiled.append("student")
        return model

    with monkeypatch.context() as patch, stopping(5):
        patch.setattr(Accelerator, "student", compiled)
        assert run_distill(*arguments, tmp_path / "run").status == 130
    resumed = run_distill(*arguments, tmp_path / "run", "--resume")
    assert resumed.status == 0 and "'compiled': ['student']}: weights will differ in rounding" in resumed.out


def test_another_number_of_threads_is_told(run_distill: Program, arguments: list[Any], tmp_path: Path) -> None:
    """If a run resumes with another number of threads, a message says that the weights will differ."""
    assert run_distill(*arguments, tmp_path / "run").status == 0
    (tmp_path / "run" / "summary.json").unlink()
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        result = run_distill(*arguments, tmp_path / "run", "--resume")
    finally:
        torch.set_num_threads(threads)
    assert result.status == 0 and "weights will differ in rounding" in result.out


def test_a_result_longer_than_its_network_is_not_even_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A result file that is too large is refused without a digest."""
    summary, network = {"sha256": "same"}, torch.nn.Linear(1, 1)
    monkeypatch.setattr(distill.training.run_dir, "file_digest", lambda path: "same")
    monkeypatch.setattr(distill.training.run_dir, "finished_summary", lambda out: summary)
    monkeypatch.setattr(distill.training.run_dir, "largest_file", lambda network: 100)
    for num_bytes, expected in ((100, summary), (101, None)):
        (tmp_path / "student.safetensors").write_bytes(bytes(num_bytes))
        assert distill.training.run_dir.read_progress(tmp_path, "student.safetensors", {}, network) == (
            None,
            expected,
        )


@pytest.mark.parametrize("line", ["[" * 100_000, '{"step": 1%s}' % ("0" * 400), '{"step": null}', '{"step"', "", "1"])
def test_lines_of_a_log_that_say_no_step(line: str) -> None:
    """A log line without a valid step counts as later than every step."""
    assert distill.training.resume._row_step(line) == float("inf")


def test_a_checkpoint_holds_what_was_saved(tmp_path: Path) -> None:
    network = torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    network(torch.ones(1, 3, 5, 5)).sum().backward()
    optimizer.step()
    state = {
        "identity": {"a": "b"},
        "arithmetic": {"torch": "2.6", "threads": 2},
        "student": network.state_dict() | {"half": torch.ones(2, dtype=torch.bfloat16)},
        "optimizer": optimizer.state_dict(),
        "losses": torch.tensor([0.1, float("inf")]),
        "seconds": 0.1 + 0.2,
        **dict.fromkeys(("scaler", "scheduler", "average", "step")),
    }
    save_checkpoint(tmp_path, state)
    saved = load_checkpoint(tmp_path, {"a": "b"}, 1 << 20, print)
    assert saved is not None and saved.keys() == state.keys()
    assert saved["seconds"] == state["seconds"] and saved["average"] is None
    for name, value in state["student"].items():
        assert saved["student"][name].dtype == value.dtype and torch.equal(saved["student"][name], value)
    for number, entry in optimizer.state_dict()["state"].items():
        for key, value in entry.items():
            held = saved["optimizer"]["state"][number][key]
            assert torch.equal(held, value) and held.stride() == value.stride()
    assert torch.equal(saved["losses"], state["losses"])
