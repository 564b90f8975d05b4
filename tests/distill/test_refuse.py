"""Test runs that are refused or fail: the program prints one line, and no result is lost."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import distill.training.trainer
from manifests.format import tar
from manifests.support.files import hold_folder
from tests.conftest import Program, assert_one_line, full_output
from tests.helpers.resign import resign
from tests.helpers.running import same


@pytest.mark.parametrize(
    ("extra", "parts"),
    [
        (["--teacher", "none.pt"], ["none.pt: the weight file does not exist"]),
        (["--eval", "none"], ["none: the evaluation data does not exist"]),
        (["--shards", "none"], ["none: no such folder"]),
        (["--set", "teacher.num_classes=10"], ["has 4 classes, but num_classes is 10"]),
        (["--set", "teacher.min_top1=100"], ["top-1 is", "expected at least 100.0 % (teacher.min_top1)"]),
        (["--set", "optim.lrr=1"], ["unknown key 'optim.lrr'; did you mean 'optim.lr'?"]),
        (["--set", "train.samples=10"], ["the run has 10 samples, expected at least one batch of 16"]),
        (["--set", "student.arch=resnet9"], ["6n + 2 layers"]),
        (["--set", "student.arch=torchvision/vit_b_16"], ["does not accept images of 32 px"]),
        (["--set", "student.arch=torchvision/inception_v3"], ["inception_v3': does not accept images of 32 px"]),
        (["--set", "augment.cutmix_alpha=.inf"], ["augment.cutmix_alpha: Input should be a finite number"]),
        (["--set", "teacher.std=[0,0,0]"], ["teacher.std: std is 0, 0, 0, expected numbers from"]),
        (["--device", "meta"], ["not supported"]),
        (["--device", "cuda:99"], ["--device cuda:99: this machine does not have the device"]),
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


@pytest.mark.parametrize(
    ("extra", "part"),
    [
        (["--set", "teacher.weights=x.pt"], "--set teacher.weights and --teacher are both given"),
        (["--set", "eval.data=x"], "--set eval.data and --eval are both given"),
        (["--set", "train.seed=3", "--seeds", "0,1"], "--set train.seed and --seeds are both given"),
    ],
)
def test_a_key_that_is_said_twice(
    run_distill: Program, arguments: list[Any], tmp_path: Path, extra: list[str], part: str
) -> None:
    assert_one_line(run_distill(*arguments, tmp_path / "run", *extra), part, "give only one of them", status=2)
    assert not (tmp_path / "run").exists()


def test_a_full_output_is_not_a_full_disk(run_distill: Program, arguments: list[Any], tmp_path: Path) -> None:
    with full_output():
        result = run_distill(*arguments, tmp_path / "run")
    assert_one_line(result, "distill: the output cannot be written: No space left on device; redirect it")


def test_no_space_left_and_another_run(
    run_distill: Program, arguments: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    out = tmp_path / "run"
    assert run_distill(*arguments, tmp_path / "whole").status == 0
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert_one_line(run_distill(*arguments, out), "no space left", str(out), "continue with --resume")
    out.mkdir(exist_ok=True)
    with hold_folder(out):
        assert_one_line(run_distill(*arguments, out, "--resume"), "another program is writing in this folder")
    assert run_distill(*arguments, out, "--resume").status == 0
    assert same(out, tmp_path / "whole")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": 1}'])
def test_a_damaged_summary(run_distill: Program, arguments: list[Any], tmp_path: Path, text: str) -> None:
    assert run_distill(*arguments, tmp_path / "run").status == 0
    (tmp_path / "run" / "summary.json").write_text(text)
    assert_one_line(run_distill(*arguments, tmp_path / "run", "--resume"), "summary.json")


def first_member(data: bytes) -> bytes:
    """Return the header and the padded content of the first member of a tar."""
    size = int(data[124:135], 8)
    return data[: 512 + size + len(tar.padding(size))]


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda data: data[:-1024] + first_member(data) + tar.END, "after the last member"),
        (lambda data: data.replace(b"000000005.png", b"00000000x.png"), "expected the header of 000000005.png"),
        (lambda data: data[:-1024] + tar.header("000000999.png", 0) + tar.END, "after the last member"),
        (lambda data: bytes(512) + data[512:], "the header at byte 0 is wrong, expected the header of 000000000.png"),
        (
            lambda data: tar.header("000000000.jpg", 0) + data,
            "the header at byte 0 is wrong, expected the header of 000000000.png",
        ),
        (lambda data: tar.END, "the header at byte 0"),
    ],
)
def test_a_signed_set_whose_tar_is_wrong(
    run_distill: Program, arguments: list[Any], tmp_path: Path, patchset_path: Path, change: Any, part: str
) -> None:
    """A wrong tar is refused, even if the checksums of the set match the tar."""
    shards = Path(shutil.copytree(patchset_path, tmp_path / "set #1?%20"))
    path = shards / "patches-000000.tar"
    path.write_bytes(change(path.read_bytes()))
    resign(shards)
    arguments[2] = shards
    assert_one_line(run_distill(*arguments, tmp_path / "run"), part)


def test_a_path_is_never_a_url(
    run_distill: Program, arguments: list[Any], tmp_path: Path, patchset_path: Path, eval_path: Path
) -> None:
    """Paths with characters of URLs or shells are read as paths."""
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


def test_eval_needs_to_know_the_network(
    run_distill: Program, teacher_path: Path, eval_path: Path, tmp_path: Path
) -> None:
    from distill.weights.files import load_weights

    torch.save(load_weights(teacher_path).content, tmp_path / "t.pt")
    base = ["eval", "--weights", tmp_path / "t.pt", "--data", eval_path]
    assert_one_line(run_distill(*base), "run 'distill convert' on it with --arch")
    assert_one_line(run_distill(*base, "--arch", "resnet8"), "set --mean")
    norm = ["--mean", "0.5,0.4,0.3", "--std", "0.2,0.25,0.3"]
    result = run_distill(*base, "--arch", "resnet8", *norm)
    assert result.out == run_distill("eval", "--weights", teacher_path, "--data", eval_path).out
    assert run_distill(*base, "--arch", "resnet8", "--mean", "1,2").status == 2


def test_a_loss_that_is_no_number_names_step_and_samples(
    run_distill: Program, arguments: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the first step with a loss that is not finite, even between two log lines.

    The last checkpoint is older than this step, so the run can be resumed.
    """
    original, seen = distill.training.trainer.Trainer.train_step, {}

    def spoil(self: distill.training.trainer.Trainer, step: int) -> torch.Tensor:
        loss = original(self, step)
        seen[step] = self.view.source.order.batch(step).tolist()
        return loss * float("inf") if step >= 5 else loss

    with monkeypatch.context() as patch:
        patch.setattr(distill.training.trainer.Trainer, "train_step", spoil)
        result = run_distill(*arguments, tmp_path / "run")
    assert_one_line(result, "the loss became inf at step 5", f"{seen[5][0]:09d}, {seen[5][1]:09d}", "nonfinite.json")
    assert "lower optim.lr, and choose another --out" in result.err  # the run is in fp32 already
    told = json.loads((tmp_path / "run" / "nonfinite.json").read_text())
    assert told == {"step": 5, "loss": "inf", "samples": [f"{index:09d}" for index in seen[5]]}
    assert run_distill(*arguments, tmp_path / "run", "--resume").status == 0
    assert run_distill(*arguments, tmp_path / "whole").status == 0
    assert same(tmp_path / "run", tmp_path / "whole")


