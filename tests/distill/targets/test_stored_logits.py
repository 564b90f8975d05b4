"""Test stored logits: training with stored logits equals training with the live teacher.

Stored logits of another run, set or teacher are refused.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import distill.targets.stored_logits
from distill.data.batches import Batch
from distill.targets.stored_logits import steps_per_file
from distill.targets.targets import TeacherTargets
from distill.training.trainer import Trainer
from tests.conftest import Program, assert_one_line
from tests.helpers.running import rows, weights


@pytest.fixture
def base(patchset_path: Path, config_path: Path) -> list[Any]:
    return ["--shards", patchset_path, "--config", config_path, "--device", "cpu"]


@pytest.fixture
def labels(run_distill: Program, base: list[Any], teacher_path: Path, tmp_path: Path) -> Path:
    out = tmp_path / "labels"
    result = run_distill("make-logits", *base, "--teacher", teacher_path, "--out", out)
    assert result.status == 0 and f"train with --teacher-logits {out}" in result.out, result
    return out


def test_what_is_written(labels: Path, patchset_path: Path) -> None:
    assert sorted(path.name for path in labels.iterdir()) == ["labels.json", "logits-000000.npy"]
    manifest = json.loads((labels / "labels.json").read_text())
    assert manifest["format"] == "labels/1" and manifest["view"]["order"] == {"batch_size": 16, "n": 200, "seed": 0}
    assert manifest["set_id"] == json.loads((patchset_path / "manifest.json").read_text())["set_id"]
    array = np.load(labels / "logits-000000.npy", allow_pickle=False)
    assert array.dtype == np.float16 and array.shape == (192, 4)


def test_training_from_them_is_training_with_the_teacher(
    run_distill: Program,
    base: list[Any],
    labels: Path,
    teacher_path: Path,
    eval_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stored logits are float16. A live teacher with logits rounded to float16 leads to the same weights.

    The temperature may be chosen after the logits were stored.
    """
    sets = ["--set", "loss.temperature=3", "--set", "train.log_steps=1", "--eval", eval_path]
    live, rounded, stored = (tmp_path / name for name in ("live", "rounded", "stored"))
    result = run_distill("train", *base, *sets, "--teacher-logits", labels, "--out", stored)
    assert result.status == 0 and "not evaluated" in result.out
    assert run_distill("train", *base, *sets, "--teacher", teacher_path, "--out", live).status == 0
    original = TeacherTargets.__call__
    monkeypatch.setattr(TeacherTargets, "__call__", lambda self, batch, x: original(self, batch, x).half())
    assert run_distill("train", *base, *sets, "--teacher", teacher_path, "--out", rounded).status == 0
    assert (stored / "student.safetensors").read_bytes() == (rounded / "student.safetensors").read_bytes()

    pairs = [(a["loss"], b["loss"]) for a, b in zip(rows(live), rows(stored), strict=True) if "loss" in a]
    assert len(pairs) == 12 and all(a == pytest.approx(b, rel=2e-2) for a, b in pairs)
    assert any(a != b for a, b in pairs)
    summary, other = (json.loads((run / "summary.json").read_text()) for run in (stored, live))
    assert summary["teacher_top1"] is None and summary["student_top1"] is not None
    assert summary["teacher_sha256"] == other["teacher_sha256"]


def test_the_teacher_may_judge_beside_its_logits(
    run_distill: Program, base: list[Any], labels: Path, teacher_path: Path, eval_path: Path, tmp_path: Path
) -> None:
    """With stored logits and ``--teacher``, the teacher is used for the evaluation."""
    extra = ["--teacher", teacher_path, "--eval", eval_path]
    result = run_distill("train", *base, "--teacher-logits", labels, *extra, "--out", tmp_path / "run")
    assert result.status == 0 and "agreement" in result.out


