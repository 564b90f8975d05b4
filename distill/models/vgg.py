"""VGG-16 and VGG-19 with batch normalisation and one linear layer, for CIFAR.

Source: Simonyan & Zisserman 2015, arXiv 1409.1556, configurations D and E, with the classifier that the CIFAR
literature uses in place of three large linear layers. Names: ``features``, ``classifier``.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_CONVOLUTIONS = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
_CHANNELS = (64, 128, 256, 512, 512)


class CifarVgg(nn.Module):
    """VGG of ``depth`` 16 or 19 for images of at least 32 px."""

    def __init__(self, depth: int, num_classes: int) -> None:
        super().__init__()
        if depth not in _CONVOLUTIONS:
            raise ValueError(f"a VGG here has 16 or 19 layers; got {depth}")
        layers: list[nn.Module] = []
        inputs = 3
        for count, outputs in zip(_CONVOLUTIONS[depth], _CHANNELS, strict=True):
            for _ in range(count):
                layers += [
                    nn.Conv2d(inputs, outputs, 3, padding=1),
                    nn.BatchNorm2d(outputs),
                    nn.ReLU(inplace=True),
                ]
                inputs = outputs
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(512, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) to logits (B, num_classes)."""
        out = F.adaptive_avg_pool2d(self.features(x), 1)
        logits: Tensor = self.classifier(torch.flatten(out, 1))
        return logits
