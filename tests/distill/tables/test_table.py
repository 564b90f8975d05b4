"""Test tables: checks of the YAML, commands, and the page of results."""

import dataclasses
import hashlib
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from distill.config import presets
from distill.config.overrides import merge
from distill.config.schema import Config, parse_config
from distill.errors import DistillError
from distill.models import build_model
from distill.tables.jobs import jobs_of, make_jobs, missing_options
from distill.tables.options import TableOptions
from distill.tables.page import Page, cells, render, text
from distill.tables.plan import input_digest, make_plan
from distill.tables.results import RowResult
from distill.tables.schema import Table, parse_table
from distill.targets.losses import make_loss
from manifests.support import user_code
from tests.conftest import Program, assert_one_line

NAMES = list(presets.files(presets.TABLES))


def table(name: str) -> Table:
    return parse_table(presets.text(presets.TABLES, name), name)


def everything(parsed: Table, **more: Any) -> TableOptions:
    """Return options with all inputs. Networks without a config have a weight file."""
    given = {name: Path(f"/in/{name}.pth") for name, network in parsed.networks.items() if network.config is None}
    return TableOptions(inputs={name: Path(f"/in/{name}") for name in parsed.inputs()}, teachers=given, **more)


SMALL: dict[str, Any] = {
    "title": "t",
    "source": "s",
    "images": {"noise": {"source": "noise", "size": "64x48"}},
    "sets": {"photo": {"images": ["photo", "noise"], "n": 1000, "size": 40, "seed": 3}},
    "packs": {"real": {"pack": "data"}},
    "networks": {"big": {"config": "teacher-cifar10-resnet56", "data": "data"}, "given": {"data": "data"}},
    "runs": {
        "one": {"config": "cifar10-resnet56-resnet20", "shards": "photo", "teacher": "big", "evaluations": 10},
        "two": {"config": "cifar10-resnet56-resnet20", "shards": "real", "teacher": "given"},
    },
    "rows": [
        {"group": "g", "name": "teacher", "of": "big", "paper": 90},
        {"group": "g", "name": "part", "of": "one", "after": 0.3},
        {"group": "g", "name": "real", "of": "two", "paper": 92.5},
    ],
}


def changed(**parts: Any) -> str:
    return yaml.safe_dump({**SMALL, **parts})


@pytest.mark.parametrize("name", NAMES)
def test_packaged_tables_become_commands_that_exist(name: str) -> None:
    parsed = table(name)
    assert presets.text(presets.TABLES, name).startswith("# ")
    assert f"# Command: distill reproduce {name} --input " in presets.text(presets.TABLES, name)
    jobs = make_jobs(parsed, everything(parsed))
    assert {job for row in parsed.rows for job in jobs_of(parsed, everything(parsed), row)} <= jobs.keys()
    for job in jobs.values():
        assert all(need in jobs for need in job.needs)
        assert shlex.split(job.command) == list(job.argv)
    recipes = {built.recipe for built in parsed.sets.values()} - {None}
    folder = Path(__file__).parents[3] / "patchgen" / "recipes"
    assert all((folder / f"{recipe}.yaml").is_file() for recipe in recipes)


def test_the_main_tables_figures_are_its_configs() -> None:
    """The paper's figures in the table ``main`` equal the figures in the configs."""
    parsed = table("main")
    keys = {"teacher": "teacher", "student alone": "student_alone", "full training set": "full_set"}
    shown: dict[str, dict[str, float | None]] = {}
    for row in parsed.rows:
        shown.setdefault(row.group, {})[row.name] = row.paper
    assert len(shown) == 10
    for row in parsed.rows:
        if row.name == "one image":
            run = parsed.runs[row.of]
            config = parse_config(presets.text(presets.CONFIGS, run.config), run.config, {}, Config)
            assert config.paper is not None
            assert config.paper.one_image_top1 == row.paper
            for name, key in keys.items():
                assert getattr(config.paper, f"{key}_top1") == shown[row.group][name]


