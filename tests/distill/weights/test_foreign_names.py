"""Test checkpoints of other repositories: our network and the original network compute the same logits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from distill.commands.evaluate import load_network
from distill.errors import DistillError
from distill.models import build_model
from distill.targets.teacher import TeacherConfig, load_teacher
from distill.weights.foreign_names import to_our_names
from tests.helpers.foreign_imagenet import Resnet8x
from tests.helpers.foreign_networks import BlockVgg, CifarResnet, Vgg, WideResnet

CPU = torch.device("cpu")
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.201)
State = dict[str, torch.Tensor]


def alive(model: nn.Module) -> nn.Module:
    """Fill every batch norm with different random numbers, and return the model in eval mode.

    If the loaded network lacks a batch norm or has another order of batch norms, the logits differ.
    """
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            module.num_batches_tracked.fill_(7)
    return model.eval()


def load(path: Path, arch: str, num_classes: int = 10) -> nn.Module:
    config = TeacherConfig(arch=arch, num_classes=num_classes, weights=path, mean=MEAN, std=STD)
    return load_teacher(config, CPU).model


def parallel(state: State) -> State:
    return {f"module.{name}": value for name, value in state.items()}


def before_counters(state: State) -> State:
    """Remove the counters ``num_batches_tracked``, which torch before 0.4.1 did not write."""
    return {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}


def bare(state: State) -> Any:
    return state


def akamaster(state: State) -> Any:
    return {"state_dict": parallel(before_counters(state)), "best_prec1": 93.39}


def repdistiller(state: State) -> Any:
    return {
        "epoch": 240,
        "model": state,
        "best_acc": torch.tensor(72.3),
        "optimizer": {"param_groups": [{"lr": 0.1}]},
    }


def kuangliu(state: State) -> Any:
    return {"net": parallel(state), "acc": 95.2, "epoch": 199}


def bearpaw(state: State) -> Any:
    return {"epoch": 164, "state_dict": parallel(state), "acc": 94.0, "best_acc": 94.1, "optimizer": {"state": {}}}


def xternalz(state: State) -> Any:
    return {"epoch": 200, "state_dict": state, "best_prec1": torch.tensor(96.0)}


def compiled(state: State) -> Any:
    return {"model_state_dict": {f"_orig_mod.{name}": value for name, value in state.items()}, "epoch": 3}


def down(**changes: Any) -> nn.Module:
    return CifarResnet("downsample", "fc", **changes)


# Architecture, original network, and form of the file. The comments name the authors or repositories of such files.
CASES: list[tuple[str, Callable[[], nn.Module], Callable[[State], Any]]] = [
    ("resnet14", lambda: CifarResnet("shortcut", "linear", pad=True), akamaster),
    ("resnet14-b", lambda: CifarResnet("shortcut", "linear"), akamaster),
    ("resnet14-b", down, bare),  # chenyaofo, torchdistill
    ("resnet14-b", down, repdistiller),
    ("resnet14-b", down, bearpaw),
    ("resnet14-b", down, compiled),
    ("resnet14x4", lambda: down(channels=(32, 64, 128, 256)), repdistiller),
    ("wrn-16-1", lambda: WideResnet(1, raw=False), xternalz),  # also polo5 and CMI
    ("wrn-16-2", lambda: WideResnet(2, raw=False), repdistiller),
    ("wrn-16-1-raw", lambda: WideResnet(1, raw=True), bare),  # torchdistill
    ("wrn-16-2-raw", lambda: WideResnet(2, raw=True), bare),
    ("vgg11-bn", lambda: Vgg(None), kuangliu),
    ("vgg11-bn-512", lambda: Vgg(512), bare),  # chenyaofo
    ("vgg11-bn-96", lambda: Vgg(96), bare),  # weiaicunzai, but with 96 units instead of 4096
    ("vgg11-bn-avg", BlockVgg, repdistiller),
    ("resnet18-8x", lambda: Resnet8x(18, row=False), kuangliu),  # also CMI
    ("resnet50-8x", lambda: Resnet8x(50, row=False), repdistiller),
    ("resnet18-8x", lambda: Resnet8x(18, row=True), bare),  # weiaicunzai
    ("resnet50-8x", lambda: Resnet8x(50, row=True), bare),
]


@pytest.mark.parametrize(("arch", "make", "wrap"), CASES, ids=[f"{case[0]}-{case[2].__name__}" for case in CASES])
def test_a_published_network_computes_what_it_did(
    tmp_path: Path, arch: str, make: Callable[[], nn.Module], wrap: Callable[[State], Any]
) -> None:
    foreign = alive(make())
    torch.save(wrap(foreign.state_dict()), tmp_path / "t.pth", _use_new_zipfile_serialization=wrap is not akamaster)
    ours = load(tmp_path / "t.pth", arch)
    x = torch.randn(3, 3, 32, 32)
    with torch.inference_mode():
        expected = foreign(x)
        assert expected.std() > 1e-3
        torch.testing.assert_close(ours(x), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "mnasnet0_5"])
def test_old_torchvision_files(tmp_path: Path, name: str) -> None:
    """Old files of torchvision are loaded.

    Old files of DenseNet have old names. No old file has counters. torchvision's MNASNet needs a version in the file.
    """
    foreign = alive(torchvision.models.get_model(name, weights=None, num_classes=10))
    state = before_counters(foreign.state_dict())
    if name == "densenet121":
        for part in ("norm", "conv"):
            for number in "12":
                state = {
                    key.replace(f".{part}{number}.", f".{part}.{number}.") if "denselayer" in key else key: value
                    for key, value in state.items()
                }
        assert "features.denseblock1.denselayer1.norm.1.weight" in state
    torch.save(state, tmp_path / "t.pth")
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected = foreign(x)
        torch.testing.assert_close(load(tmp_path / "t.pth", f"torchvision/{name}")(x), expected)


@pytest.mark.parametrize("heads", [True, False])
@pytest.mark.parametrize(("name", "size"), [("googlenet", 64), ("inception_v3", 80)])
def test_networks_with_auxiliary_heads(tmp_path: Path, name: str, size: int, heads: bool) -> None:
    """GoogLeNet and Inception v3 are loaded with and without auxiliary heads.

    torchvision's own files contain the heads. With ``weights=``, torchvision normalizes the input a second time.
    """
    options = {"aux_logits": heads, "transform_input": True, "init_weights": False}
    foreign = alive(torchvision.models.get_model(name, weights=None, num_classes=10, **options))
    state = foreign.state_dict()
    assert any("aux" in key.lower() for key in state) == heads
    torch.save(before_counters(state), tmp_path / "t.pth")
    ours = load(tmp_path / "t.pth", f"torchvision/{name}")
    x = torch.randn(2, 3, size, size)
    with torch.inference_mode():
        torch.testing.assert_close(ours(x), foreign(x))
    assert load_network(tmp_path / "t.pth", f"torchvision/{name}", MEAN, STD, CPU).num_classes == 10


def test_auxiliary_heads_of_other_networks_are_unknown(tmp_path: Path) -> None:
    """Auxiliary heads are ignored only if the network has auxiliary heads."""
    state = build_model("torchvision/resnet18", 10).state_dict()
    torch.save(state | {"aux1.weight": torch.zeros(1), "AuxLogits.weight": torch.zeros(1)}, tmp_path / "t.pth")
    with pytest.raises(DistillError, match=r"AuxLogits\.weight \(and 1 more\) is unknown"):
        load(tmp_path / "t.pth", "torchvision/resnet18")


def test_old_names_of_vision_transformers() -> None:
    """Old names of vision transformers are read as torchvision reads them."""
    sizes = {"image_size": 32, "patch_size": 16, "num_layers": 2, "num_heads": 2, "hidden_dim": 8, "mlp_dim": 16}
    first, second = (torchvision.models.VisionTransformer(**sizes, num_classes=4).state_dict() for _ in range(2))
    old = {key.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."): v for key, v in first.items()}
    assert old.keys() != first.keys()
    ours = to_our_names(old, "torchvision/vit_b_16", second)
    theirs = torchvision.models.VisionTransformer(**sizes, num_classes=4)
    theirs.load_state_dict(old)
    assert ours.keys() == theirs.state_dict().keys()
    assert all(torch.equal(ours[key], value) for key, value in theirs.state_dict().items())


@pytest.mark.parametrize(
    ("held", "make", "said"),
    [
        ("resnet14-b", down, "resnet14"),
        ("resnet14", lambda: CifarResnet("shortcut", "linear", pad=True), "resnet14-b"),
        ("resnet14x4", lambda: down(channels=(32, 64, 128, 256)), "resnet14-b"),
        ("wrn-16-2-raw", lambda: WideResnet(2, raw=True), "wrn-16-2"),
        ("wrn-16-2", lambda: WideResnet(2, raw=False), "wrn-16-2-raw"),
        ("vgg11-bn-avg", BlockVgg, "vgg11-bn"),
        ("vgg11-bn", lambda: Vgg(None), "vgg11-bn-avg"),
        ("vgg11-bn-512", lambda: Vgg(512), "vgg11-bn"),
        ("resnet18-8x", lambda: Resnet8x(18, row=False), "torchvision/resnet18"),
        ("resnet50-8x", lambda: Resnet8x(50, row=True), "resnet50"),
    ],
)
def test_the_wrong_variant_is_named(tmp_path: Path, held: str, make: Callable[[], nn.Module], said: str) -> None:
    torch.save(make().state_dict(), tmp_path / "t.pth")
    with pytest.raises(DistillError) as caught:
        load(tmp_path / "t.pth", said)
    expected = f"{tmp_path}/t.pth: contains a {held}, but arch is {said}; use --set teacher.arch={held}"
    assert str(caught.value) == expected


def test_classes_are_counted_under_foreign_names(tmp_path: Path) -> None:
    torch.save(down().state_dict(), tmp_path / "t.pth")
    with pytest.raises(DistillError, match="has 10 classes, but num_classes is 100"):
        load(tmp_path / "t.pth", "resnet14-b", 100)


def test_names_that_two_networks_share_are_refused(tmp_path: Path) -> None:
    """A ResNet with torchvision's names and a 3×3 stem is refused.

    The names do not show whether a pooling layer follows the stem. One repository has this layer, others do not.
    """
    model = torchvision.models.resnet18(num_classes=10)
    model.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    torch.save(model.state_dict(), tmp_path / "t.pth")
    with pytest.raises(
        DistillError, match=r"is not a resnet18-8x: .* is missing, the parameter fc\.bias .*is unknown"
    ):
        load(tmp_path / "t.pth", "resnet18-8x")
    with pytest.raises(DistillError, match=r"torchvision/resnet18: the parameter conv1\.weight has another shape"):
        load(tmp_path / "t.pth", "torchvision/resnet18")


def test_names_of_nobody_are_refused(tmp_path: Path) -> None:
    """Names of no known repository are refused. Two names for one tensor are refused too."""
    state = down().state_dict()
    state["layer4.0.conv1.weight"] = torch.zeros(1)
    torch.save(state, tmp_path / "t.pth")
    with pytest.raises(
        DistillError, match=r"is not a resnet14-b: .* is missing, the parameter fc\.bias .*is unknown"
    ):
        load(tmp_path / "t.pth", "resnet14-b")
    collides = down().state_dict()
    collides["linear.bias"] = collides["fc.bias"]
    torch.save(collides, tmp_path / "t.pth")
    with pytest.raises(DistillError, match="is not a resnet14-b"):
        load(tmp_path / "t.pth", "resnet14-b")


def test_our_own_files_are_taken_at_their_word(tmp_path: Path) -> None:
    """If the metadata of a file names the network, no tensor is renamed."""
    import safetensors.torch

    metadata = {"arch": "resnet14-b", "num_classes": "10"}
    safetensors.torch.save_file(down().state_dict(), tmp_path / "t.safetensors", metadata)
    with pytest.raises(
        DistillError, match=r"is not a resnet14-b: .* is missing, the parameter fc\.bias .*is unknown"
    ):
        load(tmp_path / "t.safetensors", "resnet14-b")


def test_foreign_names_in_safetensors(tmp_path: Path) -> None:
    import safetensors.torch

    foreign = alive(down())
    safetensors.torch.save_file(foreign.state_dict(), tmp_path / "t.safetensors", {"format": "pt"})
    x = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(load(tmp_path / "t.safetensors", "resnet14-b")(x), foreign(x))


def test_counters_are_all_that_may_be_missing(tmp_path: Path) -> None:
    state = before_counters(build_model("resnet8", 4).state_dict())
    torch.save(state, tmp_path / "t.pth")
    assert int(load(tmp_path / "t.pth", "resnet8", 4).bn1.num_batches_tracked) == 0
    del state["bn1.running_var"]
    torch.save(state, tmp_path / "t.pth")
    with pytest.raises(DistillError, match=r"is not a resnet8: the parameter bn1\.running_var is missing;"):
        load(tmp_path / "t.pth", "resnet8", 4)
