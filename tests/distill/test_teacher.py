"""Weight files and teachers: round trip, published forms, and one line for each thing that can be wrong."""

import fractions
from pathlib import Path

import pytest
import torch

from distill.errors import DistillError
from distill.fit import count_classes
from distill.models import build_model
from distill.teacher import TeacherConfig, load_teacher, normalisation
from distill.weights import load_weights, save_weights, state_digest
from tests.distill.conftest import MEAN, STD

CPU = torch.device("cpu")


def config(path: Path | None, **changes: object) -> TeacherConfig:
    return TeacherConfig(**({"arch": "resnet8", "num_classes": 4, "weights": path} | changes))


def test_round_trip(teacher_path: Path) -> None:
    weights = load_weights(teacher_path)
    assert (weights.arch, weights.num_classes, weights.mean, weights.std) == ("resnet8", 4, MEAN, STD)
    assert count_classes(weights, "resnet8") == 4
    teacher = load_teacher(config(teacher_path), CPU)
    assert all(torch.equal(teacher.model.state_dict()[k], v) for k, v in weights.held.items())
    assert not teacher.model.training
    assert not any(p.requires_grad for p in teacher.model.parameters())


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}}])
def test_published_pytorch_files(teacher_path: Path, tmp_path: Path, wrap) -> None:
    state = load_weights(teacher_path).held
    torch.save(wrap(state), tmp_path / "t.th")
    teacher = load_teacher(config(tmp_path / "t.th", mean=MEAN, std=STD), CPU)
    assert torch.equal(teacher.model.conv1.weight, state["conv1.weight"])
    with pytest.raises(DistillError, match=r"set teacher\.mean"):
        load_teacher(config(tmp_path / "t.th"), CPU)


class Code:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("ran code",)


def test_files_that_are_no_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": Code()}, tmp_path / "evil.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    (tmp_path / "junk.pt").write_bytes(b"junk")
    (tmp_path / "empty.pt").write_bytes(b"")
    (tmp_path / "junk.safetensors").write_bytes(b"\xff" * 100)
    for name in ("evil.pt", "list.pt", "junk.pt", "empty.pt", "junk.safetensors"):
        with pytest.raises(DistillError) as caught:
            load_weights(tmp_path / name)
        assert str(caught.value).startswith(str(tmp_path / name)) and "\n" not in str(caught.value)
    assert "ran code" not in capsys.readouterr().out
    torch.save({"model": {}, "opt": fractions.Fraction(1, 2)}, tmp_path / "options.pt")
    with pytest.raises(
        DistillError, match=r"options\.pt: asks for fractions\.Fraction, which is no tensor and might"
    ):
        load_weights(tmp_path / "options.pt")
    with pytest.raises(DistillError, match="no such weight file"):
        load_weights(tmp_path / "none.pt")


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"weights": None}, "give the teacher's weight file with --teacher"),
        ({"num_classes": 10}, "has 4 classes, but num_classes is 10"),
        ({"arch": "resnet20"}, "holds a resnet8, but the config or --arch says resnet20"),
        ({"mean": (0.1, 0.1, 0.1)}, "says its mean is (0.5, 0.4, 0.3), but teacher.mean is (0.1, 0.1, 0.1)"),
    ],
)
def test_a_teacher_that_does_not_fit(teacher_path: Path, changes: dict[str, object], part: str) -> None:
    with pytest.raises(DistillError) as caught:
        load_teacher(config(teacher_path, **changes), CPU)
    assert part in str(caught.value)


def test_plain_files_that_do_not_fit(teacher_path: Path, tmp_path: Path) -> None:
    state = load_weights(teacher_path).held
    torch.save(state, tmp_path / "t.pt")
    with pytest.raises(DistillError, match="has 4 classes, but num_classes is 5"):
        load_teacher(config(tmp_path / "t.pt", num_classes=5), CPU)
    with pytest.raises(DistillError, match=r"is not a resnet14: lacks layer1\.1\.bn1\.bias \(and \d+ more\)"):
        load_teacher(config(tmp_path / "t.pt", arch="resnet14"), CPU)


def test_metadata_that_is_damaged(tmp_path: Path) -> None:
    import safetensors.torch

    tensors = build_model("resnet8", 2).state_dict()
    safetensors.torch.save_file(tensors, tmp_path / "t.safetensors", {"mean": "0.1,0.2"})
    with pytest.raises(DistillError, match="metadata is damaged"):
        load_weights(tmp_path / "t.safetensors")


def test_bfloat16_weights_load_and_have_a_digest(tmp_path: Path) -> None:
    model = build_model("resnet8", 2).bfloat16()
    save_weights(tmp_path / "b.safetensors", model, arch="resnet8", num_classes=2, mean=MEAN, std=STD)
    loaded = load_teacher(config(tmp_path / "b.safetensors", num_classes=2), CPU).model
    assert state_digest(loaded) == state_digest(model.float()) != state_digest(build_model("resnet8", 2))


@pytest.mark.parametrize(
    ("name", "value"), [("mean", (0.1, float("nan"), 0)), ("std", (0.2, 0.0, 0.2)), ("std", (-1, 1, 1))]
)
def test_normalisation_must_make_sense(teacher_path: Path, tmp_path: Path, name: str, value: tuple) -> None:
    torch.save(load_weights(teacher_path).held, tmp_path / "t.pt")
    values = {"mean": MEAN, "std": STD} | {name: value}
    with pytest.raises(DistillError, match=f"--{name} is "):
        normalisation(load_weights(tmp_path / "t.pt"), values["mean"], values["std"], prefix="--")


def test_weights_that_are_not_finite(teacher_path: Path, tmp_path: Path) -> None:
    state = load_weights(teacher_path).held
    state["linear.bias"][1] = float("nan")
    torch.save(state, tmp_path / "t.pt")
    with pytest.raises(DistillError, match=r"linear\.bias is no plain tensor of finite numbers"):
        load_teacher(config(tmp_path / "t.pt", mean=MEAN, std=STD), CPU)
