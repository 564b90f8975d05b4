"""Whole runs of the program on a tiny set: what they leave, how they resume, how they refuse."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

import distill.loop
from distill.checkpoint import KEYS
from distill.config import Config, packaged_text, parse_config
from distill.data.labelled import load_labelled
from distill.data.view import Batch
from distill.evaluate import logits_of, top_k
from distill.targets import LiveTeacher
from distill.teacher import TeacherConfig, load_teacher
from manifests import tar
from manifests.digest import file_digest, set_id
from manifests.files import hold_folder
from tests.conftest import Program, assert_one_line

CPU = torch.device("cpu")


@pytest.fixture
def arguments(patchset_path: Path, config_path: Path, teacher_path: Path, eval_path: Path) -> list[Any]:
    base = ["train", "--shards", patchset_path, "--config", config_path, "--teacher", teacher_path]
    return [*base, "--eval", eval_path, "--device", "cpu", "--out"]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(run / "student.safetensors")


def same(first: Path, second: Path) -> bool:
    return (first / "student.safetensors").read_bytes() == (second / "student.safetensors").read_bytes()


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def timeless(run: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "images_per_second"} for row in rows(run)]


def test_a_run_and_its_directory(
    run_distill: Program, arguments: list[Any], tmp_path: Path, eval_path: Path, teacher_path: Path
) -> None:
    out = tmp_path / "run"
    result = run_distill(*arguments, out, "--set", "eval.every=64")
    assert result.status == 0, result.err
    assert result.err == ""
    assert sorted(p.name for p in out.iterdir()) == [
        *(
            "checkpoint.previous.pt",
            "checkpoint.pt",
            "config.yaml",
            "metrics.jsonl",
            "student.safetensors",
            "summary.json",
        )
    ]
    summary = json.loads((out / "summary.json").read_text())
    assert summary["samples_seen"] == 192  # twelve whole batches of 16 fit into 200
    assert summary["seed"] == 0 and summary["images_per_second"] > 0
    assert set(summary) >= {"set_id", "teacher_sha256", "agreement", "seconds", "student_top1", "teacher_top1"}

    data = load_labelled(eval_path, None)
    teacher = load_teacher(TeacherConfig(arch="resnet8", num_classes=4, weights=teacher_path), CPU)
    expected = logits_of(teacher.model, data, teacher.mean, teacher.std, CPU)
    assert summary["teacher_top1"] == top_k(expected, data.labels, 1)
    assert [row["step"] for row in rows(out)] == [4, 4, 8, 8, 12, 12]
    assert [row["step"] for row in rows(out) if "student_top1" in row] == [4, 8, 12]
    assert rows(out)[-1]["student_top1"] == summary["student_top1"]

    evaluated = run_distill(
        *("eval", "--weights", out / "student.safetensors", "--arch", "resnet8", "--data", eval_path, "--json")
    )
    measured = json.loads(evaluated.out)
    assert (measured["arch"], measured["images"]) == ("resnet8", 20)
    assert measured["top1"] == summary["student_top1"] and measured["per_class"] == summary["student_per_class"]
    resolved = parse_config((out / "config.yaml").read_text(), "again", {}, Config)
    assert resolved.teacher.weights == teacher_path and resolved.data.batch_size == 16
    checkpoint = torch.load(out / "checkpoint.pt", weights_only=True)
    assert set(checkpoint) == KEYS


def test_the_loss_falls(run_distill: Program, arguments: list[Any], tmp_path: Path) -> None:
    assert run_distill(*arguments, tmp_path / "run", "--set", "train.epochs=8").status == 0
    losses = [row["loss"] for row in rows(tmp_path / "run") if "loss" in row]
    assert losses[-1] < 0.5 * losses[0]


def test_two_runs_of_one_seed_are_equal(run_distill: Program, arguments: list[Any], tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert run_distill(*arguments, tmp_path / name, "--set", f"train.seed={seed}").status == 0
    assert same(tmp_path / "a", tmp_path / "b")
    assert timeless(tmp_path / "a") == timeless(tmp_path / "b")
    assert not same(tmp_path / "a", tmp_path / "c")


@pytest.mark.parametrize("schedule", ["constant", "cosine", "onecycle"])
def test_a_stopped_run_resumes_exactly(
    run_distill: Program, arguments: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, schedule: str
) -> None:
    """SIGTERM in the middle of a log interval saves; the resumed run ends as the uninterrupted one does."""
    sets = ["--set", f"optim.schedule={schedule}", "--set", "train.epochs=2"]
    assert run_distill(*arguments, tmp_path / "whole", *sets).status == 0
    original = distill.loop.Loop.train_step

    def stop_at_7(self: distill.loop.Loop, step: int) -> torch.Tensor:
        if step == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(distill.loop.Loop, "train_step", stop_at_7)
        stopped = run_distill(*arguments, tmp_path / "cut", *sets)
    assert_one_line(stopped, "stopped at step 8 of 25", "--resume", status=130)
    assert not (tmp_path / "cut" / "summary.json").exists()
    assert run_distill(*arguments, tmp_path / "cut", *sets, "--resume").status == 0
    assert same(tmp_path / "whole", tmp_path / "cut")
    assert timeless(tmp_path / "whole") == timeless(tmp_path / "cut")


def test_a_killed_run_resumes_exactly(arguments: list[Any], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "distill", *map(str, arguments)]
    sets = ["--set", "train.epochs=4", "--set", "train.checkpoint_seconds=0.001", "--resume"]
    subprocess.run([*command, tmp_path / "whole", *sets], check=True, capture_output=True)
    run = subprocess.Popen([*command, tmp_path / "cut", *sets], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (tmp_path / "cut" / "checkpoint.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    run.kill()
    run.wait()
    assert not (tmp_path / "cut" / "summary.json").exists()
    subprocess.run([*command, tmp_path / "cut", *sets], check=True, capture_output=True)
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
    assert_one_line(run_distill(*arguments, out, "--resume", "--set", "optim.lr=0.1"), "belongs to a run with optim")
    student = (out / "student.safetensors").read_bytes()
    (out / "checkpoint.pt").write_bytes(b"torn")
    resumed = run_distill(*arguments, out, "--resume")
    assert resumed.status == 0 and "checkpoint.pt: damaged" in resumed.out and "going on from" in resumed.out
    assert (out / "student.safetensors").read_bytes() == student
    (out / "summary.json").unlink()
    for name in ("checkpoint.pt", "checkpoint.previous.pt"):
        (out / name).write_bytes(b"torn")
    assert_one_line(run_distill(*arguments, out, "--resume"), "checkpoint.previous.pt: damaged")


@pytest.mark.parametrize(
    ("extra", "parts"),
    [
        (["--teacher", "none.pt"], ["none.pt: no such weight file"]),
        (["--eval", "none"], ["none: no such evaluation data"]),
        (["--shards", "none"], ["none: no such folder"]),
        (["--set", "teacher.num_classes=10"], ["has 4 classes, but num_classes is 10"]),
        (["--set", "teacher.min_top1=100"], ["top-1 is", "teacher.min_top1 is 100"]),
        (["--set", "optim.lrr=1"], ["unknown key 'optim.lrr'; did you mean 'lr'?"]),
        (["--set", "train.samples=10"], ["10 samples are under one batch of 16"]),
        (["--set", "student.arch=resnet9"], ["6n + 2 layers"]),
        (["--set", "student.arch=torchvision/vit_b_16"], ["does not take images of 32 px"]),
        (["--set", "student.arch=torchvision/googlenet"], ["googlenet"]),
        (["--set", "augment.cutmix_alpha=.inf"], ["augment.cutmix_alpha: Input should be a finite number"]),
        (["--set", "teacher.std=[0,0,0]"], ["says its std is"]),
        (["--device", "meta"], ["not supported"]),
        (["--device", "cuda:99"], ["--device cuda:99: not on this machine"]),
        (
            ["--set", "optim.lr=1e30", "--set", "optim.schedule=constant"],
            ["became nan at step ", "nonfinite.json"],
        ),
    ],
)
def test_bad_input_is_one_line(
    run_distill: Program, arguments: list[Any], tmp_path: Path, extra: list[str], parts: list[str]
) -> None:
    result = run_distill(*arguments, tmp_path / "run", *extra)
    assert_one_line(result, *parts)
    started = "became nan" in parts[0]
    assert (tmp_path / "run").exists() == started
    assert not (tmp_path / "run" / "summary.json").exists()


def test_no_space_left_and_another_run(
    run_distill: Program, arguments: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    out = tmp_path / "run"
    assert run_distill(*arguments, tmp_path / "whole").status == 0
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert_one_line(run_distill(*arguments, out), "no space left", str(out), "go on with --resume")
    out.mkdir(exist_ok=True)
    with hold_folder(out):
        assert_one_line(run_distill(*arguments, out, "--resume"), "another run is writing here")
    assert run_distill(*arguments, out, "--resume").status == 0
    assert same(out, tmp_path / "whole")


def test_resume_leaves_a_folder_that_is_no_run_alone(
    run_distill: Program, arguments: list[Any], tmp_path: Path
) -> None:
    out = tmp_path / "mine"
    out.mkdir()
    (out / "config.yaml").write_text("precious")
    assert_one_line(run_distill(*arguments, out, "--resume"), "no run to go on with")
    assert [(p.name, p.read_text()) for p in out.iterdir()] == [("config.yaml", "precious")]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": 1}'])
def test_a_damaged_summary(run_distill: Program, arguments: list[Any], tmp_path: Path, text: str) -> None:
    assert run_distill(*arguments, tmp_path / "run").status == 0
    (tmp_path / "run" / "summary.json").write_text(text)
    assert_one_line(run_distill(*arguments, tmp_path / "run", "--resume"), "summary.json")


def first_member(data: bytes) -> bytes:
    size = int(data[124:135], 8)
    return data[: 512 + size + len(tar.padding(size))]


def resign(folder: Path) -> None:
    """Make a set's digests fit its files again, as somebody who means harm would."""
    value = json.loads((folder / "manifest.json").read_bytes())
    for shard in value["shards"]:
        shard["bytes"] = (folder / shard["name"]).stat().st_size
        shard["sha256"] = file_digest(folder / shard["name"])
    value["set_id"] = set_id(value)
    (folder / "manifest.json").write_text(json.dumps(value))


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda data: data[:-1024] + first_member(data) + tar.END, "stands twice"),
        (lambda data: data.replace(b"000000005.png", b"00000000x.png"), "patch 5 is in no shard"),
        (lambda data: data[:-1024] + tar.header("000000999.png", 0) + tar.END, "is no index of this set"),
        (lambda data: data[:-1024] + tar.header("000000199.png", 0) + tar.END, "not a whole image"),
        (lambda data: tar.header("000000000.jpg", 0) + data, "is .jpg and .png"),
        (lambda data: tar.END, "is in no shard"),
    ],
)
def test_a_signed_set_whose_tar_is_wrong(
    run_distill: Program, arguments: list[Any], tmp_path: Path, patchset_path: Path, change: Any, part: str
) -> None:
    shards = Path(shutil.copytree(patchset_path, tmp_path / "set #1?%20"))
    path = shards / "patches-000000.tar"
    path.write_bytes(change(path.read_bytes()))
    resign(shards)
    arguments[2] = shards
    assert_one_line(run_distill(*arguments, tmp_path / "run"), part)


