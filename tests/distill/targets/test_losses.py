"""Test every loss in the same way: values worked out by hand, gradients, and inputs with the same loss."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import TypeAdapter, ValidationError

from distill.targets.losses import TEMPERED, UNTEMPERED, Loss, LossConfig, kl_loss, make_loss, mse_loss

LN2 = math.log(2)
# Softmax at T = 1: student (1/2, 1/4, 1/4), teacher (1/4, 1/2, 1/4).
# Softmax at T = 1/2: student (2/3, 1/6, 1/6), teacher (1/6, 2/3, 1/6).
STUDENT, TEACHER = [[LN2, 0.0, 0.0]], [[0.0, LN2, 0.0]]
ROOT = math.sqrt(3)  # standardized logits: (2, -1, -1) / √3 and (-1, 2, -1) / √3

GOLDEN: list[tuple[str, float | None, float]] = [
    ("kl", 1.0, LN2 / 4),
    ("kl", 0.5, 0.25 * LN2),  # T² · (2/3 - 1/6) · ln 4
    ("reverse-kl", 1.0, LN2 / 4),
    ("reverse-kl", 0.5, 0.25 * LN2),
    ("js", 1.0, 0.25 * math.log(2 / 3) + 0.5 * math.log(4 / 3)),
    ("js", 0.5, 0.25 * (math.log(2 / 5) / 6 + math.log(8 / 5) * 2 / 3)),
    ("standardised-kl", 1.0, ROOT * (math.exp(ROOT) - 1) / (math.exp(ROOT) + 2)),
    ("standardised-kl", 2.0, 4 * ROOT / 2 * (math.exp(ROOT / 2) - 1) / (math.exp(ROOT / 2) + 2)),
    ("l1", 1.0, 1 / 2),
    ("l1", 0.5, 1.0),
    ("l2", 1.0, 1 / 8),
    ("l2", 0.5, 1 / 2),
    ("mse", None, 2 / 3 * LN2**2),
    ("hard", None, math.log(4)),
]
NAMES = sorted({name for name, _, _ in GOLDEN})
TWO_STUDENTS, TWO_TEACHERS = [[1.0, 2.0, 0.5], [0.0, -1.0, 3.0]], [[3.0, 0.0, -1.0], [0.5, 0.5, 2.0]]


def loss_of(name: str, temperature: float | None = None) -> Loss:
    value: dict[str, Any] = {"name": name} | ({} if temperature is None else {"temperature": temperature})
    return make_loss(TypeAdapter(LossConfig).validate_python(value))


def test_every_loss_has_golden_values() -> None:
    assert sorted({**TEMPERED, **UNTEMPERED}) == NAMES


@pytest.mark.parametrize(("name", "temperature", "golden"), GOLDEN)
def test_golden_values(name: str, temperature: float | None, golden: float) -> None:
    value = loss_of(name, temperature)(torch.tensor(STUDENT), torch.tensor(TEACHER))
    assert value.shape == () and value.dtype == torch.float32
    assert float(value) == pytest.approx(golden, rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_averaged_over_the_batch(name: str) -> None:
    loss, student, teacher = loss_of(name), torch.tensor(TWO_STUDENTS), torch.tensor(TWO_TEACHERS)
    each = [float(loss(student[i : i + 1], teacher[i : i + 1])) for i in range(2)]
    assert float(loss(student, teacher)) == pytest.approx(sum(each) / 2, rel=1e-6)
    assert each[0] != pytest.approx(each[1], rel=1e-2)


@pytest.mark.parametrize(
    ("name", "temperature"), [*((n, None) for n in UNTEMPERED), *((n, t) for n in TEMPERED for t in (1.0, 8.0))]
)
def test_gradient_against_finite_differences(name: str, temperature: float | None) -> None:
    loss = loss_of(name, temperature)
    draws = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(4, 7, dtype=torch.float64, generator=draws) for _ in range(2))
    assert torch.autograd.gradcheck(
        lambda x: loss(x, teacher), student.requires_grad_(), eps=1e-6, atol=1e-8, rtol=1e-6
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_teacher_gets_no_gradient(name: str) -> None:
    student, teacher = (torch.tensor(v, requires_grad=True) for v in (TWO_STUDENTS, TWO_TEACHERS))
    loss_of(name)(student, teacher).backward()
    assert student.grad is not None and teacher.grad is None


@pytest.mark.parametrize("name", [name for name in NAMES if name != "hard"])
def test_equal_logits_are_the_minimum(name: str) -> None:
    logits = torch.randn(5, 10, generator=torch.Generator().manual_seed(1), requires_grad=True)
    value = loss_of(name)(logits, logits.detach())
    value.backward()
    assert float(value.detach()) == pytest.approx(0, abs=1e-6) and float(logits.grad.norm()) < 1e-4


@pytest.mark.parametrize("name", [name for name in NAMES if name != "mse"])
def test_a_shift_of_all_logits_changes_nothing(name: str) -> None:
    loss, student, teacher = loss_of(name), torch.tensor(TWO_STUDENTS), torch.tensor(TWO_TEACHERS)
    assert float(loss(student + 3, teacher - 5)) == pytest.approx(float(loss(student, teacher)), abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_large_logits_stay_finite(name: str) -> None:
    student = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    value = loss_of(name)(student, torch.tensor([[-1e4, 1e4, 0.0]]))
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(student.grad).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    student, teacher = torch.tensor(TWO_STUDENTS, dtype=dtype), torch.tensor(TWO_TEACHERS, dtype=dtype)
    value = loss_of(name)(student, teacher)
    assert value.dtype == torch.float32
    assert torch.equal(value, loss_of(name)(student.float(), teacher.float()))


@pytest.mark.parametrize("temperature", [1.0, 8.0])
def test_kls_gradient_is_the_scaled_difference_of_probabilities(temperature: float) -> None:
    student = torch.tensor(TWO_STUDENTS, requires_grad=True)
    kl_loss(student, torch.tensor(TWO_TEACHERS), temperature).backward()
    p, q = (F.softmax(torch.tensor(v) / temperature, dim=1) for v in (TWO_TEACHERS, TWO_STUDENTS))
    assert torch.allclose(student.grad, temperature * (q - p) / 2, atol=1e-6)


@pytest.mark.parametrize("name", ["kl", "reverse-kl", "js", "standardised-kl"])
def test_t_squared_keeps_the_gradients_size(name: str) -> None:
    """Because losses are multiplied by T², the size of their gradients hardly depends on T."""
    norms = []
    for temperature in (8.0, 16.0, 32.0):
        student = torch.tensor(TWO_STUDENTS, requires_grad=True)
        loss_of(name, temperature)(student, torch.tensor(TWO_TEACHERS)).backward()
        norms.append(float(student.grad.norm()))
    assert max(norms) / min(norms) < 1.25


def test_kl_at_a_high_temperature_is_half_the_mse_of_centred_logits() -> None:
    student, teacher = (torch.randn(6, 10, dtype=torch.float64) for _ in range(2))
    centred = [v - v.mean(dim=1, keepdim=True) for v in (student, teacher)]
    assert float(kl_loss(student, teacher, 1e3)) == pytest.approx(0.5 * float(mse_loss(*centred)), rel=1e-2)


@pytest.mark.parametrize("name", NAMES)
def test_a_weight_multiplies_loss_and_gradient(name: str) -> None:
    values, gradients = [], []
    for weight in ({}, {"weight": 1}, {"weight": 0.25}):
        loss = make_loss(TypeAdapter(LossConfig).validate_python({"name": name} | weight))
        student = torch.tensor(TWO_STUDENTS, requires_grad=True)
        value = loss(student, torch.tensor(TWO_TEACHERS))
        values.append(float(value.detach()))
        gradients.append(torch.autograd.grad(value, student)[0])
    assert values[0] == values[1] == 4 * values[2]
    assert torch.equal(gradients[0], gradients[1]) and torch.equal(gradients[0], 4 * gradients[2])
    for wrong in (0, -1, float("nan")):
        with pytest.raises(ValidationError, match="weight"):
            TypeAdapter(LossConfig).validate_python({"name": name, "weight": wrong})


@pytest.mark.parametrize("name", ["mse", "hard"])
def test_a_temperature_that_does_nothing_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="temperature"):
        loss_of(name, 4.0)
