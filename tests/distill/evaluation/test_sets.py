"""Test runs with several evaluation sets: the first is the main set, the others have names."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import distill
from distill.errors import DistillError
from distill.report.collect import read_run
from distill.tables.results import RowResult, _with_figures
from distill.training.resume import ROW_BYTES
from tests.conftest import Program, assert_one_line
from tests.distill.conftest import Stopping, png, write_tar
from tests.helpers.running import rows, same


@pytest.fixture(scope="module")
def other_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pixels = np.random.default_rng(7).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    members = [part for i in range(8) for part in ((f"{i}.cls", str(i % 4).encode()), (f"{i}.png", png(pixels[i])))]
    return write_tar(tmp_path_factory.mktemp("other") / "test.tar", members)


def summary_of(out: Path) -> dict[str, Any]:
    return json.loads((out / "summary.json").read_text())


def test_further_sets_are_in_all_results(
    run_distill: Program, arguments: list[Any], other_path: Path, tmp_path: Path
) -> None:
    plain, out = tmp_path / "plain", tmp_path / "several"
    more = ["--set", "eval.every=32", "--set", "train.log_steps=1"]
    assert run_distill(*arguments, plain, *more).status == 0
    result = run_distill(*arguments, out, *more, "--eval", f"other={other_path}")
    assert result.status == 0 and same(plain, out), result
    summary, before = summary_of(out), summary_of(plain)
    figures = summary.pop("evaluations")
    for key in ("student_top1", "teacher_top1", "agreement", "eval_sha256", "config_sha256", "sha256"):
        assert summary[key] == before[key]
    assert set(figures) == {"other"} and "evaluations" not in before
    assert figures["other"]["eval_images"] == 8 and figures["other"]["eval_sha256"] != summary["eval_sha256"]
    assert f"other: top-1 {figures['other']['student_top1']:.2f} % on 8 images" in result.out
    evaluated = [row for row in rows(out) if "student_top1" in row]
    assert evaluated and all({"other/student_top1", "other/agreement", "agreement"} <= set(row) for row in evaluated)
    assert evaluated[-1]["other/student_top1"] == figures["other"]["student_top1"]
    page = (out / "report.html").read_text()
    assert re.search(rf"other</td><td><b>{figures['other']['student_top1']:.2f} %", page)
    assert yaml.safe_load((out / "config.yaml").read_text())["eval"]["sets"] == {"other": str(other_path)}
    listed = run_distill("report", out, plain, "--out", tmp_path / "both.html").out
    assert f"other {figures['other']['student_top1']:.2f} %" in listed
    row = _with_figures(RowResult(group="g", name="n", paper=None), [read_run(out)], 1, [])
    assert row.state == f"other {figures['other']['student_top1']:.2f}"  # a cell of the page of a table
    direct = json.loads(
        run_distill("eval", "--weights", out / "student.safetensors", "--data", other_path, "--json").out
    )
    assert direct["top1"] == figures["other"]["student_top1"]


def test_a_main_set_with_a_name(
    run_distill: Program, arguments: list[Any], other_path: Path, eval_path: Path, tmp_path: Path
) -> None:
    base = arguments[: arguments.index("--eval")]
    named = ["--eval", f"clean={eval_path}", "--eval", f"other={other_path}", "--device", "cpu", "--out"]
    result = run_distill(*base, *named, tmp_path / "run", "--seeds", "0,1")
    assert result.status == 0, result
    first, both = summary_of(tmp_path / "run" / "seed0"), summary_of(tmp_path / "run")
    assert list(first["evaluations"]) == ["clean", "other"]
    assert first["evaluations"]["clean"]["student_top1"] == first["student_top1"]
    assert both["evaluations"]["other"]["student_top1"]["values"][0] == first["evaluations"]["other"]["student_top1"]
    refused = run_distill(*base, *named, tmp_path / "poor", "--set", "teacher.min_top1=99", "-q")
    assert_one_line(refused, f"the teacher's top-1 is {first['teacher_top1']:.2f} %, expected at least 99")


@pytest.mark.parametrize(
    ("extra", "found"),
    [
        (["--eval", "other={0}"], "does not exist"),
        (["--set", "eval.sets={{a b: x}}"], "eval.sets"),
        (["--set", "eval.sets={{}}"], "eval.sets"),
        (["--set", "eval.sets=x"], "eval.sets"),
    ],
)
def test_bad_sets(run_distill: Program, arguments: list[Any], tmp_path: Path, extra: list[str], found: str) -> None:
    extra = [each.format(tmp_path / "none") for each in extra]
    assert_one_line(run_distill(*arguments, tmp_path / "run", *extra, "-q"), found)


def test_a_run_with_many_evaluations_resumes(
    run_distill: Program, arguments: list[Any], tmp_path: Path, stopping: Stopping, images: Any
) -> None:
    one = write_tar(tmp_path / "one.tar", [("0.cls", b"0"), ("0.png", png(images[0][0]))])
    given = [*arguments, tmp_path / "run", "--set", "eval.every=1", "--set", "data.batch_size=2"]
    given += [part for number in range(99) for part in ("--eval", f"a-set-with-a-long-name-{number}={one}")]
    with stopping(3):
        assert run_distill(*given).status == 130
    rows = (tmp_path / "run" / "metrics.jsonl").read_bytes().splitlines()
    assert 10_000 < max(map(len, rows)) < 0.6 * ROW_BYTES  # a name may have 40 letters, these have 25
    with stopping(4):
        assert run_distill(*given, "--resume").status == 130


def test_sets_with_the_same_name(run_distill: Program, arguments: list[Any], tmp_path: Path) -> None:
    result = run_distill(*arguments, tmp_path / "run", "--eval", "a=x", "--eval", "a=y")
    assert result.status == 2 and "two sets have the name 'a'" in result.err


def test_sets_of_networks_from_labels(
    run_distill: Program, train_path: Path, eval_path: Path, other_path: Path, tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "network": {"arch": "resnet8", "num_classes": 4},
                "optim": {"name": "sgd", "lr": 0.1},
                "data": {"batch_size": 10},
                "train": {"epochs": 1, "precision": "fp32"},
            }
        )
    )
    base = ["train-teacher", "--data", train_path, "--config", config, "--device", "cpu", "--out", tmp_path / "run"]
    result = run_distill(*base, "--eval", eval_path, "--eval", f"other={other_path}")
    assert result.status == 0, result
    assert summary_of(tmp_path / "run")["evaluations"]["other"]["top1"] is not None
    base[-1] = tmp_path / "seen"
    assert_one_line(run_distill(*base, "--eval", f"seen={train_path}", "-q"), "are also training images")


def test_sets_from_python(patchset_path: Path, config_path: Path, teacher_path: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    pairs = [(pixels[i], i % 4) for i in range(12)]
    train = {"config": config_path, "teacher": teacher_path, "device": "cpu"}
    sets = {"clean": pairs, "half": pairs[:6]}
    result = distill.train(patchset_path, **train, eval=sets, out=tmp_path / "run")  # type: ignore[arg-type]
    found = result.metrics["evaluations"]
    assert [found[name]["eval_images"] for name in ("clean", "half")] == [12, 6]
    assert found["clean"]["student_top1"] == result.metrics["student_top1"]
    with pytest.raises(DistillError, match="eval: has the name 'a b', expected letters"):
        distill.train(patchset_path, **train, eval={"a b": pairs}, out=tmp_path / "x")  # type: ignore[arg-type]
    with pytest.raises(DistillError, match=r"eval\.sets"):
        distill.train(patchset_path, **train, eval={}, out=tmp_path / "x")  # type: ignore[arg-type]
