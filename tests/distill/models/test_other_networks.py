"""Test networks of timm, of transformers and of the user, as students and as teachers."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import distill
from distill.models import build_model, require_size
from distill.models.arch import MAX_LETTERS, join_arch, split_arch
from distill.targets.teacher import load_teacher, teacher_size
from distill.targets.teacher_config import TeacherConfig
from distill.weights.files import load_weights, save_weights
from manifests.support import user_code
from tests.conftest import Program, assert_one_line
from tests.distill.conftest import CONFIG, MEAN, STD, TEACHER

CPU = torch.device("cpu")
SHORT: dict[str, Any] = CONFIG | {"train": {"samples": 32, "precision": "fp32", "log_steps": 1, "compile": "off"}}
SMALL_VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}
VIT = join_arch("timm/vit_tiny_patch16_224", SMALL_VIT)
CODE = """
from torch import nn


class Small(nn.Module):
    def __init__(self, num_classes, width=4):
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, width, 3), nn.Linear(width, num_classes)

    def forward(self, x):
        return self.linear(self.conv(x).relu().mean(dim=(2, 3)))


def nothing(num_classes):
    return "a network"


def broken(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(7, num_classes))


def scalar(num_classes):
    return nn.Flatten(0)


def wide(width):
    return nn.Flatten(0)
"""


def refused(call: Callable[[], Any], *parts: str) -> None:
    with pytest.raises(distill.DistillError) as error:
        call()
    assert "\n" not in str(error.value) and all(part in str(error.value) for part in parts), error.value


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Write the package ``ownnets``, which may be imported only where a test allows it."""
    folder = tmp_path / "code/ownnets"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "small.py").write_text(CODE)
    monkeypatch.syspath_prepend(folder.parent)
    monkeypatch.setattr(user_code, "_allowed", set())
    user_code.source_digest.cache_clear()
    yield "ownnets.small"
    for name in [name for name in sys.modules if name.split(".")[0] == "ownnets"]:
        del sys.modules[name]


@pytest.fixture
def hf_folder(tmp_path: Path) -> Path:
    """Save a small image classifier of transformers with four named classes and its image processor."""
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    names = dict(enumerate(("ant", "bee", "cat", "dog")))
    config = transformers.ViTConfig(**sizes, image_size=24, patch_size=8, num_labels=4, id2label=names)
    torch.manual_seed(4)
    folder = tmp_path / "vit"
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    size = {"height": 24, "width": 24}
    processor = transformers.ViTImageProcessor(size=size, image_mean=MEAN, image_std=STD, resample=3)
    processor.save_pretrained(folder)
    return folder


def test_arguments_are_part_of_the_name() -> None:
    assert split_arch(VIT) == ("timm/vit_tiny_patch16_224", SMALL_VIT)
    values = {"a": [1, (2.5, None)], "b": {"c": "x)("}, "d": True}
    assert split_arch(join_arch("m:f", values)) == ("m:f", values)
    assert split_arch("resnet20") == ("resnet20", {}) and join_arch("m:f", {}) == "m:f"
    for arch in ("m:f(1)", "m:f(a=b)", "m:f(a=1, **{})", "m:f(a=f())", "m:f(a=1)(b=2)", f"m:f(a={'(' * 200})"):
        refused(lambda arch=arch: split_arch(arch), "the arguments cannot be read")  # type: ignore[misc]
    refused(lambda: split_arch(f"m:f(a='{'x' * MAX_LETTERS}')"), "letters, expected at most")
    refused(lambda: build_model("resnet20(depth=2)", 10), "only networks of timm")
    with pytest.raises(ValueError, match="already has arguments"):
        join_arch("m:f(a=1)", {"b": 1})


@pytest.mark.parametrize("name", ["timm/resnet18", "timm/convnext_atto", VIT])
def test_networks_of_timm(name: str) -> None:
    pytest.importorskip("timm")
    assert build_model(name, 7).eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
    require_size(name, 7, 32)


def test_what_timm_refuses() -> None:
    pytest.importorskip("timm")
    refused(lambda: build_model("timm/resnet19", 5), "timm has no network 'resnet19'; did you mean 'timm/resnet")
    refused(lambda: build_model("timm/hf-hub:a/b", 5), "timm has no network")
    refused(lambda: build_model("timm/resnet18(checkpoint_path='/etc/passwd')", 5), "checkpoint_path is not allowed")
    refused(lambda: build_model("timm/resnet18(pretrained=True)", 5), "pretrained is not allowed")
    refused(lambda: build_model("timm/resnet18(wings=2)", 5), "wings")
    refused(lambda: require_size(VIT, 5, 48), "does not accept images of 48 px", "choose another size")


