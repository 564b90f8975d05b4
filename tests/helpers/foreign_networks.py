"""Small networks with the structure and the parameter names of published repositories, written for these tests.

They share no code with ``distill.models``. So their outputs are the reference for files of these repositories.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STAGES = ((64,), (128,), (256, 256), (512, 512), (512, 512))
"""Channels of VGG-11's convolutions in each stage."""


def conv3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)


def stack(block: Callable[[int, int, int], nn.Module], inputs: int, outputs: int, n: int, stride: int) -> nn.Module:
    return nn.Sequential(block(inputs, outputs, stride), *(block(outputs, outputs, 1) for _ in range(n - 1)))


class Pad(nn.Module):
    """akamaster's shortcut: keep every second pixel, and add ``outputs // 4`` zero channels on each side."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.each = outputs // 4

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.each, self.each), "constant", 0)


class Basic(nn.Module):
    """A block of conv-bn-relu-conv-bn, shortcut, relu. ``name`` and ``pad`` select the shortcut's name and kind."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, name: str, pad: bool) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv3(inputs, outputs, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = conv3(outputs, outputs), nn.BatchNorm2d(outputs)
        self.name = name
        changes = stride != 1 or inputs != outputs
        projection = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        setattr(self, name, (Pad(outputs) if pad else projection) if changes else nn.Sequential())

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(out)) + getattr(self, self.name)(x))


class CifarResnet(nn.Module):
    """A ResNet of akamaster (``shortcut``, ``linear``), or of three other repositories (``downsample``, ``fc``).

    The other repositories are RepDistiller, chenyaofo and torchdistill.
    """

    def __init__(self, shortcut: str, head: str, *, pad: bool = False, channels: Sequence[int] = (16, 16, 32, 64)):
        super().__init__()
        c0, c1, c2, c3 = channels
        self.conv1, self.bn1 = conv3(3, c0), nn.BatchNorm2d(c0)

        def block(*shape: int) -> nn.Module:
            return Basic(*shape, name=shortcut, pad=pad)

        self.layer1, self.layer2, self.layer3 = (
            *(stack(block, c0, c1, 2, 1), stack(block, c1, c2, 2, 2)),
            stack(block, c2, c3, 2, 2),
        )
        self.head = head
        setattr(self, head, nn.Linear(c3, 10))

    def forward(self, x: Tensor) -> Tensor:
        out = self.layer3(self.layer2(self.layer1(torch.relu(self.bn1(self.conv1(x))))))
        return getattr(self, self.head)(F.avg_pool2d(out, 8).flatten(1))


class EqualInOut(nn.Module):
    """xternalz's block. The shortcut reads the activated input if the number of channels changes, else the input."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), conv3(inputs, outputs, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(outputs), conv3(outputs, outputs)
        self.equal = inputs == outputs
        self.convShortcut = None if self.equal else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = torch.relu(self.bn1(x))
        if not self.equal:
            x = active
        out = self.conv2(torch.relu(self.bn2(self.conv1(active if self.equal else x))))
        return (x if self.equal else self.convShortcut(x)) + out


class Layer(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class RawShortcut(nn.Module):
    """torchdistill's block: the shortcut convolves the block's input without normalization and activation."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), conv3(inputs, outputs, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(outputs), conv3(outputs, outputs)
        changes = stride != 1 or inputs != outputs
        self.shortcut = nn.Sequential(*([nn.Conv2d(inputs, outputs, 1, stride, bias=False)] if changes else []))

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(torch.relu(self.bn1(x)))
        return self.conv2(torch.relu(self.bn2(out))) + self.shortcut(x)


class WideResnet(nn.Module):
    """WRN-16 of torchdistill if ``raw`` (``layer1.0``), else of xternalz (``block1.layer.0``)."""

    def __init__(self, width: int, *, raw: bool) -> None:
        super().__init__()
        self.conv1 = conv3(3, 16)
        channels = (16, 16 * width, 32 * width, 64 * width)
        self.stages = [f"layer{number}" if raw else f"block{number}" for number in (1, 2, 3)]
        for number, name in enumerate(self.stages):
            stage = stack(RawShortcut if raw else EqualInOut, *channels[number : number + 2], 2, 2 if number else 1)
            setattr(self, name, stage if raw else Layer(stage))
        self.bn1, self.fc = nn.BatchNorm2d(channels[3]), nn.Linear(channels[3], 10)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(x)
        for name in self.stages:
            out = getattr(self, name)(out)
        return self.fc(F.avg_pool2d(torch.relu(self.bn1(out)), 8).flatten(1))


def convolutions(inputs: int, channels: Sequence[int]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for outputs in channels:
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
        inputs = outputs
    return layers


class Vgg(nn.Module):
    """VGG-11 of kuangliu. With three linear layers: of chenyaofo (``hidden`` is 512) or weiaicunzai (4096)."""

    def __init__(self, hidden: int | None) -> None:
        super().__init__()
        layers = []
        for inputs, channels in zip((3, 64, 128, 256, 512), STAGES, strict=True):
            layers += [*convolutions(inputs, channels), nn.MaxPool2d(2, 2)]
        self.features = nn.Sequential(*layers, nn.AvgPool2d(1, 1))
        self.classifier = nn.Linear(512, 10)
        if hidden is not None:
            self.classifier = nn.Sequential(
                *(nn.Linear(512, hidden), nn.ReLU(), nn.Dropout(), nn.Linear(hidden, hidden), nn.ReLU()),
                *(nn.Dropout(), nn.Linear(hidden, 10)),
            )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))


class BlockVgg(nn.Module):
    """RepDistiller's VGG-11 for 32 px: three poolings, then a mean over the 4×4 output of the fifth block."""

    def __init__(self) -> None:
        super().__init__()
        for number, (inputs, channels) in enumerate(zip((3, 64, 128, 256, 512), STAGES, strict=True)):
            setattr(self, f"block{number}", nn.Sequential(*convolutions(inputs, channels)[:-1]))
        self.classifier = nn.Linear(512, 10)

    def forward(self, x: Tensor) -> Tensor:
        for number in range(5):
            x = torch.relu(getattr(self, f"block{number}")(x))
            x = F.max_pool2d(x, 2, 2) if number < 3 else x
        return self.classifier(F.adaptive_avg_pool2d(x, 1).flatten(1))
