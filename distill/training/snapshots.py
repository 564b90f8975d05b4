"""Keep the weights of a run at given numbers of samples, as files in ``snapshots/`` of the run directory."""

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distill.errors import DistillError
from manifests.support.counts import counted

FOLDER_NAME = "snapshots"
logger = logging.getLogger(__name__)


def require_reached(wanted: tuple[int, ...] | int | None, samples: int) -> None:
    """Check that a run of ``samples`` samples, which are cut into batches, reaches all ``wanted`` samples."""
    last = max(wanted) if isinstance(wanted, tuple) else wanted or 0
    if last > samples:
        found = f"{counted(last, 'sample')} are more than the {counted(samples, 'sample')} of the run"
        raise DistillError(f"train.snapshots: {found}; set smaller numbers, or more train.samples")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Snapshots:
    """Snapshots of a run of ``steps`` steps, at ``wanted`` samples, or every ``wanted`` samples if it is a number.

    A step is due if it reaches the samples of a snapshot. The file is named by the samples after this step.
    """

    wanted: tuple[int, ...] | int
    out: Path  # the run directory
    batch_size: int
    steps: int
    save: Callable[[Path], Any]  # writes the weights to a path

    def keep(self, step: int) -> None:
        """Write the weights if the ``step``-th step, counted from 1, is due."""
        if self._is_due(step):
            path = self._path(step)
            path.parent.mkdir(exist_ok=True)
            self.save(path)

    def log_missing(self, step: int) -> None:
        """Log how many snapshots a run lacks that continues after ``step`` steps."""
        missing = sum(self._is_due(each) and not self._path(each).exists() for each in range(1, step + 1))
        if missing:
            found = f"{counted(missing, 'snapshot')} before step {step}, where the run continues, cannot be written"
            logger.info(f"train.snapshots: {found}; the later ones are")

    def _is_due(self, step: int) -> bool:
        before, samples = (step - 1) * self.batch_size, step * self.batch_size
        if isinstance(self.wanted, int):
            return samples // self.wanted > before // self.wanted
        return any(before < each and (each <= samples or step == self.steps) for each in self.wanted)

    def _path(self, step: int) -> Path:
        return self.out / FOLDER_NAME / f"{step * self.batch_size}.safetensors"
