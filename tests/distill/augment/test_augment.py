"""Test batch augmentation: compare the results with slow code for one image, and with torchvision."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as TF
from pydantic import ValidationError

from distill.augment import AugmentConfig, Draws, augment, draw, normalize, view_version
from distill.augment.color import draw_color
from distill.augment.geometry import ResizedCrop, Shift, draw_resized_crop
from distill.augment.mix import CutMix, MixUp
from distill.runtime.randomness import Stream

IMAGES = torch.randint(1, 256, (6, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
PLAIN = {"flip": False, "pad_crop": 0, "cutmix_alpha": 0}
IMAGENET = {
    "pad_crop": 0,
    "resized_crop": [0.08, 1],
    "jitter": {"p": 0.8, "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.4},
    "grayscale": 0.2,
    "solarize": 0.2,
    "cutmix_alpha": 1,
}


def stream(seed: int) -> Stream:
    return Stream(seed, "augment", 0)


def config_of(**values: object) -> AugmentConfig:
    return AugmentConfig.model_validate(values)


def crop_of(area: tuple[float, float], size: int, *, flip: bool = True) -> AugmentConfig:
    return config_of(pad_crop=0, resized_crop=area, size=size, flip=flip)


def slow(images: torch.Tensor, config: AugmentConfig, seed: int) -> torch.Tensor:
    """Return the augmented images, computed pixel by pixel: first flip and crop, then CutMix."""
    draws = draw(config, len(images), 16, stream(seed))
    assert isinstance(draws.crop, Shift)
    rows, columns = draws.crop.pixels(16, images.device)
    out = torch.zeros_like(images)
    for b, image in enumerate(images):
        for y in range(16):
            for x in range(16):
                row = int(rows[b, y]) - config.pad_crop
                column = int(columns[b, x]) - config.pad_crop
                if 0 <= row < 16 and 0 <= column < 16:
                    out[b, y, x] = image[row, column]
    if draws.mix is None:
        return out
    assert isinstance(draws.mix, CutMix)
    mixed = out.clone()
    for b in range(len(out)):
        top, bottom, left, right = draws.mix.boxes[b % len(draws.mix.boxes)]
        mixed[b, top:bottom, left:right] = out[len(out) - 1 - b, top:bottom, left:right]
    return mixed


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "config",
    [
        config_of(),
        config_of(**PLAIN),
        config_of(cutmix_alpha=1.0),
        config_of(cutmix_alpha=1.0, cutmix_box="sample"),
        config_of(flip=True, pad_crop=0, cutmix_alpha=0),
    ],
)
def test_against_slow_code(config: AugmentConfig, seed: int) -> None:
    before = IMAGES.clone()
    result = augment(IMAGES, draw(config, len(IMAGES), 16, stream(seed)))
    assert result.dtype == torch.uint8 and torch.equal(result, slow(IMAGES, config, seed))
    assert torch.equal(IMAGES, before)


def test_nothing_asked_nothing_done() -> None:
    """A config without augmentation leaves the images unchanged."""
    assert torch.equal(augment(IMAGES, draw(config_of(**PLAIN), 6, 16, stream(0))), IMAGES)


def test_a_flip_mirrors_half_of_the_images() -> None:
    images = IMAGES[:1].expand(2000, -1, -1, -1)
    for extra in ({}, {"resized_crop": (1, 1)}):
        config = config_of(**PLAIN | {"flip": True} | extra)
        out = augment(images, draw(config, 2000, 16, stream(0))).float()
        same = ((out - IMAGES[:1]).abs() < 0.01).flatten(1).all(dim=1)
        mirrored = ((out - IMAGES[:1].flip(2)).abs() < 0.01).flatten(1).all(dim=1)
        if not extra:
            assert (same ^ mirrored).all()
        assert 0.4 < mirrored.double().sum() / (same | mirrored).double().sum() < 0.6


def test_cutmix_boxes_have_the_area_of_the_paper() -> None:
    config = config_of(cutmix_alpha=0.25)
    kept = [draw(config, 2, 32, Stream(0, "augment", step)).mix.kept(2, 32)[0] for step in range(4000)]
    areas = 1 - np.array(kept)
    # Most values of Beta(1/4, 1/4) are near 0 or 1. Boxes are cut at the border, so large areas are rarer.
    assert 0.2 < (areas < 0.05).mean() < 0.35 and 0.2 < np.median(areas) < 0.32 and areas.max() > 0.8


@pytest.mark.parametrize("box", ["batch", "sample"])
def test_what_is_kept_is_counted_in_pixels(box: str) -> None:
    """``CutMix.kept`` returns the share of its own pixels that each image keeps."""
    config = config_of(**PLAIN | {"cutmix_alpha": 1, "cutmix_box": box})
    images = torch.arange(8, dtype=torch.uint8)[:, None, None, None].expand(8, 16, 16, 3)
    for seed in range(10):
        draws = draw(config, 8, 16, stream(seed))
        mixed = augment(images, draws)
        own = (mixed == images).double().mean(dim=(1, 2, 3))
        assert isinstance(draws.mix, CutMix) and torch.allclose(own, draws.mix.kept(8, 16))


def test_mixup() -> None:
    draws = draw(config_of(**PLAIN | {"mixup_alpha": 0.4}), 6, 16, stream(0))
    assert isinstance(draws.mix, MixUp) and 0 <= draws.mix.weight <= 1
    w = draws.mix.weight
    assert torch.allclose(augment(IMAGES, draws), w * IMAGES.float() + (1 - w) * IMAGES.flip(0).float(), atol=1e-3)


def test_cutmix_and_mixup_take_turns() -> None:
    """If CutMix and MixUp are both set, each is drawn for about half of the batches."""
    config = config_of(cutmix_alpha=1, mixup_alpha=1)
    kinds = [isinstance(draw(config, 2, 16, stream(seed)).mix, MixUp) for seed in range(400)]
    assert 0.4 < np.mean(kinds) < 0.6


@pytest.mark.parametrize("operation", ["brightness", "contrast", "saturation", "hue"])
def test_colors_are_torchvisions(operation: str) -> None:
    """Each color operation returns the values of torchvision's function.

    Each image has its own factor. The pixel values are not whole numbers.
    """
    images = (IMAGES.float() + 0.4).clamp(0, 255)
    images[0] = 77.0  # gray has no hue
    color = draw_color(config_of(jitter={operation: 0.5}), 6, stream(1))
    out = color(images)
    for image, mine, factor in zip(images, out, getattr(color, operation).tolist(), strict=True):
        planes = image.permute(2, 0, 1) / 255
        theirs = getattr(TF, f"adjust_{operation}")(planes, factor).permute(1, 2, 0) * 255
        assert torch.allclose(mine, theirs, atol=0.01)
    assert len(set(getattr(color, operation).tolist())) == 6


def test_grayscale_and_solarize() -> None:
    images = IMAGES.float()
    color = draw_color(config_of(grayscale=0.5), 6, stream(0))
    for image, out, gray in zip(images, color(images), color.grayscale, strict=True):
        expected = TF.rgb_to_grayscale(image.permute(2, 0, 1), 3).permute(1, 2, 0) if gray else image
        assert torch.allclose(out, expected, atol=0.01)
    color = draw_color(config_of(solarize=0.5), 6, stream(0))
    for image, out, solarized in zip(images, color(images), color.solarize, strict=True):
        assert torch.equal(out, TF.solarize(image.byte(), 128).float() if solarized else image)
    assert 0 < color.solarize.sum() < 6


def test_jitter_touches_its_share_and_every_sample_has_its_own_order() -> None:
    """A share ``p`` of the images is changed, and the order of operations is drawn for each image."""
    config = config_of(jitter={"p": 0.25, "brightness": 0.4, "hue": 0.1})
    color = draw_color(config, 10_000, stream(0))
    touched = color.brightness != 1
    assert 0.23 < touched.double().mean() < 0.27 and torch.equal(touched, color.hue != 0)
    assert (color.order[~touched] == -1).all()
    orders, counts = color.order[touched].unique(dim=0, return_counts=True)
    assert len(orders) == 24 and counts.min() > 60 and counts.max() < 160
    assert all(sorted(order) == [0, 1, 2, 3] for order in orders.tolist())


def test_jitter_is_torchvisions_in_each_samples_order() -> None:
    """Color jitter equals a sequence of torchvision's functions. The sequence is drawn for each image."""
    images = IMAGES.repeat(8, 1, 1, 1)
    config = config_of(jitter={"p": 0.8, "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.4})
    color = draw_color(config, 48, stream(2))
    before, out = images.clone(), color(images)
    names = ("brightness", "contrast", "saturation", "hue")
    for row, (image, mine) in enumerate(zip(images, out, strict=True)):
        planes = image.permute(2, 0, 1).float() / 255
        for number in color.order[row].tolist():
            if number >= 0:
                factor = float(getattr(color, names[number])[row])
                planes = getattr(TF, f"adjust_{names[number]}")(planes, factor)
        assert torch.allclose(mine, planes.permute(1, 2, 0) * 255, atol=0.05)
    assert len(color.order.unique(dim=0)) > 15 and torch.equal(images, before)


@pytest.mark.parametrize(
    ("size", "out", "area"),
    [(256, 224, (0.08, 1)), (256, 32, (0.5, 1)), (256, 32, (1, 1)), (40, 40, (0.2, 0.9)), (32, 224, (0.1, 1))],
)
@pytest.mark.parametrize("smooth", [False, True])
def test_resized_crops_are_torchvisions(size: int, out: int, area: tuple[float, float], smooth: bool) -> None:
    """Each crop equals torchvision's crop of the same box, bicubic and with antialiasing.

    The mean difference is below 0.05, the largest is 2, and the sharpness is equal.
    """
    images = torch.randint(0, 256, (8, size, size, 3), dtype=torch.uint8)
    if smooth:
        images = TF.gaussian_blur(images.permute(0, 3, 1, 2), 9).permute(0, 2, 3, 1).contiguous()
    crop = draw_resized_crop(crop_of(area, out), 8, size, stream(0))
    crops = crop(images)
    assert crops.dtype == torch.uint8 and crops.shape == (8, out, out, 3) and 0 < crop.flipped.sum() < 8
    for image, mine, box, flipped in zip(images, crops, crop.boxes.int().tolist(), crop.flipped, strict=True):
        planes = image.permute(2, 0, 1)
        theirs = TF.resized_crop(planes, *box, [out, out], TF.InterpolationMode.BICUBIC, antialias=True)
        expected = (theirs.flip(2) if flipped else theirs).permute(1, 2, 0).float()
        difference = (mine.float() - expected).abs()
        assert difference.mean() < 0.05 and difference.max() <= 2
        sharpness = [values.diff(dim=1).abs().mean() for values in (mine.float(), expected)]
        assert float(sharpness[0] / sharpness[1]) == pytest.approx(1, abs=0.01)


def test_boxes_have_the_asked_share_and_aspect() -> None:
    """Crop boxes have the area and the aspect ratio of the config."""
    boxes = draw_resized_crop(crop_of((0.2, 0.9), 40), 500, 40, stream(0)).boxes
    top, left, h, w = boxes.T
    assert ((h * w / 1600 > 0.17) & (h * w / 1600 < 0.95)).all() and (w / h > 0.7).all() and (w / h < 1.4).all()
    assert (boxes[:, :2] >= 0).all() and (top + h <= 40).all() and (left + w <= 40).all()
    assert torch.equal(boxes, boxes.round())


def test_nothing_outside_of_its_box_is_in_a_crop() -> None:
    images = torch.full((50, 40, 40, 3), 255, dtype=torch.uint8)
    crop = draw_resized_crop(crop_of((0.1, 0.5), 24), 50, 40, stream(0))
    for image, (top, left, h, w) in zip(images, crop.boxes.int().tolist(), strict=True):
        image[top : top + h, left : left + w] = 7
    assert (crop(images) == 7).all()


def test_a_crop_that_cannot_fit_is_the_whole_image() -> None:
    """A box that does not fit into the image is replaced by the whole image."""
    crop = draw_resized_crop(crop_of((1, 1), 16, flip=False), 50, 16, stream(0))
    whole = (crop.boxes == torch.tensor([0.0, 0, 16, 16])).all(dim=1)
    assert whole.all()
    assert torch.equal(crop(IMAGES[:1].expand(50, -1, -1, -1)), IMAGES[:1].expand(50, -1, -1, -1))


def test_the_imagenet_recipe_changes_the_size() -> None:
    config = config_of(**IMAGENET, size=12)
    draws = draw(config, 6, 16, stream(0))
    out = augment(IMAGES, draws)
    assert isinstance(draws.crop, ResizedCrop) and config.output_size(16) == 12
    assert out.shape == (6, 12, 12, 3) and out.dtype == torch.float32 and out.min() >= 0 and out.max() <= 255


def test_draws_are_a_function_of_the_step() -> None:
    first, again, other = (draw(config_of(), 4, 16, Stream(0, "augment", step)) for step in (3, 3, 4))
    assert torch.equal(first.crop.corners, again.crop.corners)
    assert torch.equal(first.crop.flipped, again.crop.flipped)
    assert torch.equal(first.mix.boxes, again.mix.boxes)
    assert not torch.equal(first.crop.corners, other.crop.corners)


def numbers(draws: Draws) -> list[float]:
    """Return every number of a draw, rounded to six digits.

    For shifted crops, return the source pixels of an image of 32 px.
    """
    crop, held = draws.crop, []
    if isinstance(crop, Shift):
        held = [crop.padding, *crop.pixels(32, torch.device("cpu"))]
    parts = [None if held else crop, draws.color, draws.mix]
    held += [v for part in parts if part is not None for v in dataclasses.asdict(part).values()]
    flat = [torch.as_tensor(value, dtype=torch.float64).flatten() for value in held]
    return [round(float(value), 6) for value in torch.cat(flat)]


@pytest.mark.parametrize(
    ("values", "golden"),
    [
        ({}, "5764e08c781247a0"),
        ({"cutmix_alpha": 1, "cutmix_box": "sample"}, "cd8888c40848beac"),
        (IMAGENET, "cc55807219cdfd9e"),
        ({"cutmix_alpha": 0, "mixup_alpha": 2.5}, "11c30d9a996429e9"),
    ],
)
def test_views_are_pinned(values: dict[str, object], golden: str) -> None:
    """Draws equal those of earlier versions, because stored logits belong to these draws.

    A change of draws must raise the ``view_version`` of the changed configs.
    """
    told = [numbers(draw(config_of(**values), 4, 32, Stream(7, "augment", step))) for step in range(20)]
    assert hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16] == golden


def test_only_views_whose_pixels_changed_have_a_new_version() -> None:
    crop = {"pad_crop": 0, "resized_crop": [0.08, 1]}
    assert [view_version(config_of(**values)) for values in (crop, {"jitter": {"hue": 0.1}}, IMAGENET)] == [2] * 3
    assert view_version(config_of()) == view_version(config_of(grayscale=1, solarize=0.1, mixup_alpha=1)) == 1


@pytest.mark.parametrize("alpha", [0.25, 1.0, 3.0])
def test_beta(alpha: float) -> None:
    """Draws from Beta(alpha, alpha) have the mean, the variance and the quantiles of numpy's draws."""
    draws = Stream(0, "beta", 0).beta(alpha, 200_000)
    assert len(draws) == 200_000 and draws.min() >= 0 and draws.max() <= 1
    assert float(draws.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(draws.var()) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.03)
    quantiles = torch.tensor([0.05, 0.25, 0.5], dtype=torch.float64)
    numpys = np.quantile(np.random.default_rng(0).beta(alpha, alpha, 200_000), quantiles)
    assert torch.allclose(draws.quantile(quantiles), torch.from_numpy(numpys), atol=0.015)


def test_normalize() -> None:
    mean, std = (0.5, 0.25, 0.0), (0.5, 0.25, 1.0)
    x = normalize(IMAGES, mean, std)
    assert x.shape == (6, 3, 16, 16) and x.dtype == torch.float32
    assert x.is_contiguous(memory_format=torch.channels_last)
    expected = (IMAGES[2, 3, 4].double() / 255 - torch.tensor(mean)) / torch.tensor(std)
    assert torch.allclose(x[2, :, 3, 4].double(), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"resized_crop": [0.1, 1]}, "set pad_crop to 0"),
        ({"resized_crop": [0.5, 0.1], "pad_crop": 0}, "expected 0 < low <= high <= 1"),
        ({"size": 24}, "size needs resized_crop"),
        ({"cutmix_alpha": 0, "cutmix_box": "sample"}, "needs a cutmix_alpha"),
        ({"jitter": {"hue": 0.6}}, "hue"),
    ],
)
def test_settings_that_contradict_each_other(values: dict[str, object], part: str) -> None:
    with pytest.raises(ValidationError, match=part):
        config_of(**values)
