"""Test ``distill reproduce``: run a table, stop it, run it again, and estimate its cost."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

import distill.training.cost_estimate
from distill.models import build_model
from distill.tables import runner
from distill.tables.jobs import Job
from distill.tables.records import RECORDS, write_record
from distill.training.run_identity import DIGESTS
from distill.weights.files import save_weights
from tests.conftest import Program, assert_one_line, full_output
from tests.distill.conftest import MEAN, STD, TEACHER
from tests.helpers.browser import needs_chromium, visit
from tests.helpers.fork_server import ForkServer
from tests.helpers.running import same

TABLE: dict[str, Any] = {
    "title": "A small table",
    "source": "none",
    "sets": {"photo": {"images": ["photo"], "n": 100}},
    "packs": {"real": {"pack": "four"}},
    "networks": {"net": {"config": "teacher.yaml", "data": "four"}},
    "runs": {
        "photo": {"config": "tiny.yaml", "shards": "photo", "teacher": "net", "evaluations": 2},
        "real": {"config": "tiny.yaml", "shards": "real", "teacher": "net", "set": {"student.arch": "resnet14"}},
        "broken": {"config": "tiny.yaml", "shards": "photo", "teacher": "net", "set": {"teacher.min_top1": 100}},
        "other": {"config": "tiny.yaml", "shards": "photo", "teacher": "untrained"},
    },
    "rows": [
        {"group": "four classes", "name": "teacher", "of": "net", "paper": 90},
        {"group": "four classes", "name": "half", "of": "photo", "after": 0.5},
        {"group": "four classes", "name": "one image", "of": "photo", "paper": 80},
        {"group": "four classes", "name": "all images", "of": "real"},
        {"group": "four classes", "name": "broken", "of": "broken"},
        {"group": "four classes", "name": "other", "of": "other"},
    ],
}
TABLE["networks"]["untrained"] = {"data": "four"}


@pytest.fixture
def four(tmp_path: Path) -> Path:
    """Write images of four classes, 60 for training and 20 for evaluation, and return their folder."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 15), ("test", 5)):
        for label in range(4):
            folder = tmp_path / "four" / part / f"class{label}"
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8) // 2 + np.uint8(40 * label)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "four"


@pytest.fixture
def table_path(tmp_path: Path, config_path: Path) -> Path:
    (tmp_path / "teacher.yaml").write_text(yaml.safe_dump(TEACHER))
    assert config_path == tmp_path / "tiny.yaml"
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(TABLE))
    return path


class Ended:
    """A process that has ended, as ``run_jobs`` sees it."""

    def __init__(self, returncode: int) -> None:
        self.returncode = returncode

    def poll(self) -> int:
        return self.returncode


