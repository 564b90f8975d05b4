"""ImageNet's ResNets for small images: a 3×3 stem without pooling after it, so that images shrink eightfold.

Source: He et al. 2016, arXiv 1512.03385, table 1; the data-free literature calls them ResNet-34-8x (Fang et al. 2019,
arXiv 1912.11006). Parameter names are those of https://github.com/kuangliu/pytorch-cifar: ``conv1``, ``bn1``,
``layer1.0.conv1`` …, ``layer2.0.shortcut.0``, ``linear``.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.models.resnet import BasicBlock

_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


class _Bottleneck(nn.Module):
    """1×1, 3×3 (which has the stride) and 1×1 convolutions, with four times as many channels after the last.

    Where the shape changes, the shortcut is a 1×1 convolution and a batch norm.
    """

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        outputs = channels * 4
        self.conv1 = nn.Conv2d(inputs, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            convolution = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(convolution, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, 4 × channels, H / stride, W / stride) from (B, inputs, H, W)."""
        out = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        return F.relu(self.bn3(self.conv3(out)) + self.shortcut(x))


class ResNet8x(nn.Module):
    """ResNet-18, -34, -50, -101 or -152 (``depth``) for images of about 32 px."""

    def __init__(self, depth: int, num_classes: int) -> None:
        super().__init__()
        if depth not in _BLOCKS:
            raise ValueError(f"a ResNet-8x has {', '.join(map(str, _BLOCKS))} layers; got {depth}")
        first, second, third, fourth = _BLOCKS[depth]
        expansion = 1 if depth < 50 else 4
        self.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = _stage(64, 64, first, 1, expansion)
        self.layer2 = _stage(64 * expansion, 128, second, 2, expansion)
        self.layer3 = _stage(128 * expansion, 256, third, 2, expansion)
        self.layer4 = _stage(256 * expansion, 512, fourth, 2, expansion)
        self.linear = nn.Linear(512 * expansion, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, num_classes) of normalized images (B, 3, H, W)."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer4(self.layer3(self.layer2(self.layer1(out))))
        logits: Tensor = self.linear(torch.flatten(F.adaptive_avg_pool2d(out, 1), 1))
        return logits


def _stage(inputs: int, channels: int, blocks: int, stride: int, expansion: int) -> nn.Sequential:
    def block(inputs: int, stride: int) -> nn.Module:
        if expansion == 1:
            return BasicBlock(inputs, channels, stride, projection=True)
        return _Bottleneck(inputs, channels, stride)

    return nn.Sequential(block(inputs, stride), *(block(channels * expansion, 1) for _ in range(blocks - 1)))
