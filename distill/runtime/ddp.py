"""Train a network on several ranks: batch norms use the whole batch, and gradients are means over the ranks."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


def parallel(network: nn.Module, device: torch.device) -> nn.Module:
    """Replace the batch norms of ``network``, which is on ``device``, by synchronized ones, and wrap it in DDP."""
    if device.type != "cuda":
        synchronize(network)
        return DistributedDataParallel(network)
    nn.SyncBatchNorm.convert_sync_batchnorm(network)
    return DistributedDataParallel(network, device_ids=[device])


def synchronize(network: nn.Module) -> None:
    """Replace each batch norm in ``network`` by a ``SyncedBatchNorm`` with the same parameters and buffers."""
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.modules.batchnorm._BatchNorm):
                setattr(parent, name, SyncedBatchNorm(child))


class SyncedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm (Ioffe & Szegedy 2015, arXiv 1502.03167) with the statistics of all ranks' rows, on CPUs.

    ``nn.SyncBatchNorm`` computes the same on GPUs and refuses CPUs.
    """

    def __init__(self, norm: nn.modules.batchnorm._BatchNorm) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        self._parameters, self._buffers, self.training = norm._parameters, norm._buffers, norm.training

    def forward(self, x: Tensor) -> Tensor:
        """Normalize ``x`` (B, C, …) in float32 or float64. A rank may have a single row."""
        if not self.training:
            return super().forward(x)
        wide = x if x.dtype == torch.float64 else x.float()
        dims, shape = [0, *range(2, x.ndim)], (1, -1, *[1] * (x.ndim - 2))
        spread, center = (value.double() for value in torch.var_mean(wide, dims, correction=0))
        own = torch.full_like(center, x.numel() // x.shape[1])
        total = _AllReduce.apply(torch.stack([own, own * center, own * (spread + center.square())]))
        count = total[0].detach()
        mean = total[1] / count
        variance = (total[2] / count - mean.square()).clamp(min=0)  # exact enough in float64
        self._update_statistics(mean.detach(), variance.detach() * count / (count - 1))
        centered = wide - mean.to(wide.dtype).view(shape)
        scale = (variance + self.eps).rsqrt().to(wide.dtype)
        if self.affine:
            return torch.addcmul(self.bias.view(shape), centered, (scale * self.weight).view(shape)).to(x.dtype)
        return (centered * scale.view(shape)).to(x.dtype)

    def _update_statistics(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        factor = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), factor)
        self.running_var.lerp_(variance.to(self.running_var.dtype), factor)

    def _check_input_dim(self, input: Tensor) -> None:
        """Accept any number of dimensions after the channels."""


class _AllReduce(torch.autograd.Function):
    """The sum of a tensor over the ranks. Its gradient is the sum of the gradients of the ranks."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        summed = value.clone()
        dist.all_reduce(summed)
        return summed

    backward = forward
