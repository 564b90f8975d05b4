"""ImageNet's ResNets for small images, with the parameter names of kuangliu and weiaicunzai.

``foreign_networks`` has the networks of other repositories.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DEPTHS = {18: ((2, 2, 2, 2), 1), 50: ((3, 4, 6, 3), 4)}
"""For each depth: the number of blocks in each stage, and the ratio of a block's output to its inner channels."""


def residual(inputs: int, inside: int, widening: int, stride: int) -> list[nn.Module]:
    """Return the layers conv, bn, relu, conv, bn. A bottleneck block ends with one more relu, conv, bn."""
    if widening == 1:
        shapes = [(inputs, inside, 3, stride), (inside, inside, 3, 1)]
    else:
        shapes = [(inputs, inside, 1, 1), (inside, inside, 3, stride), (inside, inside * widening, 1, 1)]
    layers: list[nn.Module] = []
    for source, target, size, step in shapes:
        layers += [nn.Conv2d(source, target, size, step, size // 2, bias=False), nn.BatchNorm2d(target), nn.ReLU()]
    return layers[:-1]


class Block(nn.Module):
    """A residual block of weiaicunzai if ``row`` (``residual_function``), else of kuangliu (``conv1``, ``bn1`` …)."""

    def __init__(self, inputs: int, inside: int, widening: int, stride: int, *, row: bool) -> None:
        super().__init__()
        layers = residual(inputs, inside, widening, stride)
        outputs = inside * widening
        self.names = ["residual_function"]
        if row:
            self.residual_function = nn.Sequential(*layers)
        else:
            self.names = []
            for index, layer in enumerate(layers):
                self.names.append(f"{('conv', 'bn', 'relu')[index % 3]}{index // 3 + 1}")
                setattr(self, self.names[-1], layer)
        changes = stride != 1 or inputs != outputs
        projection = [nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)]
        self.shortcut = nn.Sequential(*(projection if changes else []))

    def forward(self, x: Tensor) -> Tensor:
        out = x
        for name in self.names:
            out = getattr(self, name)(out)
        return torch.relu(out + self.shortcut(x))


class Resnet8x(nn.Module):
    """ResNet-18 or ResNet-50 with a 3×3 stem and no pooling after the stem."""

    def __init__(self, depth: int, *, row: bool) -> None:
        super().__init__()
        blocks, widening = DEPTHS[depth]
        stem = (nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64))
        if row:
            self.conv1 = nn.Sequential(*stem, nn.ReLU())
        else:
            self.conv1, self.bn1 = stem
        self.row = row
        self.stages = [f"conv{n + 1}_x" if row else f"layer{n}" for n in (1, 2, 3, 4)]
        inputs = 64
        for number, (name, count) in enumerate(zip(self.stages, blocks, strict=True)):
            rows = []
            for index in range(count):
                stride = 2 if number and not index else 1
                rows.append(Block(inputs, 64 << number, widening, stride, row=row))
                inputs = (64 << number) * widening
            setattr(self, name, nn.Sequential(*rows))
        self.head = "fc" if row else "linear"
        setattr(self, self.head, nn.Linear(inputs, 10))

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(x) if self.row else torch.relu(self.bn1(self.conv1(x)))
        for name in self.stages:
            out = getattr(self, name)(out)
        return getattr(self, self.head)(F.avg_pool2d(out, 4).flatten(1))
