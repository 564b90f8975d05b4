"""Test untrusted tars: the members are those that tarfile finds, and the number of bytes read is limited."""

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from manifests.errors import PatchSetError
from manifests.foreign import image_files
from manifests.foreign.image_files import members_of, open_tar

FORMS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
MEMBERS = {"a.png": b"a" * 700, "b/" * 90 + "c.png": b"", "d.cls": b"3"}


def write(path: Path, form: int = tarfile.GNU_FORMAT) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w", format=form) as archive:
        for name, data in MEMBERS.items():
            try:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
            except ValueError:  # USTAR allows only short names
                info.name = "c.png"
                archive.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz"])
def test_members_are_those_of_tarfile(tmp_path: Path, form: int, name: str) -> None:
    path = write(tmp_path / name, form)
    members = members_of(path)
    with tarfile.open(path) as archive:
        assert [m.name for m in members] == archive.getnames()
    with open_tar(path) as file:
        for member, data in zip(members, MEMBERS.values(), strict=True):
            file.seek(member.offset_data)
            assert file.read(member.size) == data


@pytest.mark.parametrize(
    ("limit", "value", "part"),
    [
        ("MAX_MEMBERS", 2, "more than 2 members"),
        ("MAX_HEADER_BYTES", 1024, "headers of more than 1024"),
        ("MAX_UNZIPPED", 100, "more than 100 unpacked bytes"),
    ],
)
def test_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int, part: str) -> None:
    path = write(tmp_path / "x.tar.gz")
    monkeypatch.setattr(image_files, "MAX_RATIO", 0)
    members_of(path)
    monkeypatch.setattr(image_files, limit, value)
    with pytest.raises((tarfile.ReadError, PatchSetError), match=part):
        members_of(path)


def test_the_name_says_whether_it_is_compressed(tmp_path: Path) -> None:
    plain, packed = write(tmp_path / "x.tar"), write(tmp_path / "x.tar.gz")
    (tmp_path / "y.tar").write_bytes(packed.read_bytes())
    (tmp_path / "y.tgz").write_bytes(plain.read_bytes())
    for path in (tmp_path / "y.tar", tmp_path / "y.tgz"):
        with pytest.raises((tarfile.TarError, gzip.BadGzipFile)):
            members_of(path)