def test_students_of_several_seeds_share_one_view(
    run_distill: Program, base: list[Any], labels: Path, eval_path: Path, tmp_path: Path
) -> None:
    """Students with different seeds can be trained from the same stored logits."""
    out = tmp_path / "runs"
    extra = ["--teacher-logits", labels, "--eval", eval_path, "--seeds", "3,5", "--out", out]
    result = run_distill("train", *base, *extra)
    assert result.status == 0 and "over 2 seeds" in result.out
    summary = json.loads((out / "summary.json").read_text())
    assert summary["seeds"] == [3, 5]
    values = [json.loads((out / f"seed{s}" / "summary.json").read_text())["student_top1"] for s in (3, 5)]
    assert summary["student_top1"] == {
        "mean": sum(values) / 2,
        "deviation": pytest.approx(abs(values[0] - values[1]) / 2**0.5),
        "values": values,
    }
    assert not torch.equal(*(weights(out / f"seed{s}")["conv1.weight"] for s in (3, 5)))


@pytest.mark.parametrize(
    ("sets", "part"),
    [
        (["augment.flip=false"], "a run with augment.flip True, but this run has False"),
        (["data.batch_size=8"], "a run with order.batch_size 16, but this run has 8"),
        (["data.view_seed=4"], "this run has 4"),
        (["teacher.arch=resnet14"], "a teacher with arch resnet8, but this run has resnet14"),
        (["teacher.mean=[0.1,0.1,0.1]"], "a teacher with mean"),
        (["train.epochs=2"], "contains logits of 12 steps, but this run needs 25"),
    ],
)
def test_logits_of_something_else_are_refused(
    run_distill: Program, base: list[Any], labels: Path, tmp_path: Path, sets: list[str], part: str
) -> None:
    extra = [item for each in sets for item in ("--set", each)]
    result = run_distill("train", *base, *extra, "--teacher-logits", labels, "--out", tmp_path / "run")
    assert_one_line(result, str(labels), part)


def test_logits_of_an_earlier_augmentation_are_refused(
    run_distill: Program, base: list[Any], teacher_path: Path, tmp_path: Path
) -> None:
    labels, sets = tmp_path / "labels", ["--set", "augment.jitter={hue: 0.1}"]
    command = ["make-logits", *base, *sets, "--teacher", teacher_path, "--out", labels]
    assert run_distill(*command).status == 0
    value = json.loads((labels / "labels.json").read_text())
    assert value["view"]["version"] == 2
    value["view"]["version"] = 1
    (labels / "labels.json").write_text(json.dumps(value))
    result = run_distill("train", *base, *sets, "--teacher-logits", labels, "--out", tmp_path / "run")
    assert_one_line(result, "a run with version 1, but this run has 2; create stored logits")


def test_logits_of_another_set_or_teacher_are_refused(
    run_distill: Program, base: list[Any], labels: Path, teacher_path: Path, tmp_path: Path
) -> None:
    from distill.models import build_model
    from distill.weights.files import save_weights
    from tests.distill.conftest import MEAN, STD

    other = tmp_path / "other.safetensors"
    save_weights(other, build_model("resnet8", 4), arch="resnet8", num_classes=4, mean=MEAN, std=STD)
    run = ["train", *base, "--teacher-logits", labels, "--out", tmp_path / "run"]
    assert_one_line(run_distill(*run, "--teacher", other), "a teacher with sha256")
    verify = ["verify-logits", labels, *base, "--teacher"]
    assert_one_line(run_distill(*verify, other), "a teacher with sha256")
    value = json.loads((labels / "labels.json").read_text())
    (labels / "labels.json").write_text(json.dumps(value | {"set_id": "0" * 64}))
    assert_one_line(run_distill(*run), "to the set 0000")
    assert_one_line(run_distill(*verify, teacher_path), "to the set 0000")


def _edit(folder: Path, **changes: Any) -> None:
    """Change keys of ``labels.json``. A callable computes the new value from the old value."""
    path = folder / "labels.json"
    value = json.loads(path.read_text())
    path.write_text(json.dumps(value | {k: v(value[k]) if callable(v) else v for k, v in changes.items()}))


