"""Test how evaluation images are resized and cropped: ``eval.transform`` and ``distill eval --transform``."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

import distill
from distill.augment import normalize
from distill.data.fit import parse_transform, read_transform
from distill.data.labelled import load_labelled
from distill.errors import DistillError
from distill.models import build_model
from distill.weights.files import save_weights
from tests.conftest import Program, assert_one_line
from tests.helpers.running import same

timm = pytest.importorskip("timm")
PHOTO = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(8):
        path = tmp_path / "photos" / str(number % 4) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40 + number, 50, 3), dtype=np.uint8)).save(path)
    return tmp_path / "photos"


@pytest.mark.parametrize("name", ["resnet50", "inception_v3", "swin_t"])
def test_the_transform_of_torchvision(name: str) -> None:
    preset = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    fit = parse_transform("torchvision", "x").fit(f"torchvision/{name}", "x")
    own = normalize(torch.from_numpy(fit(PHOTO)[None].copy()), tuple(preset.mean), tuple(preset.std))
    torch.testing.assert_close(own[0], preset(Image.fromarray(PHOTO)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["resnet18", "vit_base_patch16_224", "eva02_base_patch14_448"])
def test_the_transform_of_timm(name: str) -> None:
    config = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    fit = parse_transform("timm", "x").fit(f"timm/{name}", "x")
    own = normalize(torch.from_numpy(fit(PHOTO)[None].copy()), config["mean"], config["std"])
    expected = timm.data.create_transform(**config)(Image.fromarray(PHOTO))
    torch.testing.assert_close(own[0], expected, rtol=0, atol=1e-6)


def test_a_given_transform(photos: Path) -> None:
    fit = read_transform("{resize: 36, crop: 32, interpolation: bicubic}", "x").fit("resnet8", "x")
    data = load_labelled(photos, fit)
    first = np.asarray(Image.open(photos / "0" / "0.png").resize((45, 36), Image.Resampling.BICUBIC))
    assert np.array_equal(data.images[0].numpy(), first[2:34, 6:38]) and "resized to 32 px" in str(data)
    assert fit.text == "resize 36, crop 32, bicubic"


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("tv", "like: Input should be 'torchvision' or 'timm', got 'tv'"),
        ({"resize": 256}, "crop is missing"),
        ({"crop": 32, "resize": 20}, "resize is 20, expected at least crop"),
        ({"crop": 32, "size": 20}, "unknown key 'size'"),
        ({"like": "timm", "crop": 32}, "like and crop are both set"),
        ({"crop": 32, "interpolation": "lanczos"}, "interpolation"),
        (5, "is int, expected 'torchvision', 'timm' or a dict"),
    ],
)
def test_bad_transforms(value: Any, found: str) -> None:
    with pytest.raises(DistillError, match=found) as error:
        parse_transform(value, "transform")
    assert str(error.value).startswith("transform: ") and "\n" not in str(error.value)


def test_transforms_of_other_networks(run_distill: Program, teacher_path: Path, photos: Path) -> None:
    base = ["eval", "--weights", teacher_path, "--data", photos, "--transform"]
    assert_one_line(run_distill(*base, "torchvision"), "is no network of torchvision; set resize and crop instead")
    assert_one_line(run_distill(*base, "timm"), "is no network of timm")
    assert_one_line(run_distill(*base, "{crop: "), "--transform")
    assert run_distill(*base, "timm", "--size", 32).status == 2


def test_a_transform_of_a_run(
    run_distill: Program, arguments: list[Any], teacher_path: Path, eval_path: Path, photos: Path, tmp_path: Path
) -> None:
    plain, out = tmp_path / "plain", tmp_path / "run"
    assert run_distill(*arguments, plain).status == 0
    transform = "{resize: 40, crop: 32}"
    more = ["--set", f"eval.transform={transform}", "--eval", f"photos={photos}"]
    result = run_distill(*arguments, out, *more)
    assert result.status == 0 and same(plain, out), result
    summary, before = (json.loads((each / "summary.json").read_text()) for each in (out, plain))
    assert summary["config_sha256"] == before["config_sha256"] and "eval_transform" not in before
    assert summary["eval_transform"] == "resize 40, crop 32, bilinear"
    base = ["eval", "--weights", out / "student.safetensors", "--json", "--transform", transform, "--data"]
    assert json.loads(run_distill(*base, photos).out)["top1"] == summary["evaluations"]["photos"]["student_top1"]
    direct = json.loads(run_distill(*base, eval_path, "--teacher", teacher_path).out)
    assert (direct["top1"], direct["kl_to_teacher"]) == (
        summary["student_top1"],
        pytest.approx(summary["kl_to_teacher"]),
    )
    python = distill.evaluate(out / "student.safetensors", photos, transform={"resize": 40, "crop": 32}, device="cpu")
    assert python["top1"] == summary["evaluations"]["photos"]["student_top1"]
    for wrong, found in (("torchvision", "eval.transform torchvision: "), ("{crop: 5}", "eval.transform.crop")):
        refused = run_distill(*arguments, tmp_path / "x", "--set", f"eval.transform={wrong}", "-q")
        assert_one_line(refused, found)


def test_a_torchvision_network_with_its_own_transform(run_distill: Program, photos: Path, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    arch = "torchvision/mobilenet_v3_small"
    save_weights(path, build_model(arch, 4), arch=arch, num_classes=4, mean=MEAN, std=STD)
    result = run_distill("eval", "--weights", path, "--data", photos, "--transform", "torchvision")
    assert result.status == 0 and "resized to 224 px" in result.out


@pytest.mark.parametrize("transform", [None, "{resize: 256, crop: 224}"])
def test_an_image_that_is_too_long(tmp_path: Path, transform: str | None) -> None:
    """Resized to a short side of 256 px, this image would need a gigabyte."""
    for name, shape in {"0/long.png": (1, 5000, 3), "1/good.png": (300, 300, 3)}.items():
        (tmp_path / name).parent.mkdir()
        Image.fromarray(np.zeros(shape, dtype=np.uint8)).save(tmp_path / name)
    size = 224 if transform is None else read_transform(transform, "transform").fit("resnet8", "transform")
    line = "the image is 5000×1 px, and has 1280000 px on the long side if resized to 256 px, expected at most 131072"
    with pytest.raises(DistillError, match=rf"0/long\.png: {line}; crop the image"):
        load_labelled(tmp_path, size)
    with pytest.raises(DistillError, match=rf"data set builtins:list\[0\]: {line}"):
        load_labelled([(np.zeros((1, 5000, 3), dtype=np.uint8), 0)], size)
