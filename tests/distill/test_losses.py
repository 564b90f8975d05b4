"""The KL loss: values worked by hand, its gradient, its temperature."""

import math

import pytest
import torch
import torch.nn.functional as F

from distill.losses import LossConfig, kl_loss, make_loss


def by_hand(student: list[float], teacher: list[float], t: float) -> float:
    def softmax(values: list[float]) -> list[float]:
        powers = [math.exp(v / t) for v in values]
        return [p / sum(powers) for p in powers]

    p, q = softmax(teacher), softmax(student)
    return t * t * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


STUDENT, TEACHER = [[1.0, 2.0, 0.5], [0.0, -1.0, 3.0]], [[3.0, 0.0, -1.0], [0.5, 0.5, 2.0]]


@pytest.mark.parametrize(("temperature", "golden"), [(1.0, 0.733021), (8.0, 1.131690)])
def test_golden_values(temperature: float, golden: float) -> None:
    value = float(kl_loss(torch.tensor(STUDENT), torch.tensor(TEACHER), temperature))
    hand = sum(by_hand(s, t, temperature) for s, t in zip(STUDENT, TEACHER, strict=True)) / 2
    assert value == pytest.approx(hand, rel=1e-5)
    assert value == pytest.approx(golden, rel=1e-5)


def test_zero_for_equal_logits_and_blind_to_a_shift() -> None:
    logits = torch.randn(5, 10)
    assert float(kl_loss(logits, logits + 3, 4.0)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 8.0])
def test_gradient_is_the_scaled_difference_of_probabilities(temperature: float) -> None:
    student = torch.tensor(STUDENT, requires_grad=True)
    kl_loss(student, torch.tensor(TEACHER), temperature).backward()
    p, q = (F.softmax(torch.tensor(v) / temperature, dim=1) for v in (TEACHER, STUDENT))
    assert torch.allclose(student.grad, temperature * (q - p) / 2, atol=1e-6)


def test_t_squared_keeps_the_gradients_size() -> None:
    norms = []
    for temperature in (8.0, 16.0, 32.0):
        student = torch.tensor(STUDENT, requires_grad=True)
        kl_loss(student, torch.tensor(TEACHER), temperature).backward()
        norms.append(float(student.grad.norm()))
    assert max(norms) / min(norms) < 1.25


def test_half_precision_logits_are_computed_in_float32() -> None:
    student, teacher = (torch.tensor(v).bfloat16() for v in (STUDENT, TEACHER))
    loss = make_loss(LossConfig(temperature=8))(student, teacher)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, kl_loss(student.float(), teacher.float(), 8.0))
