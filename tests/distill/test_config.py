"""Configs: packaged ones are whole, faults are named by their key, the nearest key is suggested."""

from pathlib import Path

import pytest
import yaml

from distill import packaged
from distill.config import CONFIGS, Config, SupervisedConfig, parse_config
from distill.errors import DistillError
from distill.models import build_model
from tests.conftest import Program, assert_one_line
from tests.distill.conftest import CONFIG

ROWS = [name for name in packaged.names(CONFIGS) if name.startswith("cifar")]
TEACHERS = [name for name in packaged.names(CONFIGS) if name.startswith("teacher-")]


def parse(text: str = yaml.safe_dump(CONFIG), **overrides: object):
    return parse_config(text, "c.yaml", {key.replace("__", "."): value for key, value in overrides.items()}, Config)


@pytest.mark.parametrize("name", packaged.names(CONFIGS))
def test_packaged_configs_are_whole_and_headed(name: str) -> None:
    text = packaged.text(CONFIGS, name)
    header = [line for line in text.splitlines() if line.startswith("#")]
    if name.startswith("teacher-"):
        taught = parse_config(text, name, {}, SupervisedConfig)
        build_model(taught.network.arch, taught.network.num_classes)
        assert taught.augment.cutmix_alpha == 0
        assert any(f"Command: distill teacher --data cifar{taught.network.num_classes}/" in line for line in header)
        return
    config = parse_config(text, name, {}, Config)
    for arch in (config.teacher.arch, config.student.arch):
        build_model(arch, config.teacher.num_classes)
    assert any("Command: distill train --shards shards/ --config " + name in line for line in header)


def test_every_row_of_the_table_has_its_teacher() -> None:
    teachers = {name: parse_config(packaged.text(CONFIGS, name), name, {}, SupervisedConfig) for name in TEACHERS}
    archs = {(config.network.arch, config.network.num_classes) for config in teachers.values()}
    rows = [parse_config(packaged.text(CONFIGS, name), name, {}, Config) for name in ROWS]
    assert {(row.teacher.arch, row.teacher.num_classes) for row in rows} <= archs


def test_a_config_for_each_row_of_the_papers_table() -> None:
    assert len(ROWS) == 10
    for name in ROWS:
        config = parse_config(packaged.text(CONFIGS, name), name, {}, Config)
        assert (config.optim.name, config.optim.lr, config.optim.schedule) == ("adam", 1e-3, "constant")
        assert (config.data.batch_size, config.train.epochs, config.loss.temperature) == (512, 1000, 8)
        assert config.augment.cutmix_alpha == 0.25
        assert config.teacher.num_classes == int(name.split("-")[0].removeprefix("cifar"))


def test_names_as_users_write_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert packaged.read(CONFIGS, "wrn.yaml") == packaged.read(CONFIGS, "wrn")
    assert packaged.read(CONFIGS, "resnet20")[0] == "resnet20"
    monkeypatch.chdir(tmp_path)
    Path("wrn.yaml").write_text("mine: 1")
    assert packaged.read(CONFIGS, "wrn.yaml") == ("wrn", "mine: 1")
    assert packaged.read(CONFIGS, "wrn") == ("wrn", packaged.text(CONFIGS, "wrn"))


def test_round_trip() -> None:
    config = parse(train__seed=3, teacher__weights="t.safetensors")
    assert parse_config(config.to_yaml(), "again", {}, Config) == config


def test_yaml_reads_off_as_false(run_distill: Program) -> None:
    assert parse(train__compile=False).train.compile == "off" and parse(train__compile=True).train.compile == "on"
    assert_one_line(
        run_distill("train", "--shards", "none", "--config", "wrn", "--set", "train.compile=off"), "none: "
    )
    with pytest.raises(DistillError, match=r"train\.compile: Input should be 'auto', 'on' or 'off', got 2"):
        parse_config(yaml.safe_dump(CONFIG), "c.yaml", {"train.compile": 2}, Config)


def test_a_config_of_the_other_command() -> None:
    with pytest.raises(DistillError, match="is a config of distill teacher; this is distill train"):
        parse_config(packaged.text(CONFIGS, "teacher-cifar10-resnet56"), "c", {}, Config)
    with pytest.raises(DistillError, match="is a config of distill train; this is distill teacher"):
        parse_config(packaged.text(CONFIGS, "resnet20"), "c", {}, SupervisedConfig)


def test_overrides() -> None:
    assert parse(optim__lr="1e-4").optim.lr == 1e-4
    assert parse(train__samples=64).train.epochs is None
    assert parse(loss__temperature=2).loss.temperature == 2


