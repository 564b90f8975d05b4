"""Test the card, Croissant, indexes and bags: their contents, untrusted texts, and files that users may edit."""

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from manifests import Manifest, open_patchset
from manifests.export.croissant import make_croissant
from manifests.export.dataset_card import is_unedited, link_of, make_card, plain
from manifests.export.finalize import derived_files, has_exports
from manifests.export.shard_index import make_index
from manifests.format.digest import file_digest
from manifests.verify import verify
from tests.conftest import Program, assert_one_line
from tests.helpers.resign import signed_manifest


def manifest_with(patchset_path: Path, **source: Any) -> Manifest:
    value = json.loads((patchset_path / "manifest.json").read_bytes())
    value["sources"][0] |= source
    return signed_manifest(value)


def header(card: bytes) -> dict[str, Any]:
    value: dict[str, Any] = yaml.safe_load(card.decode().split("---\n")[1])
    return value


@pytest.mark.parametrize(
    ("licence", "url", "said"),
    [
        ("CC BY 4.0", "https://example.org/a", {"license": "cc-by-4.0"}),
        ("Apache-2.0", None, {"license": "apache-2.0"}),
        ("CC BY-SA 4.0 International", None, {"license": "cc-by-sa-4.0"}),
        ("Creative Commons BY 2.0", None, {"license": "cc-by-2.0"}),
        ("CC0 1.0 Universal", None, {"license": "cc0-1.0"}),
        ("https://creativecommons.org/licenses/by-nc/4.0/deed.en", None, {"license": "cc-by-nc-4.0"}),
        ("http://creativecommons.org/publicdomain/zero/1.0/", None, {"license": "cc0-1.0"}),
        (
            "https://creativecommons.org/licenses/by-xx/4.0/",
            None,
            {
                "license": "other",
                "license_name": "cc-by-xx-4.0",
                "license_link": "https://creativecommons.org/licenses/by-xx/4.0/",
            },
        ),
        ("CC0", None, {"license": "cc0-1.0"}),
        (
            "https://creativecommons.org/licenses/by-sa/2.0/",
            "https://example.org/a",
            {
                "license": "other",
                "license_name": "cc-by-sa-2.0",
                "license_link": "https://creativecommons.org/licenses/by-sa/2.0/",
            },
        ),
        (None, "https://example.org/a", {"license": "unknown"}),
        ("Ask me, © Jane", "https://example.org/a", {"license": "other", "license_name": "ask-me-jane"}),
    ],
)
def test_the_card_states_the_license(
    patchset_path: Path, licence: str | None, url: str | None, said: dict[str, str]
) -> None:
    card = make_card(manifest_with(patchset_path, licence=licence, url=url))
    found = header(card)
    assert {key: found[key] for key in found if key.startswith("license")} == said
    assert ("none is known" in card.decode()) == (licence is None)
    assert found["size_categories"] == ["n<1K"]
    assert is_unedited(card) and not is_unedited(card.replace(b"Augmented", b"Beautiful"))


def test_licenses_of_several_photos(patchset_path: Path) -> None:
    value = json.loads((patchset_path / "manifest.json").read_bytes())
    first = value["sources"][0]

    def said(*licenses: str | None) -> str:
        value["sources"] = [
            first | {"licence": text, "name": f"{k}.png", "pixels": f"{k:064x}"} for k, text in enumerate(licenses)
        ]
        return str(header(make_card(signed_manifest(value)))["license"])

    assert said("CC0-1.0", "CC0-1.0") == "cc0-1.0"
    assert said("CC0-1.0", "MIT") == "other"
    assert said("CC0-1.0", None) == "unknown"


def test_a_card_promises_no_more_than_a_rebuild_can(patchset_path: Path) -> None:
    value = json.loads((patchset_path / "manifest.json").read_bytes())
    recipe = value["recipe"]

    def card(**changes: Any) -> str:
        value["recipe"] = recipe | changes
        return make_card(signed_manifest(value)).decode()

    assert "patchgen rebuild" in card() and "# 200 patches of a single image" in card()
    assert "patchgen rebuild" not in card(profile="fast")
    packed = card(name="packed")
    assert "patchgen rebuild" not in packed and "ugmented" not in packed and "# 200 patches\n" in packed


