"""Compare the working tree with an earlier commit: the bytes and losses it produces, and its speed.

Both trees run the same commands in turn. The commands build two small sets, train a teacher from labelled images,
store its logits and train students. Shards, stored logits, the loss of every step and trained weights must be equal
to the last bit. The students of both trees use the set, the teacher and the stored logits of COMMIT, so a difference
in an early step does not spread, and the script also tests that files of COMMIT still open.

The last lines are ratios of time: working tree / COMMIT, the median over the rounds. A ratio below 1 means that the
working tree is faster. Measure on an idle machine. Use a larger ``--scale`` to measure building, and more ``--steps``
to measure training: most of the time of a small job is Python's imports.

    python scripts/measure/compare_commits.py COMMIT [--rounds 3] [--steps 50] [--scale 1]

The script takes about three minutes. Rounds after the first train only the teacher and the first two students. The
exit status is 1 if anything differs, and 2 if a command fails. Add a renamed command or option to ``NAMES``.
"""

import hashlib
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image
from safetensors.numpy import load_file

ROOT = Path(__file__).resolve().parents[2]
NAMES = {"synthesize": "source", "train-teacher": "teacher", "make-logits": "label", "--teacher-logits": "--labels"}
"""Commands and options of the working tree, and their names in trees that do not have them."""
BATCH = 16
SETS = {  # number of patches, and options
    "jpg": (2000, "--shard-size", "500"),
    "png": (500, "--size", "48", "--recipe", "crop-jitter", "--format", "png", "--seed", "1"),
}
NETWORK, CLASSES = {"arch": "resnet8"}, {"num_classes": 3}
SGD = {"optim": {"name": "sgd", "lr": 0.05, "nesterov": True, "schedule": "onecycle"}}
ADAMW = {"optim": {"name": "adamw", "lr": 0.002, "weight_decay": 0.05, "schedule": "cosine", "warmup": 0.1}}
COLOURS = {"jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}, "solarize": 0.2}
CROPS = {"pad_crop": 0, "resized_crop": [0.3, 1], "cutmix_box": "sample", "mixup_alpha": 0.4}
STUDENTS: dict[str, dict[str, Any]] = {
    "kl, SGD": SGD,
    "js, AdamW, colours, MixUp, streamed, averaged": ADAMW
    | {"loss": {"name": "js", "temperature": 4}, "augment": COLOURS | CROPS}
    | {"data": {"cache": "none"}, "train": {"ema": 0.9}},
    "mse, AdamW, stored logits": ADAMW | {"loss": {"name": "mse"}, "data": {"passes": 2}},
}


class CommandFailed(click.ClickException):
    """A command of a tree failed."""

    exit_code = 2


class Tree:
    """Run the commands of one tree in a folder and add up the time of each program since ``begin``."""

    def __init__(self, title: str, path: Path, folder: Path) -> None:
        self.title, self.path = title, path
        self.begin(folder)
        self.python("-m", "compileall", "-q", *(str(file.parent) for file in path.glob("*/__init__.py")))
        for program in ("patchgen", "distill"):
            found = self.python("-c", f"import {program}; print({program}.__file__)").strip()
            if not Path(found).is_relative_to(path):
                raise CommandFailed(f"{title}: {program} comes from {found}, expected from {path}")
        helps = [self.python("-m", *words, "--help") for words in (["patchgen"], ["distill"], ["distill", "train"])]
        self.words = set(re.findall(r"^  (--[\w-]+|[a-z-]+(?=  ))", "\n".join(helps), re.MULTILINE))

    def begin(self, folder: Path) -> None:
        """Work in a folder with its own cache, and set the times to zero."""
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.spent = {"patchgen": np.zeros(2), "distill": np.zeros(2)}

    def python(self, *words: str) -> str:
        """Run Python with the modules of this tree on one thread, because the number changes rounding."""
        told = {"PYTHONPATH": str(self.path), "XDG_CACHE_HOME": str(self.folder / "cache"), "OMP_NUM_THREADS": "1"}
        command, place = [sys.executable, "-P", *words], self.folder
        done = subprocess.run(command, cwd=place, env=os.environ | told, capture_output=True, text=True, check=False)
        if done.returncode:
            raise CommandFailed(f"{self.title}: {' '.join(words)}\n{done.stdout[-1000:]}{done.stderr[-3000:]}")
        return str(done.stdout)

    def run(self, program: str, *words: str | Path) -> None:
        """Run a command under its name in this tree; add its seconds and CPU seconds to the times."""
        old = {name: other for name, other in NAMES.items() if name not in self.words and other in self.words}
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        self.python("-m", program, *(old.get(str(word), str(word)) for word in words))
        wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        self.spent[program] += wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def export(commit: str, folder: Path) -> None:
    """Write the files of a commit into a folder."""
    tar = folder.with_suffix(".tar")
    if subprocess.run(["git", "archive", "--output", tar, commit], cwd=ROOT, check=False).returncode:
        raise CommandFailed(f"git archive {commit} failed")
    shutil.unpack_archive(tar, folder, filter="data")


def write_labelled(folder: Path) -> None:
    """Write three classes of 40 noisy images as PNG files, one color and one folder for each class."""
    rng = np.random.default_rng(0)
    for number, index in np.ndindex(3, 40):
        (folder / f"class{number}").mkdir(parents=True, exist_ok=True)
        pixels = rng.normal(90 + 60 * np.eye(3)[number], 60, (32, 32, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"class{number}" / f"{index}.png")


def write_config(path: Path, steps: int, config: dict[str, Any]) -> tuple[str | Path, ...]:
    """Write a config that trains without compilation and logs each step; return the options that use the config."""
    data = {"batch_size": BATCH} | config.get("data", {})
    train = {"samples": steps * BATCH, "precision": "fp32", "compile": "off", "log_steps": 1}
    path.write_text(json.dumps(config | {"data": data, "train": train | config.get("train", {})}))
    return "--config", path, "--device", "cpu"


def digests(folder: Path, *patterns: str) -> list[str]:
    """Return the SHA-256 of files, sorted by name."""
    paths = sorted(path for pattern in patterns for path in folder.glob(pattern))
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]


def read_run(folder: Path) -> dict[str, Any]:
    """Return the loss of each step of a run, and a digest of its weights."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    digest = hashlib.sha256()
    weights = next(path for path in folder.glob("*.safetensors") if not path.name.startswith("checkpoint"))
    for name, values in sorted(load_file(weights).items()):
        digest.update(f"{name} {values.dtype} {values.shape}".encode() + values.tobytes())
    return {"losses": {line["step"]: line["loss"] for line in lines if "loss" in line}, "weights": digest.hexdigest()}


def build_sets(tree: Tree, photo: Path, scale: int) -> dict[str, Any]:
    """Build the sets in the folder of a tree, each with ``scale`` times its patches; return their digests."""
    found = {}
    for name, (n, *options) in SETS.items():
        out = tree.folder / name
        given = ("--image", photo, "--out", out, "--n", str(n * scale), "--workers", "2", *options)
        tree.run("patchgen", "build", *given)
        set_id = json.loads((out / "manifest.json").read_text())["set_id"]
        found[f"set of {name}"] = {"set_id": set_id, "shards": digests(out, "*.tar", "*.parquet")}
    return found


def train_networks(tree: Tree, steps: int, world: Path, students: list[str]) -> dict[str, Any]:
    """Train a teacher, and students with the set, teacher and logits of COMMIT; return losses and digests."""
    folder, first, found = tree.folder, world / "then0", {}
    config = write_config(folder / "teacher.yaml", steps, SGD | {"network": NETWORK | CLASSES})
    tree.run("distill", "train-teacher", "--data", world / "labelled", *config, "--out", folder / "teacher")
    found["from labels, SGD"] = read_run(folder / "teacher")
    for number, name in enumerate(students):
        groups = STUDENTS[name] | {"teacher": NETWORK | CLASSES, "student": NETWORK}
        options = ("--shards", first / "jpg", *write_config(folder / f"{number}.yaml", steps, groups))
        teacher: tuple[str | Path, ...] = ("--teacher", first / "teacher" / "teacher.safetensors")
        if "stored logits" in name:
            tree.run("distill", "make-logits", *options, *teacher, "--out", folder / "logits")
            found["logits"] = {"files": digests(folder / "logits", "*.npy")}
            teacher = ("--teacher-logits", first / "logits")
        out, seeds = folder / f"student{number}", ("--seeds", "0,1") if number == 0 else ()
        tree.run("distill", "train", *options, *teacher, "--out", out, *seeds)
        runs = {f"{name}, seed {seed}": out / f"seed{seed}" for seed in (0, 1)} if seeds else {name: out}
        found |= {title: read_run(run) for title, run in runs.items()}
    return found


def difference(here: dict[str, Any], there: dict[str, Any]) -> str:
    """Return the first difference between two results as text, or an empty text."""
    ours, theirs = here.get("losses", {}), there.get("losses", {})
    if ours.keys() != theirs.keys():
        return f"{len(ours)} steps are logged, expected {len(theirs)}"
    if apart := {step: abs(ours[step] - theirs[step]) for step in ours if ours[step] != theirs[step]}:
        return f"losses differ from step {min(apart)} on, by up to {max(apart.values()):.3g}"
    return ", ".join(f"{key} differ" for key in there if here[key] != there[key])


@click.command()
@click.argument("commit")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1))
@click.option("--steps", default=50, show_default=True, type=click.IntRange(2), help="Steps of each run.")
@click.option(
    "--scale", default=1, show_default=True, type=click.IntRange(1), help="Multiply the patches of each set."
)
def main(commit: str, rounds: int, steps: int, scale: int) -> None:
    """Compare the working tree with COMMIT."""
    expected: dict[str, Any] = {}
    wrong: dict[str, str] = {}
    ratios = []
    with tempfile.TemporaryDirectory(prefix="compare-") as name:
        world = Path(name).resolve()
        export(commit, world / "tree")
        then, now = Tree(commit, world / "tree", world / "then"), Tree("working tree", ROOT, world / "now")
        then.run("patchgen", "synthesize", "dead-leaves", "--size", "640x480", "--out", world / "photo.png")
        write_labelled(world / "labelled")
        for number in range(rounds):
            for tree in (then, now) if number % 2 == 0 else (now, then):
                tree.begin(world / f"{'then' if tree is then else 'now'}{number}")
                found = build_sets(tree, world / "photo.png", scale)
                found |= train_networks(tree, steps, world, list(STUDENTS)[: None if number == 0 else 1])
                expected = expected or found
                for title, value in found.items():
                    if said := difference(value, expected[title]):
                        wrong.setdefault(title, f"{said} ({tree.title}, round {number + 1})")
                print(f"round {number + 1}, {tree.title}: {tree.spent['distill'][0]:.1f} s of training", flush=True)
            ratios.append([now.spent[program] / then.spent[program] for program in ("patchgen", "distill")])
    for title, value in expected.items():
        print(f"{title}: {wrong.get(title) or ' and '.join(value) + ' are equal'}")
    for work, (wall, cpu) in zip(("building", "training"), np.median(ratios, axis=0), strict=True):
        print(f"{work}, working tree / {commit}: {wall:.3f} of the time, {cpu:.3f} of the CPU time")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
