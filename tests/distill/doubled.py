"""``distill`` in float64: in float32 two runs of which one adds in another order part within some dozen steps.

Evaluation data comes in batches of six, so that several ranks have some.
"""

import dataclasses
from typing import Any

import torch
from torch import Tensor

import distill.cli
import distill.evaluate
import distill.lesson
import distill.loop
import distill.run
from distill.precision import DTYPES
from distill.teacher import Teacher


def main() -> None:
    normalise, new_network, load_teacher = (
        distill.loop.normalise,
        distill.run.new_network,
        distill.lesson.load_teacher,
    )

    def wide(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
        return normalise(images, mean, std).double()

    def wide_teacher(*arguments: Any) -> Teacher:
        teacher = load_teacher(*arguments)
        return dataclasses.replace(teacher, model=teacher.model.double())

    distill.loop.normalise = distill.evaluate.normalise = wide
    distill.lesson.load_teacher = wide_teacher
    distill.run.new_network = lambda *arguments: new_network(*arguments).double()
    distill.evaluate.BATCH = 6
    DTYPES["fp32"] = torch.float64
    distill.cli.main()


if __name__ == "__main__":
    main()
