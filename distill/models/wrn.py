"""Wide residual networks WRN-depth-width: pre-activation blocks, 16-16k-32k-64k channels.

Source: Zagoruyko & Komodakis 2016, arXiv 1605.07146. Most checkpoints have the parameter names of
https://github.com/xternalz/WideResNet-pytorch: ``conv1``, ``block1.layer.0.bn1`` …, ``bn1``, ``fc``.
"""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.models.resnet import init_convolutions


class WideBlock(nn.Module):
    """Batch norm, ReLU and convolution, twice. If the number of channels changes, the shortcut is a 1×1 convolution.

    The 1×1 convolution processes the output of the first ReLU. With ``raw``, the 1×1 convolution processes the input
    of the block, as in https://github.com/yoshitomo-matsubara/torchdistill, and the parameter of the shortcut has
    another name, so that a weight file of one variant cannot be loaded into the other variant.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, *, raw: bool = False) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        projection = None if inputs == outputs else nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        self.convShortcut = None if raw else projection
        self.rawShortcut = projection if raw else None

    def forward(self, x: Tensor) -> Tensor:
        """Map features (B, inputs, H, W) to features (B, outputs, H / stride, W / stride)."""
        active = F.relu(self.bn1(x))
        out: Tensor = self.conv2(F.relu(self.bn2(self.conv1(active))))
        if self.convShortcut is not None:
            return out + self.convShortcut(active)
        return out + (x if self.rawShortcut is None else self.rawShortcut(x))


class WideResNet(nn.Module):
    """WRN-``depth``-``width`` with ``depth`` = 6n + 4 layers for small images. ``WideBlock`` describes ``raw``."""

    def __init__(self, depth: int, width: int, num_classes: int, *, raw: bool = False) -> None:
        super().__init__()
        if depth < 10 or (depth - 4) % 6 or width < 1:
            raise ValueError(f"a WRN has 6n + 4 layers and a width ≥ 1, not {depth} layers and width {width}")
        blocks = (depth - 4) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.block1 = _stage(16, 16 * width, blocks, 1, raw)
        self.block2 = _stage(16 * width, 32 * width, blocks, 2, raw)
        self.block3 = _stage(32 * width, 64 * width, blocks, 2, raw)
        self.bn1 = nn.BatchNorm2d(64 * width)
        self.fc = nn.Linear(64 * width, num_classes)
        init_convolutions(self)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, num_classes) of normalized images (B, 3, H, W)."""
        out = self.block3(self.block2(self.block1(self.conv1(x))))
        out = F.adaptive_avg_pool2d(F.relu(self.bn1(out)), 1)
        logits: Tensor = self.fc(torch.flatten(out, 1))
        return logits


def _stage(inputs: int, outputs: int, blocks: int, stride: int, raw: bool) -> nn.Sequential:
    """Return a module whose only child, ``layer`` as in published checkpoints, is a sequence of ``blocks`` blocks."""
    first = WideBlock(inputs, outputs, stride, raw=raw)
    layer = nn.Sequential(first, *(WideBlock(outputs, outputs, 1) for _ in range(blocks - 1)))
    return nn.Sequential(OrderedDict(layer=layer))
