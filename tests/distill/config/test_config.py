"""Test configs: packaged configs are complete, and an error names the key and suggests the nearest known key."""

import hashlib
import json
from pathlib import Path

import pytest
import yaml

from distill.config import presets
from distill.config.schema import Config, SupervisedConfig, make_config, parse_config
from distill.data.cache import cache_folder
from distill.data.config import DataConfig
from distill.errors import DistillError
from distill.models import build_model
from distill.training.run_identity import identity_of
from manifests.remote.fetch import cache_home
from manifests.support.yaml_core import parse_yaml
from tests.conftest import Program, assert_one_line
from tests.distill.conftest import CONFIG

ROWS = [name for name in presets.files(presets.CONFIGS) if name.startswith("cifar")]
TEACHERS = [name for name in presets.files(presets.CONFIGS) if name.startswith("teacher-")]


def parse(text: str = yaml.safe_dump(CONFIG), **overrides: object):
    return parse_config(text, "c.yaml", {key.replace("__", "."): value for key, value in overrides.items()}, Config)


@pytest.mark.parametrize("name", presets.files(presets.CONFIGS))
def test_packaged_configs_are_whole_and_headed(name: str) -> None:
    text = presets.text(presets.CONFIGS, name)
    header = [line for line in text.splitlines() if line.startswith("#")]
    assert any("Differs from the authors' code (yukimasano/single-img-extrapolating" in line for line in header)
    if name.startswith("teacher-"):
        taught = parse_config(text, name, {}, SupervisedConfig)
        build_model(taught.network.arch, taught.network.num_classes)
        assert taught.augment.cutmix_alpha == 0
        assert any(
            f"Command: distill train-teacher --data cifar{taught.network.num_classes}/" in line for line in header
        )
        return
    config = parse_config(text, name, {}, Config)
    if config.loss.name == "kl" and config.optim.name != "sgd":  # eps has the factor T² of the loss
        assert config.optim.eps == pytest.approx(64 * (1e-8 if name.startswith("imagenet") else 1e-7))
    for arch in (config.teacher.arch, config.student.arch):
        build_model(arch, config.teacher.num_classes)
    assert any("Command: distill train --shards shards/ --config " + name in line for line in header)


def test_every_row_of_the_table_has_its_teacher() -> None:
    teachers = {
        name: parse_config(presets.text(presets.CONFIGS, name), name, {}, SupervisedConfig) for name in TEACHERS
    }
    archs = {(config.network.arch, config.network.num_classes) for config in teachers.values()}
    rows = [parse_config(presets.text(presets.CONFIGS, name), name, {}, Config) for name in ROWS]
    assert {(row.teacher.arch, row.teacher.num_classes) for row in rows} <= archs


def test_a_config_for_each_row_of_the_papers_table() -> None:
    assert len(ROWS) == 10
    for name in ROWS:
        config = parse_config(presets.text(presets.CONFIGS, name), name, {}, Config)
        assert (config.optim.name, config.optim.lr, config.optim.schedule) == ("adam", 1e-3, "constant")
        assert (config.data.batch_size, config.train.epochs, config.loss.temperature) == (512, 1000, 8)
        assert config.augment.cutmix_alpha == 0.25
        assert (config.student.bn_momentum, config.student.bn_eps) == (0.01, 0.001)  # the values of Keras
        assert config.teacher.num_classes == int(name.split("-")[0].removeprefix("cifar"))


def test_imagenet_is_augmented_as_the_authors_do() -> None:
    name = "imagenet-resnet18-resnet50"
    augment = parse_config(presets.text(presets.CONFIGS, name), name, {}, Config).augment
    assert augment.jitter is not None and set(augment.jitter.model_dump().values()) == {0.8, 0.4}
    assert (augment.resized_crop, augment.size, augment.flip) == ((0.08, 1), 224, True)
    assert (augment.grayscale, augment.solarize, augment.cutmix_alpha, augment.mixup_alpha) == (0.2, 0.2, 1, 0)


