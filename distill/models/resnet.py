"""CIFAR ResNets: 6n + 2 layers, 16-32-64 channels, shortcuts without parameters (option A) or with them (option B).

Source: He et al. 2016, arXiv 1512.03385, section 4.2, and 3.3 for the options. Parameter names are those of
https://github.com/akamaster/pytorch_resnet_cifar10: ``conv1``, ``bn1``, ``layer1.0.conv1`` …, ``linear``, and with
option B ``layer2.0.shortcut.0``.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NARROW = (16, 16, 32, 64)
"""Channels of the stem and the three stages."""


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut.

    Where the shape changes, the shortcut skips pixels and pads channels with 0 (option A), or is a 1×1 convolution
    and a batch norm (B, ``projection``).
    """

    def __init__(self, inputs: int, outputs: int, stride: int, *, projection: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = None
        self._stride = stride
        self._padding = 0
        if projection and (stride != 1 or inputs != outputs):
            convolution = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(convolution, nn.BatchNorm2d(outputs))
        elif not projection:
            self._padding = (outputs - inputs) // 2

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, outputs, H / stride, W / stride) from (B, inputs, H, W)."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.shortcut is not None:
            x = self.shortcut(x)
        elif self._padding:
            x = F.pad(x[:, :, :: self._stride, :: self._stride], (0, 0, 0, 0, self._padding, self._padding))
        return F.relu(out + x)


class CifarResNet(nn.Module):
    """A ResNet of ``depth`` = 6n + 2 layers for small images; ``projection`` is option B."""

    def __init__(
        self, depth: int, num_classes: int, *, projection: bool = False, channels: tuple[int, ...] = NARROW
    ) -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(
                f"a CIFAR ResNet has 6n + 2 layers, such as 20 or 56; got {depth} (ImageNet's ResNets are "
                "resnet18-8x for small images, torchvision/resnet18 for large ones)"
            )
        blocks = (depth - 2) // 6
        stem, first, second, third = channels
        self.conv1 = nn.Conv2d(3, stem, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.layer1 = _stage(stem, first, blocks, 1, projection)
        self.layer2 = _stage(first, second, blocks, 2, projection)
        self.layer3 = _stage(second, third, blocks, 2, projection)
        self.linear = nn.Linear(third, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, num_classes) of normalized images (B, 3, H, W)."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        logits: Tensor = self.linear(torch.flatten(F.adaptive_avg_pool2d(out, 1), 1))
        return logits


def resnet_x4(depth: int, num_classes: int) -> CifarResNet:
    """Build a wider ResNet, 32-64-128-256 channels and option B: Tian et al. 2020, arXiv 1910.10699."""
    return CifarResNet(depth, num_classes, projection=True, channels=(32, 64, 128, 256))


def _stage(inputs: int, outputs: int, blocks: int, stride: int, projection: bool) -> nn.Sequential:
    first = BasicBlock(inputs, outputs, stride, projection=projection)
    rest = (BasicBlock(outputs, outputs, 1, projection=projection) for _ in range(blocks - 1))
    return nn.Sequential(first, *rest)
