"""Test the loggers with the real packages: they get what the log gets, and they neither stop nor change a run."""

import json
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import distill
import distill.cli.training
from distill.loggers import LOGGERS
from tests.conftest import Program, assert_one_line
from tests.distill.conftest import CONFIG, MEAN, STD, Stopping
from tests.helpers.running import same, timeless

Points = Callable[[Path, str], list[tuple[int, float]]]


def tensorboard_points(run: Path, name: str) -> list[tuple[int, float]]:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    return [(each.step, each.value) for each in events.Scalars(name)]


def mlflow_points(run: Path, name: str) -> list[tuple[int, float]]:
    client = pytest.importorskip("mlflow").MlflowClient()
    (found,) = client.search_runs([client.get_experiment_by_name("students").experiment_id])
    assert found.info.run_id == (run / "mlflow-run.txt").read_text().strip()
    assert found.info.status == "FINISHED" and found.data.params["optim.lr"] == "0.004"
    assert found.data.metrics["summary.student_top1"] >= 0
    return [(each.step, each.value) for each in client.get_metric_history(found.info.run_id, name)]


def wandb_points(run: Path, name: str) -> list[tuple[int, float]]:
    """Return the points of all parts of a run, in the files that ``wandb sync`` would send."""
    pytest.importorskip("wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    number, points = (run / "wandb-run.txt").read_text().strip(), []
    for path in sorted((run / "wandb").glob("offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns):
        assert path.name == f"run-{number}.wandb"
        for data in wandb_records(path.read_bytes()):
            record = Record()
            record.ParseFromString(data)
            values = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
            if name in values:
                points.append((record.history.step.num or values["_step"], values[name]))
    return points


def wandb_records(content: bytes) -> Iterator[bytes]:
    """Yield the records of a file in the format of LevelDB's logs, after a header of seven bytes."""
    place, parts = 7, b""
    while place + 7 <= len(content):
        if (left := 32_768 - place % 32_768) < 7:
            place += left
            continue
        length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield parts
            parts = b""


POINTS: dict[str, Points] = {"tensorboard": tensorboard_points, "wandb": wandb_points, "mlflow": mlflow_points}


@pytest.fixture(autouse=True)
def local_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make the packages write into files of the test, and ask no server."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "students")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("WANDB_SILENT", "true")
    yield


@pytest.mark.parametrize("name", LOGGERS)
def test_a_logger_gets_what_the_log_gets(
    run_distill: Program, arguments: list[Any], tmp_path: Path, stopping: Stopping, name: str
) -> None:
    """The log of a run that was stopped and resumed is one log, and the run is the one without loggers."""
    pytest.importorskip(name)
    run, evaluations = tmp_path / "run", ["--set", "eval.every=96"]
    assert run_distill(*arguments, tmp_path / "plain", *evaluations).status == 0
    command = [*arguments, run, "--logger", name, "-q", *evaluations]
    with stopping(6):
        assert run_distill(*command).status == 130
    resumed = run_distill(*command, "--resume")
    assert resumed.status == 0 and "stops" not in resumed.out + resumed.err, resumed
    assert same(tmp_path / "plain", run) and timeless(tmp_path / "plain") == timeless(run)
    assert (tmp_path / "plain/config.yaml").read_text() == (run / "config.yaml").read_text()
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for figure in ("loss", "student_top1"):
        expected = [(row["samples"], pytest.approx(row[figure])) for row in rows if figure in row]
        assert POINTS[name](run, figure) == expected and len(expected) >= 2
    assert run_distill(*command, "--resume").status == 0  # the run is finished


def test_train_tensorboard_is_the_logger(run_distill: Program, arguments: list[Any], tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert run_distill(*arguments, run, "--set", "train.tensorboard=true", "--logger", "tensorboard").status == 0
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [step for step, _ in tensorboard_points(run, "lr")] == [row["samples"] for row in rows]
    assert len(list((run / "tensorboard").iterdir())) == 1


@pytest.mark.parametrize(
    ("option", "module"),
    [
        (["--set", "train.tensorboard=true"], "torch.utils.tensorboard"),
        *((["--logger", name], LOGGERS[name].module) for name in LOGGERS),
    ],
)
def test_a_logger_that_is_not_installed(
    run_distill: Program,
    arguments: list[Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    option: list[str],
    module: str,
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    result = run_distill(*arguments, tmp_path / "run", *option)
    assert_one_line(
        result, "is not installed", f"pip install {option[-1].replace('train.tensorboard=true', 'tensor')}"
    )


def test_the_command_knows_every_logger() -> None:
    assert tuple(LOGGERS) == distill.cli.training.LOGGERS


def test_a_logger_that_fails_is_a_warning(
    run_distill: Program, arguments: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # no server
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(wandb.Run, "log", lambda self, *values, **options: 1 / 0)
    assert run_distill(*arguments, tmp_path / "plain").status == 0
    run = run_distill(*arguments, tmp_path / "run", "--logger", "mlflow", "--logger", "wandb")
    assert run.status == 0 and same(tmp_path / "plain", tmp_path / "run")
    warnings = [line for line in (run.out + run.err).splitlines() if "the run continues without it" in line]
    assert len(warnings) == 2 and all("the logger " in line for line in warnings), run


class Meddler(distill.Callback):
    """A callback that changes what it can reach: values, networks, random states, threads and modes."""

    def __init__(self, networks: list[nn.Module]) -> None:
        self.networks = networks

    def _meddle(self, *values: Any) -> None:
        for network in self.networks:
            network.train()
            for value in network.state_dict().values():
                value.zero_()
        for value in values:
            if isinstance(value, dict):
                value.clear()
        random.seed(5)
        np.random.seed(5)
        torch.manual_seed(5)
        torch.set_num_threads(3)
        torch.set_grad_enabled(False)
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        torch.set_float32_matmul_precision("medium")
        torch.backends.mkldnn.enabled = False
        torch.backends.cudnn.benchmark = True
        torch.inference_mode().__enter__()
        torch.use_deterministic_algorithms(True)

    on_start = on_log = on_evaluation = on_checkpoint = on_end = _meddle  # type: ignore[assignment]


class Net(nn.Module):
    """A small network with a batch norm and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8)
        self.drop, self.linear = nn.Dropout(0.1), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.drop(self.norm(self.conv(x)).relu().mean(dim=(2, 3))))


def test_a_callback_cannot_change_a_run(patchset_path: Path, eval_path: Path, tmp_path: Path) -> None:
    student, teacher = Net(), Net()
    copies = [{name: value.clone() for name, value in each.state_dict().items()} for each in (student, teacher)]
    config = CONFIG | {"train": {"samples": 96, "precision": "fp32", "log_steps": 1, "checkpoint_seconds": 0.001}}

    def train(out: str, callbacks: list[distill.Callback]) -> distill.TrainResult:
        for network, state in zip((student, teacher), copies, strict=True):
            network.load_state_dict(state)
        return distill.train(
            patchset_path,
            config=config | {"eval": {"every": 32}},
            student=student,
            teacher=distill.Teacher(teacher, MEAN, STD),
            eval=eval_path,
            out=tmp_path / out,
            device="cpu",
            callbacks=callbacks,
        )

    plain = train("plain", [])
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    threads = torch.get_num_threads()
    meddled = train("meddled", [Meddler([student, teacher])])
    assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    assert torch.get_num_threads() == threads and torch.get_default_dtype() == torch.float32
    assert torch.get_float32_matmul_precision() == "highest" and torch.backends.mkldnn.enabled
    assert torch.get_default_device().type == "cpu" and not torch.backends.cudnn.benchmark
    assert torch.is_grad_enabled() and not torch.are_deterministic_algorithms_enabled()
    assert same(plain.out, meddled.out) and timeless(plain.out) == timeless(meddled.out)
    assert meddled.metrics["environment"] == plain.metrics["environment"]


def test_loggers_have_options_in_python(
    patchset_path: Path, teacher_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    uri = f"sqlite:///{tmp_path / 'other.db'}"
    logger = distill.loggers.MlflowLogger(experiment="own", name="first", uri=uri)
    given = {"config": CONFIG, "teacher": teacher_path, "device": "cpu", "callbacks": [logger]}
    result = distill.train(patchset_path, out=tmp_path / "run", **given)
    client = mlflow.MlflowClient(tracking_uri=uri)
    (found,) = client.search_runs([client.get_experiment_by_name("own").experiment_id])
    assert found.info.run_name == "first" and found.data.metrics["summary.seconds"] == result.metrics["seconds"]