def test_a_path_is_never_a_url(
    run_distill: Program, arguments: list[Any], tmp_path: Path, patchset_path: Path, eval_path: Path
) -> None:
    arguments[2] = shutil.copytree(patchset_path, tmp_path / "set #1?%20")
    data = shutil.copy(eval_path, tmp_path / "pipe:touch hacked #.tar")
    assert run_distill(*arguments, tmp_path / "run", "--eval", data).status == 0
    assert not Path("hacked").exists()


def test_a_damaged_shard_stops_the_run_before_the_first_step(
    run_distill: Program, arguments: list[Any], tmp_path: Path, patchset_path: Path
) -> None:
    shards = Path(shutil.copytree(patchset_path, tmp_path / "shards"))
    data = bytearray((shards / "patches-000001.tar").read_bytes())
    data[3000] ^= 1
    (shards / "patches-000001.tar").write_bytes(data)
    arguments[2] = shards
    assert_one_line(run_distill(*arguments, tmp_path / "run"), "patches-000001.tar: sha256 is")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_both_networks_see_the_same_pixels_and_the_teacher_stays(
    run_distill: Program, arguments: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, torch.Tensor]] = []
    original, teach = distill.loop.Loop.train_step, LiveTeacher.__call__

    def watch(self: distill.loop.Loop, step: int) -> torch.Tensor:
        assert self.student.training
        hook = self.student.register_forward_pre_hook(lambda _, x: seen.append(("student", x[0].clone())))
        loss = original(self, step)
        hook.remove()
        return loss

    def watch_teacher(self: LiveTeacher, batch: Batch, x: torch.Tensor) -> torch.Tensor:
        seen.append(("teacher", x.clone()))
        return teach(self, batch, x)

    monkeypatch.setattr(LiveTeacher, "__call__", watch_teacher)
    monkeypatch.setattr(distill.loop.Loop, "train_step", watch)
    assert run_distill(*arguments, tmp_path / "run", "--set", "augment.cutmix_alpha=1").status == 0
    assert len(seen) == 24
    for (first, x), (second, y) in zip(seen[::2], seen[1::2], strict=True):
        assert (first, second) == ("teacher", "student") and torch.equal(x, y)
        assert x.shape == (16, 3, 32, 32) and x.is_contiguous(memory_format=torch.channels_last)


