"""VGG with batch normalization for CIFAR, and variants with other poolings or classifiers.

Source: Simonyan & Zisserman 2015, arXiv 1409.1556, configurations A, B, D and E. The CIFAR literature replaces the
three large linear layers by one. Parameter names are those of https://github.com/kuangliu/pytorch-cifar:
``features``, ``classifier``. The variants are those of published checkpoints, see ``distill.weights.foreign_names``.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.models.resnet import init_convolutions

_CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
_CHANNELS = (64, 128, 256, 512, 512)


class CifarVgg(nn.Module):
    """VGG with 11, 13, 16 or 19 layers (``depth``) for images of at least 32 px.

    With ``hidden``, the classifier has three linear layers. The first two layers have ``hidden`` outputs each. With
    ``average``, the last two stages have no max pooling, as in https://github.com/HobbitLong/RepDistiller, and the
    parameters have other names, so that a weight file of one variant cannot be loaded into the other variant.
    """

    def __init__(self, depth: int, hidden: int | None = None, *, num_classes: int, average: bool = False) -> None:
        super().__init__()
        if depth not in _CONVOLUTIONS:
            raise ValueError(f"a VGG has 11, 13, 16 or 19 layers, not {depth}")
        stages, inputs = [], 3
        for number, (count, outputs) in enumerate(zip(_CONVOLUTIONS[depth], _CHANNELS, strict=True)):
            layers: list[nn.Module] = []
            for _ in range(count):
                layers += nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
                inputs = outputs
            if not average or number < 3:
                layers.append(nn.MaxPool2d(2))
            stages.append(nn.Sequential(*layers))
        self.features = nn.Sequential(*(stages if average else (layer for stage in stages for layer in stage)))
        self.classifier = nn.Linear(512, num_classes) if hidden is None else _three_layers(hidden, num_classes)
        init_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, num_classes) of normalized images (B, 3, H, W)."""
        out = F.adaptive_avg_pool2d(self.features(x), 1)
        logits: Tensor = self.classifier(torch.flatten(out, 1))
        return logits


def _three_layers(hidden: int, num_classes: int) -> nn.Sequential:
    """Return linear layers with the names 0, 3 and 6, as in torchvision's VGG, and ReLU and dropout between them."""
    first = nn.Linear(512, hidden), nn.ReLU(inplace=True), nn.Dropout()
    second = nn.Linear(hidden, hidden), nn.ReLU(inplace=True), nn.Dropout()
    return nn.Sequential(*first, *second, nn.Linear(hidden, num_classes))
