"""Test that verification finds and names every fault, and reports no false faults."""

import hashlib
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import manifests.verify
from manifests import open_patchset
from manifests.format import tar
from manifests.format.checksums import read_sums
from manifests.verify import verify
from tests.helpers.resign import resign

SHARD, TABLE = "patches-000001.tar", "patches-000001.parquet"


@pytest.fixture
def copy(patchset_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(patchset_path, tmp_path / "copy"))


def files_at_fault(folder: Path, **options: bool) -> set[str]:
    return {fault.file for fault in verify(folder, **options).faults}


def test_a_good_set_has_no_fault(copy: Path) -> None:
    seen: list[int] = []
    report = verify(copy, on_patches=seen.append)
    assert report.faults == () and report.patches == 200 == sum(seen)
    assert verify(copy, workers=3).faults == ()
    assert verify(copy, fast=True).faults == () and verify(copy, fast=True).patches == 0
    (copy / "notes.txt").write_text("files that look like no part of a set are the user's")
    assert verify(copy).faults == ()


def test_every_flipped_bit_is_found(copy: Path) -> None:
    chance = random.Random(1)
    for path in sorted(copy.iterdir()):
        if path.name == "README.md":  # users may edit the card
            continue
        data = path.read_bytes()
        positions = [chance.randrange(len(data)) for _ in range(25)] + [0, len(data) - 1]
        for position in positions:
            damaged = bytearray(data)
            damaged[position] ^= 1 << chance.randrange(8)
            path.write_bytes(damaged)
            assert verify(copy).faults, (path.name, position)
        path.write_bytes(data)
    assert verify(copy).faults == ()


def test_faults_that_are_not_listed_are_counted(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in copy.glob("*.tar"):
        path.write_bytes(bytes(path.stat().st_size))
    every = verify(copy).faults
    monkeypatch.setattr(manifests.verify, "MAX_SHARD_FAULTS", 2)
    faults = verify(copy).faults
    assert len(faults) == 3 < len(every)
    assert f"and {len(every) - 2} more faults in the shards" in str(faults[2])


def test_a_fault_names_its_member(copy: Path) -> None:
    path = copy / SHARD
    row = pq.read_table(copy / TABLE).to_pylist()[7]
    data = bytearray(path.read_bytes())
    data[row["offset"] + row["size"] // 2] ^= 1
    path.write_bytes(data)
    faults = [str(fault) for fault in verify(copy).faults]
    assert len(faults) == 2
    assert any("sha256 is" in fault and "the manifest declares" in fault for fault in faults)
    assert any(fault.startswith(f"{SHARD}: member {row['key']}.png: sha256 is ") for fault in faults)


@pytest.mark.parametrize("boundary", [True, False])
def test_truncation_is_found(copy: Path, boundary: bool) -> None:
    path = copy / SHARD
    row = pq.read_table(copy / TABLE).to_pylist()[40]
    end = row["offset"] - tar.BLOCK if boundary else row["offset"] + 5
    path.write_bytes(path.read_bytes()[:end])
    assert files_at_fault(copy) == files_at_fault(copy, fast=True) == {SHARD}
    assert f"{end} bytes, the manifest declares" in str(verify(copy, fast=True).faults[0])


def _rename(folder: Path) -> None:
    (folder / SHARD).rename(folder / "patches-000009.tar")


def _swap(folder: Path) -> None:
    first, second = folder / "patches-000000.tar", folder / SHARD
    data = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "files"),
    [
        (lambda f: (f / SHARD).unlink(), {SHARD}),
        (lambda f: (f / TABLE).unlink(), {TABLE}),
        (lambda f: (f / "SHA256SUMS").unlink(), {"SHA256SUMS"}),
        (lambda f: (f / "manifest.json").unlink(), {"manifest.json"}),
        (lambda f: (f / "index.json").write_text("{}"), {"index.json", "SHA256SUMS"}),
        (lambda f: (f / "croissant.json").unlink(), {"croissant.json"}),
        (lambda f: (f / "patches-000000.idx").touch(), {"SHA256SUMS"}),
        (_rename, {SHARD, "patches-000009.tar"}),
        (lambda f: shutil.copy(f / SHARD, f / "patches-000003.tar"), {"patches-000003.tar"}),
        (lambda f: shutil.copy(f / SHARD, f / "patches-000001 (1).tar"), {"patches-000001 (1).tar"}),
        (lambda f: (f / ".patchset-part-7-x").touch(), {".patchset-part-7-x"}),
        (lambda f: (f / ".patchgen-build.json").touch(), {".patchgen-build.json"}),
        (lambda f: (f / SHARD).write_bytes(b""), {SHARD}),
        (lambda f: (f / TABLE).write_bytes(b"PAR1"), {TABLE}),
    ],
)
def test_names_and_sizes_are_found_fast(copy: Path, damage: Callable[[Path], object], files: set[str]) -> None:
    damage(copy)
    assert files_at_fault(copy, fast=True) == files_at_fault(copy) == files


def test_swapped_shards_and_links_are_found(copy: Path) -> None:
    _swap(copy)
    assert files_at_fault(copy) >= {"patches-000000.tar", SHARD}
    _swap(copy)
    (copy / SHARD).rename(copy / "other")
    (copy / SHARD).symlink_to("other")
    assert files_at_fault(copy, fast=True) == {SHARD}


def rewrite(folder: Path, tar_bytes: bytes) -> None:
    """Replace the shard by ``tar_bytes`` and correct the manifest, so that only the contents of the tar are wrong."""
    (folder / SHARD).write_bytes(tar_bytes)
    resign(folder, exports=True)


