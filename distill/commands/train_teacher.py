"""``distill train-teacher``: train a network on labelled images."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from distill.config.schema import SupervisedConfig
from distill.data.batches import View, resident
from distill.data.classes import complete_names, match_classes
from distill.data.datasets import MapDataset
from distill.data.labelled import load_labelled
from distill.errors import DistillError
from distill.evaluation.evaluator import Evaluator, load_evaluation_data, require_unseen
from distill.evaluation.sets import Evaluators, image_size
from distill.models import require_size
from distill.models.own import own_sources, require_trainable
from distill.runtime.compile import Accelerator
from distill.runtime.distributed import RunContext
from distill.targets.losses import cross_entropy
from distill.targets.targets import LabelTargets, Targets
from distill.training.run import NO_OBJECTS, Objects, Task
from distill.training.run_dir import TEACHER_NAME
from distill.weights.files import Triple

logger = logging.getLogger(__name__)


class SupervisedTraining(Task):
    """Train a network on labelled images with the cross-entropy loss."""

    weights_name = TEACHER_NAME
    prefix = ""
    figures = ("top1",)
    purpose = "init from labels"
    config: SupervisedConfig

    def __init__(
        self, config: SupervisedConfig, data: Path | MapDataset, context: RunContext, objects: Objects = NO_OBJECTS
    ) -> None:
        context.ranks.require_rows(config.data.batch_size)
        self.config, self._context, self.loss = config, context, cross_entropy
        self.network, self.num_classes = config.network, config.network.num_classes
        found = load_labelled(data, config.data.size, "train")
        where = data if isinstance(data, Path) else found.where
        self._images = images = match_classes(found, self.num_classes, (), where)
        self.classes = complete_names(images)
        height, width = images.images.shape[1:3]
        if height != width:
            fault = f"images of {width}×{height} pixels are not square"
            raise DistillError(f"{where}: {fault}; set data.size to resize and crop the images to squares")
        self.objects, size = objects, config.augment.output_size(images.size)
        if objects.network is None:
            require_size(self.network.arch, self.num_classes, size)
        else:
            require_trainable(objects.network, size, self.network.arch, self.num_classes)
        self.n, self.size = len(images.labels), images.size
        mean, std = channel_statistics(images.images)
        self.normalization = self.network.mean or mean, self.network.std or std
        sources = own_sources(*([] if objects.network else [self.network.arch]))
        self.described = objects.digests() | ({"sources": sources} if sources else {})
        self.inputs = {"data": images.sha256} | objects.digests() | sources

    @contextmanager
    def open_view(self) -> Iterator[View]:
        logger.info(f"training data: {self._images}")
        seed = self.config.train.seed if self.config.data.view_seed is None else self.config.data.view_seed
        source = resident(self._images.images, self.config.data.batch_size, seed, self._context)
        yield View(source=source, augment=self.config.augment, seed=seed, period=self.steps)

    def make_targets(self, view: View, accelerator: Accelerator) -> Targets:
        labels, smoothing = self._images.labels, self.config.labels.smoothing
        return LabelTargets(labels, view.source.order, self.num_classes, smoothing, self._context)

    def open_evaluator(self, accelerator: Accelerator) -> Evaluators | None:
        seen, evaluators = frozenset(self._images.digests), {}
        default, transform = self.config.augment.output_size(self.size), self.config.eval.transform
        size = image_size(transform, default, self.num_classes, self.network.arch)
        for name, source in (self.objects.evaluation or self.config.eval.sources()).items():
            data = load_evaluation_data(source, size, self.num_classes, self.classes)
            require_unseen(seen, data, self._images.where)
            evaluators[name] = Evaluator(data, self.normalization, None, self._context, self.prefix)
        return Evaluators(evaluators, None if isinstance(size, int) else size.text) if evaluators else None


def channel_statistics(images: Tensor) -> tuple[Triple, Triple]:
    """Return mean and std of each channel, in [0, 1], with four decimals. ``images`` are uint8 (N, H, W, 3)."""
    counts = torch.stack([torch.bincount(images[..., c].flatten(), minlength=256) for c in range(3)]).double()
    values, count = torch.arange(256, dtype=torch.float64), images[..., 0].numel()
    mean = counts @ values / count  # exact, because all products and sums are whole numbers
    deviation = (counts @ values.square() / count - mean.square()).clamp(min=0).sqrt()
    return _triple(mean / 255), _triple((deviation / 255).clamp(min=1e-3))


def _triple(values: Tensor) -> Triple:
    red, green, blue = (round(float(value), 4) for value in values)
    return red, green, blue
