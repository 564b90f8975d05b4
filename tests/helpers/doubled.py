"""Run ``distill`` in float64. In float32, two runs that add in different orders differ after a few dozen steps.

Evaluation uses batches of six images, so that every rank has some. If the variable ``CUT`` is set, the second rank
kills itself before step 20. After ``torchrun`` has restarted all ranks, the second rank stops ``torchrun`` before
step 60.
"""

import dataclasses
import os
import signal
import time
from typing import Any

import torch
from torch import Tensor

import distill.cli
import distill.commands.train
import distill.evaluation.evaluator
import distill.training.cost_estimate
import distill.training.run
import distill.training.trainer
from distill.runtime.device import DTYPES
from distill.targets.teacher import Network


def die_or_stop(step: int) -> None:
    """Kill this rank before step 20. After the restart, stop ``torchrun`` before step 60."""
    attempt = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    if (attempt, step) == (0, 20):
        os.kill(os.getpid(), signal.SIGKILL)
    if (attempt, step) == (1, 60):
        heard: list[int] = []
        usual = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
        os.kill(os.getppid(), signal.SIGTERM)
        while not heard:  # torchrun forwards SIGTERM to its ranks; then this rank handles a SIGTERM as usual
            time.sleep(0.01)
        signal.signal(signal.SIGTERM, usual)
        os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    normalize, new_network, load_teacher = (
        distill.training.trainer.normalize,
        distill.training.run.new_network,
        distill.commands.train.load_teacher,
    )

    def wide(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
        return normalize(images, mean, std).double()

    def wide_teacher(*arguments: Any) -> Network:
        teacher = load_teacher(*arguments)
        return dataclasses.replace(teacher, model=teacher.model.double())

    distill.training.trainer.normalize = distill.evaluation.evaluator.normalize = wide
    distill.commands.train.load_teacher = wide_teacher
    for module in (distill.training.run, distill.training.cost_estimate):
        module.new_network = lambda *arguments, **keys: new_network(*arguments, **keys).double()
    distill.evaluation.evaluator.BATCH = 6
    if "CUT" in os.environ and os.environ.get("RANK") == "1":
        train_step = distill.training.trainer.Trainer.train_step

        def cut(loop: distill.training.trainer.Trainer, step: int) -> Tensor:
            die_or_stop(step)
            return train_step(loop, step)

        distill.training.trainer.Trainer.train_step = cut
    DTYPES["fp32"] = torch.float64
    distill.cli.main()


if __name__ == "__main__":
    main()
