"""Compute the operations of a training step, and measure how fast this machine multiplies large matrices."""

import statistics
from collections.abc import Callable

import torch
from measure.plain_loop import now
from torch.utils.flop_counter import FlopCounterMode

from distill.models import build_model

MATRIX = 4096


def time_of(call: Callable[[], object], device: torch.device, repeats: int = 5) -> float:
    """Return the median seconds of ``call``."""
    call()
    times = []
    for _ in range(repeats):
        started = now(device)
        call()
        times.append(now(device) - started)
    return statistics.median(times)


def flops_per_image(arch: tuple[str, str], teacher_passes: float) -> float:
    """Return the operations per image (a multiply-add is two) of a student step and ``teacher_passes`` passes."""
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
    """Return the rate of a large matrix product: an upper bound for convolutions."""
    a = torch.randn(MATRIX, MATRIX, device=device).to(dtype)
    return 2 * MATRIX**3 / time_of(lambda: a @ a, device)


def idle_share(step: Callable[[int], object], device: torch.device, steps: int = 50) -> float:
    """Return the share of the time of ``step`` (called with 0, 1, …) in which the GPU runs no kernel; 0 on a CPU.

    The time is measured without the profiler, because the profiler delays kernel launches.
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
