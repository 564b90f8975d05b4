"""Helpers that read run directories and collect log lines."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch


def weights(run: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(run / "student.safetensors")


def same(first: Path, second: Path) -> bool:
    return (first / "student.safetensors").read_bytes() == (second / "student.safetensors").read_bytes()


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def timeless(run: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "images_per_second"} for row in rows(run)]


@contextmanager
def log_lines() -> Iterator[list[str]]:
    """Collect the INFO lines that ``distill`` logs inside the ``with`` block."""
    lines: list[str] = []
    handler = logging.Handler(logging.INFO)
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("distill")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
