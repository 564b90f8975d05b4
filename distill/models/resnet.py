"""ResNets for small images: CIFAR's with 6n + 2 layers, and ImageNet's with a 3×3 stem and no pooling after the stem.

Source: He et al. 2016, arXiv 1512.03385. Section 4.2 describes CIFAR's networks, section 3.3 the shortcuts without
parameters (option A) or with parameters (option B), and table 1 ImageNet's networks. Papers on data-free distillation
write ResNet-34-8x, where 8 is the total stride of this variant (Fang et al. 2019, arXiv 1912.11006). Parameter
names are those of https://github.com/akamaster/pytorch_resnet_cifar10 and https://github.com/kuangliu/pytorch-cifar:
``conv1``, ``bn1``, ``layer1.0.conv1`` …, ``layer2.0.shortcut.0``, ``linear``.
"""

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_Block = Callable[[int, int, int], nn.Module]  # of input channels, output channels and stride
_BLOCKS_8X = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut. With ``projection``, the shortcut has parameters (option B)."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, projection: bool = True) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = _shortcut(inputs, outputs, stride, projection)

    def forward(self, x: Tensor) -> Tensor:
        """Map features (B, inputs, H, W) to features (B, outputs, H / stride, W / stride)."""
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class Bottleneck(nn.Module):
    """Convolutions of 1×1, 3×3 (with the stride) and 1×1, and a shortcut with parameters (option B)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        channels = outputs // 4
        self.conv1 = nn.Conv2d(inputs, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.shortcut = _shortcut(inputs, outputs, stride, projection=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map features (B, inputs, H, W) to features (B, outputs, H / stride, W / stride)."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        return F.relu(self.bn3(self.conv3(out)) + self.shortcut(x))


class _PadChannels(nn.Module):
    """The shortcut of option A: take every ``stride``-th pixel, and add ``channels`` zero channels on both sides."""

    def __init__(self, stride: int, channels: int) -> None:
        super().__init__()
        self._stride, self._channels = stride, channels

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self._stride, :: self._stride], (0, 0, 0, 0, self._channels, self._channels))


def _shortcut(inputs: int, outputs: int, stride: int, projection: bool) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    if not projection:
        return _PadChannels(stride, (outputs - inputs) // 2)
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs))


class _ResNet(nn.Module):
    """A convolution, stages of ``blocks[i]`` blocks, and a linear layer. Stages after the first halve the image."""

    def __init__(self, block: _Block, blocks: tuple[int, ...], channels: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, channels[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels[0])
        stages = zip(blocks, channels, channels[1:], strict=False)
        for number, (count, inputs, outputs) in enumerate(stages, 1):
            rest = (block(outputs, outputs, 1) for _ in range(count - 1))
            stage = nn.Sequential(block(inputs, outputs, 1 if number == 1 else 2), *rest)
            self.add_module(f"layer{number}", stage)
        self._stages = len(blocks)
        self.linear = nn.Linear(channels[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, num_classes) of normalized images (B, 3, H, W)."""
        out = F.relu(self.bn1(self.conv1(x)))
        for number in range(1, self._stages + 1):
            out = getattr(self, f"layer{number}")(out)
        logits: Tensor = self.linear(torch.flatten(F.adaptive_avg_pool2d(out, 1), 1))
        return logits


class CifarResNet(_ResNet):
    """A ResNet with ``depth`` = 6n + 2 layers. With ``projection``, shortcuts have parameters (option B).

    With ``wide``, shortcuts have parameters, and channels are 32-64-128-256 (Tian et al. 2020, arXiv 1910.10699).
    """

    def __init__(self, depth: int, num_classes: int, *, projection: bool = False, wide: bool = False) -> None:
        if depth < 8 or (depth - 2) % 6:
            action = "for ImageNet's ResNets use resnet18-8x (small images) or torchvision/resnet18 (large images)"
            raise ValueError(f"a CIFAR ResNet has 6n + 2 layers, such as 20 or 56, not {depth}; {action}")
        block = functools.partial(BasicBlock, projection=projection or wide)
        channels = (32, 64, 128, 256) if wide else (16, 16, 32, 64)
        super().__init__(block, ((depth - 2) // 6,) * 3, channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)


class ResNet8x(_ResNet):
    """ResNet-18, -34, -50, -101 or -152 (``depth``) for images of about 32 px."""

    def __init__(self, depth: int, num_classes: int) -> None:
        if depth not in _BLOCKS_8X:
            raise ValueError(f"a ResNet-8x has 18, 34, 50, 101 or 152 layers, not {depth}")
        block, expansion = (BasicBlock, 1) if depth < 50 else (Bottleneck, 4)
        channels = (64, *(width * expansion for width in (64, 128, 256, 512)))
        super().__init__(block, _BLOCKS_8X[depth], channels, num_classes)
        init_convolutions(self)


def init_convolutions(network: nn.Module) -> None:
    """Draw the weights of all convolutions with variance 2 / (output channels × kernel area) (arXiv 1502.01852)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