def members(folder: Path) -> list[bytes]:
    data = (folder / SHARD).read_bytes()
    starts = [row["offset"] - tar.BLOCK for row in pq.read_table(folder / TABLE).to_pylist()]
    ends = [*starts[1:], len(data) - len(tar.END)]
    return [data[start:end] for start, end in zip(starts, ends, strict=True)]


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda m: m[:-1], "expected offset"),
        (lambda m: [*m, m[0]], "after the last member"),
        (lambda m: [*m[:3], m[3], *m[3:-1]], "member 000000084.png: the header"),
        (lambda m: [m[1], m[0], *m[2:]], "member 000000080.png"),
        (lambda m: [m[0].replace(b"000000080.png", b"../../etc/pwd"), *m[1:]], "names the member '../../etc/pwd'"),
        (lambda m: [*m[:-1], m[-1][:-1] + b"\x01"], "the padding after this member is not zero bytes"),
    ],
)
def test_members_are_compared_with_their_rows(
    copy: Path, change: Callable[[list[bytes]], list[bytes]], part: str
) -> None:
    rewrite(copy, b"".join(change(members(copy))) + tar.END)
    report = verify(copy)
    assert part in "\n".join(map(str, report.faults)), report.faults
    assert {fault.file for fault in report.faults} == {SHARD}


def test_a_table_that_lies_about_pixels(copy: Path) -> None:
    table = pq.read_table(copy / TABLE)
    digests = table.column("pixels").to_pylist()
    digests[0], digests[1] = digests[1], digests[0]
    position = table.schema.get_field_index("pixels")
    import pyarrow as pa

    lying = table.set_column(position, table.schema.field("pixels"), pa.array(digests, pa.binary(32)))
    pq.write_table(lying, copy / TABLE)
    resign(copy, exports=True)
    faults = "\n".join(map(str, verify(copy).faults))
    assert "member 000000080.png: the pixels have the digest" in faults
    assert "manifest.json: pixel_root is" in faults


def test_sums_are_what_sha256sum_reads(patchset_path: Path) -> None:
    import subprocess

    subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=patchset_path, check=True)
    names = {path.name for path in patchset_path.iterdir()} - {"SHA256SUMS", "README.md"}
    assert read_sums(patchset_path / "SHA256SUMS").keys() == names
    assert open_patchset(patchset_path).manifest.n == 200


def forge(folder: Path, image_format: str, replacement: bytes) -> None:
    """Replace the bytes of the first member, and correct its row, the table, the shard and the manifest."""
    import pyarrow as pa

    parts, rows = members(folder), pq.read_table(folder / TABLE)
    header = tar.header(f"000000080.{image_format}", len(replacement))
    parts[0] = header + replacement + tar.padding(len(replacement))
    lengths = [len(part) for part in parts]
    columns = {
        "offset": pa.array([sum(lengths[:k]) + tar.BLOCK for k in range(len(parts))]),
        "size": pa.array([len(replacement), *rows.column("size").to_pylist()[1:]]),
        "sha256": pa.array(
            [hashlib.sha256(replacement).digest(), *rows.column("sha256").to_pylist()[1:]], pa.binary(32)
        ),
    }
    for name, values in columns.items():
        position = rows.schema.get_field_index(name)
        rows = rows.set_column(position, rows.schema.field(name), values)
    pq.write_table(rows, folder / TABLE)
    rewrite(folder, b"".join(parts) + tar.END)


def encoded(mode: str, image_format: str, side: int = 32) -> bytes:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new(mode, (side, side), 0).save(buffer, image_format)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("image_format", "replacement", "part"),
    [
        ("jpg", b"no image", "not a valid JPEG"),
        ("jpg", b"", "not a whole image"),
        ("jpg", encoded("RGB", "PNG"), "not a valid JPEG"),
        ("jpg", encoded("RGB", "JPEG", 64), "the image is 64×64, expected 32×32"),
        ("jpg", encoded("L", "JPEG"), "it is in color mode L, expected one picture in RGB"),
        ("png", encoded("RGB", "JPEG"), "it is not PNG"),
        ("png", encoded("RGBA", "PNG"), "it is in color mode RGBA, expected one picture in RGB"),
        ("png", encoded("P", "PNG"), "it is in color mode P, expected one picture in RGB"),
        ("png", encoded("RGB", "PNG"), "the pixels have the digest"),
    ],
)
def test_a_consistent_forgery_is_found(
    photo_path: Path, tmp_path: Path, image_format: str, replacement: bytes, part: str
) -> None:
    from patchgen.pipeline.build import build
    from patchgen.pipeline.plan import make_plan
    from patchgen.recipe import load_recipe
    from patchgen.sources.photo import read_photo

    photo, recipe = read_photo(photo_path), load_recipe("asano2023").with_format(image_format)
    plan = make_plan(photos=[photo], recipe=recipe, n=100, size=32, seed=0, shard_size=80)
    build(plan, [photo], tmp_path / "set", workers=1)
    forge(tmp_path / "set", image_format, replacement)
    faults = [str(fault) for fault in verify(tmp_path / "set").faults]
    assert len(faults) == 1 and part in faults[0] and "000000080" in faults[0], faults


def test_columns_must_come_first_and_in_order(copy: Path) -> None:
    table = pq.read_table(copy / TABLE)
    pq.write_table(table.select(table.column_names[::-1]), copy / TABLE)
    resign(copy, exports=True)
    assert [fault.file for fault in verify(copy).faults] == [TABLE]


@pytest.mark.parametrize("number", ["1e999", "1" + "0" * 30])
def test_numbers_beyond_json_are_refused(copy: Path, number: str) -> None:
    text = (copy / "manifest.json").read_text().replace('"environment": {', f'"environment": {{"x": {number},')
    (copy / "manifest.json").write_text(text)
    assert any(fault.file == "manifest.json" for fault in verify(copy).faults)