def test_at_full_length_a_row_is_the_packaged_config_itself() -> None:
    """Without a scale, a row uses the packaged config and sets only the seed."""
    parsed = table("main")
    jobs = make_jobs(parsed, everything(parsed))
    run = jobs["runs/cifar10-resnet56-resnet20-photo/seed0"]
    own = ("--set", "train.seed=0", "--out", "runs/cifar10-resnet56-resnet20-photo/seed0", "--resume")
    assert run.argv[-5:] == own and run.argv.count("--set") == 1
    assert run.config == parse_config(presets.text(presets.CONFIGS, "cifar10-resnet56-resnet20"), "c", {}, Config)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"rows": [{"group": "g", "name": "n", "of": "none"}]}, "rows[0].of: the table has no network or run 'none'"),
        (
            {"rows": [{"group": "g", "name": "n", "of": "two", "after": 0.5}]},
            "two is evaluated only at its end; add the key 'evaluations'",
        ),
        ({"runs": {"one": {**SMALL["runs"]["one"], "shards": "x"}}}, "the table has no set or pack 'x'"),
        (
            {"runs": {"one": {**SMALL["runs"]["one"], "teacher": "x"}}},
            "runs.one.teacher: the table has no network 'x'",
        ),
        ({"runs": {"one": {**SMALL["runs"]["one"], "shard": "x"}}}, "unknown key 'runs.one.shard'; did you mean"),
        ({"runs": {"big": SMALL["runs"]["one"]}}, "the name 'big' is used for a network and a run"),
        ({"packs": {"photo": {"pack": "data"}}}, "the name 'photo' is used for a set and a pack"),
        ({"sets": {"../x": SMALL["sets"]["photo"]}}, "sets.../x"),
        ({"rows": []}, "rows"),
        (
            {"runs": {"one": {**SMALL["runs"]["one"], "set": {"train.seed": 3}}}},
            "runs.one.set: a table must not set train.seed; use --seeds instead",
        ),
        (
            {"runs": {"one": {**SMALL["runs"]["one"], "set": {"eval.every": 3}}}},
            "runs.one.set: a table must not set eval.every; use evaluations instead",
        ),
        ({"variants": {"v": {"train.seed": 3}}}, "variants.v: a table must not set train.seed; use --seeds instead"),
        ({"sets": {"photo": {**SMALL["sets"]["photo"], "recipe": "\0"}}}, "contains a NUL"),
    ],
)
def test_a_table_that_does_not_hang_together(parts: dict[str, Any], message: str) -> None:
    """A table is refused if a name is unknown, used twice or not allowed."""
    with pytest.raises(DistillError, match="table mine: ") as error:
        parse_table(changed(**parts), "mine")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_what_a_table_needs() -> None:
    parsed = parse_table(changed(), "t")
    assert parsed.inputs() == {"data": "labelled data", "photo": "a photo"}
    nothing = TableOptions(inputs={})
    assert missing_options(parsed, nothing, "one") == ["--input data=PATH", "--input photo=PATH"]
    assert missing_options(parsed, nothing, "two") == ["--input data=PATH", "--teacher given=FILE"]
    assert missing_options(parsed, everything(parsed), "two") == []
    assert make_jobs(parsed, nothing).keys() == {"images/noise"}


