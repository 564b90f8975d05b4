"""What neurons want to see: images made, from noise, so that they excite one class of a network each.

Activation maximisation with the usual regularisers (Olah, Mordvintsev, Schubert 2017,
https://distill.pub/2017/feature-visualization):
an image is its Fourier coefficients, weighted as natural images weigh them, in colours that natural images correlate,
and at every step the network sees it moved, turned and scaled a little.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.runtime.randomness import Stream
from distill.weights.files import Triple
from manifests.support.console import Update

MARGIN = 4
"""Pixels around an image, in which it moves."""
TURN, ZOOM = math.radians(10), 0.1
LEARNING_RATE = 0.03
SPREAD = 0.01
# Square root of the covariance of ImageNet's colours, scaled to a largest column of 1 (the paper's own constants).
_COLOURS = torch.tensor([[0.26, 0.09, 0.02], [0.27, 0.0, -0.05], [0.27, -0.09, 0.03]])


def excite(
    network: nn.Module,
    classes: Tensor,
    size: int,
    mean: Triple,
    std: Triple,
    *,
    steps: int,
    seed: int,
    update: Update,
) -> Tensor:
    """An image for each of ``classes``, int64 (n,), whose logit it raises: uint8 (n, size, size, 3) on the CPU.

    ``network`` is in eval mode and stays as it is; it takes images (B, 3, size, size) normalised by ``mean`` and
    ``std``. ``update`` hears of every step.
    """
    device = next(network.parameters()).device
    side, count = size + 2 * MARGIN, len(classes)
    weight = _weights(side).to(device)
    noise = torch.special.ndtri(Stream(seed, "neurons", 0).uniform(count, 3, *weight.shape, 2).clamp(min=1e-9))
    spectrum = (SPREAD * noise).float().to(device).requires_grad_(True)
    optimizer = torch.optim.Adam([spectrum], lr=LEARNING_RATE)
    centre, spread = (torch.tensor(values, device=device)[:, None, None] for values in (mean, std))
    where = torch.arange(count, device=device)
    for step in range(steps):
        grid = _moved(count, size, side, Stream(seed, "neurons", step + 1)).to(device)
        seen = F.grid_sample(_image(spectrum, weight, side), grid, align_corners=False, padding_mode="reflection")
        logits = network(((seen - centre) / spread).contiguous(memory_format=torch.channels_last))
        loss = -logits.float()[where, classes.to(device)].sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        update(step + 1)
    with torch.no_grad():
        inner = _image(spectrum, weight, side)[:, :, MARGIN:-MARGIN, MARGIN:-MARGIN]
    return (255 * inner).round().byte().permute(0, 2, 3, 1).cpu()


def _weights(side: int) -> Tensor:
    """1 / frequency for every coefficient of a real image of ``side`` pixels: (side, side // 2 + 1)."""
    frequency = torch.hypot(torch.fft.fftfreq(side)[:, None], torch.fft.rfftfreq(side)[None])
    return 1 / frequency.clamp(min=1 / side)


def _image(spectrum: Tensor, weight: Tensor, side: int) -> Tensor:
    """RGB in [0, 1] (n, 3, side, side) of coefficients (n, 3, side, side // 2 + 1, 2)."""
    planes = torch.fft.irfft2(torch.view_as_complex(spectrum) * weight, s=(side, side), norm="ortho")
    colours = (_COLOURS / _COLOURS.norm(dim=0).max()).to(planes.device)
    return torch.sigmoid(torch.einsum("nchw,rc->nrhw", planes, colours))


def _moved(count: int, size: int, side: int, stream: Stream) -> Tensor:
    """Where each pixel (n, size, size, 2) of what the network sees is read, as ``grid_sample`` wants it."""
    draws = 2 * stream.uniform(4, count).float() - 1
    turn, zoom, shift = TURN * draws[0], (1 + ZOOM * draws[1]) * size / side, draws[2:] * 2 * MARGIN / side
    cos, sin = zoom * turn.cos(), zoom * turn.sin()
    matrix = torch.stack([torch.stack([cos, -sin, shift[0]], dim=1), torch.stack([sin, cos, shift[1]], dim=1)], dim=1)
    return F.affine_grid(matrix, [count, 3, size, size], align_corners=False)