@pytest.fixture
def quick_jobs(fork_server: ForkServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start the jobs of a table from a fork server, one at a time. Other tests start them as a user does."""

    def start(job: Job, out: Path, device: str) -> Ended:
        write_record(out, job)
        (out / job.name).parent.mkdir(parents=True, exist_ok=True)
        program, *words = job.argv
        words += ["--device", device] if program == "distill" else []
        return Ended(fork_server.run(program, words, out / RECORDS / f"{job.name}.log", folder=out))

    monkeypatch.setattr(runner, "_start", start)


@pytest.fixture(autouse=True)
def short_estimates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure two steps of a run to estimate its cost."""
    monkeypatch.setattr(distill.training.cost_estimate, "ENOUGH_SECONDS", 0)


@pytest.fixture
def words(table_path: Path, four: Path, photo_path: Path) -> list[Any]:
    given = ["--input", f"four={four}", "--input", f"photo={photo_path}", "--device", "cpu", "--seeds", "0,1"]
    return ["reproduce", table_path, *given, "--out"]


@pytest.mark.usefixtures("quick_jobs")
def test_a_table_from_nothing(words: list[Any], run_distill: Program, tmp_path: Path) -> None:
    """One command runs all jobs of a table and writes the page. The page names failed jobs."""
    out, on_hangup = tmp_path / "out", signal.getsignal(signal.SIGHUP)
    result = run_distill(*words, out)
    assert result.status == 1 and result.err.splitlines()[-1].startswith("distill: 2 of 9 jobs failed; correct")
    assert signal.getsignal(signal.SIGHUP) == on_hangup
    assert "left out: 1 row, because --teacher untrained=FILE is missing" in result.out
    assert re.search(
        r"^9 jobs, 7 of them training, on cpu: about \d+ s and .*, up to .* of memory, .* of disk",
        result.out,
        re.MULTILINE,
    )
    lines = {line.split(":")[0]: line for line in result.out.splitlines() if line.startswith("four classes")}
    summaries = [json.loads((out / f"runs/photo/seed{seed}/summary.json").read_text()) for seed in (0, 1)]
    mean = sum(summary["student_top1"] for summary in summaries) / 2
    assert f"paper 80.00, ours {mean:.2f} ± " in lines["four classes, one image"]
    assert "96 samples in" in lines["four classes, one image"] and "64 samples in" in lines["four classes, half"]
    assert "needs --teacher untrained=FILE" in lines["four classes, other"]
    assert "four classes, broken: failed: distill: " in lines["four classes, broken"]
    assert "teacher.min_top1" in lines["four classes, broken"]
    assert lines["four classes, broken"].endswith("(output: jobs/runs/broken/seed0.log)")
    shown = (out / "table.md").read_text()
    for summary in summaries:
        assert summary["set_id"] in shown and summary["sha256"] in shown
    assert str(tmp_path) not in shown
    own = 'distill train-teacher --data "$FOUR" --config teacher.yaml --eval "$FOUR" --out networks/net --resume'
    assert f"    {own}\n" in shown
    assert '    distill reproduce small.yaml --input four="$FOUR" --input photo="$PHOTO" --seeds 0,1\n' in shown
    _again(words, run_distill, out)


def _again(words: list[Any], run_distill: Program, out: Path) -> None:
    """Check that a second call runs only jobs with missing or damaged results."""
    before = {path: path.stat().st_mtime_ns for path in out.rglob("student.safetensors")}
    assert len(before) == 4
    only = run_distill(*words, out, "--only", "photo", "--only", "real")
    assert only.status == 0 and "$ distill" not in only.out and "all 7 jobs are done" in only.out
    assert {path: path.stat().st_mtime_ns for path in out.rglob("student.safetensors")} == before
    _refused_and_kept(words, run_distill, out)
    (out / "runs/photo/seed1/summary.json").unlink()
    (out / "networks/net/teacher.safetensors").write_bytes(b"damaged")
    more = run_distill(*words, out, "--only", "photo")
    assert more.status == 0 and more.out.count("$ distill train ") == 1
    assert more.out.count("$ distill train-teacher") == 1, "what a row needs is looked at, and mended"
    (out / "runs/real/seed0/summary.json").write_text("{")
    spoilt = run_distill(*words, out, "--only", "photo")
    assert spoilt.status == 0 and "all images" not in spoilt.out, spoilt
    assert re.search(r"all images .*damaged: runs/real/seed0/summary", (out / "table.md").read_text())


def _refused_and_kept(words: list[Any], run_distill: Program, out: Path) -> None:
    """Check that changed settings, configs and inputs are refused. The page keeps earlier results."""
    before = (out / "table.md").read_bytes()
    other = run_distill(*words, out, "--set", "optim.lr=0.002")
    assert_one_line(
        other, "the table was started with other values: settings.optim.lr was", "0.002", "choose another --out"
    )
    config, photo = Path(words[1]).with_name("tiny.yaml"), Path(str(words[5]).removeprefix("photo="))
    text, pixels = config.read_text(), photo.read_bytes()
    config.write_text(text.replace("0.004", "0.4"))
    assert_one_line(
        run_distill(*words, out),
        "seed0 was started with other values: config.optim.lr was 0.004, is now 0.4",
        "--out",
    )
    config.write_text(text)
    photo.write_bytes(pixels + b" ")
    assert_one_line(run_distill(*words, out), "sets/photo was started with other values: sha256 of $PHOTO was")
    photo.write_bytes(pixels)
    four = Path(str(words[3]).removeprefix("four="))
    for part in ("test", "train"):  # an error even though all jobs are done
        image = four / part / "class1" / "0.png"
        pixels = image.read_bytes()
        image.write_bytes((four / part / "class1" / "1.png").read_bytes())
        refused = run_distill(*words, out, "--only", "net")
        assert_one_line(
            refused, "was started with other values: sha256 of $FOUR was", "is now", "choose another --out"
        )
        image.write_bytes(pixels)
    assert (out / "table.md").read_bytes() == before
    four = Path(str(words[3]).removeprefix("four="))
    four.rename(four.with_name("moved"))
    fewer = ["reproduce", words[1], "--input", f"four={four.with_name('moved')}", "--device", "cpu", "--only", "net"]
    result = run_distill(*fewer, "--out", out)
    assert result.status == 0 and "teacher: paper 90.00" in result.out and "one image" not in result.out, result
    assert re.search(
        r"\| one image \| 80\.00 \| \d+\.\d+ ± ", (out / "table.md").read_text()
    )  # the page has all rows
    four.with_name("moved").rename(four)


OTHERWISE: dict[str, tuple[dict[str, Any], str]] = {
    "set": ({"set": {"optim.lr": 0.01}}, "config.optim.lr was 0.004, is now 0.01"),
    "view": ({"set": {"data.view_seed": 5}}, "config.data.view_seed was null, is now 5"),
    "student": ({"set": {"student.arch": "resnet14"}}, 'config.student.arch was "resnet8", is now "resnet14"'),
    "evaluations": ({"evaluations": 3}, "config.eval.every was 50, is now 33"),
    "shards": ({"shards": "other"}, "only the old command has sets/photo, only the new command has sets/other"),
}


@pytest.fixture
def one_seed(
    words: list[Any], teacher_path: Path, quick_jobs: None, run_distill: Program, tmp_path: Path
) -> list[Any]:
    """Run seed 0, and return the command for other seeds. The caller appends the seeds."""
    command = [*words, tmp_path / "out", "--teacher", f"net={teacher_path}", "--only", "photo", "--seeds"]
    assert run_distill(*command, "0").status == 0
    return command


def test_a_seed_of_another_config_or_set_is_refused_first(
    one_seed: list[Any], table_path: Path, run_distill: Program, tmp_path: Path
) -> None:
    """A further seed with another config or set is refused before anything is written."""
    out = tmp_path / "out"
    before = {path: path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}
    for changes, part in OTHERWISE.values():
        runs = {**TABLE["runs"], "photo": {**TABLE["runs"]["photo"], **changes}}
        sets = {**TABLE["sets"], "other": {"images": ["photo"], "n": 100, "seed": 1}}
        table_path.write_text(yaml.safe_dump({**TABLE, "runs": runs, "sets": sets}))
        result = run_distill(*one_seed, "1")
        assert_one_line(
            result, "runs/photo/seed0, averaged with runs/photo/seed1, was started with other values: ", part
        )
    table_path.write_text(yaml.safe_dump(TABLE))
    config = table_path.with_name("tiny.yaml")
    config.write_text(config.read_text().replace("0.004", "0.02"))
    assert_one_line(run_distill(*one_seed, "1"), "config.optim.lr was 0.004, is now 0.02")
    assert {path: path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()} == before


def test_a_seed_on_other_data_is_refused_first(one_seed: list[Any], four: Path, run_distill: Program) -> None:
    """A further seed is refused if the evaluation data has changed."""
    (four / "test/class0/0.png").write_bytes((four / "test/class0/1.png").read_bytes())
    expected = "runs/photo/seed0, averaged with runs/photo/seed1, was started with other values: sha256 of $FOUR was"
    assert_one_line(run_distill(*one_seed, "1"), expected)


def test_seeds_that_differ_in_more_have_no_mean_on_the_page(
    one_seed: list[Any], run_distill: Program, tmp_path: Path
) -> None:
    """If the summaries or configs of two seeds differ, the page shows no mean.

    The page does not rely on the records of the jobs.
    """
    out = tmp_path / "out"
    whole = run_distill(*one_seed, "0,1")
    assert re.search(r"one image: paper 80\.00, ours \d+\.\d+ ± .*, difference ", whole.out)
    path, config = out / "runs/photo/seed1/summary.json", out / "runs/photo/seed1/config.yaml"
    summary, text = path.read_text(), config.read_text()
    shown = (out / "table.md").read_text()
    for key, label in DIGESTS.items():
        if key not in json.loads(summary):  # of runs with labels, or with eval.transform
            continue
        held = json.loads(summary)[key]
        assert f"{label} {held}" in shown
        for value, part in (("0" * 64, "0000000000000000… in photo/seed1"), (None, "nothing in photo/seed1")):
            path.write_text(json.dumps(json.loads(summary) | {key: value}))
            result = run_distill(*one_seed, "0,1")
            expected = f"no mean: {label} ({key}) is {held[:16]}… in photo/seed0, but {part}"
            assert f"one image: paper 80.00, {expected}" in result.out and f"half: {expected}" in result.out
            for page in ("table.md", "table.html"):
                assert "±" not in (out / page).read_text().replace("± is the deviation", "")
    path.write_text(summary)
    config.write_text(text.replace("lr: 0.004", "lr: 0.005"))
    assert "no mean: optim.lr is 0.004 in photo/seed0, but 0.005 in photo/seed1" in run_distill(*one_seed, "0,1").out


@pytest.mark.usefixtures("quick_jobs")
def test_a_teacher_of_ones_own(words: list[Any], teacher_path: Path, run_distill: Program, tmp_path: Path) -> None:
    """With ``--teacher NAME=FILE``, the teacher is not trained."""
    out = tmp_path / "out"
    given = ["--teacher", f"net={teacher_path}", "--only", "net", "--only", "photo", "--scale", "0.5"]
    result = run_distill(*words, out, *given, "--seeds", "0")
    assert result.status == 0 and not (out / "networks").exists(), result
    summary = json.loads((out / "runs/photo/seed0/summary.json").read_text())
    assert summary["samples_seen"] == 48
    made_by = ' --teacher net="$TEACHER_NET" --only net --only photo --scale 0.5\n'
    assert made_by in (out / "table.md").read_text()
    assert f"four classes, teacher: paper 90.00, ours {summary['teacher_top1']:.2f}" in result.out
    assert summary["teacher_sha256"] in (out / "table.md").read_text()


def test_a_teacher_of_another_network_is_refused_before_any_job(
    words: list[Any], run_distill: Program, tmp_path: Path
) -> None:
    other, five = build_model("resnet14", 4), build_model("resnet8", 5)
    save_weights(tmp_path / "other.safetensors", other, arch="resnet14", num_classes=4, mean=MEAN, std=STD)
    save_weights(tmp_path / "five.safetensors", five, arch="resnet8", num_classes=5, mean=MEAN, std=STD)
    (tmp_path / "text.pth").write_bytes(b"no weights")
    for name, part in (("other.safetensors", "resnet14"), ("five.safetensors", "5 classes"), ("text.pth", "")):
        given = f"--teacher net={tmp_path / name}"
        result = run_distill(*words, tmp_path / "out", *given.split(), "--only", "photo")
        assert_one_line(result, f"{given}: run photo of the table cannot use this file: {tmp_path / name}: ", part)
        assert not (tmp_path / "out").exists()


def test_an_estimate_alone(words: list[Any], run_distill: Program, tmp_path: Path) -> None:
    """``--estimate`` prints the cost of every job, and runs no job."""
    result = run_distill(*words, tmp_path / "out", "--estimate")
    assert result.status == 0 and not (tmp_path / "out").exists()
    assert "runs/real/seed1: about " in result.out and "9 jobs, 7 of them training" in result.out
    assert "not measured" not in result.out
    short = run_distill(*words, tmp_path / "out", "--estimate", "--teacher-scale", "0.1")
    assert "networks/net: about " in short.out  # at least one batch, although the scale asks for 10 samples


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        (["--input", "four"], ("'four': expected NAME=PATH",)),
        (["--input", "x=/"], ("--input x: the table does not use this name; choose from four, photo")),
        (["--set", "train.seed=1"], ("--set train.seed: --seeds sets this key",)),
        (["--only", "nothing"], ("no row of the table matches", "broken, net, other, photo, real")),
        (["--scale", "nan"], ("'--scale': nan: expected a number above 0",)),
        (
            ["--variant", "fast"],
            (
                "--variant fast: the table has no variant of this name",
                "the table has no variant of this name; remove the option",
            ),
        ),
        (["--set", "optim.rate=1"], ("unknown key 'optim.rate'",)),
        (["--device", "cpu,cpu"], ("names a device twice",)),
        (["--device", "cuda:77"], ("--device cuda:77: this machine does not have the device",)),
    ],
)
def test_options_that_cannot_be(
    more: list[str], parts: tuple[str, ...], words: list[Any], run_distill: Program, tmp_path: Path
) -> None:
    """An invalid option is refused in one line, and no folder is made."""
    result = run_distill(*words, tmp_path / "out", *more)
    assert_one_line(result, *parts, status=2 if more in (["--input", "four"], ["--scale", "nan"]) else 1)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_something_else(words: list[Any], run_distill: Program, tmp_path: Path) -> None:
    """``--out`` must be a new folder or the folder of a table. Other folders stay unchanged."""
    (tmp_path / "file").write_text("")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "jobs").mkdir()
    some = ["--only", "net"]
    assert_one_line(run_distill(*words, tmp_path / "file", *some), "file: is not a folder", "choose another --out")
    assert_one_line(run_distill(*words, tmp_path / "taken", *some), "taken: is not empty and has no table.json")
    (tmp_path / "taken" / "table.json").write_text("[]")
    assert_one_line(run_distill(*words, tmp_path / "taken", *some), "table.json: is damaged; choose another --out")
    assert {path.name for path in (tmp_path / "taken").iterdir()} == {"jobs", "table.json"}


