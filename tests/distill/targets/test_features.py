"""Test feature losses: their values, the outputs of modules, projections, and what cannot be compared."""

import copy
import dataclasses
import types
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import distill
from distill.data.batches import Batch
from distill.errors import DistillError
from distill.models import build_model
from distill.models.features import WithFeatures, last_map
from distill.runtime.compile import Accelerator, make_accelerator
from distill.runtime.distributed import RunContext
from distill.targets.features import FeatureLossConfig, FeatureMatch, feature_loss, match_features
from distill.targets.targets import feature_targets
from distill.weights.files import save_weights


def term(student: str, teacher: str, **keys: Any) -> FeatureLossConfig:
    return FeatureLossConfig.model_validate({"name": "features", "student": student, "teacher": teacher} | keys)


def match(terms: list[FeatureLossConfig], student: nn.Module, teacher: nn.Module, size: int = 32) -> FeatureMatch:
    return match_features(terms, student, teacher.eval(), (size, size), 0)


class InPlace(nn.Module):
    """A network whose activations change the output of the module before them."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten())
        self.linear = nn.Linear(4 * 36, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.body(x))


class Tokens(nn.Module):
    """A network with tokens (B, positions, channels). A module of it returns a tuple."""

    def __init__(self, channels: int, patch: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, channels, patch, stride=patch)
        self.mixing = nn.MultiheadAttention(channels, 2, batch_first=True)
        self.unused, self.linear = nn.Identity(), nn.Linear(channels, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        return self.linear(self.mixing(tokens, tokens, tokens)[0].mean(1))


class Branches(nn.Module):
    """A network with modules that are called for evaluations only, or without a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 8, 3), nn.Linear(8, 5)
        self.detached, self.numbers, self.evaluated = nn.Identity(), nn.Identity(), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        self.detached(x.detach())
        self.numbers(x.long())
        x = x if self.training else self.evaluated(x)
        return self.linear(x.mean((2, 3)))


def test_a_module_that_a_step_does_not_call_is_one_line() -> None:
    wrapped = match([term("evaluated", "layer3")], Branches(), build_model("resnet8", 5)).student
    with pytest.raises(DistillError, match="the module 'evaluated' was not called in a step; name a module"):
        wrapped(torch.randn(2, 3, 32, 32))


def test_each_kind_has_its_formula() -> None:
    a, b = torch.randn(2, 3, 4, 5, 5)
    assert torch.allclose(feature_loss("mse", a, b), ((a - b) ** 2).mean())
    cosine = torch.stack([F.cosine_similarity(a[:, :, y, x], b[:, :, y, x]) for y in range(5) for x in range(5)])
    assert torch.allclose(feature_loss("cosine", a, b), 1 - cosine.mean())
    maps = [x.square().mean(1).flatten(1) for x in (a, b)]
    q, p = (x / x.norm(dim=1, keepdim=True) for x in maps)
    assert torch.allclose(feature_loss("attention", a, b), 2 - 2 * (q * p).sum(1).mean(), atol=1e-6)
    tokens = [x.flatten(2).transpose(1, 2) for x in (a, b)]
    for kind in ("mse", "cosine", "attention"):
        assert torch.allclose(feature_loss(kind, *tokens), feature_loss(kind, a, b), atol=1e-6), kind
        assert abs(float(feature_loss(kind, a, a))) < 1e-6


def test_features_are_outputs_of_modules_before_later_layers_change_them() -> None:
    network = InPlace()
    x = torch.randn(2, 3, 8, 8)
    wrapped = match([term("body.0", "body.0"), term("body.1", "body.1")], network, InPlace(), 8).student
    logits, conv, norm = wrapped(x)
    own = network.body[0](x)
    assert torch.equal(conv, own) and torch.equal(norm, network.body[1](own)) and bool((norm < 0).any())
    assert torch.equal(logits, network(x)) and wrapped._found.outputs is None
    copied = copy.deepcopy(network)
    copied(x)  # such as the moving average in an evaluation
    assert wrapped._found.outputs is None


@pytest.mark.parametrize("names", [("layer1", "layer3"), ("conv1", "layer2.0.bn1"), ("layer2.0.conv1", "bn1")])
def test_a_teacher_with_folded_batch_norms_keeps_its_modules(names: tuple[str, str]) -> None:
    teacher = build_model("resnet8", 4)
    teacher(torch.randn(64, 3, 32, 32))
    x = torch.randn(4, 3, 32, 32)
    found = match([term(name, name) for name in names], build_model("resnet8", 4), teacher)
    accelerator = Accelerator(
        context=RunContext(device=torch.device("cpu")), precision="fp32", compile="off", steps=10
    )
    outputs = accelerator.frozen(teacher, x, found.names, found.adapters).outputs(x)
    assert "BatchNorm2d" not in {
        type(m).__name__ for m in accelerator.frozen(teacher, x, ("layer3",)).folded.modules()
    }
    with torch.no_grad():
        expected = WithFeatures(teacher, names, [nn.Identity(), nn.Identity()])(x)
    for own, other in zip(outputs, expected, strict=True):
        assert torch.allclose(own, other, atol=1e-5)


