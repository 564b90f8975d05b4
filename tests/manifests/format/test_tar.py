"""Test the canonical header against the USTAR writer and reader of the standard library."""

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.errors import PatchSetError
from manifests.format import tar


@given(
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=99),
    st.integers(0, 2**33 - 1),
)
def test_header_is_the_standard_librarys(name: str, size: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, 0o444, 0
    theirs = info.tobuf(format=tarfile.USTAR_FORMAT)
    ours = tar.header(name, size)
    # Versions of Python write different device numbers for a regular file. The numbers mean nothing, but they change
    # the checksum.
    for start, stop in ((0, 148), (156, 329), (345, 512)):
        assert ours[start:stop] == theirs[start:stop]
    assert ours[329:345] == b"0000000\0" * 2  # GNU tar writes the same numbers
    assert tarfile.TarInfo.frombuf(ours, "ascii", "strict").size == size  # frombuf checks the checksum


def test_an_archive_reads_back() -> None:
    members = {"000000000.png": b"a" * 700, "000000001.png": b"", "000000002.png": b"c" * 512}
    data = b"".join(tar.header(n, len(d)) + d + tar.padding(len(d)) for n, d in members.items()) + tar.END
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert {m.name: archive.extractfile(m).read() for m in archive} == members
        assert {(m.mode, m.mtime, m.uid, m.gid, m.uname, m.gname) for m in archive} == {(0o444, 0, 0, 0, "", "")}


@pytest.mark.parametrize(("name", "size"), [("", 1), ("é.png", 1), ("x" * 101, 1), ("x", -1), ("x", 2**33)])
def test_what_no_header_can_say(name: str, size: int) -> None:
    with pytest.raises(PatchSetError, match="tar member"):
        tar.header(name, size)
