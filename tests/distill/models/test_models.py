"""Test networks: the same checks for every network, and the numbers of parameters in the literature."""

import pytest
import torch
import torchvision

from distill.errors import DistillError
from distill.models import build_model, require_size

ALL = (
    *(
        "resnet8",
        "resnet20",
        "resnet32",
        "resnet44",
        "resnet56",
        "wrn-16-4",
        "wrn-40-4",
        "vgg16-bn",
        "vgg19-bn",
    ),
    *("resnet20-b", "resnet8x4", "resnet18-8x", "resnet50-8x", "wrn-16-2-raw", "vgg13-bn-avg", "vgg11-bn-512"),
    *("torchvision/resnet18", "torchvision/mobilenet_v3_small", "torchvision/googlenet", "torchvision/inception_v3"),
    *("torchvision/regnet_y_400mf", "torchvision/squeezenet1_1"),
)


@pytest.mark.parametrize("arch", ALL)
def test_conformance(arch: str) -> None:
    """Every network returns finite float32 logits, also under autocast, and every parameter has a gradient."""
    model = build_model(arch, 7).to(memory_format=torch.channels_last).eval()
    size = 75 if arch.endswith("inception_v3") else 32
    x = torch.randn(2, 3, size, size)
    with torch.inference_mode():
        logits = model(x)
        assert logits.shape == (2, 7) and logits.dtype == torch.float32
        assert torch.isfinite(logits).all()
        assert torch.allclose(model(x[:1]), logits[:1], rtol=1e-3, atol=1e-4 * float(logits.abs().max()))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert model(x).shape == (2, 7)
    model.train()
    model(x).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize(
    ("arch", "classes", "parameters"),
    [
        # He et al. 2016, table 6: 0.27, 0.46, 0.66 and 0.85 million. These are networks with option-A shortcuts.
        ("resnet20", 10, 269_722),
        ("resnet32", 10, 464_154),
        ("resnet44", 10, 658_586),
        ("resnet56", 10, 853_018),
        # Zagoruyko & Komodakis: 2.7 and 8.9 million. Other papers: 2,255,156 for WRN-40-2.
        ("wrn-40-2", 100, 2_255_156),
        ("wrn-16-4", 10, 2_748_890),
        ("wrn-16-4-raw", 10, 2_748_890),
        # Option B adds a 1×1 convolution and a batch norm to two blocks: 16 × 32 + 64 and 32 × 64 + 128 numbers.
        ("resnet56-b", 10, 855_770),
        ("resnet32x4", 100, 7_433_860),
        ("resnet18-8x", 10, 11_173_962),
        ("resnet50-8x", 10, 23_520_842),
        ("vgg16-bn-512", 100, 15_299_748),
        ("vgg13-bn-avg", 100, 9_462_180),
        ("wrn-40-4", 10, 8_949_210),
        ("vgg16-bn", 10, 14_728_266),
        ("vgg19-bn", 10, 20_040_522),
        ("torchvision/resnet18", 1000, 11_689_512),
    ],
)
def test_number_of_parameters(arch: str, classes: int, parameters: int) -> None:
    assert sum(p.numel() for p in build_model(arch, classes).parameters()) == parameters


@pytest.mark.parametrize("name", torchvision.models.list_models(module=torchvision.models))
def test_every_classification_model_of_torchvision(name: str) -> None:
    require_size(f"torchvision/{name}", 7, 224)


@pytest.mark.parametrize(("name", "least"), [("googlenet", 15), ("inception_v3", 75)])
def test_the_smallest_images(name: str, least: int) -> None:
    """An image that is too small for a network is refused."""
    require_size(f"torchvision/{name}", 7, least)
    with pytest.raises(DistillError, match=f"{name}': does not accept images of {least - 1} px: "):
        require_size(f"torchvision/{name}", 7, least - 1)


def test_names_are_those_of_published_checkpoints() -> None:
    resnet = build_model("resnet20", 10).state_dict()
    assert {
        "conv1.weight",
        "bn1.running_var",
        "layer1.0.conv1.weight",
        "layer3.2.bn2.bias",
        "linear.bias",
    } < set(resnet)
    assert not any("shortcut" in name for name in resnet)
    wrn = set(build_model("wrn-16-4", 10).state_dict())
    assert {"conv1.weight", "block1.layer.0.bn1.weight", "block2.layer.0.convShortcut.weight", "fc.bias"} < wrn


def test_the_option_a_shortcut() -> None:
    """An option-A shortcut uses every second pixel and pads the channels with zeros."""
    block = build_model("resnet8", 2).layer2[0].eval()
    torch.nn.init.zeros_(block.conv2.weight)
    x = torch.rand(1, 16, 8, 8)
    out = block(x)
    assert torch.equal(out[:, 8:24], x[:, :, ::2, ::2])
    assert out[:, :8].abs().sum() == out[:, 24:].abs().sum() == 0


@pytest.mark.parametrize(
    ("arch", "part"),
    [
        ("resnet21", "6n \\+ 2 layers"),
        ("resnet18", "use resnet18-8x"),
        ("resnet20-8x", "18, 34, 50, 101 or 152 layers"),
        ("vgg16-bn-0", "did you mean 'vgg16-bn'"),
        ("wrn-17-4", "6n \\+ 4 layers"),
        ("vgg12-bn", "11, 13, 16 or 19"),
        ("resnet_20", "did you mean 'resnet20'"),
        ("wrn_40_4", "did you mean 'wrn-40-4'"),
        ("torchvision/resnet5O", "did you mean 'torchvision/resnet50'"),
        ("alexnett", "unknown network"),
    ],
)
def test_names_of_no_network(arch: str, part: str) -> None:
    with pytest.raises(DistillError, match=part):
        build_model(arch, 10)
