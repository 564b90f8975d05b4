"""Evaluate networks on several sets of labelled images. The first set is the main set."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from distill.data.datasets import MapDataset
from distill.data.fit import TransformConfig, TransformFit
from distill.data.labelled import LabelledImages
from distill.evaluation.evaluator import Evaluator
from distill.models import require_size

Sources = Mapping[str, Path | MapDataset]
"""Evaluation data by name, the main set first. The name of a main set without a name is empty."""


@dataclasses.dataclass(frozen=True)
class Evaluators:
    """Measures networks on one or several sets of labelled images. ``sets`` are by name, the main set first."""

    sets: Mapping[str, Evaluator]
    transform: str | None = None  # describes eval.transform, if it is set

    @property
    def main(self) -> Evaluator:
        """The evaluator of the main set. Its figures have no prefix."""
        return next(iter(self.sets.values()))

    @property
    def data(self) -> LabelledImages:
        """The images of the main set."""
        return self.main.data

    def measure(self, network: nn.Module) -> dict[str, float]:
        """Return the figures of the main set as ``Evaluator.measure``, and those of other sets as ``NAME/FIGURE``."""
        figures: dict[str, float] = {}
        for name, evaluator in self.sets.items():
            start = "" if evaluator is self.main else f"{name}/"
            figures |= {f"{start}{key}": value for key, value in evaluator.measure(network).items()}
        return figures

    def evaluate(self, network: nn.Module) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the metrics and the confusions of the main set, as ``Evaluator.evaluate``.

        If sets have names, the metrics have the key ``evaluations``: the figures of each named set by its name.
        """
        every = {name: evaluator.evaluate(network) for name, evaluator in self.sets.items()}
        result, confusions = next(iter(every.values()))
        named = {name: _without_classes(figures) for name, (figures, _) in every.items() if name}
        result |= {} if self.transform is None else {"eval_transform": self.transform}
        return result | ({"evaluations": named} if named else {}), confusions


def image_size(transform: TransformConfig | None, size: int, num_classes: int, *archs: str) -> int | TransformFit:
    """Return how evaluation images are resized: to ``size`` px, or by ``eval.transform`` if it is set.

    The first of ``archs`` is the network whose weights have a transform of their own. All of them must accept the
    images of the transform.
    """
    if transform is None:
        return size
    fit = transform.fit(archs[0], "eval.transform")
    for arch in archs:
        if ":" not in arch:  # not a class of the user
            require_size(arch, num_classes, fit.size)
    return fit


def _without_classes(figures: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in figures.items() if not key.endswith("per_class")}