def test_commands_of_a_shortened_table() -> None:
    parsed = parse_table(changed(), "t")
    options = everything(
        parsed, scale=0.0005, teacher_scale=0.01, seeds=(4, 5), settings={"data.batch_size": 64}, folder=Path("/none")
    )
    jobs = make_jobs(parsed, options)
    expected = {
        "images/noise": "patchgen source noise --size 64x48 --seed 0 --out images/noise.png",
        "sets/photo": "patchgen build --image /in/photo --image images/noise.png --n 500 --size 40 --seed 3 "
        "--out sets/photo",
        "sets/real": "patchgen pack /in/data --out sets/real",
        "networks/big": "distill train-teacher --data /in/data --config teacher-cifar10-resnet56 --eval /in/data "
        "--set train.epochs=2.0 --out networks/big --resume",
        "runs/one/seed5": "distill train --shards sets/photo --config cifar10-resnet56-resnet20 "
        "--teacher networks/big/teacher.safetensors --eval /in/data --set data.batch_size=64 "
        "--set train.samples=500 --set eval.every=50 --set train.seed=5 --out runs/one/seed5 --resume",
        "runs/two/seed4": "distill train --shards sets/real --config cifar10-resnet56-resnet20 "
        "--teacher /in/given.pth --eval /in/data --set data.batch_size=64 --set train.epochs=0.5 "
        "--set train.seed=4 --out runs/two/seed4 --resume",
    }
    assert jobs.keys() == expected.keys() | {"runs/one/seed4", "runs/two/seed5"}
    assert {name: jobs[name].command for name in expected} == expected
    assert jobs["runs/one/seed4"].needs == ("sets/photo", "networks/big")
    assert jobs["runs/two/seed4"].needs == ("sets/real",)


@pytest.mark.parametrize("name", NAMES)
def test_packaged_variants_are_settings_that_exist(name: str) -> None:
    parsed = table(name)
    for variant in parsed.variants:
        assert make_jobs(parsed, everything(parsed, variant=variant))


def test_an_error_names_its_row() -> None:
    runs = {**SMALL["runs"], "two": {**SMALL["runs"]["two"], "set": {"optim.rate": 1}}}
    parsed = parse_table(changed(runs=runs), "t")
    with pytest.raises(
        DistillError, match=r"^runs\.two: config cifar10-resnet56-resnet20: unknown key 'optim\.rate'"
    ):
        make_jobs(parsed, everything(parsed))


def test_commands_for_any_machine() -> None:
    """Commands on a page contain shell variables instead of paths of this machine."""
    options = TableOptions(
        name="my $(x) table.yaml",
        inputs={"4x": Path("/home/me/a b"), "a-b": Path("/home/me/a b/c")},
        teachers={"4x": Path("/home/me/t.pth")},
        settings={"data.cache_dir": "/home/me/cache😀"},
        scale=0.1234567,
        teacher_scale=0.1234567,
        seeds=(1, 2),
    )
    words = [
        "distill",
        "x",
        "/home/me/a b",
        "--out",
        "/home/me/other",
        'data.cache_dir="/home/me/c"',
        "/home/me/t.pth",
    ]
    assert options.redact_command(words) == ('distill x "$_4X" --out other \'data.cache_dir="c"\' "$TEACHER_4X"')
    assert options.redact_text("/home/me/a b/c: no, /home/me/a b: yes") == "$A_B: no, $_4X: yes"
    assert options.command() == (
        'distill reproduce \'my $(x) table.yaml\' --input 4x="$_4X" --input a-b="$A_B" --teacher 4x="$TEACHER_4X" '
        "--scale 0.1234567 --seeds 1,2 --set 'data.cache_dir=\"cache😀\"'"
    )
    assert TableOptions(name="main", inputs={}, scale=0.5).command(("cifar10-*", "net")) == (
        "distill reproduce main --only 'cifar10-*' --only net --scale 0.5 --teacher-scale 1.0"
    )


def test_a_row_outweighs_a_variant_and_the_user_outweighs_both() -> None:
    """Settings of the user override settings of a row. Settings of a row override settings of a variant."""
    runs = {"one": {**SMALL["runs"]["one"], "set": {"loss.temperature": 2, "optim.lr": 0.5}}}
    variants = {"fast": {"loss.temperature": 3, "optim.lr": 0.6, "data.batch_size": 32}}
    parsed = parse_table(changed(runs=runs, variants=variants, rows=SMALL["rows"][:2]), "t")
    options = everything(parsed, variant="fast", settings={"optim.lr": 0.7})
    config = make_jobs(parsed, options)["runs/one/seed0"].config
    assert isinstance(config, Config)
    assert (config.loss.temperature, config.optim.lr, config.data.batch_size) == (2, 0.7, 32)  # type: ignore[union-attr]
    with pytest.raises(
        DistillError, match="--variant slow: the table has no variant of this name; choose one of fast"
    ):
        make_jobs(parsed, everything(parsed, variant="slow"))