FAST = packaged.text(CONFIGS, "fast-cifar")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"train.epochs": 2}, ("train", {"samples": None, "epochs": 2})),
        ({"train.samples": None, "train.epochs": 2}, ("train", {"samples": None, "epochs": 2})),
        ({"loss.name": "mse"}, ("loss", {"name": "mse"})),
        ({"loss.name": "mse", "loss.weight": 2}, ("loss", {"name": "mse", "weight": 2})),
        ({"loss.name": "kl"}, ("loss", {"name": "kl", "temperature": 8})),
        ({"optim.name": "adam", "optim.lr": 0.1}, ("optim", {"name": "adam", "lr": 0.1, "weight_decay": 0.0005})),
        ({"optim.name": "sgd"}, ("optim", {"name": "sgd", "nesterov": True})),
    ],
)
def test_a_setting_removes_what_it_makes_void(settings: dict[str, object], expected: tuple[str, dict]) -> None:
    """In whichever order the settings come."""
    for items in (list(settings.items()), list(settings.items())[::-1]):
        config = parse_config(FAST, "fast-cifar", dict(items), Config)
        group, values = expected
        assert values.items() <= getattr(config, group).model_dump().items()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train.samples": 64, "train.epochs": 1}, "train.epochs 1 and train.samples 64 are both set; "),
        ({"loss.temperature": 4, "loss.name": "mse"}, "config fast-cifar: unknown key 'loss.temperature'"),
        ({"optim.nesterov": True, "optim.name": "adam"}, "config fast-cifar: unknown key 'optim.nesterov'"),
    ],
)
def test_settings_that_contradict_each_other(settings: dict[str, object], message: str) -> None:
    for items in (list(settings.items()), list(settings.items())[::-1]):
        with pytest.raises(DistillError) as error:
            parse_config(FAST, "fast-cifar", dict(items), Config)
        assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"optim__learning_rate": 1},
            "config c.yaml: unknown key 'optim.learning_rate'; known keys are lr, name, schedule, weight_decay",
        ),
        (
            {"optim__momentum": 0.9},
            "config c.yaml: unknown key 'optim.momentum'; known keys are lr, name, schedule, weight_decay",
        ),
        ({"loss__temprature": 4}, "config c.yaml: unknown key 'loss.temprature'; did you mean 'loss.temperature'?"),
        ({"trian__seed": 4}, "config c.yaml: unknown key 'trian'; did you mean 'train'?"),
        ({"optim__lr": "fast"}, "config c.yaml: optim.lr: Input should be a valid number"),
        ({"optim__name": "lion"}, "config c.yaml: optim.name is 'lion', expected one of 'adam', 'adamw', 'sgd'"),
        ({"data__batch_size": 1}, "config c.yaml: data.batch_size: Input should be greater than or equal to 2"),
        (
            {"train__precision": "fp8"},
            "config c.yaml: train.precision: Input should be 'auto', 'bf16', 'fp16' or 'fp32', got 'fp8'",
        ),
        ({"optim__nme": "adam"}, "config c.yaml: unknown key 'optim.nme'; did you mean 'optim.name'?"),
        ({"loss__name": [1]}, "config c.yaml: loss.name is '[1]', expected one of 'kl'"),
        ({"lr": 1}, "--set lr: expected GROUP.KEY=VALUE"),
    ],
)
def test_faults(overrides: dict[str, object], message: str) -> None:
    with pytest.raises(DistillError) as caught:
        parse(**overrides)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a: [", "not YAML"),
        ("a: 2024-13-45", "not YAML"),
        ("a: !!int ''", "not YAML"),
        ("[" * 5000, "not YAML"),
        ("- 1", "holds list"),
        ("{}", "required keys 'teacher', 'student', 'optim', 'train' are missing"),
        ("teacher: 3", "teacher: "),
    ],
)
def test_files_that_are_no_config(text: str, part: str) -> None:
    with pytest.raises(DistillError, match=part):
        parse_config(text, "c.yaml", {}, Config)


def test_a_missing_tag_is_a_missing_key() -> None:
    text = yaml.safe_dump(CONFIG | {"optim": {"lr": 0.1}})
    with pytest.raises(DistillError, match=r"^config c\.yaml: required key 'optim\.name' is missing$"):
        parse_config(text, "c.yaml", {}, Config)


def test_length_is_given_once() -> None:
    text = yaml.safe_dump(CONFIG | {"train": {"samples": 10, "epochs": 2}})
    with pytest.raises(DistillError, match="give either samples or epochs"):
        parse_config(text, "c.yaml", {}, Config)


def test_every_key_is_listed(run_distill: Program) -> None:
    told = run_distill("configs", "--keys", "train").out
    assert "\noptim: SGD with momentum.\n" in told and "  nesterov             true or false, default false\n" in told
    for group, field in Config.model_fields.items():
        assert f"{group}: " in told
        for key in getattr(field.annotation, "model_fields", {}):
            assert f"\n  {key} " in told
    other = run_distill("configs", "--keys", "teacher").out
    assert "  smoothing            number from 0 below 1, default 0.0: spread evenly over all classes" in other


def test_the_configs_command(run_distill: Program) -> None:
    listed = run_distill("configs").out.splitlines()
    assert [line.split()[0] for line in listed] == packaged.names(CONFIGS)
    assert "CIFAR-10, ResNet-56 → ResNet-20, for a laptop" in next(
        line for line in listed if line.startswith("resnet20")
    )
    assert all(len(line) < 120 for line in listed)
    assert run_distill("configs", "resnet20").out == packaged.text(CONFIGS, "resnet20")
    assert_one_line(run_distill("configs", "resnet21"), "did you mean 'resnet20'")
    assert_one_line(
        run_distill("train", "--shards", "s", "--config", "nothing.yaml"), "no such file and no packaged config"
    )