@pytest.mark.parametrize(
    ("keys", "shape", "projection"),
    [
        ({}, (2, 64, 8, 8), nn.Conv2d),
        ({"pooled": True}, (2, 64), nn.Linear),
        ({"kind": "attention"}, (2, 32, 8, 8), type(None)),
    ],
)
def test_sizes_are_pooled_and_channels_are_projected(keys: Any, shape: tuple[int, ...], projection: type) -> None:
    found = match([term("layer2", "layer3", **keys)], build_model("resnet8", 4), build_model("resnet14", 4))
    feature = found.student(torch.randn(2, 3, 32, 32))[1]
    assert feature.shape == shape and type(found.student.adapters[0].projection) is projection
    assert not list(found.adapters[0].parameters())


def test_projections_depend_on_the_seed_only() -> None:
    networks = build_model("resnet8", 4), build_model("resnet14", 4)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = match_features([term("layer2", "layer3")], networks[0], networks[1].eval(), (32, 32), 0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again, other = (
        match_features([term("layer2", "layer3")], networks[0], networks[1].eval(), (32, 32), seed) for seed in (0, 1)
    )
    weights = [next(each.student.adapters.parameters()) for each in (first, again, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_tokens_are_compared() -> None:
    found = match([term("mixing", "mixing")], Tokens(4, 8), Tokens(6, 8))
    assert found.student(torch.randn(2, 3, 32, 32))[1].shape == (2, 16, 6)
    pooled = match([term("mixing", "layer3", pooled=True)], Tokens(4, 8), build_model("resnet8", 5))
    assert pooled.student(torch.randn(2, 3, 32, 32))[1].shape == (2, 64)


@pytest.mark.parametrize(
    ("one", "student", "teacher", "parts"),
    [
        (term("layer4", "layer3"), "resnet8", "resnet8", ("the student has no module 'layer4'", "'layer3'")),
        (term("layer3", "zzz"), "resnet8", "resnet8", ("the teacher has no module 'zzz'", "it has conv1, bn1")),
        (term("layer3", "mixing"), "resnet8", Tokens(4, 8), ("(2, 64, 8, 8)", "(2, 16, 4)", "pooled: true")),
        (term("mixing", "mixing"), Tokens(4, 8), Tokens(4, 16), ("(2, 16, 4)", "(2, 4, 4)", "pooled: true")),
        (term("linear", "linear", kind="attention"), "resnet8", "resnet8", ("needs positions",)),
        (term("detached", "layer3"), Branches(), "resnet8", ("'detached' of the student", "without a gradient")),
        (term("numbers", "layer3"), Branches(), "resnet8", ("'numbers' of the student returns a torch.int64",)),
        (term("layer3", "numbers"), "resnet8", Branches(), ("'numbers' of the teacher returns a torch.int64",)),
        (term("unused", "mixing"), Tokens(4, 8), Tokens(4, 8), ("'unused' of the student is not called",)),
    ],
)
def test_what_cannot_be_compared_is_one_line(one: Any, student: Any, teacher: Any, parts: tuple[str, ...]) -> None:
    networks = [build_model(each, 5) if isinstance(each, str) else each for each in (student, teacher)]
    with pytest.raises(DistillError) as caught:
        match([one], *networks)
    assert "\n" not in str(caught.value) and all(part in str(caught.value) for part in parts), caught.value


def test_features_of_a_teacher_with_its_own_input_are_those_of_its_images(tmp_path: Path) -> None:
    torch.manual_seed(1)
    student, model = build_model("resnet8", 4), build_model("resnet8", 4).eval()
    save_weights(tmp_path / "t.safetensors", model, arch="resnet8", num_classes=4, mean=(0.5,) * 3, std=(0.2,) * 3)
    teacher = dataclasses.replace(distill.load_network(tmp_path / "t.safetensors"), size=16)
    matched = match_features([term("layer2", "layer3")], student, teacher.model, (32, 16), 0)
    x = torch.randn(4, 3, 32, 32)
    view: Any = types.SimpleNamespace(size=32, example=lambda: x)
    accelerator = make_accelerator(RunContext(device=torch.device("cpu")), "fp32", "off", 10)
    normalization = ((0.4,) * 3, (0.25,) * 3)
    targets = feature_targets(teacher, matched, normalization, view, accelerator)
    logits, feature = targets(cast(Batch, None), x)
    images = F.interpolate((x * 0.25 + 0.4 - 0.5) / 0.2, size=(16, 16), mode="bilinear", antialias=True)
    with torch.no_grad():
        assert torch.allclose(logits, model(images), atol=1e-4)
        (expected,) = features_of_images(model, "layer3", images)
    assert feature.shape == (4, 64, 4, 4) and torch.allclose(feature, expected, atol=1e-4)


def features_of_images(model: nn.Module, name: str, images: Tensor) -> list[Tensor]:
    found: list[Tensor] = []
    handle = model.get_submodule(name).register_forward_hook(lambda module, given, output: found.append(output))
    model(images)
    handle.remove()
    return found


@pytest.mark.parametrize(
    ("arch", "size", "name"),
    [
        ("resnet20", 32, "layer3"),
        ("wrn-16-1", 32, "bn1"),
        ("vgg16-bn", 32, "features.42"),
        ("torchvision/resnet18", 64, "layer4"),
        ("torchvision/mobilenet_v3_small", 64, "features"),
    ],
)
def test_the_default_module_is_the_last_with_several_positions(arch: str, size: int, name: str) -> None:
    assert last_map(build_model(arch, 10).eval(), size, "student") == name


def test_a_network_without_positions_has_no_default_module() -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4))
    with pytest.raises(DistillError, match=r"no module of the teacher has .*; name a module: \{name: features, st"):
        last_map(flat, 8, "teacher")
