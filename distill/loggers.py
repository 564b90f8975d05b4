"""Ready callbacks that send the figures of a run to TensorBoard, Weights & Biases or MLflow."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from distill.callbacks import Callback, call
from distill.errors import DistillError
from manifests.support.files import read_regular_file, write_atomically

BOARD_NAME, WANDB_NAME, MLFLOW_NAME = "tensorboard", "wandb-run.txt", "mlflow-run.txt"
MAX_ID_BYTES = 200
logger = logging.getLogger(__name__)


class RunLogger(Callback):
    """A callback that never stops or changes a run: after its first error, it warns and does nothing more."""

    package = ""  # to install; the name of the extra too
    module = ""  # to import

    def __init__(self) -> None:
        """Import the package. Raise DistillError if the package is not installed."""
        try:
            self._library = import_module(self.module)
        except ImportError as error:
            found = f"the logger {self.package} needs the package {self.package}, which is not installed"
            raise DistillError(f"{found}; run pip install {self.package}") from error
        self._open = False

    def on_start(self, out: Path, config: dict[str, Any], samples: int) -> None:
        self._open = True
        self._attempt(lambda: self.start(out, config, samples))

    def on_log(self, samples: int, figures: dict[str, float]) -> None:
        self._attempt(lambda: self.write(samples, figures))

    def on_evaluation(self, samples: int, figures: dict[str, float]) -> None:
        self._attempt(lambda: self.write(samples, figures))

    def on_end(self, summary: dict[str, Any]) -> None:
        numbers = {key: float(value) for key, value in summary.items() if type(value) in (int, float)}
        self._attempt(lambda: self.finish(numbers))

    def on_close(self) -> None:
        """Called when the run has ended or was stopped."""
        self._attempt(self.close)
        self._open = False

    def start(self, out: Path, config: dict[str, Any], samples: int) -> None:
        """Begin a log of the run in ``out``, or continue the log that an earlier part of the run began."""
        raise NotImplementedError

    def write(self, samples: int, figures: dict[str, float]) -> None:
        """Add figures that were measured after ``samples`` training samples."""
        raise NotImplementedError

    def finish(self, summary: dict[str, float]) -> None:
        """Add the numbers of the summary of a finished run."""

    def close(self) -> None:
        """Write what is not written yet, and release the log."""

    def _attempt(self, action: Callable[[], None]) -> None:
        if not self._open:
            return
        try:
            action()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a server, a disk or a library: none of them may stop a run
            self._open = False
            reason = " ".join(str(error).split())[:200]
            found = f"the logger {self.package} stops: {type(error).__name__}: {reason}"
            logger.warning(f"{found}; the run continues without it, and resuming the run starts the logger again")


class TensorBoardLogger(RunLogger):
    """Write the figures to ``tensorboard/`` in the run directory."""

    package, module = "tensorboard", "torch.utils.tensorboard"

    def start(self, out: Path, config: dict[str, Any], samples: int) -> None:
        """Open the log. TensorBoard hides figures after ``samples``, which the run will measure again."""
        self._board = self._library.SummaryWriter(str(out / BOARD_NAME), purge_step=samples + 1)

    def write(self, samples: int, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            self._board.add_scalar(name, value, samples)
        self._board.flush()

    def close(self) -> None:
        self._board.close()


class WandbLogger(RunLogger):
    """Log to Weights & Biases, with its ``step`` as the number of samples. Offline, the files are in ``wandb/``.

    The variables of the environment that wandb reads, such as WANDB_MODE=offline and WANDB_API_KEY, apply.
    """

    package = module = "wandb"

    def __init__(self, project: str | None = None, name: str | None = None, mode: str | None = None) -> None:
        """Choose project, name and mode (online, offline or disabled); default: wandb's, and the folder's name."""
        super().__init__()
        self._given = {"project": project, "name": name, "mode": mode}

    def start(self, out: Path, config: dict[str, Any], samples: int) -> None:
        known = _read_id(out / WANDB_NAME)
        given = self._given | {"name": self._given["name"] or _name(out)}
        settings = self._library.Settings(console="off")  # wandb would replace stdout and stderr
        self._run = self._library.init(
            dir=str(out), id=known, resume="allow", config=config, settings=settings, reinit="create_new", **given
        )
        self._finished = False
        if known is None:
            write_atomically(out / WANDB_NAME, f"{self._run.id}\n".encode())

    def write(self, samples: int, figures: dict[str, float]) -> None:
        self._run.log(figures, step=samples)

    def finish(self, summary: dict[str, float]) -> None:
        self._run.summary.update(summary)
        self._finished = True

    def close(self) -> None:
        self._run.finish(exit_code=0 if self._finished else 1)


class MlflowLogger(RunLogger):
    """Log to MLflow, with its ``step`` as the number of samples.

    The variables of the environment that MLflow reads, such as MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME, apply.
    Without a tracking URI, MLflow writes ``mlflow.db`` in the current folder.
    """

    package = module = "mlflow"

    def __init__(self, experiment: str | None = None, name: str | None = None, uri: str | None = None) -> None:
        """Choose experiment, name of the run and tracking URI; default: MLflow's, and the folder's name."""
        super().__init__()
        self._experiment, self._name, self._uri = experiment, name, uri

    def start(self, out: Path, config: dict[str, Any], samples: int) -> None:
        self._client = self._library.MlflowClient(tracking_uri=self._uri)
        self._id = _read_id(out / MLFLOW_NAME)
        if self._id is None:
            self._id = self._client.create_run(self._experiment_id(), run_name=self._name or _name(out)).info.run_id
            write_atomically(out / MLFLOW_NAME, f"{self._id}\n".encode())
            for key, value in _flat(config).items():
                self._client.log_param(self._id, key, value)
        self._client.update_run(self._id, status="RUNNING")
        known = self._client.get_run(self._id).data.metrics
        histories = {name: self._client.get_metric_history(self._id, name) for name in known}
        self._logged = {name: max(point.step for point in points) for name, points in histories.items()}
        """The last samples of each figure in the log. A resumed run may measure figures again that are in the log."""

    def write(self, samples: int, figures: dict[str, float]) -> None:
        make, now = self._library.entities.Metric, round(time.time() * 1000)
        new = {name: value for name, value in figures.items() if samples > self._logged.get(name, -1)}
        self._client.log_batch(self._id, [make(name, value, now, samples) for name, value in new.items()])

    def finish(self, summary: dict[str, float]) -> None:
        for name, value in summary.items():
            self._client.log_metric(self._id, f"summary.{name}", value)
        self._client.set_terminated(self._id)

    def close(self) -> None:
        if self._client.get_run(self._id).info.status == "RUNNING":
            self._client.set_terminated(self._id, "KILLED")

    def _experiment_id(self) -> str:
        name = self._experiment or self._library.environment_variables.MLFLOW_EXPERIMENT_NAME.get() or "Default"
        found = self._client.get_experiment_by_name(name)
        return self._client.create_experiment(name) if found is None else found.experiment_id


LOGGERS: dict[str, type[RunLogger]] = {
    "tensorboard": TensorBoardLogger,
    "wandb": WandbLogger,
    "mlflow": MlflowLogger,
}


def make_loggers(names: Sequence[str]) -> list[RunLogger]:
    """Return a logger with its default options for each name in ``LOGGERS``."""
    return [LOGGERS[name]() for name in dict.fromkeys(names)]


def with_board(callbacks: Sequence[Callback], wanted: bool) -> list[Callback]:
    """Return the callbacks, with a logger for TensorBoard before them if ``train.tensorboard`` is set."""
    missing = wanted and not any(isinstance(each, TensorBoardLogger) for each in callbacks)
    return [*([TensorBoardLogger()] if missing else []), *callbacks]


@contextmanager
def closing_loggers(callbacks: Sequence[Callback]) -> Iterator[None]:
    """Close all loggers at the end of the block, also of a run that was stopped or has failed."""
    try:
        yield
    finally:
        for callback in callbacks:
            if isinstance(callback, RunLogger):
                call([callback], "on_close")


def _read_id(path: Path) -> str | None:
    """Return the number of the run that an earlier part of the run wrote; None if there is no such file."""
    return read_regular_file(path, MAX_ID_BYTES).decode().strip() if path.exists() else None


def _name(out: Path) -> str:
    """Return a name for the run in ``out``: the name of the folder and of the folder that contains it."""
    return "/".join(out.resolve().parts[-2:])


def _flat(config: dict[str, Any]) -> dict[str, str]:
    """Return the values of a config by ``GROUP.KEY``, as texts; without values that are not set."""
    groups = {group: keys for group, keys in config.items() if isinstance(keys, dict)}
    pairs = ((f"{group}.{key}", value) for group, keys in groups.items() for key, value in keys.items())
    return {key: str(value)[:500] for key, value in pairs if value is not None}