def _replace(folder: Path, write: Any) -> None:
    """Write another array file with ``write``, and record its digest, as an attacker would."""
    from manifests.format.digest import file_digest

    path = folder / "logits-000000.npy"
    write(path)
    _edit(folder, files=[{"name": path.name, "steps": 12, "sha256": file_digest(path)}])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-7] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "part"),
    [
        (lambda f: _flip(f / "logits-000000.npy"), "logits-000000.npy: sha256 is"),
        (lambda f: (f / "logits-000000.npy").unlink(), "is missing"),
        (lambda f: (f / "labels.json").unlink(), "labels.json is missing"),
        (lambda f: (f / "labels.json").write_text("{}"), "labels.json: required keys"),
        (lambda f: (f / "labels.json").write_text("{"), "labels.json"),
        (lambda f: _edit(f, files=[]), "the list 'files' is empty"),
        (lambda f: _edit(f, batch_size=8), "but view.order does not have the same batch_size"),
        (
            lambda f: _edit(f, teacher=lambda held: held | {"std": [0.2, 0, 0.3]}),
            "std is 0.2, 0, 0.3, expected",
        ),
        (lambda f: _edit(f, view=lambda held: held | {"augment": 3}), "view.augment"),
        (lambda f: _replace(f, lambda path: path.write_bytes(b"PK\x03\x04" + bytes(100))), "is not a .npy file"),
        (
            lambda f: _replace(f, lambda path: np.save(path, np.zeros((192, 5), np.float16))),
            "expected float16 (192, 4)",
        ),
        (
            lambda f: _replace(f, lambda path: np.save(path, np.full((192, 4), np.nan, np.float16))),
            "not a finite number",
        ),
    ],
)
def test_damage(
    run_distill: Program, base: list[Any], labels: Path, teacher_path: Path, tmp_path: Path, damage: Any, part: str
) -> None:
    damage(labels)
    assert_one_line(run_distill("train", *base, "--teacher-logits", labels, "--out", tmp_path / "run"), part)
    assert_one_line(run_distill("verify-logits", labels, *base, "--teacher", teacher_path), part)