LENGTHS = [{"train.epochs": 3}, {"train.samples": 4000}]


@pytest.mark.parametrize("variant", LENGTHS)
@pytest.mark.parametrize("own", [{}, *LENGTHS])
@pytest.mark.parametrize("given", [{}, *LENGTHS])
@pytest.mark.parametrize("base", ["cifar10-resnet56-resnet20", "fast-cifar"])
@pytest.mark.parametrize("scale", [0.5, 1, 2])
@pytest.mark.parametrize("shards", ["photo", "real"])
def test_the_last_length_said_is_the_one_that_is_scaled(
    base: str, variant: dict[str, Any], own: dict[str, Any], given: dict[str, Any], scale: float, shards: str
) -> None:
    """The scale multiplies the length of the user, or else the length of the row, or else the length of the variant.

    The length is in samples or epochs. The run uses a set of known size, or a pack.
    """
    run = {"config": base, "shards": shards, "teacher": "big", "set": own}
    parsed = parse_table(
        changed(runs={"one": run}, variants={"v": variant}, rows=[{"group": "g", "name": "n", "of": "one"}]), "t"
    )
    small = {"data.batch_size": 2}
    job = make_jobs(parsed, everything(parsed, variant="v", settings=given | small, scale=scale))["runs/one/seed0"]
    assert isinstance(job.config, Config)
    last = given or own or variant
    samples = last.get("train.samples", last.get("train.epochs", 0) * 1000) * scale
    if shards == "real" and "train.epochs" in last:
        assert (job.config.train.epochs, job.config.train.samples) == (3 * scale, None)
    else:
        assert (job.config.train.samples or (job.config.train.epochs or 0) * 1000) == samples
    assert sum(word.startswith(("train.samples=", "train.epochs=")) for word in job.argv) == 1


@pytest.mark.parametrize("own", [{}, *LENGTHS])
@pytest.mark.parametrize("given", [{}, *LENGTHS])
@pytest.mark.parametrize("scale", [0.5, 1])
def test_the_last_length_of_a_network_is_the_one_that_is_scaled(
    own: dict[str, Any], given: dict[str, Any], scale: float
) -> None:
    """The scale multiplies the user's length, or else the length of the table, or else the length of the config."""
    networks = {**SMALL["networks"], "big": {**SMALL["networks"]["big"], "set": own}}
    parsed = parse_table(changed(networks=networks), "t")
    job = make_jobs(parsed, everything(parsed, teacher_settings=given, teacher_scale=scale))["networks/big"]
    assert job.config is not None
    last = given or own or {"train.epochs": 200}
    found = {"train.samples": job.config.train.samples, "train.epochs": job.config.train.epochs}
    assert found == dict.fromkeys(found) | {key: value * scale for key, value in last.items()}


def test_a_row_with_another_optimiser_or_loss_drops_what_the_variant_says_of_its_own() -> None:
    """If a row has another optimizer or loss than the variant, the variant's keys without a use are dropped."""
    sgd = {"optim.name": "sgd", "optim.lr": 0.1, "optim.nesterov": True, "loss.temperature": 2}
    runs = {"one": {**SMALL["runs"]["one"], "set": {"loss.name": "mse"}}}
    parsed = parse_table(changed(runs=runs, variants={"v": sgd}, rows=SMALL["rows"][:2]), "t")
    options = everything(parsed, variant="v", settings={"optim.name": "adamw"})
    job = make_jobs(parsed, options)["runs/one/seed0"]
    assert isinstance(job.config, Config)
    assert (job.config.optim.name, job.config.optim.lr, job.config.loss.name) == ("adamw", 0.1, "mse")
    with pytest.raises(DistillError, match=r"^runs\.one: train\.epochs 1 and train\.samples 2 are both set"):
        make_jobs(parsed, everything(parsed, settings={"train.samples": 2, "train.epochs": 1}))


