"""Test that folded, compiled and half-precision networks return the same logits, up to rounding.

If folding or compiling is impossible, the original network is used.
"""

import copy
import dataclasses

import pytest
import torch
from torch import nn

from distill.errors import DistillError
from distill.models import build_model
from distill.models.features import Adapter, WithFeatures
from distill.runtime.compile import LONG_RUN, Accelerator
from distill.runtime.distributed import RunContext
from distill.weights.files import tensors_digest

CPU = torch.device("cpu")
X = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0)).to(memory_format=torch.channels_last)


def accelerator(device: torch.device = CPU, **values: object) -> Accelerator:
    known = {"precision": "fp32", "compile": "off", "steps": 10}
    return Accelerator(context=RunContext(device=device), **known | values)


def trained(arch: str) -> nn.Module:
    """Return a network in eval mode. Its batch norms have the statistics of three random batches."""
    model = build_model(arch, 10).train()
    for _ in range(3):
        model(torch.randn(32, 3, 32, 32) * 2 + 0.5)
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize(
    "arch", ["resnet8", "wrn-10-1", "vgg16-bn", "torchvision/resnet18", "torchvision/mobilenet_v2"]
)
def test_a_folded_network_has_the_same_logits(arch: str) -> None:
    model = trained(arch)
    before = tensors_digest(model.state_dict())
    with torch.no_grad():
        expected = model(X)
        mine = accelerator().frozen(model, X)(X)
        half = accelerator(precision="bf16").frozen(model, X)(X)
    assert mine.dtype == torch.float32 and half.dtype == torch.bfloat16
    scale = float(expected.std())
    assert float((mine - expected).abs().max()) < 1e-4 * scale
    assert 0 < float((half.float() - expected).abs().max()) < 0.1 * scale
    assert tensors_digest(model.state_dict()) == before and not model.training


class _Shared(nn.Module):
    """A convolution with two batch norms, which torch's ``fuse`` would fold into each other."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.first, self.second = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.first.running_var.fill_(4)
        self.second.running_mean.fill_(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.conv(self.first(self.conv(x)))).mean(dim=(2, 3))


def test_a_shared_convolution_is_not_folded() -> None:
    model, x = _Shared().eval().requires_grad_(False), torch.randn(2, 3, 8, 8)
    frozen = accelerator().frozen(model, x)
    assert torch.allclose(frozen(x), model(x), atol=1e-6)


def test_folding_leaves_fewer_layers_and_a_change_is_noticed() -> None:
    """A folded network has no batch norms. If a parameter changes during the run, the run fails."""
    frozen = accelerator().frozen(trained("resnet8"), X)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in frozen.folded.modules())
    frozen.require_unchanged()
    frozen(X)
    frozen.require_unchanged()
    next(frozen.folded.parameters())[0] += 1e-3
    with pytest.raises(DistillError, match="the teacher changed during the run"):
        frozen.require_unchanged()


class Branching(nn.Module):
    """A network with a branch that depends on values. torch.fx cannot trace this network."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear = nn.BatchNorm2d(3), nn.Linear(3 * 32 * 32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.linear(self.norm(x).flatten(1))
        return out if out.sum() > 0 else -out


def test_a_network_that_cannot_be_traced_is_used_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    model = Branching().eval()
    frozen = accelerator().frozen(model, X)
    assert (
        torch.equal(frozen(X), model(X))
        and "cannot be folded" in caplog.messages[0]
        and "\n" not in caplog.messages[0]
    )


