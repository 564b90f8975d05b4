"""Test ``distill train`` under ``torchrun``: several processes have the same results as one, even after a kill.

``torchrun`` itself starts the ranks of three tests. A fork server, which is faster, starts those of the others.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.distill.conftest import CONFIG
from tests.helpers.fork_server import ForkServer
from tests.helpers.running import rows


class Launch:
    """Run ``distill train`` on CPUs: as one process, or as several ranks."""

    def __init__(self, server: ForkServer, arguments: list[Any], out: Path) -> None:
        self._server, self._arguments, self.out = server, arguments, out
        self.output = out.with_name(f"{out.name}.txt")

    def run(self, ranks: int, *more: str, module: str = "tests.helpers.doubled") -> tuple[int, list[str]]:
        """Run ranks in the environment of ``torchrun``. Return the exit status and the lines of ``distill``."""
        arguments = [*self._arguments, self.out, *more]
        status = self._server.run(module, arguments, self.output, ranks=ranks)
        return status, said(self.output.read_text())

    def torchrun(self, *more: str, module: str = "tests.helpers.doubled", cut: bool = False) -> tuple[int, list[str]]:
        """Start two ranks with ``torchrun``. Return its exit status and the lines of ``distill``."""
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        command += ["--max-restarts", str(int(cut)), "-m", module, *map(str, self._arguments), str(self.out), *more]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"} | ({"CUT": "1"} if cut else {})
        streams: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen(command, env=environment, start_new_session=True, **streams) as process:
            try:
                _, err = process.communicate(timeout=300)
            finally:
                process.terminate()
        return process.returncode, said(err)


def said(text: str) -> list[str]:
    return [line for line in text.splitlines() if "distill: " in line]


@pytest.fixture(scope="module")
def launches(
    fork_server: ForkServer,
    patchset_path: Path,
    teacher_path: Path,
    eval_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], Launch]:
    """Return a function that prepares a launch for a folder name.

    All launches have the same config: 100 steps of nine small samples. Every sample has a CutMix box.
    """
    folder = tmp_path_factory.mktemp("ranks")
    config = CONFIG | {
        "augment": {"pad_crop": 0, "resized_crop": [0.3, 1], "size": 8, "cutmix_alpha": 1, "cutmix_box": "sample"},
        "data": {"batch_size": 9, "workers": 2, "cache_dir": str(folder / "cache")},
        "train": {"samples": 900, "precision": "fp32", "log_steps": 1, "ema": 0.9},
    }
    (folder / "small.yaml").write_text(yaml.safe_dump(config))
    base = ["train", "--shards", patchset_path, "--config", folder / "small.yaml", "--teacher", teacher_path]
    return lambda name: Launch(fork_server, [*base, "--eval", eval_path, "--device", "cpu", "--out"], folder / name)


@pytest.fixture(scope="module")
def whole(launches: Callable[[str], Launch]) -> Path:
    """Train in one process, and return the run directory."""
    launch = launches("whole")
    assert launch.run(1) == (0, [])
    return launch.out


def assert_same_run(first: Path, second: Path) -> None:
    """Check that two runs have equal losses and equal figures, up to rounding."""
    losses, others = ([row["loss"] for row in rows(run)] for run in (first, second))
    assert len(losses) == len(others) == 100
    assert losses == pytest.approx(others, rel=1e-8)
    summary, other = (json.loads((run / "summary.json").read_text()) for run in (first, second))
    assert summary["samples_seen"] == other["samples_seen"] == 900
    for key in ("student_top1", "student_per_class", "teacher_top1", "teacher_per_class", "agreement"):
        assert summary[key] == other[key]
    assert summary["kl_to_teacher"] == pytest.approx(other["kl_to_teacher"], rel=1e-6)


def test_two_ranks_train_as_one_process(launches: Callable[[str], Launch], whole: Path) -> None:
    launch = launches("two")
    assert launch.torchrun() == (0, [])
    assert_same_run(whole, launch.out)
    assert json.loads((launch.out / "summary.json").read_text())["environment"]["ranks"] == 2


def test_parts_features_and_an_extension_do_not_depend_on_the_number_of_ranks(
    launches: Callable[[str], Launch],
) -> None:
    """Batch norms see the same samples together, and projections get the same gradients.

    The two ranks have an optimizer that is imported by name, keep snapshots, log to TensorBoard, and are extended.
    """
    pytest.importorskip("tensorboard")
    features = "{student: layer2, teacher: layer3}, {student: layer1.0.bn1, teacher: bn1}"
    sets = ["--set", f"loss=[{{name: kl}}, {features}]", "--set", "student.head=teacher"]
    sets += ["--set", "optim.accumulate=2", "--set", "optim.clip_norm=0.5", "--set", "optim.schedule=constant"]
    sets += ["--set", "optim.name=torch.optim:RMSprop", "--allow-import", "torch", "--set", "train.snapshots=90"]
    one, two = launches("parts"), launches("parts of two")
    assert one.run(1, *sets, "--set", "train.samples=180") == (0, [])
    assert two.run(2, *sets, "--set", "train.samples=90", "--logger", "tensorboard") == (0, [])
    longer = ["--set", "train.samples=180", "--resume", "--logger", "tensorboard"]
    assert two.run(2, *sets, *longer) == (0, [])
    losses, others = ([row["loss"] for row in rows(launch.out)] for launch in (one, two))
    assert len(losses) == 20 and losses == pytest.approx(others, rel=1e-8)
    assert len(list((two.out / "tensorboard").iterdir())) == 2
    for run in (one, two):
        assert sorted(path.stem for path in (run.out / "snapshots").iterdir()) == ["180", "90"]
    refused = launches("refused").run(2, "--set", "optim.accumulate=3")
    assert "optim.accumulate: a batch of 9 samples is too small for 3 parts on each of 2 ranks" in refused[1][0]


def test_several_teachers_and_streamed_evaluation_sets_on_two_ranks(
    launches: Callable[[str], Launch], teacher_path: Path, tmp_path: Path
) -> None:
    """Teachers have their own input. Each rank decodes its own batches of the images.

    The figures are those of one process with all images in memory.
    """
    for number in range(40):
        path = tmp_path / "photos" / f"{number % 4}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    other = f"teacher.others=[{{arch: resnet8, weights: {teacher_path}, size: 16}}]"
    sets = ["--set", other, "--set", "teacher.combine=losses", "--set", "teacher.size=12"]
    sets += ["--set", "train.samples=90", "--set", "student.mean=[0.4,0.4,0.4]"]
    sets += ["--eval", f"photos={tmp_path / 'photos'}", "--set", "eval.transform={resize: 20, crop: 16}"]
    one, two = launches("teachers"), launches("teachers of two")
    assert one.run(1, *sets) == (0, [])
    assert two.run(2, *sets, module="tests.helpers.streamed") == (0, [])
    losses, others = ([row["loss"] for row in rows(launch.out)] for launch in (one, two))
    assert len(losses) == 10 and losses == pytest.approx(others, rel=1e-7)
    found, expected = (json.loads((each.out / "summary.json").read_text()) for each in (one, two))
    assert found["evaluations"]["photos"]["eval_images"] == 40
    for key in ("student_top1", "teacher_top1", "agreement", "eval_sha256"):
        assert found["evaluations"]["photos"][key] == expected["evaluations"]["photos"][key]
    assert found["eval_transform"] == expected["eval_transform"] == "resize 20, crop 16, bilinear"


def test_a_run_survives_a_killed_rank_and_a_stop_and_goes_on_with_one(
    launches: Callable[[str], Launch], whole: Path
) -> None:
    """A run continues after one rank is killed. After a later stop, one process completes the run.

    When a rank dies, ``torchrun`` starts all ranks again.
    """
    launch = launches("cut")
    status, lines = launch.torchrun("--resume", "--set", "train.checkpoint_seconds=0.1", cut=True)
    assert status and len(lines) == 2, lines
    assert "another rank has ended" in lines[0]
    assert "stopped at step 61 of 100; run the same command with --resume" in lines[1]
    assert not (launch.out / "summary.json").exists()
    assert launch.run(1, "--resume")[0] == 0
    assert "'ranks': 2}: weights will differ in rounding" in launch.output.read_text()
    assert_same_run(whole, launch.out)


def test_what_is_wrong_is_said_once(launches: Callable[[str], Launch]) -> None:
    """If all ranks find the same error, the error is printed once."""
    launch = launches("wrong")
    status, lines = launch.torchrun("--set", "data.batch_size=3", module="distill")
    assert status and len(lines) == 1 and "data.batch_size 3: is too small for 2 ranks" in lines[0], lines
    assert not launch.out.exists()