@pytest.mark.parametrize("variant", [None, "fast"])
def test_rows_of_losses_and_temperatures_have_gradients_of_one_size(variant: str | None) -> None:
    """Rows that compare losses and temperatures have gradients of about equal size.

    The test's logits have the same deviation and correlation as the run in scripts/measure/loss_weights.py.
    """
    parsed = table("ablations")
    jobs = make_jobs(parsed, everything(parsed, variant=variant))
    draws = torch.Generator().manual_seed(0)
    teacher = 4.4 * torch.randn(64, 10, generator=draws)
    student = (0.5 * teacher + 2.3 * torch.randn(64, 10, generator=draws)).requires_grad_()

    def norm(row: str) -> float:
        config = jobs[f"runs/{row}/seed0"].config
        assert isinstance(config, Config)
        (gradient,) = torch.autograd.grad(make_loss(config.loss)(student, teacher), student)
        return float(gradient.norm())

    rows = [row.of for row in parsed.rows if row.group in ("Loss", "Temperature")]
    assert len(rows) == 11
    found = {row: norm(row) / norm("as-it-is") for row in rows}
    assert all(1 / 1.5 < ratio < 1.5 for ratio in found.values()), found
    assert "loss.weight" in parsed.note


def test_another_loss_does_not_inherit_a_rows_weight() -> None:
    """If a setting changes the loss or the temperature of a row, the loss weight of the row is dropped."""
    parsed = table("ablations")
    for name, weight in (("kl", 1), ("l2", None)):
        job = make_jobs(parsed, everything(parsed, settings={"loss.name": name}))["runs/loss-l2/seed0"]
        assert isinstance(job.config, Config)
        assert job.config.loss.weight == (weight or parsed.runs["loss-l2"].set["loss.weight"])
    row = {"loss.name": "l2", "loss.weight": 237.0}
    assert merge(row, {"loss.temperature": 2.0}) == {
        "loss.name": "l2",
        "loss.temperature": 2.0,
    }  # measured at another temperature


def test_only_some_rows_and_what_they_need(tmp_path: Path) -> None:
    parsed = parse_table(changed(), "t")
    photo, data = tmp_path / "data" / "a.png", tmp_path / "data"
    data.mkdir()
    none = tmp_path / "none"
    none.mkdir()
    (none / "a.txt").write_text("no image")
    Image.new("RGB", (8, 8)).save(photo)
    file = tmp_path / "given.pth"
    torch.save(build_model("resnet56", 10).state_dict(), file)
    options = TableOptions(inputs={"photo": photo, "data": data}, teachers={"given": file})
    assert make_plan(parsed, options, ("two",)).chosen.keys() == {"sets/real", "runs/two/seed0"}
    assert make_plan(parsed, options, ("bi*",)).chosen.keys() == {"networks/big"}
    assert make_plan(parsed, options, ()).chosen.keys() == make_plan(parsed, options, ()).jobs.keys()
    plan = make_plan(parsed, TableOptions(inputs={"data": data}), ())
    assert plan.skipped == {"--input photo=PATH": 1, "--teacher given=FILE": 1}
    assert plan.chosen.keys() == {"networks/big"}
    for wrong, message in (
        (
            TableOptions(inputs={"dat": data}),
            "--input dat: the table does not use this name; choose from data, photo",
        ),
        (TableOptions(inputs={"data": Path("/none/x")}), "--input data=/none/x: this path does not exist"),
        (
            TableOptions(inputs={}, teachers={"zzz": photo}),
            "--teacher zzz: the table does not use this name; choose from big, given",
        ),
        (TableOptions(inputs={}, settings={"train.seed": 1}), "--set train.seed: --seeds sets this key; use --seeds"),
        (
            TableOptions(inputs={}, settings={"teacher.weights": "x"}),
            "--set teacher.weights: --teacher sets this key; use --teacher",
        ),
        (TableOptions(inputs={}, settings={"eval.data": "x"}), "--set eval.data: --input sets this key; use --input"),
        (
            TableOptions(inputs={}, teacher_settings={"eval.data": "x"}),
            "--teacher-set eval.data: --input sets this key",
        ),
        (
            TableOptions(inputs={}, settings={"eval.every": 5}),
            "--set eval.every: the table sets this key for the run one; remove the option",
        ),
        (TableOptions(inputs={"data": Path("/" + "n" * 5000)}), "this path does not exist"),
        (
            TableOptions(inputs={}),
            "no row can run; add --input data=PATH (inputs: data (labelled data), photo (a photo))",
        ),
        (
            TableOptions(inputs={"data": tmp_path / "none"}),
            f"--input data must be labelled data: {tmp_path / 'none'}: contains no image",
        ),
        (
            TableOptions(inputs={"data": data, "photo": tmp_path / "none" / "a.txt"}),
            "a.txt: cannot be read as a photo: ",
        ),
    ):
        with pytest.raises(DistillError) as error:
            make_plan(parsed, wrong, ())
        assert message in str(error.value)
    with pytest.raises(DistillError, match="no job to run: --teacher replaces every selected network"):
        make_plan(parsed, TableOptions(inputs={"data": data}, teachers={"big": photo}), ("big",))
    with pytest.raises(DistillError, match="--only x\\*: no row of the table matches; choose from big, one, two"):
        make_plan(parsed, options, ("x*",))