def test_compiled_networks_have_the_same_logits(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "distill")
    on = accelerator(compile="on")
    model = trained("resnet8")
    with torch.no_grad():
        assert torch.allclose(on.frozen(model, X)(X), model(X), atol=1e-4)
    student = build_model("resnet8", 10).to(memory_format=torch.channels_last)
    before = tensors_digest(student.state_dict())
    forward = on.student(student, X)
    assert tensors_digest(student.state_dict()) == before and all(p.grad is None for p in student.parameters())
    twin = build_model("resnet8", 10).to(memory_format=torch.channels_last)
    twin.load_state_dict(student.state_dict())
    first, second = forward(X), twin(X)
    assert torch.allclose(first, second, atol=1e-4)
    first.sum().backward()
    second.sum().backward()
    for mine, theirs in zip(student.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(mine.grad, theirs.grad, rtol=1e-3, atol=1e-3)
    assert caplog.messages == [] and forward is not student


def test_compiled_networks_have_the_same_features(caplog: pytest.LogCaptureFixture) -> None:
    """The hooks that observe modules also run in compiled networks."""
    caplog.set_level("INFO", "distill")
    on, names, teacher = accelerator(compile="on"), ("layer1", "layer3"), trained("resnet8")
    adapters = [Adapter(pooled=False, size=(4, 4)), Adapter(pooled=True, size=None)]
    expected = WithFeatures(teacher, names, adapters)(X)
    for own, other in zip(on.frozen(teacher, X, names, adapters).outputs(X), expected, strict=True):
        assert own.shape == other.shape and torch.allclose(own, other, atol=1e-4)
    projected = [Adapter(pooled=False, size=None, projection=nn.Conv2d(16, 8, 1)), adapters[1]]
    student = WithFeatures(build_model("resnet8", 10), names, projected)
    before = tensors_digest(student.state_dict())
    forward = on.student(student, X)
    assert tensors_digest(student.state_dict()) == before and forward is not student
    twin = WithFeatures(copy.deepcopy(student.network), names, copy.deepcopy(projected))
    outputs = forward(X)
    for own, other in zip(outputs, twin(X), strict=True):
        assert own.shape == other.shape and torch.allclose(own, other, atol=1e-4)
    sum(each.sum() for each in outputs).backward()
    assert all(parameter.grad is not None for parameter in student.parameters())
    assert caplog.messages == [] and on.compiled == ["teacher", "student"]


def test_on_a_gpu_networks_are_cuda_graphs_and_logits_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU, networks are compiled to CUDA graphs.

    The returned logits are copies, so later calls do not change these logits.
    """
    calls = []
    monkeypatch.setattr(torch, "compile", lambda model, options: calls.append(options) or model)
    on = accelerator(device=torch.device("cuda"), compile="auto")
    on.student(trained("resnet8"), X)
    buffer = torch.zeros(8, 10)  # a CUDA graph returns the same memory at every call
    frozen = dataclasses.replace(on.frozen(trained("resnet8"), X), network=lambda x: buffer.add_(1))
    first, second = frozen(X), frozen(X)
    assert calls == [{"triton.cudagraphs": True}, {"freezing": True, "triton.cudagraphs": True}]
    assert first.unique().tolist() == [1.0] and second.unique().tolist() == [2.0]


def test_what_cannot_be_compiled_runs_uncompiled(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """If compiling fails, one line is logged and the uncompiled network is used."""

    def broken(model: nn.Module, options: object) -> nn.Module:
        def call(x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no working C++ compiler\nand a long story")

        return call

    caplog.set_level("INFO", "distill")
    monkeypatch.setattr(torch, "compile", broken)
    on = accelerator(compile="on")
    model = trained("resnet8")
    student = build_model("resnet8", 10)
    assert on.student(student, X) is student
    with torch.no_grad():
        assert torch.allclose(on.frozen(model, X)(X), model(X), atol=1e-4)
    assert [line.split(":")[0] for line in caplog.messages] == [
        "the student is not compiled",
        "the teacher is not compiled",
    ]
    assert all("no working C++ compiler" in line and "\n" not in line for line in caplog.messages)


@pytest.mark.parametrize(("steps", "compiled"), [(LONG_RUN - 1, False), (LONG_RUN, True)])
def test_auto_compiles_where_it_pays(monkeypatch: pytest.MonkeyPatch, steps: int, compiled: bool) -> None:
    """``compile: auto`` compiles only in long runs."""
    calls = []
    monkeypatch.setattr(torch, "compile", lambda model, options: calls.append(options) or model)
    auto = accelerator(compile="auto", steps=steps)
    auto.frozen(trained("resnet8"), X)
    auto.student(build_model("resnet8", 10), X)
    assert calls == ([{"freezing": True}, {}] if compiled else [])