def test_a_finished_run_is_not_evaluated_in_silence(
    run_distill: Program, arguments: list[Any], tmp_path: Path
) -> None:
    """If ``--eval`` is added to a finished run, a message says that the run is not evaluated again."""
    blind = [*arguments[: arguments.index("--eval")], "--out", tmp_path / "run"]
    assert run_distill(*blind).status == 0
    again = run_distill(*arguments, tmp_path / "run", "--resume")
    assert again.status == 0 and "already finished and is not evaluated again; use distill eval" in again.out


def test_a_teacher_that_changes_spoils_the_run(
    run_distill: Program, arguments: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = distill.training.trainer.Trainer.train_step

    def touch(self: distill.training.trainer.Trainer, step: int) -> torch.Tensor:
        if step == 5:
            next(self.targets.network.folded.parameters())[0] += 1e-3
        return original(self, step)

    monkeypatch.setattr(distill.training.trainer.Trainer, "train_step", touch)
    assert_one_line(run_distill(*arguments, tmp_path / "run"), "the teacher changed during the run")
    assert not (tmp_path / "run" / "summary.json").exists()


def test_several_seeds_leave_a_single_run_alone(run_distill: Program, arguments: list[Any], tmp_path: Path) -> None:
    assert run_distill(*arguments, tmp_path / "run").status == 0
    before = (tmp_path / "run" / "summary.json").read_bytes()
    assert_one_line(run_distill(*arguments, tmp_path / "run", "--seeds", "0,1"), "contains a run of one seed")
    assert (tmp_path / "run" / "summary.json").read_bytes() == before


def test_several_seeds_ask_for_a_folder_of_their_own(
    run_distill: Program, arguments: list[Any], tmp_path: Path
) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "summary.json").write_text("precious")
    assert_one_line(run_distill(*arguments, tmp_path / "runs", "--seeds", "0,1"), "is not empty", "--resume")
    assert (tmp_path / "runs" / "summary.json").read_text() == "precious"


def test_no_home_directory(run_distill: Program, arguments: list[Any], tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "~nosuch/x")
    result = run_distill(*arguments, tmp_path / "run")
    assert_one_line(result, "'~nosuch/x' (XDG_CACHE_HOME) is unknown; set data.cache_dir")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    assert_one_line(run_distill(*arguments, tmp_path / "run"), "'~/.cache' (XDG_CACHE_HOME)", "set data.cache_dir")


@pytest.mark.parametrize("cache", ["auto", "none"])
def test_a_shard_that_goes_while_it_is_read_ends_the_program(
    arguments: list[Any], tmp_path: Path, cache: str
) -> None:
    """If a shard is deleted before decoding, the program ends.

    The decoding processes are stopped, so the program does not wait for them.
    """
    shards = Path(shutil.copytree(arguments[arguments.index("--shards") + 1], tmp_path / "shards"))
    spoil = """
import sys
from pathlib import Path
import distill.data.cache as cache
from distill.__main__ import main
folder, verify = Path(sys.argv.pop(1)), cache._verify
def gone(*args):
    verify(*args)
    for path in folder.glob("*.tar"):
        path.unlink()
cache._verify = gone
main()
"""
    command = [*map(str, arguments), str(tmp_path / "run"), "--set", f"data.cache={cache}"]
    command[command.index("--shards") + 1] = str(shards)
    result = subprocess.run(
        [sys.executable, "-c", spoil, str(shards), *command], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 1 and ".tar: cannot be read: No such file or directory" in result.stderr, (
        result.stderr
    )