def test_logits_that_change_spoil_the_run(
    run_distill: Program, base: list[Any], labels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Trainer.train_step

    def change(self: Trainer, step: int) -> torch.Tensor:
        if step == 5:
            with (labels / "logits-000000.npy").open("r+b") as file:
                file.seek(-2, os.SEEK_END)
                file.write(b"ab")
        return original(self, step)

    monkeypatch.setattr(Trainer, "train_step", change)
    result = run_distill("train", *base, "--teacher-logits", labels, "--out", tmp_path / "run")
    assert_one_line(result, "logits-000000.npy: sha256 is")
    assert not (tmp_path / "run" / "summary.json").exists()


def test_an_object_array_is_not_unpickled(
    run_distill: Program, base: list[Any], labels: Path, tmp_path: Path
) -> None:
    from manifests.format.digest import file_digest

    np.save(labels / "logits-000000.npy", np.array([print], dtype=object), allow_pickle=True)
    value = json.loads((labels / "labels.json").read_text())
    value["files"][0]["sha256"] = file_digest(labels / "logits-000000.npy")
    (labels / "labels.json").write_text(json.dumps(value))
    assert_one_line(
        run_distill("train", *base, "--teacher-logits", labels, "--out", tmp_path / "run"), "is not a .npy file"
    )


def test_verify_computes_a_sample_again(
    run_distill: Program, base: list[Any], labels: Path, teacher_path: Path
) -> None:
    from manifests.format.digest import file_digest

    command = ["verify-logits", labels, *base, "--teacher", teacher_path, "--sample", 50]
    assert "every digest is correct" in run_distill(*command).out
    check = json.loads(run_distill(*command, "--json").out)
    assert check["same_class"] > 95 and 0 < check["largest_difference"] < 0.01 and check["steps"] == 12
    assert json.loads(run_distill(*command[:-1], 5, "--json").out)["steps"] == 5
    shorter = run_distill(*command, "--json", "--set", "train.samples=32")
    assert json.loads(shorter.out) == check  # the stored logits set the length, not the config
    array = np.load(labels / "logits-000000.npy")
    array[::16] += 1
    np.save(labels / "logits-000000.npy", array)
    value = json.loads((labels / "labels.json").read_text())
    value["files"][0]["sha256"] = file_digest(labels / "logits-000000.npy")
    (labels / "labels.json").write_text(json.dumps(value))
    assert_one_line(run_distill(*command), "a stored logit differs by 1.0")


def test_the_teacher_is_measured_before_it_labels(
    run_distill: Program, base: list[Any], teacher_path: Path, eval_path: Path, tmp_path: Path
) -> None:
    command = [
        "make-logits",
        *base,
        "--teacher",
        teacher_path,
        "--out",
        tmp_path / "labels",
        "--set",
        "teacher.min_top1=99",
    ]
    assert_one_line(run_distill(*command, "--eval", eval_path), "expected at least 99")
    assert not (tmp_path / "labels").exists()
    told = run_distill(*command, "--set", "train.samples=16")
    assert told.status == 0 and "teacher.min_top1 99.0 is not checked" in told.out


def test_labelling_goes_on_where_it_stopped(
    run_distill: Program,
    base: list[Any],
    labels: Path,
    teacher_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After an error, the same command continues with the first incomplete file, and the logits are the same."""
    monkeypatch.setattr(distill.targets.stored_logits, "steps_per_file", lambda batch_size, num_classes: 5)
    original, calls = TeacherTargets.__call__, []

    def stop_at_7(self: TeacherTargets, batch: Batch, x: torch.Tensor) -> torch.Tensor:
        calls.append(batch.step)
        if batch.step == 7 and len(calls) == 8:
            raise OSError(28, os.strerror(28))
        return original(self, batch, x)

    monkeypatch.setattr(TeacherTargets, "__call__", stop_at_7)
    out = tmp_path / "cut"
    command = ["make-logits", *base, "--teacher", teacher_path, "--out", out]
    assert_one_line(run_distill(*command), "no space left", "run the same command again")
    assert_one_line(
        run_distill("train", *base, "--teacher-logits", out, "--out", tmp_path / "run"), "labels.json is missing"
    )
    assert_one_line(run_distill(*command, "--set", "augment.flip=false"), "view.augment.flip")
    (out / "logits-000003.npy").write_bytes(b"of a longer labelling")
    assert run_distill(*command).status == 0
    assert calls == [*range(8), *range(5, 12)]
    assert [path.name for path in sorted(out.iterdir())] == [
        "labels.json",
        *(f"logits-00000{i}.npy" for i in range(3)),
    ]
    parts = [np.load(path) for path in sorted(out.glob("*.npy"))]
    assert np.array_equal(np.concatenate(parts), np.load(labels / "logits-000000.npy"))
    train = ["train", *base, "--teacher-logits"]
    assert run_distill(*train, out, "--out", tmp_path / "a").status == 0
    monkeypatch.setattr(distill.targets.stored_logits, "steps_per_file", steps_per_file)
    assert run_distill(*train, labels, "--out", tmp_path / "b").status == 0
    first, second = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_label_leaves_other_folders_alone(
    run_distill: Program, base: list[Any], labels: Path, teacher_path: Path, tmp_path: Path
) -> None:
    """``make-logits`` changes no folder with other content."""
    command = ["make-logits", *base, "--teacher", teacher_path, "--out"]
    assert_one_line(run_distill(*command, labels), "already contains stored logits")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "x").write_text("precious")
    assert_one_line(run_distill(*command, tmp_path / "mine"), "is not empty")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["x"]
    shutil.rmtree(labels)
    assert_one_line(run_distill("make-logits", *base, "--out", labels), "teacher.weights is not set")


def test_files_hold_whole_steps() -> None:
    assert steps_per_file(512, 10) == 3276 and steps_per_file(65_536, 100_000) == 1