def test_names_as_users_write_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``--config wrn.yaml`` reads the file with this name. If no file exists, the packaged config ``wrn`` is read."""
    assert presets.read(presets.CONFIGS, "wrn.yaml") == presets.read(presets.CONFIGS, "wrn")
    assert presets.read(presets.CONFIGS, "resnet20")[0] == "resnet20"
    monkeypatch.chdir(tmp_path)
    Path("wrn.yaml").write_text("mine: 1")
    assert presets.read(presets.CONFIGS, "wrn.yaml") == ("wrn", "mine: 1")
    assert presets.read(presets.CONFIGS, "wrn") == ("wrn", presets.text(presets.CONFIGS, "wrn"))


def test_round_trip() -> None:
    config = parse(train__seed=3, teacher__weights="t.safetensors")
    assert parse_config(config.to_yaml(), "again", {}, Config) == config


@pytest.mark.parametrize(
    ("group", "line", "value"),
    [
        ("train", "samples: 1e6", 1_000_000),
        ("train", "samples: 1000000.0", 1_000_000),
        ("train", "samples: 1.5e3", 1500),
        ("train", "samples: 010", 10),
        ("train", "samples: 1_000", 1000),
        ("train", "epochs: 1e1", 10.0),
        ("optim", "lr: 1e-3", 1e-3),
        ("optim", "weight_decay: 5e-4", 5e-4),
        ("data", "batch_size: 5.12e2", 512),
        ("data", "window: 0x10", 16),
        ("augment", "flip: off", False),
        ("train", "compile: off", "off"),
        ("train", "tensorboard: true", True),
    ],
)
def test_numbers_as_people_write_them(group: str, line: str, value: object) -> None:
    """Numbers are read in every usual notation, in a config file and in ``--set``."""
    key, _, text = line.partition(": ")
    good = {"name": "adamw", "lr": 0.1} if group == "optim" else {"samples": 8} if group == "train" else {}
    good = {name: item for name, item in good.items() if name != key and (name, key) != ("samples", "epochs")}
    whole = yaml.safe_dump(CONFIG | {group: good} if good else {k: v for k, v in CONFIG.items() if k != group})
    whole = whole.replace(f"{group}:\n", f"{group}:\n  {line}\n") if good else f"{whole}{group}:\n  {line}\n"
    for config in (parse(whole), parse(**{f"{group}__{key}": parse_yaml(text)})):
        found = getattr(getattr(config, group), key)
        assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "train.samples=1.5e0",
            "train.samples: Input should be a valid integer, got a number with a frac",
        ),
        ("train.samples=1:30", "train.samples: Input should be a valid integer, got '1:30'; correct"),
        ("train.samples=1e400", "train.samples: Input should be a finite number, got inf"),
        ("train.samples=true", "train.samples: Input should be a valid integer, got true; correct"),
        ("train.seed=yes", "train.seed: Input should be a valid integer, got 'yes'; correct"),
        ("optim.lr=true", "optim.lr: Input should be a valid number, got true; correct"),
        ("augment.resized_crop=[0.1, true]", "augment.resized_crop[1]: Input should be a valid number"),
        ('eval.data=""', "eval.data: the path is empty; give a path"),
        (
            "optim.lr=https://a:sekret@host/set?t=" + "sekret" * 20,
            "optim.lr: Input should be a valid number, got 'https://host/set?…'",
        ),
        ("student.arch=true", "student.arch: Input should be a valid string, got True"),
        ("data.cache_dir=~nobody-of-this-name/c", "data.cache_dir: ~nobody-of-this-name/c: the home folder"),
    ],
)
def test_what_is_no_number(run_distill: Program, tmp_path: Path, setting: str, message: str) -> None:
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(CONFIG))
    told = run_distill("train", "--shards", tmp_path, "--config", tmp_path / "c.yaml", "--set", setting)
    assert_one_line(told, f"c.yaml: {message}")


def test_a_triple_as_the_options_accept_it() -> None:
    assert parse(teacher__mean="0.5,0.4, 0.3").teacher.mean == (0.5, 0.4, 0.3)


@pytest.mark.parametrize(("text", "key"), [("true: 3\noptim:", "true"), ("optim:\n  1: 3", "optim.1")])
def test_keys_that_are_not_texts(run_distill: Program, tmp_path: Path, text: str, key: str) -> None:
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(CONFIG).replace("optim:\n", f"{text}\n"))
    told = run_distill("train", "--shards", tmp_path, "--config", tmp_path / "c.yaml")
    assert_one_line(told, f"c.yaml: {key}: this key is not a text; write the key in quotes")


def test_home_folders_in_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    keys = ("teacher.weights", "teacher.logits", "eval.data", "data.cache_dir")
    config = parse_config(yaml.safe_dump(CONFIG), "c", dict.fromkeys(keys, "~/a/b"), Config)
    found = (config.teacher.weights, config.teacher.logits, config.eval.data, config.data.cache_dir)
    assert found == (Path("/home/me/a/b"),) * 4
    assert parse(data__cache_dir="~root/c").data.cache_dir == Path("~root/c").expanduser()
    for kept in ("a/~/b", "./~", "$HOME/c", "/a~"):
        assert parse(data__cache_dir=kept).data.cache_dir == Path(kept)


def test_home_folders_on_the_command_line(
    run_distill: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program expands ``~`` where a shell does not: after ``=`` and in quotes."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "c.yaml").write_text("teacher: 3")
    assert_one_line(run_distill("train", "--shards=~/s", "--config=~/c.yaml"), "c.yaml: ")
    assert_one_line(
        run_distill("eval", "--weights=~/w.pt", "--data=~/d"), f"{tmp_path}/w.pt: the weight file does not exist"
    )
    assert_one_line(run_distill("reproduce", "~/t.yaml"), f"table '{tmp_path}/t.yaml': is neither a file")
    assert_one_line(
        run_distill("eval", "--weights", "~nobody-of-this-name/w.pt", "--data", "d"),
        "the home folder ~nobody-of-this-name is unknown; write ./~nobody-of-this-name/w.pt",
        status=2,
    )


def test_the_cache_in_a_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("XDG_CACHE_HOME", "~/caches")
    monkeypatch.setenv("PATCHSET_CACHE", "~/sets")
    assert cache_folder(DataConfig()) == Path("/home/me/caches/single-image-distillation")
    assert cache_home() == Path("/home/me/sets")
    monkeypatch.delenv("PATCHSET_CACHE")
    assert cache_home() == Path("/home/me/caches/patchset")


def test_yaml_reads_off_as_false(run_distill: Program) -> None:
    """``compile: off`` means off, although YAML reads ``off`` as false."""
    assert parse(train__compile=False).train.compile == "off" and parse(train__compile=True).train.compile == "on"
    assert_one_line(
        run_distill("train", "--shards", "none", "--config", "wrn", "--set", "train.compile=off"), "none: "
    )
    with pytest.raises(DistillError, match=r"train\.compile: Input should be 'auto', 'on' or 'off', got 2"):
        parse_config(yaml.safe_dump(CONFIG), "c.yaml", {"train.compile": 2}, Config)


def test_a_config_of_the_other_command() -> None:
    with pytest.raises(DistillError, match="belongs to distill train-teacher, but this is distill train"):
        parse_config(presets.text(presets.CONFIGS, "teacher-cifar10-resnet56"), "c", {}, Config)
    with pytest.raises(DistillError, match="belongs to distill train, but this is distill train-teacher"):
        parse_config(presets.text(presets.CONFIGS, "resnet20"), "c", {}, SupervisedConfig)


def test_overrides() -> None:
    assert parse(optim__lr="1e-4").optim.lr == 1e-4
    assert parse(train__samples=64).train.epochs is None
    assert parse(loss__temperature=2).loss.temperature == 2


FAST = presets.text(presets.CONFIGS, "fast-cifar")


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
    """If a setting makes keys of the file invalid, these keys are removed. The order of settings does not matter."""
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
    ("held", "overrides", "left"),
    [
        ({"name": "adam", "eps": 1e-3, "betas": [0.8, 0.9]}, {"optim.name": "sgd"}, {"momentum": 0.9}),
        ({"name": "adam", "eps": 1e-3}, {"optim.name": "adamw"}, {"eps": 1e-3}),
        ({"name": "sgd", "nesterov": True, "momentum": 0.8}, {"optim.name": "adam"}, {"betas": (0.9, 0.999)}),
        (
            {"name": "adam", "schedule": "milestones", "milestones": [0.5], "gamma": 0.2, "warmup": 0.1},
            {"optim.schedule": "cosine"},
            {"milestones": (), "warmup": 0.1},
        ),
        ({"name": "adam", "warmup": 0.1}, {"optim.schedule": "onecycle"}, {"warmup": 0}),
        ({"name": "RMSprop", "arguments": {"alpha": 0.9}}, {"optim.name": "NAdam"}, {"arguments": {}}),
        ({"name": "RMSprop", "arguments": {"alpha": 0.9}}, {"optim.lr": 0.2}, {"arguments": {"alpha": 0.9}}),
        ({"name": "Muon", "partner": {"lr": 0.1}}, {"optim.name": "RMSprop"}, {"name": "RMSprop"}),
        (
            {"name": "adam", "schedule": "milestones", "milestones": [0.5]},
            {"optim.schedule": "linear"},
            {"milestones": ()},
        ),
    ],
)
def test_another_optimiser_or_schedule_leaves_the_files_keys_without_a_use(
    held: dict[str, object], overrides: dict[str, object], left: dict[str, object]
) -> None:
    """A setting changes the optimizer or the schedule. Keys of the file without a use are then dropped."""
    text = yaml.safe_dump(CONFIG | {"optim": {"lr": 0.1, **held}})
    optim = parse_config(text, "c.yaml", overrides, Config).optim
    assert {key: getattr(optim, key) for key in left} == left


def test_a_key_that_is_asked_for_is_not_dropped() -> None:
    """A key on the command line without a use is an error."""
    with pytest.raises(DistillError, match=r"unknown key 'optim\.eps'"):
        parse(optim__eps=1e-3, optim__name="sgd")
    with pytest.raises(DistillError, match="schedule onecycle already has a warm-up; omit warmup"):
        parse(optim__warmup=0.1, optim__schedule="onecycle")


@pytest.mark.parametrize(
    ("name", "model", "digest"),
    [
        ("fast-cifar", Config, "6137a0aabcaab1fe"),
        ("wrn", Config, "c814e76a097825b1"),
        ("teacher-cifar10-resnet56", SupervisedConfig, "6b9c9bc504e65388"),
    ],
)
def test_runs_begun_before_a_key_came_can_go_on(
    name: str, model: type[Config] | type[SupervisedConfig], digest: str
) -> None:
    """A run can be resumed with a newer version that has more keys.

    The identity of the run must equal the identity in the checkpoint. So keys with default values are not included.
    """
    config: Config | SupervisedConfig = parse_config(presets.text(presets.CONFIGS, name), name, {}, model)
    held = json.dumps(identity_of(config), sort_keys=True)
    assert hashlib.sha256(held.encode()).hexdigest()[:16] == digest
    part = "network" if isinstance(config, SupervisedConfig) else "student"
    for key in ("optim.warmup", f"{part}.bn_eps", f"{part}.bn_momentum"):
        other = parse_config(presets.text(presets.CONFIGS, name), name, {key: 0.1, "optim.schedule": "cosine"}, model)
        assert f'"{key.split(".")[1]}": 0.1' in identity_of(other)[key.split(".")[0]]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"optim__learning_rate": 1},
            "config c.yaml: unknown key 'optim.learning_rate'; known keys are accumulate, betas, clip_norm, eps, "
            "gamma, lr, milestones, name, no_decay, schedule, schedule_arguments, warmup, weight_decay",
        ),
        (
            {"optim__momentum": 0.9},
            "config c.yaml: unknown key 'optim.momentum'; known keys are accumulate, betas, clip_norm, eps, "
            "gamma, lr, milestones, name, no_decay, schedule, schedule_arguments, warmup, weight_decay",
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
        ({"lr": 1}, "--set lr: is not a config key; write GROUP.KEY=VALUE"),
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
        ("a: 2024-13-45", "unknown key 'a'"),
        ("a: !!int ''", "not YAML"),
        ("[" * 5000, "not YAML"),
        ("- 1", "contains no groups of keys"),
        ("{}", "required keys 'teacher', 'student', 'optim', 'train' are missing"),
        ("teacher: 3", "teacher: "),
    ],
)
def test_files_that_are_no_config(text: str, part: str) -> None:
    with pytest.raises(DistillError, match=part):
        parse_config(text, "c.yaml", {}, Config)


def test_a_missing_tag_is_a_missing_key() -> None:
    """The error for a missing ``optim.name`` is the usual error for a missing key."""
    text = yaml.safe_dump(CONFIG | {"optim": {"lr": 0.1}})
    expected = r"^config c\.yaml: required key 'optim\.name' is missing; correct the config$"
    with pytest.raises(DistillError, match=expected):
        parse_config(text, "c.yaml", {}, Config)


def test_a_list_of_optimizers_is_no_list_of_losses() -> None:
    with pytest.raises(DistillError, match="'optim' is not a group of keys in the config"):
        make_config({"optim": [1]}, "c.yaml", {"optim.lr": 1}, Config)


def test_length_is_given_once() -> None:
    """A config with both ``samples`` and ``epochs`` is refused."""
    text = yaml.safe_dump(CONFIG | {"train": {"samples": 10, "epochs": 2}})
    with pytest.raises(DistillError, match="expected either samples or epochs"):
        parse_config(text, "c.yaml", {}, Config)


def test_every_key_is_listed(run_distill: Program) -> None:
    told = run_distill("configs", "--keys", "train").out
    assert "\noptim: SGD with momentum.\n" in told and "  nesterov             true or false, default false\n" in told
    for group, field in Config.model_fields.items():
        assert f"{group}: " in told
        for key in getattr(field.annotation, "model_fields", {}):
            assert f"\n  {key} " in told
    other = run_distill("configs", "--keys", "train-teacher").out
    assert (
        "  smoothing            number from 0 below 1, default 0.0: probability that is shared by all classes equally"
        in other
    )


def test_the_configs_command(run_distill: Program) -> None:
    listed = run_distill("configs").out.splitlines()
    assert [line.split()[0] for line in listed] == list(presets.files(presets.CONFIGS))
    assert "CIFAR-10, ResNet-56 → ResNet-20, for a laptop" in next(
        line for line in listed if line.startswith("resnet20")
    )
    assert all(len(line) < 120 for line in listed)
    assert run_distill("configs", "resnet20").out == presets.text(presets.CONFIGS, "resnet20")
    assert_one_line(run_distill("configs", "resnet21"), "did you mean 'resnet20'")
    assert_one_line(
        run_distill("train", "--shards", "s", "--config", "nothing.yaml"), "is neither a file nor a packaged config"
    )
