"""Test the limits of networks that a config or a weight file of other people names."""

import json
import time
from pathlib import Path

import pytest
import torch

from distill.models import build_model
from tests.distill.models.test_other_networks import VIT, hf_folder, refused

__all__ = ["hf_folder"]


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ("depth=100000", "has more than 20000 modules"),
        ("depth=1000000000", "the number 1000000000 is too large, expected at most 100000"),
        ("img_size=[32, 100001]", "the number 100001 is too large"),
        ("embed_dim=60000", "expected at most 17.2 GB"),
    ],
)
def test_networks_of_timm_that_are_too_large(arguments: str, fault: str) -> None:
    pytest.importorskip("timm")
    start = time.process_time()
    refused(lambda: build_model(f"timm/vit_tiny_patch16_224({arguments})", 4), fault)
    assert time.process_time() - start < 10
    with torch.device("meta"):
        assert build_model(VIT, 4)(torch.zeros(2, 3, 32, 32)).shape == (2, 4)


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("num_hidden_layers", 10**6, "has more than 20000 modules"),
        ("image_size", 10**9, "the number 1000000000 is too large"),
        ("intermediate_size", 2 * 10**6, "expected at most 17.2 GB"),
        ("_attn_implementation", "owner/attention", "code of attention in a repository, which never runs"),
    ],
)
def test_folders_of_transformers_that_are_too_large_or_name_code(
    hf_folder: Path, key: str, value: object, fault: str
) -> None:
    config = json.loads((hf_folder / "config.json").read_text())
    layers = {"num_hidden_layers": 100} if key == "intermediate_size" else {}
    (hf_folder / "config.json").write_text(json.dumps(config | layers | {"hidden_size": 64, key: value}))
    refused(lambda: build_model(f"hf/{hf_folder}", 4), fault)


def test_a_folder_of_16_bits_is_a_network_of_32_bits(hf_folder: Path) -> None:
    config = json.loads((hf_folder / "config.json").read_text())
    (hf_folder / "config.json").write_text(json.dumps(config | {"dtype": "float16"}))
    assert {value.dtype for value in build_model(f"hf/{hf_folder}", 4).parameters()} == {torch.float32}