def test_by_what_inputs_are_known_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The digest of a folder covers the contents of all files.

    If the folder is large, the digest covers names and sizes instead of contents.
    """
    folder = tmp_path / "data"
    (folder / "b").mkdir(parents=True)
    (folder / "a").write_bytes(b"1")
    (folder / "b" / "c").write_bytes(b"22")
    one, two = (hashlib.sha256(content).hexdigest() for content in (b"1", b"22"))
    lines = f"{one}  a\n{two}  b/c\n".encode()
    assert input_digest(folder / "a") == one
    assert input_digest(folder) == f"{hashlib.sha256(lines).hexdigest()} over its files"
    (folder / "b" / "again").symlink_to(folder)
    (folder / "tables").mkdir()
    (folder / "tables" / "table.json").write_text("{}")
    assert input_digest(folder) == f"{hashlib.sha256(lines).hexdigest()} over its files"
    monkeypatch.setattr("distill.tables.plan.MAX_HASHED_BYTES", 2)
    sizes = hashlib.sha256(b"1  a\n2  b/c\n").hexdigest()
    assert input_digest(folder) == f"{sizes} over names and sizes of its files"
    with pytest.raises(DistillError, match=r"none: cannot be read: No such file .*; choose another file"):
        input_digest(tmp_path / "none")


def test_a_config_and_a_recipe_beside_the_table(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(presets.text(presets.CONFIGS, "cifar10-resnet56-resnet20"))
    (tmp_path / "own.yaml").write_text("name: own")
    run = {**SMALL["runs"]["one"], "config": "mine.yaml", "evaluations": 0}
    parsed = parse_table(
        changed(
            runs={"one": run},
            sets={"photo": {"images": ["noise"], "n": 9, "recipe": "own.yaml"}},
            rows=[{"group": "g", "name": "n", "of": "one"}],
        ),
        "t",
    )
    jobs = make_jobs(parsed, everything(parsed, folder=tmp_path))
    assert str(tmp_path / "mine.yaml") in jobs["runs/one/seed0"].argv
    assert str(tmp_path / "own.yaml") in jobs["sets/photo"].argv


ROWS = [
    RowResult(group="CIFAR | 10", name="teacher", paper=93.77, top1=(90.0,), samples=1000, seconds=50.0),
    RowResult(
        group="CIFAR | 10",
        name="one image",
        paper=90.7,
        top1=(80.0, 81.0, 82.0),
        samples=2_000_000,
        seconds=9000.0,
        digests={"set_id": "a" * 64, "teacher_sha256": "b" * 64, "sha256": "c" * 64 + ", " + "d" * 64},
    ),
    RowResult(group="other <b>", name="lost", paper=None, state="failed: runs/x: it broke"),
]


def page() -> Page:
    return Page(
        table=parse_table(changed(), "t"),
        rows=ROWS,
        command="distill reproduce t",
        facts=[("scale", "1 <script>")],
        commands=["distill x"],
    )


def test_figures_of_a_line() -> None:
    assert cells(ROWS[0]) == ["teacher", "93.77", "90.00", "-3.77", "1,000", "50 s", "", "", ""]
    assert cells(ROWS[1]) == [
        *("one image", "90.70", "81.00 ± 1.00", "-9.70", "2,000,000", "2 h 30 min"),
        *("aaaaaaaa", "bbbbbbbb", "cccccccc, dddddddd"),
    ]
    assert cells(ROWS[2])[:4] == ["lost", "", "failed: runs/x: it broke", ""]
    assert text(ROWS)[1] == (
        "CIFAR | 10, one image: paper 90.70, ours 81.00 ± 1.00, difference -9.70, 2,000,000 samples in 2 h 30 min"
    )


def test_a_page_as_markdown_and_html() -> None:
    shown = render(page(), "table.md.j2")
    rows = [line for line in shown.splitlines() if line.startswith("|")]
    assert all(line.replace("\\|", "").count("|") == 10 for line in rows) and len(rows) == 7
    assert "| **CIFAR \\| 10** |" in shown and "&lt;b&gt;" in shown and "a" * 64 in shown and "distill x" in shown
    written = render(page(), "table.html.j2")
    assert "1 &lt;script&gt;" in written and "<script" not in written and "81.00 ± 1.00" in written
    assert "src=" not in written and 'href="http' not in written
    assert "<script" not in shown and not re.search(r"(?<!\\)!\[", shown) and shown.count("\n# ") == 0


def test_groups_that_cannot_be_run_are_a_sentence() -> None:
    """If no row of a group can run, the page has one sentence about the group instead of rows."""
    lacking = [
        RowResult(group=group, name="x", paper=None, state=f"needs {lacks}", missing=lacks)
        for group, lacks in (
            ("other <b>", "--input a=PATH"),
            ("third", "--input a=PATH"),
            ("fourth", "--input b=PATH"),
        )
    ]
    whole = dataclasses.replace(page(), rows=[*ROWS, *lacking])
    assert [group for group, _ in whole.groups()] == ["CIFAR | 10", "other <b>"]  # a row of this group was run
    assert whole.left_out() == [
        "Left out because --input a=PATH is missing: third.",
        "Left out because --input b=PATH is missing: fourth.",
    ]
    for shown in (render(whole, "table.md.j2"), render(whole, "table.html.j2")):
        assert all(sentence in shown for sentence in whole.left_out()) and page().left_out() == []


def test_a_row_with_code_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_code, "_allowed", set())
    one = SMALL["runs"]["one"] | {"set": {"student.arch": "ownnets.small:Small(width=2)"}}
    parsed = parse_table(changed(runs=SMALL["runs"] | {"one": one}), "t.yaml")
    with pytest.raises(DistillError, match="--allow-import ownnets"):
        make_jobs(parsed, everything(parsed))
    user_code.allow_import("ownnets")
    jobs = make_jobs(parsed, everything(parsed))
    assert "--allow-import ownnets" in jobs["runs/one/seed0"].command
    assert "--allow-import" not in jobs["runs/two/seed0"].command


def test_listing_and_printing_tables(run_distill: Program) -> None:
    listed = run_distill("tables").out.splitlines()
    assert [line.split()[0] for line in listed] == NAMES
    assert run_distill("tables", "main").out == presets.text(presets.TABLES, "main")
    assert_one_line(
        run_distill("tables", "mian"), "table 'mian': is neither a file nor a packaged table", "did you mean 'main'?"
    )
