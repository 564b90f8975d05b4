"""Activation maximization: compute for each class an image for which a network has a large logit of this class.

The regularizers are those of Olah, Mordvintsev, Schubert 2017 (https://distill.pub/2017/feature-visualization). The
optimized values are Fourier coefficients with the spectrum and color correlations of natural images. Each step moves,
rotates and scales the image a little.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.runtime.randomness import Stream
from distill.weights.files import Triple
from manifests.support.console import Update

MARGIN = 4  # pixels of border around an image, in which the image moves
Pair = tuple[Triple, Triple]
TURN, ZOOM = math.radians(10), 0.1
LEARNING_RATE = 0.03
SPREAD = 0.01
# Square root of the covariance of ImageNet's colors; constants of the paper.
_COLORS = torch.tensor([[0.26, 0.09, 0.02], [0.27, 0.0, -0.05], [0.27, -0.09, 0.03]])


def excite(
    network: nn.Module, classes: Tensor, size: int, normalization: Pair, *, steps: int, seed: int, update: Update
) -> Tensor:
    """Return for each class an image with a large logit of this class: uint8 (n, size, size, 3) on the CPU.

    ``classes``, int64 (n,), are class numbers. ``network`` must be in eval mode and is not changed. The network
    processes images (B, 3, size, size), normalized by the mean and std in ``normalization``. ``update`` is called
    with the number of finished steps.
    """
    device = next(network.parameters()).device
    side, count = size + 2 * MARGIN, len(classes)
    weight = _weights(side).to(device)
    noise = torch.special.ndtri(Stream(seed, "neurons", 0).uniform(count, 3, *weight.shape, 2).clamp(min=1e-9))
    spectrum = (SPREAD * noise).float().to(device).requires_grad_(True)
    optimizer = torch.optim.Adam([spectrum], lr=LEARNING_RATE)
    mean, std = (torch.tensor(values, device=device)[:, None, None] for values in normalization)
    where = torch.arange(count, device=device)
    for step in range(steps):
        grid = _random_grid(count, size, side, Stream(seed, "neurons", step + 1)).to(device)
        seen = F.grid_sample(_image(spectrum, weight, side), grid, align_corners=False, padding_mode="reflection")
        logits = network(((seen - mean) / std).contiguous(memory_format=torch.channels_last))
        loss = -logits.float()[where, classes.to(device)].sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        update(step + 1)
    with torch.no_grad():
        inner = _image(spectrum, weight, side)[:, :, MARGIN:-MARGIN, MARGIN:-MARGIN]
    return (255 * inner).round().byte().permute(0, 2, 3, 1).cpu()


def _weights(side: int) -> Tensor:
    """Return 1 / frequency for each Fourier coefficient of an image of ``side`` px: (side, side // 2 + 1)."""
    frequency = torch.hypot(torch.fft.fftfreq(side)[:, None], torch.fft.rfftfreq(side)[None])
    return 1 / frequency.clamp(min=1 / side)


def _image(spectrum: Tensor, weight: Tensor, side: int) -> Tensor:
    """Return images, RGB in [0, 1] (n, 3, side, side), of Fourier coefficients (n, 3, side, side // 2 + 1, 2)."""
    planes = torch.fft.irfft2(torch.view_as_complex(spectrum) * weight, s=(side, side), norm="ortho")
    colors = (_COLORS / _COLORS.norm(dim=0).max()).to(planes.device)
    return torch.sigmoid(torch.einsum("nchw,rc->nrhw", planes, colors))


def _random_grid(count: int, size: int, side: int, stream: Stream) -> Tensor:
    """Return a grid for ``grid_sample``, (n, size, size, 2), that moves, rotates and scales each image at random."""
    draws = 2 * stream.uniform(4, count).float() - 1
    turn, zoom, shift = TURN * draws[0], (1 + ZOOM * draws[1]) * size / side, draws[2:] * 2 * MARGIN / side
    cos, sin = zoom * turn.cos(), zoom * turn.sin()
    matrix = torch.stack([torch.stack([cos, -sin, shift[0]], dim=1), torch.stack([sin, cos, shift[1]], dim=1)], dim=1)
    return F.affine_grid(matrix, [count, 3, size, size], align_corners=False)
