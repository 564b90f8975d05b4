"""ImageNet's ResNets for small images: a 3×3 stem and no pooling behind it, so that they shrink images eightfold.

Source: He et al. 2016, arXiv 1512.03385, table 1; the data-free literature calls them ResNet-34-8x (Fang et al. 2019,
arXiv 1912.11006). Parameter names are those of https://github.com/kuangliu/pytorch-cifar: ``conv1``, ``bn1``,
``layer1.0.conv1`` …, ``layer2.0.shortcut.0``, ``linear``.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


class _Basic(nn.Module):
    """Two 3×3 convolutions; a 1×1 convolution and a batch norm on the shortcut where the shape changes."""

    expansion = 1

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = _shortcut(inputs, channels * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, channels, H / stride, W / stride)."""
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(out + self.shortcut(x))


class _Bottleneck(nn.Module):
    """1×1, 3×3 (which has the stride) and 1×1 convolutions; shortcuts as above."""

    expansion = 4

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        outputs = channels * self.expansion
        self.conv1 = nn.Conv2d(inputs, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.shortcut = _shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, 4 × channels, H / stride, W / stride)."""
        out = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        return F.relu(self.bn3(self.conv3(out)) + self.shortcut(x))


class ResNet8x(nn.Module):
    """ResNet-18, -34, -50, -101 or -152 (``depth``) for images of about 32 px."""

    def __init__(self, depth: int, num_classes: int) -> None:
        super().__init__()
        if depth not in _BLOCKS:
            raise ValueError(f"a ResNet-8x has {', '.join(map(str, _BLOCKS))} layers; got {depth}")
        first, second, third, fourth = _BLOCKS[depth]
        block = _Basic if depth < 50 else _Bottleneck
        self.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = _stage(block, 64, 64, first, 1)
        self.layer2 = _stage(block, 64 * block.expansion, 128, second, 2)
        self.layer3 = _stage(block, 128 * block.expansion, 256, third, 2)
        self.layer4 = _stage(block, 256 * block.expansion, 512, fourth, 2)
        self.linear = nn.Linear(512 * block.expansion, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) to logits (B, num_classes)."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer4(self.layer3(self.layer2(self.layer1(out))))
        logits: Tensor = self.linear(torch.flatten(F.adaptive_avg_pool2d(out, 1), 1))
        return logits


def _stage(
    block: type[_Basic] | type[_Bottleneck], inputs: int, channels: int, blocks: int, stride: int
) -> nn.Sequential:
    rest = (block(channels * block.expansion, channels, 1) for _ in range(blocks - 1))
    return nn.Sequential(block(inputs, channels, stride), *rest)


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    if stride == 1 and inputs == outputs:
        return nn.Sequential()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs))
