"""The log of a run: ``metrics.jsonl``, and TensorBoard's if the config asks for it."""

import json
from pathlib import Path
from typing import Any

from distill.errors import DistillError
from distill.training.run_dir import BOARD_NAME, METRICS_NAME


class MetricsLog:
    """Appends rows of figures to the logs of a run directory; without ``enabled``, as on other ranks, drops them."""

    def __init__(self, out: Path, batch_size: int, step: int, *, tensorboard: bool, enabled: bool) -> None:
        """Go on after ``step``; later steps in TensorBoard's log become void."""
        self._path, self._batch_size, self._enabled = out / METRICS_NAME, batch_size, enabled
        self._board: Any = None
        if tensorboard and enabled:
            try:
                from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - an optional dependency
            except ImportError as error:
                raise DistillError("train.tensorboard: it is not installed; run pip install tensorboard") from error
            self._board = SummaryWriter(str(out / BOARD_NAME), purge_step=step * batch_size + 1)

    def write(self, step: int, figures: dict[str, Any]) -> None:
        """Append figures measured after ``step`` steps."""
        if not self._enabled:
            return
        samples = step * self._batch_size
        with self._path.open("a") as file:
            file.write(json.dumps({"step": step, "samples": samples} | figures) + "\n")
        if self._board is not None:
            for name, value in figures.items():
                self._board.add_scalar(name, value, samples)
            self._board.flush()
