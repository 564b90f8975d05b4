"""The plain PyTorch loop that ``distill train`` is compared with.

It has a DataLoader over a folder of JPEG files with torchvision's transforms, CutMix, both networks in float32, and
Adam.
"""

import os
import time
from pathlib import Path

import numpy as np
import torch
import torchvision.transforms as T
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from distill.models import build_model
from distill.targets.losses import kl_loss

MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
WARM_UP = 3


def folder_of_jpegs(folder: Path, patches: Tensor) -> ImageFolder:
    """Write patches, uint8 (n, 32, 32, 3), as JPEG files; return a data set with the usual transforms."""
    (folder / "patches").mkdir()
    for index, patch in enumerate(patches.numpy()):
        Image.fromarray(patch).save(folder / "patches" / f"{index:05d}.jpg")
    steps = [T.RandomHorizontalFlip(), T.RandomCrop(32, padding=4), T.ToTensor(), T.Normalize(MEAN, STD)]
    return ImageFolder(str(folder), transform=T.Compose(steps))


def plain(data: ImageFolder, arch: tuple[str, str], batch: int, steps: int, device: torch.device) -> dict[str, float]:
    """Return images per second of the plain loop."""
    workers = min(8, os.cpu_count() or 1)
    teacher = build_model(arch[0], 10).eval().requires_grad_(False).to(device)
    student = build_model(arch[1], 10).train().to(device)
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-3)
    on_gpu = device.type == "cuda"
    loader = DataLoader(data, batch_size=batch, shuffle=True, drop_last=True, num_workers=workers, pin_memory=on_gpu)
    done, started, seconds = 0, 0.0, 0.0
    while done < steps:
        for loaded, _ in loader:
            if done == WARM_UP:
                started = now(device)
            x = _cutmix(loaded.to(device, non_blocking=True))
            with torch.no_grad():
                target = teacher(x)
            loss = kl_loss(student(x), target, 8.0)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            done += 1
            if done == steps:
                seconds = now(device) - started  # before the loader's processes end, which takes seconds
                break
    return {"images_per_second": (steps - WARM_UP) * batch / seconds}


def _cutmix(x: Tensor) -> Tensor:
    share = np.random.beta(0.25, 0.25)
    half = int(32 * (1 - share) ** 0.5) // 2
    row, column = np.random.randint(0, 32, 2)
    x = x.clone()
    rows = slice(max(row - half, 0), min(row + half, 32))
    columns = slice(max(column - half, 0), min(column + half, 32))
    x[:, :, rows, columns] = x.flip(0)[:, :, rows, columns]
    return x


def now(device: torch.device) -> float:
    """Wait for ``device`` and return the clock in seconds."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
