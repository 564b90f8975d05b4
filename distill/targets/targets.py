"""Targets of the student at each step: logits of a live teacher, stored logits, or labels.

Call a targets object with a batch and the normalized images of the batch, float32 (B, 3, H, W), to get the targets
(B, classes) of these images. Targets for feature losses are logits and features. ``require_unchanged`` raises
DistillError if the logits or the teacher have changed.
"""

import dataclasses
import logging
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.data.batches import Batch, View
from distill.data.sampler import Order, WindowOrder
from distill.errors import DistillError
from distill.models.features import Outputs
from distill.runtime.compile import Accelerator, FrozenNetwork
from distill.runtime.device import fits_gpu, free_memory
from distill.runtime.distributed import RunContext
from distill.targets.features import FeatureMatch
from distill.targets.live import LiveTeachers, Normalization, TeacherInput, teacher_input
from distill.targets.stored_logits import (
    LogitsManifest,
    StoredFeature,
    StoredLogits,
    open_logits,
    require_same_view,
)
from distill.targets.teacher import Network
from manifests.support.counts import counted

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeacherTargets:
    """Logits that the teacher computes during the run, on the same pixels as the student.

    ``cache`` stores the logits of each step, so that later passes over the batches do not compute the logits again.
    ``live`` computes the logits if there are several teachers, or one with its own input; it includes ``network``.
    """

    network: FrozenNetwork  # of the first teacher
    cache: dict[int, Tensor] | None = None
    live: LiveTeachers | None = None

    def __call__(self, batch: Batch, x: Tensor) -> Tensor:
        """Return the teacher's logits (B, classes), or (B, teachers, classes) for a loss of each teacher."""
        compute = self.network if self.live is None else self.live
        if self.cache is None:
            return compute(x)
        if batch.step not in self.cache:
            self.cache[batch.step] = compute(x)
        return self.cache[batch.step]

    def require_unchanged(self) -> None:
        for network in [self.network] if self.live is None else self.live.networks:
            network.require_unchanged()


def live_targets(
    teacher: Network, normalization: Normalization, view: View, accelerator: Accelerator
) -> TeacherTargets:
    """Return targets of live teachers, without a cache. ``normalization`` is that of the student's images."""

    def freeze(model: nn.Module, size: int) -> FrozenNetwork:
        return accelerator.frozen(model, _example(view, size))

    live = LiveTeachers(teacher, normalization, view.size, freeze)
    return TeacherTargets(network=live.networks[0], live=None if live.is_plain else live)


def _example(view: View, size: int) -> Tensor:
    """Return an example batch of ``view`` for a teacher whose images have ``size`` px."""
    example = view.example()
    if size == view.size:
        return example
    return example.new_zeros(len(example), 3, size, size).contiguous(memory_format=torch.channels_last)


def teacher_targets(
    teacher: Network, normalization: Normalization, view: View, accelerator: Accelerator
) -> TeacherTargets:
    """Return targets of a live teacher, with a cache if the run repeats batches and the memory is large enough."""
    targets = live_targets(teacher, normalization, view, accelerator)
    num_bytes = view.period * view.rows * teacher.num_classes * targets.network.dtype.itemsize
    if teacher.others:
        num_bytes *= 4 * (1 + len(teacher.others) if teacher.combine == "losses" else 1)  # float32 at most
    device, processes = accelerator.context.device, view.ranks.local_world_size
    repeats = view.period < accelerator.steps
    fits = fits_gpu(num_bytes, device) or (device.type == "cpu" and processes * num_bytes < free_memory() // 2)
    if repeats and not fits:
        size = f"{num_bytes / 1e9:.1f} GB"
        logger.info(f"too little memory for {size} of logits: the teacher computes the logits again in every pass")
    return dataclasses.replace(targets, cache={} if repeats and fits else None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureTargets:
    """Logits and features that the teacher computes during the run, on the same pixels as the student."""

    network: FrozenNetwork
    convert: TeacherInput | None  # of images of the student

    def __call__(self, batch: Batch, x: Tensor) -> Outputs:
        return self.network.outputs(x if self.convert is None else self.convert(x))

    def require_unchanged(self) -> None:
        self.network.require_unchanged()


def feature_targets(
    teacher: Network, match: FeatureMatch, normalization: Normalization, view: View, accelerator: Accelerator
) -> FeatureTargets:
    """Return targets of a live teacher for the feature losses of ``match``.

    ``normalization`` is that of the student's images.
    """
    example = _example(view, teacher.size or view.size)
    network = accelerator.frozen(teacher.model, example, match.names, match.adapters)
    return FeatureTargets(network=network, convert=teacher_input(teacher, normalization, view.size))


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredTargets:
    """Logits and features that a teacher computed before the run for the same augmented batches."""

    logits: StoredLogits
    context: RunContext
    features: tuple[int, ...] = ()  # positions of the features of the run in the manifest

    def __call__(self, batch: Batch, x: Tensor) -> Tensor | Outputs:
        manifest = self.logits.manifest
        rows = self.context.ranks.take_rows(self.logits.of_step(batch.step))
        logits, *others = rows.to(self.context.device, non_blocking=True).split(manifest.widths, dim=1)
        features = [others[i].unflatten(1, manifest.features[i].shape) for i in self.features]
        return (logits, *features) if features else logits

    def require_unchanged(self) -> None:
        self.logits.require_unchanged()


def stored_targets(
    folder: Path, manifest: LogitsManifest, view: View, match: FeatureMatch | None = None
) -> StoredTargets:
    """Verify and open the stored logits, and the features of ``match``, in ``folder`` for all batches of ``view``."""
    require_same_view(folder, manifest.view, view.describe())
    if manifest.steps < view.period:
        found = f"contains logits of {counted(manifest.steps, 'step')}, but this run needs {view.period}"
        raise DistillError(f"{folder}: {found}; create logits for {view.period} steps, or set fewer train.samples")
    features = () if match is None else tuple(_position(folder, manifest, each) for each in match.stored)
    logits = open_logits(folder, manifest, view.period)
    return StoredTargets(logits=logits, context=view.source.context, features=features)


def _position(folder: Path, manifest: LogitsManifest, wanted: StoredFeature) -> int:
    if wanted in manifest.features:
        return manifest.features.index(wanted)
    have = ", ".join(map(str, manifest.features)) or "none"
    found = f"a feature loss needs the teacher's features {wanted}, but the folder contains {have}"
    raise DistillError(f"{folder}: {found}; create stored logits with distill make-logits and this config")


@dataclasses.dataclass(frozen=True)
class LabelTargets:
    """Class probabilities from ``labels``, int64 (n,), with label smoothing. Targets are mixed like their images."""

    labels: Tensor
    order: Order | WindowOrder
    num_classes: int
    smoothing: float
    context: RunContext

    def __call__(self, batch: Batch, x: Tensor) -> Tensor:
        """Return (1 - s) · one-hot + s / classes, mixed like the images: float32 (B, classes); s is ``smoothing``."""
        rows = self.context.ranks.take_rows(self.order.batch(batch.step))
        own = F.one_hot(self.labels[rows], self.num_classes).float()
        target = own * (1 - self.smoothing) + self.smoothing / self.num_classes
        mix = batch.draws.mix
        if mix is not None:
            kept = mix.kept(len(own), batch.images.shape[1]).float()[:, None]
            target = kept * target + (1 - kept) * target.flip(0)
        return target.to(x.device, non_blocking=True)

    def require_unchanged(self) -> None:
        """Do nothing: labels do not change."""


Targets = TeacherTargets | FeatureTargets | StoredTargets | LabelTargets
