"""Test evaluation images that are too large for memory: they are decoded again for each evaluation."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from distill.data import labelled
from distill.data.image_reader import StreamedImages
from distill.data.labelled import load_labelled
from distill.errors import DistillError
from distill.evaluation import evaluator
from distill.evaluation.evaluator import kl_to
from tests.conftest import Program, assert_one_line


@pytest.fixture
def streaming(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labelled, "MAX_HELD_BYTES", 0)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(12):
        folder = tmp_path / "photos" / "abcd"[number % 4]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (40 + number, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    return tmp_path / "photos"


@pytest.mark.parametrize("size", [24, 32])
def test_streamed_images_are_those_in_memory(photos: Path, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    held = load_labelled(photos, size)
    monkeypatch.setattr(labelled, "MAX_HELD_BYTES", 12 * size * size * 3 - 1)
    streamed = load_labelled(photos, size)
    assert isinstance(held.pixels, torch.Tensor) and isinstance(streamed.pixels, StreamedImages)
    assert torch.equal(held.images, streamed.images) and str(held) == str(streamed)
    assert (held.sha256, held.digests, held.size) == (streamed.sha256, streamed.digests, streamed.size)
    for numbers in ([0, 1, 2], [2], [0, 2], []):
        pairs = list(zip(held.batches(5, numbers), streamed.batches(5, numbers), strict=True))
        assert [first[0] for first, _ in pairs] == numbers
        assert all(torch.equal(first[1], second[1]) for first, second in pairs)


@pytest.mark.usefixtures("streaming")
def test_training_images_stay_in_memory(photos: Path) -> None:
    assert isinstance(load_labelled(photos, 32, "train").pixels, torch.Tensor)


@pytest.mark.usefixtures("streaming")
def test_images_of_several_sizes_are_refused(photos: Path) -> None:
    with pytest.raises(DistillError, match="12 sizes, such as 50×40 px and 50×41 px; set one size"):
        load_labelled(photos, None)


def test_an_evaluation_does_not_depend_on_streaming(
    run_distill: Program, teacher_path: Path, eval_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["eval", "--weights", teacher_path, "--data", eval_path, "--teacher", teacher_path, "--json"]
    first = json.loads(run_distill(*arguments).out)
    monkeypatch.setattr(labelled, "MAX_HELD_BYTES", 0)
    assert json.loads(run_distill(*arguments).out) == first


@pytest.mark.usefixtures("streaming")
def test_an_image_that_changes_is_refused(
    run_distill: Program, teacher_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = evaluator.logits_of

    def changed(*arguments: object) -> torch.Tensor:
        Image.new("RGB", (50, 50)).save(photos / "b" / "01.png")
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(evaluator, "logits_of", changed)
    result = run_distill("eval", "--weights", teacher_path, "--data", photos, "--size", 32, "-q")
    assert_one_line(result, f"{photos}: image 3 has changed", "run the command again")


def test_large_images_have_smaller_batches(monkeypatch: pytest.MonkeyPatch, photos: Path) -> None:
    from distill.runtime.distributed import RunContext

    seen: list[int] = []

    class Count(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(len(x))
            return x.mean(dim=(2, 3))

    monkeypatch.setattr(evaluator, "MAX_BATCH_PIXELS", 5 * 32 * 32)
    context = RunContext(device=torch.device("cpu"))
    logits = evaluator.logits_of(Count(), load_labelled(photos, 32), (0.0,) * 3, (1.0,) * 3, context)
    assert seen == [5, 5, 2] and logits.shape == (12, 3)


def test_the_divergence_does_not_depend_on_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, student = torch.randn(2, 100, 10)
    whole = kl_to(teacher, student)
    monkeypatch.setattr(evaluator, "MAX_KL_LOGITS", 70)
    assert kl_to(teacher, student) == pytest.approx(whole, rel=1e-12)
