"""What bounds a step on a machine: how much a step computes, and how fast large matrices are multiplied here."""

import statistics
from collections.abc import Callable

import torch
from plain_loop import now
from torch.utils.flop_counter import FlopCounterMode

from distill.models import build_model

MATRIX = 4096


def time_of(call: Callable[[], object], device: torch.device, repeats: int = 5) -> float:
    """Median seconds of ``call``."""
    call()
    times = []
    for _ in range(repeats):
        started = now(device)
        call()
        times.append(now(device) - started)
    return statistics.median(times)


def flops_per_image(arch: tuple[str, str], teacher_passes: float) -> float:
    """Operations (a multiplication and an addition are two) of the student's step and of so many teacher's passes."""
    images = torch.zeros(2, 3, 32, 32)
    counts = []
    for name, training in ((arch[0], False), (arch[1], True)):
        model = build_model(name, 10).train(training)
        with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(training):
            logits = model(images)
            if training:
                logits.sum().backward()
        counts.append(counter.get_total_flops() / len(images))
    return teacher_passes * counts[0] + counts[1]


def matrix_flops_per_second(device: torch.device, dtype: torch.dtype) -> float:
    """Of a large matrix product, the most that convolutions can hope for."""
    a = torch.randn(MATRIX, MATRIX, device=device).to(dtype)
    return 2 * MATRIX**3 / time_of(lambda: a @ a, device)


def idle_share(step: Callable[[int], object], device: torch.device, steps: int = 50) -> float:
    """Share of the time of ``step``, called with 0, 1, …, in which a GPU runs none of its kernels; 0 on a CPU.

    The time is measured without the profiler, which slows the starting of kernels and leaves them as they are.
    """
    if device.type != "cuda":
        return 0.0
    started = now(device)
    for number in range(steps):
        step(number)
    seconds = now(device) - started
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for number in range(steps):
            step(number)
        now(device)
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in profile.events()
        if event.device_type == torch.autograd.DeviceType.CUDA
    )
    busy, last = 0.0, 0.0  # microseconds; kernels may overlap
    for start, end in spans:
        busy += max(0.0, end - max(start, last))
        last = max(last, end)
    return max(0.0, 1 - busy * 1e-6 / seconds)