@pytest.mark.parametrize(
    ("text", "link"),
    [
        ("https://example.org/a?b=c#d", "https://example.org/a?b=c#d"),
        ("http://example.org:8000", "http://example.org:8000"),
        ("https://example.org/File:A_(b).jpg", "https://example.org/File:A_(b).jpg"),
        ("https://example.org/Zürich%20%C3%BC", "https://example.org/Z%C3%BCrich%20%C3%BC"),
        ("https://exämple.org/", None),
        ("https://example.org/\u202egpj", None),
        ("https://example.org@evil.example/a", None),
        ("https://example.org\\@evil.example", None),
        ("https:///etc/passwd", None),
        ("ftp://example.org/", None),
        (None, None),
    ],
)
def test_links(text: str | None, link: str | None) -> None:
    assert link_of(text) == link


HOSTILE = [
    "<script>alert(1)</script>",
    "](javascript:alert(1)) [x](pipe:id)",
    "---\nlicense: mit\n---\n# Heading",
    "`code` **bold** ![i](http://x/y.png)",
    "\u202egnp.exe \x1b[31mred",
    "!!python/object/apply:os.system ['id']",
    "javascript:alert(1)",
    "file:///etc/passwd",
    "https://example.org/a> <script>",
    "| a | b |",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_untrusted_texts_are_text(patchset_path: Path, text: str) -> None:
    manifest = manifest_with(patchset_path, licence=text, url=text, attribution=text, name=text)
    card = make_card(manifest).decode()
    assert re.fullmatch(r"[a-z0-9.-]{0,64}", header(card.encode()).get("license_name", ""))
    assert "license_link" not in header(card.encode())
    body = card.split("---\n", 2)[2]
    assert not re.search(r"(?<!\\)\]\(|<script|<file|javascript:", body)
    assert re.findall(r"^#.*", body, re.MULTILINE) == ["# 200 patches of a single image", "## Source", "## Use"]
    assert all(c.isprintable() or c == "\n" for c in card)
    value = json.loads(make_croissant(manifest))
    assert value["license"] == text and "isBasedOn" not in value


def test_croissant_states_license_and_origin(patchset_path: Path) -> None:
    value = json.loads((patchset_path / "manifest.json").read_bytes())
    first = value["sources"][0]

    def croissant(*sources: dict[str, str]) -> dict[str, Any]:
        value["sources"] = [
            first | {"name": f"{k}.png", "pixels": f"{k:064x}"} | source for k, source in enumerate(sources)
        ]
        found: dict[str, Any] = json.loads(make_croissant(signed_manifest(value)))
        return found

    one = croissant({"licence": "CC BY 4.0", "url": "https://example.org/a", "attribution": "A. Person"})
    assert one["license"] == "https://creativecommons.org/licenses/by/4.0/"
    assert one["isBasedOn"] == ["https://example.org/a"] and one["creditText"] == "A. Person"
    assert "url" not in one  # the photo's page is not the page of the set
    two = croissant({"licence": "CC0"}, {"licence": "Ask me"})
    assert two["license"] == ["Ask me", "https://creativecommons.org/publicdomain/zero/1.0/"]
    assert "license" not in croissant({"licence": "CC0"}, {})


def test_plain_is_one_line_of_nothing_but_text() -> None:
    assert plain("a\nb\tc") == "a b c"
    assert len(plain("x" * 10_000)) < 400


def test_indexes_name_every_shard(patchset_path: Path) -> None:
    manifest = open_patchset(patchset_path).manifest
    index = json.loads(make_index(manifest))
    assert index["__kind__"] == "wids-shard-index-v1"
    assert [(s["url"], s["nsamples"], s["filesize"]) for s in index["shardlist"]] == [
        (shard.name, shard.n, shard.bytes) for shard in manifest.shards
    ]
    croissant = json.loads(make_croissant(manifest))
    sums = {part["@id"]: part["sha256"] for part in croissant["distribution"] if part["@type"] == "cr:FileObject"}
    assert sums == {s.name: s.sha256 for s in manifest.shards} | {
        s.parquet.name: s.parquet.sha256 for s in manifest.shards
    }


@pytest.fixture
def copy(patchset_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(patchset_path, tmp_path / "set"))


def test_export_writes_them_again(run_patchgen: Program, copy: Path, patchset_path: Path) -> None:
    for name in ("README.md", "croissant.json", "index.json", "SHA256SUMS"):
        (copy / name).unlink()
    result = run_patchgen("export", copy, "--dali", "--json")
    assert result.status == 0, result
    indexes = [f"patches-{k:06d}.idx" for k in range(3)]
    assert json.loads(result.out)["files"] == ["README.md", "croissant.json", "index.json", *indexes, "SHA256SUMS"]
    for name in ("README.md", "croissant.json", "index.json"):
        assert (copy / name).read_bytes() == (patchset_path / name).read_bytes()
    patchset = open_patchset(copy)
    assert verify(copy).faults == () and has_exports(copy, patchset.manifest)
    lines = (copy / indexes[1]).read_text().splitlines()
    assert lines[0] == "v1.2 80" and len(lines) == 81
    row = patchset.row(80)
    assert lines[1] == f"png {row['offset']} {row['size']} 000000080.png"
    whole = (copy / indexes[1]).read_bytes()
    (copy / indexes[1]).write_text("v1.2 0\n")
    assert {fault.file for fault in verify(copy).faults} == {"SHA256SUMS"}
    (copy / indexes[2]).unlink()
    assert any(fault.file == indexes[2] and "is missing" in fault.what for fault in verify(copy).faults)
    assert run_patchgen("export", copy).status == 0  # existing files are written again, deleted files are not
    assert (copy / indexes[1]).read_bytes() == whole and not (copy / indexes[2]).exists()
    assert verify(copy).faults == ()


def test_an_edited_card_outlives_a_build_and_an_export(
    run_patchgen: Program, tmp_path: Path, photo_path: Path
) -> None:
    out = tmp_path / "out"
    build = ("build", "--image", photo_path, "--out", out, "--n")
    assert run_patchgen(*build, 20).status == 0
    first = (out / "README.md").read_bytes()
    assert run_patchgen("extend", out, "--n", 30, "--image", photo_path).status == 0
    assert b"30 patches" in (out / "README.md").read_bytes() != first  # the card was not edited: it is written again
    (out / "README.md").write_text("# My own words\n")
    assert run_patchgen(*build, 30, "--license", "CC0-1.0").status == 0
    assert (out / "README.md").read_text() == "# My own words\n"
    assert json.loads((out / "croissant.json").read_bytes())["license"].endswith("/zero/1.0/")
    bag = tmp_path / "bag"
    assert (
        "README.md is the card that you edited, so it was not replaced"
        in run_patchgen("export", out, "--bagit", bag).out
    )
    assert (out / "README.md").read_text() == "# My own words\n"
    (out / "README.md").write_text("# Words after the bag\n")
    assert (bag / "data" / "README.md").read_text() == "# My own words\n"
    (out / "README.md").write_text("# My own words\n")
    result = run_patchgen("export", out, "--card", "--json")
    assert result.status == 0 and json.loads(result.out)["edited_card"] == "README.md.edited"
    assert (out / "README.md.edited").read_text() == "# My own words\n"
    (out / "README.md").write_text("# My second words\n")
    assert "README.md.edited.2" in run_patchgen("export", out, "--card").out
    assert (out / "README.md.edited").read_text() == "# My own words\n"
    assert (out / "README.md.edited.2").read_text() == "# My second words\n"
    assert b"license: cc0-1.0" in (out / "README.md").read_bytes()
    assert verify(out).faults == ()


def test_a_rerun_mends_what_is_derived(run_patchgen: Program, tmp_path: Path, photo_path: Path) -> None:
    build = ("build", "--image", photo_path, "--out", tmp_path / "out", "--n", 20)
    assert run_patchgen(*build).status == 0
    whole = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    (tmp_path / "out" / "index.json").unlink()
    (tmp_path / "out" / "croissant.json").write_text("{}")
    assert run_patchgen(*build).status == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == whole


def test_what_is_no_good_set_is_not_exported(run_patchgen: Program, copy: Path, tmp_path: Path) -> None:
    assert_one_line(run_patchgen("export", tmp_path / "none"), "no such folder")
    (copy / "patches-000001.tar").write_bytes(b"")
    assert_one_line(run_patchgen("export", copy), "patches-000001.tar: the file has 0 bytes")


def test_changed_files_are_not_signed_again(run_patchgen: Program, copy: Path, tmp_path: Path) -> None:
    before = (copy / "SHA256SUMS").read_bytes()
    manifest = (copy / "manifest.json").read_bytes()
    (copy / "manifest.json").write_bytes(manifest + b"\n")
    assert_one_line(
        run_patchgen("export", copy), "SHA256SUMS: the file lists manifest.json", "copy SHA256SUMS and manifest.json"
    )
    assert (copy / "SHA256SUMS").read_bytes() == before
    (copy / "manifest.json").write_bytes(manifest)
    for name in ("patches-000001.tar", "patches-000001.parquet"):
        whole = (copy / name).read_bytes()
        (copy / name).write_bytes(whole[:700] + bytes([whole[700] ^ 1]) + whole[701:])
        assert_one_line(run_patchgen("export", copy, "--bagit", tmp_path / "bag"), f"{name}: sha256 is ")
        assert not (tmp_path / "bag").exists()
        if name.endswith(".parquet"):
            assert_one_line(run_patchgen("export", copy, "--dali"), f"{name}: sha256 is ")
            assert not (copy / "patches-000001.idx").exists()
        (copy / name).write_bytes(whole)
    assert run_patchgen("export", copy, "--bagit", tmp_path / "bag").status == 0


def test_a_set_that_another_version_described_is_good(copy: Path, run_patchgen: Program) -> None:
    path = copy / "croissant.json"
    text = path.read_text()
    for old, new, good in (
        ("augmented patches of", "patches, augmented, of", True),
        ('"version": "1.0.0"', '"version": "2.0.0"', True),
        ('"contentUrl": "patches-000001.tar"', '"contentUrl": "https://evil.example/patches-000001.tar"', False),
        ('"@vocab": "https://schema.org/"', '"@vocab": "https://evil.example/"', False),
        ("{", "{{", False),
    ):
        assert old in text
        path.write_text(text.replace(old, new))
        assert ({fault.file for fault in verify(copy).faults} == {"SHA256SUMS"}) == good, new
    path.write_text(text.replace("augmented patches of", "patches of"))
    sums = (copy / "SHA256SUMS").read_text().replace(hashlib.sha256(text.encode()).hexdigest(), file_digest(path))
    (copy / "SHA256SUMS").write_text(sums)
    assert verify(copy).faults == ()


@pytest.mark.parametrize("dali", [False, True])
def test_a_bag(run_patchgen: Program, copy: Path, tmp_path: Path, dali: bool) -> None:
    bag = tmp_path / "bag"
    assert not dali or run_patchgen("export", copy, "--dali").status == 0
    assert run_patchgen("export", copy, "--bagit", bag).status == 0
    names = {path.name for path in (bag / "data").iterdir()}
    assert names == {path.name for path in copy.iterdir()}
    octets = sum(path.stat().st_size for path in (bag / "data").iterdir())
    assert f"Payload-Oxum: {octets}.{len(names)}" in (bag / "bag-info.txt").read_text()
    assert verify(bag / "data").faults == ()
    assert_one_line(run_patchgen("verify", bag), f"{bag}: this folder is a BagIt bag", f"verify {bag / 'data'}")
    assert_one_line(run_patchgen("export", copy, "--bagit", bag), "not an empty folder", "another --bagit")


def test_derived_files_are_small(patchset_path: Path) -> None:
    manifest = open_patchset(patchset_path).manifest
    for name, data in derived_files(manifest).items():
        assert len(data) < 8000, name
