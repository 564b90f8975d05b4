"""Hostile YAML of configs and recipes: code, bombs, depth, numbers. Hostile JSON files of a run directory."""

from collections.abc import Callable
from pathlib import Path

from tests.hostile.case import Case
from tests.hostile.forge import Make, sparse

LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{k}: &a{k} [*a{k - 1}, *a{k - 1}, *a{k - 1}]\n" for k in range(1, 30))
LONG = "9" * 5000
TEXTS: dict[str, tuple[str, str]] = {
    "aliases without end": (LAUGHS, "after its aliases are expanded"),
    "alias of itself": ("a: &a [*a]\n", "refers to a value that contains the alias"),
    "alias of a merge of itself": ("a: &a\n  <<: *a\n", ""),
    "code": ("a: !!python/object/apply:os.system ['touch hacked']\n", "not YAML"),
    "code by a name": ("a: !!python/name:os.system\n", "not YAML"),
    "module": ("a: !!python/module:os\n", "not YAML"),
    "tag of one's own": ("a: !load /etc/passwd\n", "not YAML"),
    "nested 100,000 lists": ("[" * 100_000, "the YAML text has more than"),
    "nested 100,000 maps": ("{a: " * 100_000, "the YAML text has more than"),
    "nested 5,000 dashes": ("- " * 5000 + "x\n", "not YAML"),
    "key twice": ("teacher: 1\nteacher: 2\n", "appears twice"),
    "100,000 keys": ("".join(f"k{k}: 1\n" for k in range(100_000)), ""),
    "number of 5,000 digits": (f"a: {LONG}\n", ""),
    "number of 5,000 digits, base 60": ("a: " + ":".join(["59"] * 3000) + "\n", ""),
    "date that is none": ("a: 2024-99-99\n", "'a'"),
    "no text": ("", ""),
    "two documents": ("a: 1\n---\nb: 2\n", "not YAML"),
    "NUL": ("a: \x00\n", "not YAML"),
    "list as a key": ("? [a]\n: 1\n", "not YAML"),
    "binary": ("a: !!binary ///\n", ""),
    "binary for a text": (
        "student: {arch: !!binary cmVzbmV0OA==}\n",
        "could not determine a constructor for the tag",
    ),
    "NUL in a path": ('data: {batch_size: 4, cache_dir: "/tmp/a\\0b"}\n', "contains a NUL"),
    "terminal escapes": ('"\\e[2J\\e]0;x\\a": 1\n', ""),
}
NUMBERS: dict[str, tuple[str, str]] = {
    "infinite rate": ("optim: {name: adam, lr: .inf, schedule: constant}", "optim.lr"),
    "rate that is no number": ("optim: {name: adam, lr: .nan, schedule: constant}", "optim.lr"),
    "rate of -1": ("optim: {name: adam, lr: -1, schedule: constant}", "optim.lr"),
    "batch of 10^18": ("data: {batch_size: 1000000000000000000, workers: 0}", "data.batch_size"),
    "10^9 processes": ("data: {batch_size: 4, workers: 1000000000}", "data.workers"),
    "10^9 classes": ("teacher: {arch: resnet8, num_classes: 1000000000}", "num_classes"),
    "classes of 5,000 digits": (f"teacher: {{arch: resnet8, num_classes: {LONG}}}", "a number has"),
    "10^30 samples": ("train: {samples: 1000000000000000000000000000000}", "train.samples"),
    "10^300 epochs": ("train: {epochs: 1.0e+300}", "train.epochs"),
    "teacher of 60,002 layers": ("teacher: {arch: resnet60002, num_classes: 4}", "resnet60002"),
    "teacher as wide as 10^9": ("teacher: {arch: wrn-40-1000000000, num_classes: 4}", "wrn-40-1000000000"),
    "student of 60,002 layers": ("student: {arch: resnet60002}", "resnet60002"),
    "student of 5,000 digits": (f"student: {{arch: resnet{LONG}}}", "resnet"),
    "student called by a command": ("student: {arch: \"__import__('os').system('touch hacked')\"}", "__import__"),
    "student by torchvision's path": ("student: {arch: torchvision/__dict__}", "torchvision/__dict__"),
    "text in place of a group": ("optim: adam", "optim"),
}


def _yaml(name: str, change: Callable[[str], str]) -> Make:
    def make(world: Path) -> None:
        path = world / name
        path.write_text(change(path.read_text()), newline="")

    return make


def _group(line: str) -> Make:
    """Replace one group of the good config."""

    def change(text: str) -> str:
        import yaml

        value = yaml.safe_load(text)
        del value[line.split(":", 1)[0]]
        return yaml.safe_dump(value) + line + "\n"

    return _yaml("config.yaml", change)


def _json(name: str, data: bytes) -> Make:
    return lambda world: _write(world / "run" / name, data)


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


CASES = (
    *(
        Case(
            name=f"config: {name}",
            make=_yaml("config.yaml", lambda _, t=text: t),
            entrances=("train", "label"),
            said=said,
        )
        for name, (text, said) in TEXTS.items()
    ),
    *(
        Case(name=f"recipe: {name}", make=_yaml("recipe.yaml", lambda _, t=text: t), entrances=("recipe",), said=said)
        for name, (text, said) in TEXTS.items()
    ),
    *(
        Case(name=f"config: {name}", make=_group(line), entrances=("train", "stored"), said=said)
        for name, (line, said) in NUMBERS.items()
    ),
    Case(
        name="config of 1 GB",
        make=lambda world: sparse(world / "config.yaml", 1 << 30),
        entrances=("train", "label"),
        said="config.yaml",
    ),
    Case(
        name="recipe of 1 GB",
        make=lambda world: sparse(world / "recipe.yaml", 1 << 30),
        entrances=("recipe",),
        said="recipe.yaml",
    ),
    Case(
        name="summary nested 100,000 deep",
        make=_json("summary.json", b"[" * 100_000),
        entrances=("resume", "report"),
        said="summary.json",
    ),
    Case(
        name="summary of 1 GB",
        make=lambda world: sparse(world / "run" / "summary.json", 1 << 30),
        entrances=("resume", "report"),
        said="summary.json",
    ),
    Case(
        name="summary with NaN",
        make=_json("summary.json", b'{"seconds": NaN}'),
        entrances=("resume", "report"),
        said="summary.json",
    ),
    Case(
        name="report: metrics of 1 GB",
        make=lambda world: sparse(world / "run" / "metrics.jsonl", 1 << 30),
        entrances=("report",),
        said="metrics.jsonl",
    ),
    Case(
        name="report: config of 1 GB",
        make=lambda world: sparse(world / "run" / "config.yaml", 1 << 30),
        entrances=("report",),
        said="config.yaml",
    ),
    Case(
        name="report: config with code",
        make=_json("config.yaml", b"a: !!python/object/apply:os.system ['touch hacked']\n"),
        entrances=("report",),
        said="config.yaml",
    ),
)