@pytest.mark.parametrize(("package", "arch"), [("timm", "timm/resnet18"), ("transformers", "hf/a")])
def test_a_library_that_is_not_installed(package: str, arch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr("distill.models.libraries.imported", lambda name: None)
    refused(lambda: build_model(arch, 5), f"pip install {package}")


def test_a_student_of_timm_is_evaluated_from_its_file(
    run_distill: Program, patchset_path: Path, teacher_path: Path, eval_path: Path, tmp_path: Path
) -> None:
    pytest.importorskip("timm")
    student = {"arch": "timm/vit_tiny_patch16_224", "arch_arguments": SMALL_VIT}
    out, config = tmp_path / "run", SHORT | {"student": student}
    distill.train(patchset_path, config=config, teacher=teacher_path, eval=eval_path, out=out, device="cpu")
    assert load_weights(out / "student.safetensors").arch == VIT
    result = run_distill("eval", "--weights", out / "student.safetensors", "--data", eval_path)
    assert result.status == 0, result.err
    assert (
        run_distill("visualize", out / "student.safetensors", "--steps", 1, "--out", tmp_path / "n.png").status == 0
    )
    assert run_distill("report", out).status == 0


def test_a_weight_file_of_timm_is_a_teacher(tmp_path: Path) -> None:
    timm, safetensors = pytest.importorskip("timm"), pytest.importorskip("safetensors.torch")
    model = timm.create_model("resnet18", num_classes=4).eval()
    for path, save in ((tmp_path / "m.safetensors", safetensors.save_file), (tmp_path / "m.pth", torch.save)):
        save(model.state_dict(), path)
        teacher = load_teacher(TeacherConfig(arch="timm/resnet18", weights=path, num_classes=4), CPU)
        assert (teacher.size, teacher.interpolation) == (224, "bicubic")
        assert teacher.mean == (0.485, 0.456, 0.406) and teacher.std == (0.229, 0.224, 0.225)
        x = torch.randn(2, 3, 64, 64)
        assert torch.equal(teacher.model(x), model.to(memory_format=torch.channels_last)(x))
        network = distill.load_network(path, arch="timm/resnet18")
        assert network.num_classes == 4 and network.mean == teacher.mean


def test_published_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    timm, torchvision = pytest.importorskip("timm"), pytest.importorskip("torchvision")
    create, calls = timm.create_model, []

    def without_download(name: str, pretrained: bool = False, **options: Any) -> Any:
        calls.append(pretrained)
        return create(name, pretrained=False, **options)

    monkeypatch.setattr(timm, "create_model", without_download)
    teacher = load_teacher(TeacherConfig(arch="timm/resnet18", weights="pretrained", num_classes=1000), CPU)
    assert (
        calls == [False, True] and (teacher.size, teacher.num_classes) == (224, 1000) and not teacher.model.training
    )
    refused(
        lambda: load_teacher(TeacherConfig(arch="timm/resnet18", weights="pretrained", num_classes=10), CPU),
        "the published weights have 1000 classes, but num_classes is 10",
    )
    state = torchvision.models.squeezenet1_1(num_classes=1000).state_dict()
    weights = torchvision.models.SqueezeNet1_1_Weights
    monkeypatch.setattr(weights, "get_state_dict", lambda self, **options: state)
    config = TeacherConfig(arch="torchvision/squeezenet1_1", weights="pretrained", num_classes=1000)
    network = load_teacher(config, CPU)
    assert network.classes[0] == "tench" and (network.size, network.interpolation) == (224, "bilinear")
    assert all(torch.equal(value, state[name]) for name, value in network.model.state_dict().items())
    monkeypatch.setattr(weights, "get_state_dict", lambda self, **options: 1 / 0)
    refused(lambda: load_teacher(config, CPU), "its weights cannot be read: division by zero")
    refused(
        lambda: load_teacher(TeacherConfig(arch="resnet20", weights="pretrained", num_classes=10), CPU),
        "there are no published weights of this network",
    )


def test_a_folder_of_transformers_is_a_teacher_with_its_own_size(
    patchset_path: Path, eval_path: Path, hf_folder: Path, tmp_path: Path
) -> None:
    config = SHORT | {"teacher": {"arch": f"hf/{hf_folder}", "num_classes": 4}}
    result = distill.train(patchset_path, config=config, eval=eval_path, out=tmp_path / "run", device="cpu")
    assert result.metrics["classes"] == ["ant", "bee", "cat", "dog"] and result.metrics["teacher_top1"] is not None
    teacher = load_teacher(TeacherConfig(arch=f"hf/{hf_folder}", num_classes=4), CPU)
    assert (teacher.size, teacher.interpolation) == (24, "bicubic")
    assert torch.allclose(torch.tensor([teacher.mean, teacher.std]), torch.tensor([MEAN, STD]))
    transformers = pytest.importorskip("transformers")
    original = transformers.AutoModelForImageClassification.from_pretrained(hf_folder)
    x = torch.randn(2, 3, 24, 24)
    assert torch.equal(teacher.model(x), original(x).logits)


def test_published_weights_are_evaluated(
    run_distill: Program, hf_folder: Path, eval_path: Path, tmp_path: Path
) -> None:
    arguments = ["eval", "--weights", "pretrained", "--data", eval_path, "--json"]
    ran = run_distill(*arguments, "--arch", f"hf/{hf_folder}")
    assert ran.status == 0, ran.err
    network = distill.load_network("pretrained", arch=f"hf/{hf_folder}")
    teacher = load_teacher(TeacherConfig(arch=f"hf/{hf_folder}", num_classes=4), CPU)
    assert (network.size, network.sha256, network.mean) == (teacher.size, teacher.sha256, teacher.mean)
    assert json.loads(ran.out)["top1"] == distill.evaluate(network, eval_path)["top1"]
    assert_one_line(run_distill(*arguments), "the network of the published weights is not named", "--arch")
    assert_one_line(run_distill(*arguments, "--arch", "resnet20"), "there are no published weights")


def test_a_student_of_transformers(
    patchset_path: Path, eval_path: Path, teacher_path: Path, hf_folder: Path, tmp_path: Path
) -> None:
    student = {"arch": f"hf/{hf_folder}", "arch_arguments": {"image_size": 32}}
    config, out = SHORT | {"student": student}, tmp_path / "run"
    result = distill.train(patchset_path, config=config, teacher=teacher_path, out=out, device="cpu")
    network = distill.load_network(out / "student.safetensors")
    assert network.arch == f"hf/{hf_folder}(image_size=32)"
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(network.model(x), result.student(x))
    (hf_folder / "config.json").rename(hf_folder / "other.json")
    refused(lambda: distill.load_network(out / "student.safetensors"), "the network cannot be built")


def test_a_weight_file_does_not_connect_to_the_internet(
    patchset_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that names a network of the hub is refused if the network is not in the cache."""
    transformers = pytest.importorskip("transformers")
    calls = []

    def offline(source: str, **options: Any) -> None:
        calls.append(options.get("local_files_only"))
        raise OSError("not in the cache")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", offline)
    file = tmp_path / "other.safetensors"
    save_weights(file, build_model("resnet8", 4), arch="hf/someone/model", num_classes=4, mean=MEAN, std=STD)
    refused(lambda: distill.load_network(file), "hf/someone/model is not in the cache", "--arch hf/someone/model")
    config = {group: keys for group, keys in SHORT.items() if group != "teacher"}
    refused(
        lambda: distill.train(patchset_path, config=config, teacher=file, out=tmp_path / "run"), "not in the cache"
    )
    assert calls == [True, True]


def test_what_transformers_refuses(hf_folder: Path, tmp_path: Path) -> None:
    refused(lambda: build_model(f"hf/{tmp_path}/none", 4), "the folder", "does not exist")
    refused(lambda: build_model(f"hf/{hf_folder}(wings=2)", 4), "has no key 'wings'")
    refused(lambda: require_size(f"hf/{hf_folder}", 4, 32), "does not accept images of 32 px")
    config = TeacherConfig(arch=f"hf/{hf_folder}", num_classes=5)
    refused(lambda: load_teacher(config, CPU), "have 4 classes, but num_classes is 5")
    (hf_folder / "preprocessor_config.json").unlink()
    config = TeacherConfig(arch=f"hf/{hf_folder}", num_classes=4)
    refused(lambda: load_teacher(config, CPU), "declares the mean of the input; set teacher.mean")
    code = {"auto_map": {"AutoConfig": "code.Config"}, "model_type": "unknown-model"}
    (hf_folder / "config.json").write_text(json.dumps(code))
    (hf_folder / "code.py").write_text("raise SystemExit('code of a stranger ran')\n")
    refused(lambda: build_model(f"hf/{hf_folder}", 4), "the network cannot be built")


def test_code_of_the_user_is_a_student(
    run_distill: Program, package: str, arguments: list[Any], eval_path: Path, tmp_path: Path
) -> None:
    run, own = (
        tmp_path / "run",
        ["--set", f"student.arch={package}:Small", "--set", "student.arch_arguments={width: 6}"],
    )
    result = run_distill(*arguments, run, *own)
    assert result.status == 1 and "--allow-import ownnets" in result.err and result.err.count("\n") == 1
    result = run_distill(*arguments, run, *own, "--allow-import", "ownnets")
    assert result.status == 0, result.err
    weights = load_weights(run / "student.safetensors")
    assert weights.arch == f"{package}:Small(width=6)"
    user_code._allowed.clear()
    command = ["eval", "--weights", run / "student.safetensors", "--data", eval_path]
    result = run_distill(*command)
    assert result.status == 1 and "--allow-import ownnets" in result.err
    assert run_distill(*command, "--allow-import", "ownnets").status == 0
    assert run_distill("report", run).status == 0
    again = [*arguments, run, *own, "--allow-import", "ownnets", "--resume"]
    assert run_distill(*again).status == 0
    source = tmp_path / "code/ownnets/small.py"
    source.write_text(f"{CODE}\n# changed\n")
    user_code.source_digest.cache_clear()
    changed = run_distill(*again)
    assert changed.status == 1 and f"source of {package}:Small was" in changed.err


def test_code_of_the_user_is_a_teacher(package: str, patchset_path: Path, train_path: Path, tmp_path: Path) -> None:
    distill.allow_import("ownnets")
    arch = f"{package}:Small(width=5)"
    config = TEACHER | {"network": {"arch": arch, "num_classes": 4}}
    distill.train_teacher(train_path, config=config, out=tmp_path / "teacher", device="cpu")
    weights = tmp_path / "teacher/teacher.safetensors"
    result = distill.train(
        patchset_path,
        config={key: value for key, value in SHORT.items() if key != "teacher"},
        teacher=weights,
        out=tmp_path / "run",
        device="cpu",
    )
    assert result.metrics["teacher_arch"] == arch


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("Big", "has no function 'Big'"),
        ("Small(hight=2)", "cannot be called with num_classes=4, hight=2"),
        ("nothing", "returned str, expected a torch.nn.Module"),
        ("broken", "raised RuntimeError"),
        ("scalar", "expected logits (2, classes)"),
    ],
)
def test_code_of_the_user_that_is_wrong(package: str, name: str, fault: str) -> None:
    distill.allow_import("ownnets")
    refused(lambda: require_size(f"{package}:{name}", 4, 32), fault)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("nope", "torchvision has no classification model 'nope'"),
        ("deeplabv3_resnet50", "torchvision has no classification model"),
        ("resnet18(width=2)", "only networks of timm, transformers and your own code have arguments"),
    ],
)
def test_published_weights_of_torchvision_need_a_known_name(name: str, fault: str) -> None:
    config = TeacherConfig(arch=f"torchvision/{name}", weights="pretrained", num_classes=4)
    refused(lambda: load_teacher(config, CPU), fault)
    if name == "nope":
        refused(lambda: teacher_size(config), "torchvision declares no input")


def test_a_class_of_a_notebook_has_no_name() -> None:
    refused(lambda: build_model("m:f.<locals>.Net", 4), "docs/python.md")
    refused(lambda: build_model("__main__:Net", 4), "the program or notebook that trained it", "arch=MODULE")
    refused(lambda: build_model("not_allowed:Net", 4), "--allow-import not_allowed", "arch=MODULE")


def test_code_of_the_user_with_other_arguments(package: str) -> None:
    distill.allow_import("ownnets")
    refused(lambda: build_model(f"{package}:wide", 4), "cannot be called with num_classes=4", "arch=MODULE")
    assert isinstance(build_model("resnet8", 4), nn.Module)


def test_help_and_names_need_neither_timm_nor_transformers() -> None:
    code = "import sys, distill.models; assert not {'timm', 'transformers'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)
