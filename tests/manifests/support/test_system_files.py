"""Test files and folders that operating systems create by themselves."""

import shutil
import subprocess
from pathlib import Path

import pytest

from distill.errors import DistillError
from manifests.support.system_files import is_system_file
from tests.conftest import Program, assert_one_line, make_photo, write_image

SYSTEM = [
    ".DS_Store",
    "._photo.jpg",
    "._.DS_Store",
    "Thumbs.db",
    "THUMBS.DB",
    "desktop.ini",
    "Desktop.ini",
    ".directory",
    "@eaDir",
    ".nfs000000000123abcd00000001",
    ".fuse_hidden0000000a00000001",
    "__MACOSX",
    ".ipynb_checkpoints",
    ".Trash-1000",
    "lost+found",
    "Icon\r",
]
OTHERS = [
    "photo.jpg",
    ".git",
    ".gitattributes",
    ".nfs",
    ".nfsmount.conf",
    "thumbs",
    "DS_Store",
    "_DS_Store",
    "",
    ".",
    "README.md",
]


@pytest.mark.parametrize("name", SYSTEM)
def test_what_a_system_makes_is_known_by_its_name(name: str) -> None:
    assert is_system_file(name)


@pytest.mark.parametrize("name", OTHERS)
def test_a_users_file_is_not_a_system_file(name: str) -> None:
    assert not is_system_file(name)


JUNK = (".DS_Store", "._.DS_Store", "._patches-000000.tar", "Thumbs.db", "desktop.ini", ".nfs0000000000000001")


def litter(folder: Path) -> None:
    """Create the files and one folder that operating systems leave in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in JUNK:
        (folder / name).write_bytes(b"\0junk")
    (folder / "@eaDir").mkdir(exist_ok=True)
    (folder / "@eaDir" / "patches-000000.tar@SynoEAStream").write_bytes(b"junk")


def test_sets_are_written_beside_system_files(
    tmp_path: Path, photo_path: Path, patchset_path: Path, run_patchgen: Program
) -> None:
    out = tmp_path / "set"
    litter(out)
    build = ("build", "--image", photo_path, "--n", 20, "--workers", 1, "--out", out)
    assert run_patchgen(*build).status == 0
    assert run_patchgen(*build).status == 0
    assert run_patchgen("extend", out, "--n", 30, "--image", photo_path, "--workers", 1).status == 0
    assert run_patchgen("export", out, "--dali").status == 0
    for command, arguments in (
        ("rebuild", ("--manifest", patchset_path / "manifest.json", "--image", photo_path)),
        ("pack", (packable(tmp_path / "images"), "--size", 32)),
    ):
        litter(tmp_path / command)
        result = run_patchgen(command, *arguments, "--workers", 1, "--out", tmp_path / command)
        assert (result.status, result.err) == (0, "")


def packable(folder: Path) -> Path:
    folder.mkdir()
    write_image(folder / "a.png", make_photo(40, 40))
    return folder


def test_a_users_file_still_occupies_a_folder(tmp_path: Path, photo_path: Path, run_patchgen: Program) -> None:
    litter(tmp_path / "set")
    (tmp_path / "set" / "notes.txt").write_text("mine")
    result = run_patchgen("build", "--image", photo_path, "--n", 20, "--out", tmp_path / "set")
    assert_one_line(result, "contains files that no build wrote (notes.txt), expected an empty or new folder")


def test_a_set_with_system_files_is_good_and_none_is_passed_on(
    tmp_path: Path, patchset_path: Path, run_patchgen: Program
) -> None:
    folder, bag = tmp_path / "set", tmp_path / "bag"
    shutil.copytree(patchset_path, folder)
    litter(folder)
    for arguments in (("--workers", 1), ("--fast",)):
        result = run_patchgen("verify", folder, *arguments)
        assert (result.status, result.err) == (0, "")
    assert run_patchgen("diff", folder, patchset_path).status == 0
    sums = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=folder, capture_output=True, check=False)
    assert sums.returncode == 0
    litter(bag)
    assert run_patchgen("export", folder, "--bagit", bag).status == 0
    assert not [path for path in (bag / "data").iterdir() if is_system_file(path.name)]


def test_a_store_takes_no_system_files_and_is_empty_with_them(
    tmp_path: Path, patchset_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATCHSET_CACHE", str(tmp_path / "cache"))
    pytest.importorskip("fsspec")
    from fsspec.implementations.memory import MemoryFileSystem

    from manifests.remote.upload import stage_upload

    store = MemoryFileSystem()
    store.pipe_file("/system-files/a/.DS_Store", b"\0junk")
    with stage_upload("memory://system-files/a") as upload:
        for path in patchset_path.iterdir():
            shutil.copy(path, upload.folder)
        litter(upload.folder)
        upload.send(lambda count: None)
    names = {path.rpartition("/")[2] for path in store.find("/system-files/a")}
    assert names == {path.name for path in patchset_path.iterdir()} | {".DS_Store"}
    store.rm("/system-files", recursive=True)


def test_runs_labels_and_tables_begin_beside_system_files(tmp_path: Path) -> None:
    from distill.commands.make_logits import check_folder as check_logits_folder
    from distill.training.run_dir import check_folder

    litter(tmp_path / "new")
    check_folder(tmp_path / "new", resume=False)
    check_folder(tmp_path / "new", resume=False, several=True)
    check_logits_folder(tmp_path / "new")
    (tmp_path / "new" / "notes.txt").write_text("mine")
    for check in (
        lambda: check_folder(tmp_path / "new", resume=False),
        lambda: check_folder(tmp_path / "new", resume=False, several=True),
        lambda: check_logits_folder(tmp_path / "new"),
    ):
        with pytest.raises(DistillError, match="is not empty"):
            check()


def test_a_tables_input_is_the_same_when_a_system_has_looked_at_it(tmp_path: Path) -> None:
    from distill.tables.plan import input_digest

    folder = packable(tmp_path / "images")
    before = input_digest(folder)
    litter(folder)
    assert input_digest(folder) == before
    (folder / "b.png").write_bytes(b"another")
    assert input_digest(folder) != before