def test_a_full_output_is_not_a_full_disk(words: list[Any], run_distill: Program, tmp_path: Path) -> None:
    with full_output():
        result = run_distill(*words, tmp_path / "out")
    assert_one_line(result, "distill: the output cannot be written: No space left on device; redirect it")


def test_a_table_that_is_stopped_goes_on(
    words: list[Any], teacher_path: Path, quick_jobs: None, run_distill: Program, tmp_path: Path
) -> None:
    """After SIGTERM, the run saves a checkpoint. The same command then completes the table with the same weights.

    The first command is started as by a user, so ``quick_jobs`` does not apply to its jobs.
    """
    out, whole = tmp_path / "out", tmp_path / "whole"
    more = ["--seeds", "0", "--only", "photo", "--teacher", f"net={teacher_path}"]
    more += ["--set", "train.epochs=25", "--set", "train.log_steps=1"]
    command = [sys.executable, "-m", "distill", *map(str, words), str(out), *more]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        log = out / "runs/photo/seed0/metrics.jsonl"
        deadline = time.monotonic() + 120
        while not (log.exists() and log.read_text()) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 130 and err.strip().endswith("run the same command again to continue"), err
    assert (out / "runs/photo/seed0/checkpoint.safetensors").exists()
    assert not (out / "runs/photo/seed0/summary.json").exists()
    assert run_distill(*words, out, *more).status == 0
    assert run_distill(*words, whole, *more).status == 0
    assert same(out / "runs/photo/seed0", whole / "runs/photo/seed0")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a program that its parent is gone")
def test_jobs_end_with_the_program_that_began_them(words: list[Any], tmp_path: Path) -> None:
    """When ``distill reproduce`` is killed, the running jobs end too."""
    out = tmp_path / "out"
    more = ["--seeds", "0", "--only", "net", "--teacher-set", "train.samples=4000000"]
    command = [sys.executable, "-m", "distill", *map(str, words), str(out), *more]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while not (out / "networks/net/checkpoint.safetensors").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.kill()
    deadline = time.monotonic() + 30
    while (left := _processes(out)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []


def _processes(folder: Path) -> list[str]:
    """Return the IDs of all processes in the working directory ``folder``."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cwd").resolve() == folder.resolve():
                found.append(entry.name)
        except OSError:
            continue
    return found


@needs_chromium
@pytest.mark.usefixtures("quick_jobs")
def test_the_table_in_a_browser(words: list[Any], run_distill: Program, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run_distill(*words, out, "--only", "net").status == 0
    seen = visit(out / "table.html", tmp_path)
    assert seen.console == [] and seen.requests == []
    top1 = json.loads((out / "networks/net/summary.json").read_text())["top1"]
    assert f"<td>{top1:.2f}</td>" in seen.dom and "not run" in seen.dom