def test_bf16_runs_too(run_distill: Program, arguments: list[Any], tmp_path: Path) -> None:
    assert run_distill(*arguments, tmp_path / "run", "--set", "train.precision=bf16").status == 0
    assert all(tensor.dtype != torch.bfloat16 for tensor in weights(tmp_path / "run").values())


def test_eval_needs_to_know_the_network(
    run_distill: Program, teacher_path: Path, eval_path: Path, tmp_path: Path
) -> None:
    from distill.weights import load_weights

    torch.save(load_weights(teacher_path).state, tmp_path / "t.pt")
    base = ["eval", "--weights", tmp_path / "t.pt", "--data", eval_path]
    assert_one_line(run_distill(*base), "give --arch")
    assert_one_line(run_distill(*base, "--arch", "resnet8"), "set --mean")
    norm = ["--mean", "0.5,0.4,0.3", "--std", "0.2,0.25,0.3"]
    result = run_distill(*base, "--arch", "resnet8", *norm)
    assert result.out == run_distill("eval", "--weights", teacher_path, "--data", eval_path).out
    assert run_distill(*base, "--arch", "resnet8", "--mean", "1,2").status == 2


def test_a_loss_that_is_no_number_names_step_and_samples(
    run_distill: Program, arguments: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two lines of the log, the first bad step is named; the last checkpoint is a good one."""
    original, seen = distill.loop.Loop.train_step, {}

    def spoil(self: distill.loop.Loop, step: int) -> torch.Tensor:
        loss = original(self, step)
        seen[step] = self.view.source.order.batch(step).tolist()
        return loss * float("inf") if step >= 5 else loss

    with monkeypatch.context() as patch:
        patch.setattr(distill.loop.Loop, "train_step", spoil)
        result = run_distill(*arguments, tmp_path / "run")
    assert_one_line(result, "the loss became inf at step 5", f"{seen[5][0]:09d}, {seen[5][1]:09d}", "nonfinite.json")
    told = json.loads((tmp_path / "run" / "nonfinite.json").read_text())
    assert told == {"step": 5, "loss": "inf", "samples": [f"{index:09d}" for index in seen[5]]}
    assert run_distill(*arguments, tmp_path / "run", "--resume").status == 0
    assert run_distill(*arguments, tmp_path / "whole").status == 0
    assert same(tmp_path / "run", tmp_path / "whole")


def test_a_teacher_that_changes_spoils_the_run(
    run_distill: Program, arguments: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = distill.loop.Loop.train_step

    def touch(self: distill.loop.Loop, step: int) -> torch.Tensor:
        if step == 5:
            next(self.targets.network.folded.parameters())[0] += 1e-3
        return original(self, step)

    monkeypatch.setattr(distill.loop.Loop, "train_step", touch)
    assert_one_line(run_distill(*arguments, tmp_path / "run"), "the teacher changed during the run")
    assert not (tmp_path / "run" / "summary.json").exists()


def test_a_network_with_dropout_resumes_exactly(
    run_distill: Program, arguments: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = ["--set", "student.arch=torchvision/mobilenet_v2", "--set", "train.samples=96"]
    assert run_distill(*arguments, tmp_path / "whole", *sets).status == 0
    original = distill.loop.Loop.train_step

    def stop_at_2(self: distill.loop.Loop, step: int) -> torch.Tensor:
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(distill.loop.Loop, "train_step", stop_at_2)
        assert run_distill(*arguments, tmp_path / "cut", *sets).status == 130
    assert run_distill(*arguments, tmp_path / "cut", *sets, "--resume").status == 0
    assert same(tmp_path / "whole", tmp_path / "cut")


def test_a_run_killed_in_its_first_checkpoint_begins_again(
    run_distill: Program, arguments: list[Any], tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".patchset-part-77-checkpoint.pt").write_bytes(b"half")
    assert run_distill(*arguments, tmp_path / "run").status == 0
    assert not list((tmp_path / "run").glob(".patchset-part-*"))


def test_several_seeds_leave_a_single_run_alone(run_distill: Program, arguments: list[Any], tmp_path: Path) -> None:
    assert run_distill(*arguments, tmp_path / "run").status == 0
    before = (tmp_path / "run" / "summary.json").read_bytes()
    assert_one_line(run_distill(*arguments, tmp_path / "run", "--seeds", "0,1"), "holds a run of one seed")
    assert (tmp_path / "run" / "summary.json").read_bytes() == before


def test_another_number_of_threads_is_told(run_distill: Program, arguments: list[Any], tmp_path: Path) -> None:
    assert run_distill(*arguments, tmp_path / "run").status == 0
    (tmp_path / "run" / "summary.json").unlink()
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        result = run_distill(*arguments, tmp_path / "run", "--resume")
    finally:
        torch.set_num_threads(threads)
    assert result.status == 0 and "weights will differ in rounding" in result.out


def test_an_untempered_loss_needs_no_surgery(run_distill: Program, arguments: list[Any], tmp_path: Path) -> None:
    config = parse_config(packaged_text("resnet20"), "resnet20", {"loss.name": "mse"}, Config)
    assert config.loss.name == "mse"
    assert run_distill(*arguments, tmp_path / "run", "--set", "loss.name=hard").status == 0
