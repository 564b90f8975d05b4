"""Test reports: the page shows the contents of one or several run directories, and loads no other file."""

import errno
import html
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

import distill.report
from distill.report.chart import format_count, line_chart, thin
from distill.training.run_identity import DIGESTS
from tests.conftest import Program, assert_one_line, make_photo, write_image
from tests.distill.conftest import TEACHER
from tests.helpers.browser import figures, needs_chromium, visit, width_needed


@pytest.fixture
def run(run_distill: Program, arguments: list[Any], tmp_path: Path) -> Path:
    out = tmp_path / "run"
    result = run_distill(*arguments, out, "--set", "eval.every=64")
    assert result.status == 0, result.err
    assert result.out.splitlines()[-2] == f"report: {out / 'report.html'}"
    return out


def shown(summary: dict[str, Any], key: str) -> str:
    """Format a figure of the summary as a page does."""
    value = summary[key]
    if key in ("student_top1", "teacher_top1", "agreement", "student_top5"):
        return f"{value:.2f} %"
    forms = {"kl_to_teacher": "{:.3f}", "seconds": "{:,.0f} s", "images_per_second": "{:,.0f} images/s"}
    return forms.get(key, "{:,}" if isinstance(value, int) else "{}").format(value)


def test_a_page_shows_the_summary_and_stands_alone(run: Path) -> None:
    page, summary = (run / "report.html").read_text(), json.loads((run / "summary.json").read_text())
    found = figures(page)
    assert set(found) >= {"student_top1", "teacher_top1", "agreement", "set_id", "teacher_sha256", "config_sha256"}
    assert {key: set(texts) for key, texts in found.items()} == {key: {shown(summary, key)} for key in found}
    assert len(page) < 3_000_000
    assert not re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(?!data:|#)[^"'>\s]+""", page)
    for part in ("chance", "25.00 %", "resnet8 → resnet8", "photo.png", ">Training<", "60 of the patches"):
        assert part in page, part
    table = json.loads((run / "classes.json").read_text())
    assert sum(map(sum, table["label_network"])) == 20
    cells = re.findall(r'<td class="cell[^>]*>(\d+)</td>', page)
    assert [int(cell) for cell in cells] == [count for row in table["teacher_network"] for count in row]


def test_the_photo_of_the_set_and_no_other(run: Path, photo_path: Path, tmp_path: Path, run_distill: Program) -> None:
    """A page shows patches on the photo of the set. Another photo is refused."""
    assert "<polygon" not in (run / "report.html").read_text()
    assert run_distill("report", run, "--image", photo_path).status == 0
    page = (run / "report.html").read_text()
    assert page.count("<polygon") == 2 * 20 and 'viewBox="0 0 160 120"' in page  # 20 patches, two outlines each
    other = write_image(tmp_path / "other.png", make_photo(seed=1))
    assert_one_line(run_distill("report", run, "--image", other), "other.png", "names the photos")
    assert_one_line(run_distill("report", run, "--image", tmp_path / "none"), "none: cannot be read")


def test_several_runs_are_compared(run_distill: Program, arguments: list[Any], tmp_path: Path) -> None:
    out = tmp_path / "seeds"
    assert run_distill(*arguments, out, "--seeds", "0,1").status == 0
    page, summary = (out / "report.html").read_text(), json.loads((out / "summary.json").read_text())
    top1 = summary["student_top1"]
    assert f"<b>{top1['mean']:.2f} ± {top1['deviation']:.2f} %</b>" in page
    assert page.count("60 of the patches") == 1 and 'of <a href="#run1">an earlier run</a>' in page
    assert 'href="#run2"' in page and "seeds 0, 1" in page and (out / "seed1" / "report.html").exists()
    assert_one_line(run_distill("report", out / "seed0", out / "seed1"), "2 folders are given", "give --out FILE")
    assert run_distill("report", out / "seed0", out / "seed1", "--out", tmp_path / "both.html").status == 0
    assert (tmp_path / "both.html").read_text().count("<article") == 2


@pytest.mark.parametrize("supervised", [False, True])
def test_runs_that_differ_in_more_than_their_seed_have_no_mean(
    supervised: bool, run_distill: Program, arguments: list[Any], tmp_path: Path, eval_path: Path, train_path: Path
) -> None:
    out = tmp_path / "seeds"
    if supervised:
        (tmp_path / "teacher.yaml").write_text(yaml.safe_dump(TEACHER))
        arguments = [
            "train-teacher",
            "--data",
            train_path,
            "--config",
            tmp_path / "teacher.yaml",
            "--eval",
            eval_path,
            "--out",
        ]
    assert run_distill(*arguments, out, "--seeds", "0,1").status == 0
    page, path, config = out / "report.html", out / "seed1/summary.json", out / "seed1/config.yaml"
    assert "mean and deviation of seeds 0, 1" in page.read_text()
    summary, text = path.read_text(), config.read_text()
    keys = [key for key in DIGESTS if json.loads(summary).get(key)]
    assert len(keys) == 3 + (not supervised)
    for key in keys:
        for value in ("0" * 64, None):
            path.write_text(json.dumps(json.loads(summary) | {key: value}))
            result = run_distill("report", out)
            held = json.loads(summary)[key][:16]
            told = f"The seeds of seeds have no mean: {DIGESTS[key]} ({key}) is {held}… in seeds/seed0, but "
            assert result.status == 0 and told in result.out
            shown = html.unescape(page.read_text())
            assert told in shown and "mean and deviation" not in shown
            different = key == "eval_sha256" and value is not None
            assert ("measured on different evaluation data: do not compare them" in shown) == different
    for both in ("eval_sha256", "data_sha256" if supervised else "set_id"):
        for each in (path, out / "seed0/summary.json"):
            each.write_text(json.dumps(json.loads(summary) | {both: None}))
        assert f"the summary of seeds/seed0 lacks {both} ({DIGESTS[both]})" in run_distill("report", out).out
    (out / "seed0/summary.json").write_text(summary)
    path.write_text(summary)
    config.write_text(text.replace("weight_decay: 0.0", "weight_decay: 0.1"))
    assert (
        "no mean: optim.weight_decay is 0.0 in seeds/seed0, but 0.1 in seeds/seed1" in run_distill("report", out).out
    )
    config.write_text(text.replace("log_steps: ", "log_steps: 1"))
    assert "no mean" not in run_distill("report", out).out


def test_a_run_that_goes_on_and_a_run_that_lacks_files(run: Path, run_distill: Program, tmp_path: Path) -> None:
    """The page of an unfinished run shows the number of samples so far."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("config.yaml", "metrics.jsonl"):
        shutil.copy(run / name, copy)
    with (copy / "metrics.jsonl").open("a") as log:
        log.write('{"step": 13, "samples": 5, "loss": 1e308}\n{"step": 14, "samples": 5, "loss": -1e308}\n')
        log.write('{"step": 13, "sam')
    assert run_distill("report", copy).status == 0
    page = (copy / "report.html").read_text()
    assert "This run has not ended: 192 samples so far." in page and ">Training<" in page
    assert "Top-1</h2>" not in page


def test_what_is_no_run(run: Path, run_distill: Program, tmp_path: Path) -> None:
    assert_one_line(run_distill("report", tmp_path / "nowhere"), "nowhere: is not a run directory")
    assert_one_line(run_distill("report", run, "--out", tmp_path / "no" / "x.html"), "choose another --out")
    assert_one_line(run_distill("report", run, "--out", tmp_path), "is a folder")
    assert_one_line(run_distill("report", tmp_path / ("x" * 300)), "cannot be read")


LEAST = "network: {arch: resnet8, num_classes: 4}\ntrain: {seed: 0}\n"


@pytest.mark.parametrize(
    ("name", "text", "part"),
    [
        ("classes.json", '{"names": ["a"]}', "1 names, expected 4 as in summary.json"),
        (
            "classes.json",
            '{"names": ["a"], "teacher_network": [[1, 2]]}',
            "a confusion matrix has the wrong size, expected 1 × 1",
        ),
        ("classes.json", "[]x", "not JSON"),
        ("patches.json", '{"patches": [{"key": "0", "corners": [[1]]}]}', "patches[0].corners[0]"),
        ("summary.json", "{", "not JSON"),
        ("summary.json", "[1]", "summary.json"),
        ("summary.json", '{"student_top1": NaN}', "NaN is not allowed in JSON"),
        ("summary.json", '{"samples_seen": "many"}', "samples_seen"),
        ("summary.json", '{"samples_seen": ' + "9" * 400 + "}", "summary.json"),
        ("summary.json", '{"teacher_per_class": ["0;background:url(http://127.0.0.1:9/x)"]}', "teacher_per_class[0]"),
        ("config.yaml", "student: 3", "student"),
        ("config.yaml", "train: {seed: 0x" + "f" * 9000 + "}", "config.yaml"),
        ("config.yaml", LEAST + "augment: {grayscale: 1" + "0" * 400 + "}", "augment.grayscale"),
        ("config.yaml", LEAST + "augment: {cutmix_alpha: 1" + "0" * 400 + "}", "augment.cutmix_alpha"),
        ("config.yaml", LEAST + "paper: {source: x, samples: 1" + "0" * 400 + "}", "paper.samples"),
        ("config.yaml", "train: {seed: 0}", "no network to train"),
        ("patchset.json", "{}", "patchset.json"),
    ],
)
def test_a_damaged_file_is_one_line(name: str, text: str, part: str, run: Path, run_distill: Program) -> None:
    (run / name).write_text(text)
    assert_one_line(run_distill("report", run), name, part)
    shutil.copytree(run, run.parent / "runs" / "bad")
    shutil.copytree(run, run.parent / "runs" / "good", ignore=shutil.ignore_patterns("*.json"))
    if name != "config.yaml":  # a page of several runs names the damaged run
        result = run_distill("report", run.parent / "runs")
        assert result.status == 0 and part in result.out and "good: resnet8" in result.out
        assert "Not on this page" in (run.parent / "runs" / "report.html").read_text()


def test_a_run_of_an_earlier_version(run: Path, run_distill: Program) -> None:
    for name in ("classes.json", "patchset.json", "patches.json", "patches.png"):
        (run / name).unlink()
    summary = {
        "student_top1": 50.0,
        "agreement": 60.0,
        "samples_seen": 192,
        "images_per_second": 9.5,
        "seconds": 20.0,
    }
    (run / "summary.json").write_text(json.dumps(summary | {"seed": 0, "sha256": "0" * 64}))
    assert run_distill("report", run).status == 0
    page = (run / "report.html").read_text()
    assert figures(page)["student_top1"] == ["50.00 %"] and "KL from" not in page


def test_a_page_that_cannot_be_made_spoils_no_run(
    run_distill: Program, arguments: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run succeeds even if its page cannot be written."""

    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(distill.report, "write_atomically", full)
    result = run_distill(*arguments, tmp_path / "seeds", "--seeds", "0,1")
    assert result.status == 0 and result.out.count("the report was not written: ") == 3
    assert (tmp_path / "seeds" / "seed1" / "summary.json").exists()


def test_the_page_of_a_finished_run_stays(
    run: Path, run_distill: Program, arguments: list[Any], photo_path: Path
) -> None:
    """``--resume`` does not write the page of a finished run again."""
    assert run_distill("report", run, "--image", photo_path).status == 0
    before = (run / "report.html").read_bytes()
    assert run_distill(*arguments, run, "--set", "eval.every=64", "--resume").status == 0
    assert (run / "report.html").read_bytes() == before


def test_runs_that_do_not_share_their_classes(run: Path, run_distill: Program, tmp_path: Path) -> None:
    other = Path(shutil.copytree(run, tmp_path / "other"))
    config = yaml.safe_load((other / "config.yaml").read_text())
    config["teacher"]["num_classes"] = 100
    (other / "config.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "link").symlink_to(run)
    command = ["report", run, other, tmp_path / "link", "--out", tmp_path / "both.html"]
    result = run_distill(*command)
    assert result.status == 0 and len(result.out.splitlines()) == 3  # the link leads to the first run
    head = (tmp_path / "both.html").read_text().split("<article")[0]
    assert 'name">chance' not in head and head.count('class="line l') >= 2


def test_many_classes(run: Path, run_distill: Program) -> None:
    names = [f"class {number}" for number in range(100)]
    table = [[int(i == j) + (i == 3) * 5 * (j == 4) for j in range(100)] for i in range(100)]
    (run / "classes.json").write_text(json.dumps({"names": names, "teacher_network": table}))
    summary = json.loads((run / "summary.json").read_text())
    summary |= {"student_per_class": [float(n) for n in range(100)], "teacher_per_class": None}
    (run / "summary.json").write_text(json.dumps(summary))
    assert run_distill("report", run).status == 0
    page = (run / "report.html").read_text()
    assert "100 classes, the hardest first" in page and "class 3 → class 4 (5)" in page
    assert "Confusion of 100 classes" in page and "td class" not in page


def test_text_for_the_terminal_is_plain(run: Path, run_distill: Program) -> None:
    """Control characters in a config are not printed to the terminal."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["student"]["arch"] = "\x1b[31mred\nfake: top-1 99.00 %"
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    result = run_distill("report", run)
    assert result.status == 0 and "\x1b" not in result.out and len(result.out.splitlines()) == 2


def test_names_from_elsewhere_are_text(run: Path, run_distill: Program) -> None:
    """Names from files of a run are escaped in HTML."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["student"]["arch"] = "<script>alert(1)</script>"
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    classes = json.loads((run / "classes.json").read_text())
    classes["names"][0] = "<img src=x onerror=alert(1)>"
    (run / "classes.json").write_text(json.dumps(classes))
    assert run_distill("report", run).status == 0
    page = (run / "report.html").read_text()
    assert "<script" not in page and "<img src=x" not in page and "&lt;script&gt;" in page


def test_the_papers_figure_stands_beside_ours(run: Path, run_distill: Program) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["paper"] = {"source": "arXiv 2112.00725, table 1", "samples": 50_000_000, "one_image_top1": 90.7}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert run_distill("report", run).status == 0
    page = (run / "report.html").read_text()
    assert "the paper&#39;s student" in page and "90.70 %" in page and "its student saw 50 M samples" in page


def test_a_supervised_run_has_a_page(
    run_distill: Program, images: tuple[Any, Any], tmp_path: Path, eval_path: Path, train_path: Path
) -> None:
    config = {"network": {"arch": "resnet8", "num_classes": 4}, "optim": {"name": "adam", "lr": 0.004}}
    config |= {"data": {"batch_size": 10}, "train": {"epochs": 2, "precision": "fp32"}}
    (tmp_path / "teacher.yaml").write_text(yaml.safe_dump(config))
    command = ["train-teacher", "--data", train_path, "--config", tmp_path / "teacher.yaml", "--eval", eval_path]
    assert run_distill(*command, "--out", tmp_path / "run").status == 0
    page = (tmp_path / "run" / "report.html").read_text()
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert figures(page)["top1"] == [f"{summary['top1']:.2f} %"]
    assert "resnet8 from labels" in page and "labels and network disagree" in page


def test_charts() -> None:
    assert line_chart([[]], marks={}, unit="%", title="nothing") == ""
    assert '<circle class="l1"' in line_chart([[], [(5, 1.0)]], marks={}, unit="%", title="one point")
    flat = line_chart([[(0, 5.0), (10, 5.0)]], marks={}, unit="<%>", title='a "title"')
    assert "&lt;%&gt;" in flat and "&#34;title&#34;" in flat and "nan" not in flat
    line = [(float(x), float(x % 7)) for x in range(1000)]
    assert len(thin(line)) <= 400 and thin(line)[-1][0] == 999
    assert [format_count(n) for n in (0, 999, 999_936, 20_480, 3.4e6, 5e9)] == [
        "0",
        "999",
        "1 M",
        "20.5 k",
        "3.4 M",
        "5 G",
    ]


@needs_chromium
def test_the_page_in_a_browser(run: Path, photo_path: Path, run_distill: Program, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text("<script>console.error('x')</script><img src='http://127.0.0.1:9/x.png'>")
    control = visit(bad, tmp_path)
    assert control.console and "http://127.0.0.1:9/x.png" in control.requests  # the browser reports errors
    bad.write_text(f"<p>{'x' * 300}</p>")
    assert width_needed(bad, 390, tmp_path) > 390

    assert run_distill("report", run, "--image", photo_path).status == 0
    seen = visit(run / "report.html", tmp_path)
    summary = json.loads((run / "summary.json").read_text())
    assert seen.console == [] and seen.requests == []
    assert figures(seen.dom)["student_top1"] == [shown(summary, "student_top1")]
    assert figures(seen.dom)["set_id"] == [summary["set_id"]]
    classes = json.loads((run / "classes.json").read_text())
    classes["names"][1] = "x" * 200
    (run / "classes.json").write_text(json.dumps(classes))
    run = run.rename(run.with_name("r" * 200))
    assert run_distill("report", run).status == 0
    for width in (390, 1200):
        assert width_needed(run / "report.html", width, tmp_path) <= width


def test_no_photo_is_asked_for_where_none_made_the_set(
    run_patchgen: Program, run_distill: Program, arguments: list[Any], tmp_path: Path
) -> None:
    """The suggested command asks for a photo only if the set was made from a photo."""
    out, images = tmp_path / "run", tmp_path / "images"
    images.mkdir()
    for seed in range(20):
        write_image(images / f"{seed}.png", make_photo(32, 32, seed))
    assert f"report {out} --image PHOTO\n" in run_distill(*arguments, out).out
    assert run_patchgen("pack", images, "--out", tmp_path / "packed").status == 0
    arguments[arguments.index("--shards") + 1] = tmp_path / "packed"
    trained = run_distill(*arguments, tmp_path / "of-packed")
    report = f"distill report {tmp_path / 'of-packed'}"
    assert f"next: distill visualize {tmp_path / 'of-packed'} && {report}\n" in trained.out
    seen = run_distill("visualize", tmp_path / "of-packed", "--steps", 1, "--classes", "0")
    assert seen.out.endswith(f"next: {report}\n")
