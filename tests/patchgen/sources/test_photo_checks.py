"""Test photos whose pixels differ from the picture in a viewer.

Every command that reads such a photo prints one warning on stderr.
"""

import io
import json
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from patchgen.errors import PatchgenError
from patchgen.sources.photo import read_photo
from patchgen.sources.photo_checks import describe_findings, header_findings, profile_name
from tests.conftest import Program, make_photo
from tests.helpers.icc import ADOBE_RGB, DISPLAY_P3, SRGB, make_profile

PHOTO = Image.fromarray(make_photo(160, 120))
P3 = make_profile("Display P3", DISPLAY_P3)
ADVICE = "convert the photo to sRGB to preserve the colors that a viewer shows"
P3_NOTE = f'the color profile "Display P3" is ignored, and colors are read as sRGB; {ADVICE}'


def encoded(image: Image.Image, image_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def found(tmp_path: Path, data: bytes) -> list[tuple[str, str]]:
    path = tmp_path / "photo"
    path.write_bytes(data)
    return [(finding.kind, finding.text) for finding in read_photo(path).findings]


def kinds(tmp_path: Path, data: bytes) -> list[str]:
    return [kind for kind, _ in found(tmp_path, data)]


def with_chunk(png: bytes, kind: bytes, content: bytes) -> bytes:
    """Return a PNG with one more chunk after its header."""
    crc = struct.pack(">I", zlib.crc32(kind + content))
    return png[:33] + struct.pack(">I", len(content)) + kind + content + crc + png[33:]


JPEGS = {
    "baseline": encoded(PHOTO, "JPEG", quality=90),
    "progressive": encoded(PHOTO, "JPEG", quality=90, progressive=True),
    "restarts": encoded(PHOTO, "JPEG", quality=90, restart_marker_rows=1),
    "gray": encoded(PHOTO.convert("L"), "JPEG", quality=90),
    "cmyk": encoded(PHOTO.convert("CMYK"), "JPEG", quality=90),
}


def middle(data: bytes) -> int:
    """Return the offset of a byte in the middle of a JPEG's last scan."""
    return (data.rindex(b"\xff\xda") + len(data)) // 2


DAMAGES = {
    "zeros": lambda d: d[: middle(d)] + bytes(200) + d[middle(d) + 200 :],
    "ends early": lambda d: d[: middle(d)] + b"\xff\xd9",
    "a marker in the middle": lambda d: d[: middle(d)] + b"\xff\xd9" + d[middle(d) + 2 :],
    "zeros to the end": lambda d: d[: middle(d)] + bytes(4 * len(d)),
}


@pytest.mark.parametrize("jpeg", JPEGS)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_jpeg_is_said(tmp_path: Path, jpeg: str, damage: str) -> None:
    whole = JPEGS[jpeg]
    assert "damage" not in kinds(tmp_path, whole)
    spoilt = DAMAGES[damage](whole)
    if damage == "zeros to the end" and jpeg in ("progressive", "restarts"):  # OpenCV refuses it
        with pytest.raises(PatchgenError, match="not a whole image"):
            found(tmp_path, spoilt)
        return
    texts = [text for kind, text in found(tmp_path, spoilt) if kind == "damage"]
    assert len(texts) == 1
    assert re.search(
        r"the file is damaged \(.+\): a part of the picture may be wrong or gray; download the file again", texts[0]
    )


def scan_starts(data: bytes) -> list[int]:
    return [match.start() for match in re.finditer(b"\xff\xda", data)]


def test_a_progressive_jpeg_without_its_last_scans_is_damaged(tmp_path: Path) -> None:
    """Decoders report no error for such a file: they return a coarse picture."""
    data = JPEGS["progressive"]
    assert len(scan_starts(data)) > 5
    for start in scan_starts(data)[1:]:
        cut = data[:start]
        if b"\xff\xc4" in cut[-400:]:  # the Huffman table of the scan is cut too
            cut = cut[: cut.rindex(b"\xff\xc4")]
        assert ("damage", "the JPEG lacks its last scans") in [
            (kind, re.sub(r".*\((.*)\).*", r"\1", text)) for kind, text in found(tmp_path, cut + b"\xff\xd9")
        ]


@pytest.mark.parametrize("compression", ["tiff_lzw", "jpeg"])
def test_a_damaged_tiff_is_said(tmp_path: Path, compression: str) -> None:
    data = encoded(Image.fromarray(make_photo(320, 240)), "TIFF", compression=compression)
    assert kinds(tmp_path, data) == []
    with Image.open(io.BytesIO(data)) as image:
        starts, sizes = image.tag_v2[273], image.tag_v2[279]
    at = starts[-1] + sizes[-1] // 2
    assert kinds(tmp_path, data[:at] + bytes(100) + data[at + 100 :]) == ["damage"]


PROFILED = [
    ("JPEG", {}),
    ("PNG", {}),
    ("WEBP", {"lossless": True}),
    ("WEBP", {}),
    ("TIFF", {}),
    ("TIFF", {"compression": "tiff_lzw"}),
]


@pytest.mark.parametrize(("image_format", "options"), PROFILED)
def test_a_profile_is_named_and_srgbs_is_not(tmp_path: Path, image_format: str, options: dict[str, Any]) -> None:
    ((kind, text),) = found(tmp_path, encoded(PHOTO, image_format, icc_profile=P3, **options))
    assert kind == "colors" and text.startswith('the color profile "Display P3" is ignored')
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for same in (srgb, make_profile("c2", SRGB), None):
        assert found(tmp_path, encoded(PHOTO, image_format, icc_profile=same, **options)) == []


@pytest.mark.parametrize(
    ("profile", "name"),
    [
        (make_profile("sRGB by somebody"), None),
        (make_profile("Display P3", DISPLAY_P3), "Display P3"),
        (make_profile("Adobe RGB (1998)", ADOBE_RGB, 2.2), "Adobe RGB (1998)"),
        (make_profile("sRGB, or so it says", DISPLAY_P3), "sRGB, or so it says"),
        (make_profile("linear", SRGB, 1.0), "linear"),
        (make_profile("x" * 5000, DISPLAY_P3), "x" * 60 + "…"),
        (b"no profile at all", "unreadable ICC profile"),
        (P3[:200], "unreadable ICC profile"),
        (bytes(9 << 20), f"an ICC profile of {9 << 20} bytes"),
    ],
)
def test_names_of_profiles(profile: bytes, name: str | None) -> None:
    assert profile_name(profile, gray=False) == name


def test_gray_photos(tmp_path: Path) -> None:
    gray = PHOTO.convert("L")
    assert kinds(tmp_path, encoded(gray, "JPEG", icc_profile=make_profile("Dot gain", None, 1.75))) == ["colors"]
    assert kinds(tmp_path, encoded(gray, "JPEG", icc_profile=make_profile("sGray", None))) == []
    # The primaries of an RGB profile do not change grays, and Display P3 has the curve of sRGB.
    assert kinds(tmp_path, encoded(gray, "JPEG", icc_profile=P3)) == []


@pytest.mark.parametrize(
    ("chunk", "content", "name"),
    [
        (b"cICP", bytes([12, 13, 0, 1]), "Display P3, sRGB (cICP)"),
        (b"cICP", bytes([9, 16, 0, 1]), "BT.2020, PQ (cICP)"),
        (b"cICP", bytes([1, 13, 0, 1]), None),
        (b"gAMA", struct.pack(">I", 100_000), "gamma 1 (gAMA)"),
        (b"gAMA", struct.pack(">I", 45_455), None),
        (b"gAMA", struct.pack(">I", 0), None),
        (b"sRGB", b"\0", None),
    ],
)
def test_chunks_of_png(tmp_path: Path, chunk: bytes, content: bytes, name: str | None) -> None:
    texts = [text for _, text in found(tmp_path, with_chunk(encoded(PHOTO, "PNG"), chunk, content))]
    assert len(texts) == (name is not None)
    assert all(f'"{name}"' in text for text in texts)


def test_srgb_and_cicp_go_before_other_chunks(tmp_path: Path) -> None:
    linear = with_chunk(encoded(PHOTO, "PNG"), b"gAMA", struct.pack(">I", 100_000))
    assert found(tmp_path, with_chunk(linear, b"sRGB", b"\0")) == []
    profiled = encoded(PHOTO, "PNG", icc_profile=P3)
    assert found(tmp_path, with_chunk(profiled, b"cICP", bytes([1, 13, 0, 1]))) == []


def test_adobe_rgb_that_exif_alone_names(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = 0xFFFF
    exif.get_ifd(0x8769)[0xA005] = {1: "R03"}
    assert kinds(tmp_path, encoded(PHOTO, "JPEG", exif=exif)) == ["colors"]


def test_alpha_is_said_where_a_pixel_is_transparent(tmp_path: Path) -> None:
    opaque, hole = PHOTO.copy(), PHOTO.copy()
    opaque.putalpha(255)
    hole.putalpha(255)
    hole.putpixel((3, 3), (1, 2, 3, 254))
    for image_format, options in (("PNG", {}), ("WEBP", {"lossless": True, "exact": True}), ("TIFF", {})):
        assert kinds(tmp_path, encoded(opaque, image_format, **options)) == []
        assert kinds(tmp_path, encoded(hole, image_format, **options)) == ["alpha"]
    palette = PHOTO.quantize(16)
    assert kinds(tmp_path, encoded(palette, "PNG")) == []
    assert kinds(tmp_path, encoded(palette, "PNG", transparency=0)) == ["alpha"]


def test_cmyk_is_said_with_its_profile(tmp_path: Path) -> None:
    ((kind, text),) = found(tmp_path, JPEGS["cmyk"])
    assert (kind, text.split(";")[0]) == ("cmyk", "CMYK pixels are converted to RGB by a simple formula")


@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "TIFF", "MPO"])
def test_more_than_one_picture(tmp_path: Path, image_format: str) -> None:
    other = Image.fromarray(make_photo(160, 120, seed=1))
    assert kinds(tmp_path, encoded(PHOTO, image_format, save_all=True, append_images=[other])) == ["frames"]


def test_an_hdr_gain_map(tmp_path: Path) -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/" hdrgm:Version="1.0"/>'
    assert kinds(tmp_path, encoded(PHOTO, "JPEG", xmp=xmp)) == ["gain map"]


def test_ordinary_photos_say_nothing(tmp_path: Path) -> None:
    for image_format in ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "PPM"):
        for mode in ("RGB", "L", "1", "P"):
            if (image_format, mode) in {("JPEG", "P"), ("WEBP", "1")} or (image_format, mode) == ("PPM", "P"):
                continue
            assert found(tmp_path, encoded(PHOTO.convert(mode), image_format)) == [], (image_format, mode)
    for angle in range(1, 9):
        exif = Image.Exif()
        exif[0x112] = angle
        assert found(tmp_path, encoded(PHOTO, "JPEG", exif=exif)) == []


def test_every_command_says_it_once_and_bytes_do_not_change(tmp_path: Path, run_patchgen: Program) -> None:
    plain, photo = tmp_path / "plain.png", tmp_path / "p3.png"
    plain.write_bytes(encoded(PHOTO, "PNG"))
    photo.write_bytes(encoded(PHOTO, "PNG", icc_profile=P3))
    line = re.escape(f'{photo}: the color profile "Display P3" is ignored') + r".*\n"
    common = ("--n", 300, "--shard-size", 100, "--workers", 2)
    result = run_patchgen("build", "--image", plain, *common, "--out", tmp_path / "plain")
    assert (result.status, result.err) == (0, "")
    build = ("build", "--image", photo, "--image", photo, *common, "--out", tmp_path / "twice")
    assert re.fullmatch(line, run_patchgen(*build).err)
    result = run_patchgen("build", "--image", photo, *common, "--out", tmp_path / "set", "--json")
    assert json.loads(result.out)["n"] == 300
    assert re.fullmatch(line, result.err)
    tars = sorted((tmp_path / "set").glob("*.tar"))
    assert len(tars) == 3
    for tar in tars:
        assert tar.read_bytes() == (tmp_path / "plain" / tar.name).read_bytes()
    folder, image = tmp_path / "set", ("--image", photo)
    manifest = folder / "manifest.json"
    for arguments in (
        ("rebuild", "--manifest", manifest, *image, "--out", tmp_path / "again"),
        ("verify", folder, "--regenerate", 3, *image),
        ("preview", folder, *image, "--out", tmp_path / "sheet.png"),
        ("extend", folder, "--n", 310, *image, "--workers", 1),
    ):
        result = run_patchgen(*arguments)
        assert result.status == 0
        kept = r"3 intact shards kept, 1 to build\n" if arguments[0] == "extend" else ""
        assert re.fullmatch(line + kept, result.err), arguments
    assert run_patchgen(*build, "-q").err == ""


def test_pack_counts_what_it_finds(tmp_path: Path, run_patchgen: Program) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for name, options in (("a", {"icc_profile": P3}), ("b", {}), ("c", {"icc_profile": P3})):
        (folder / f"{name}.png").write_bytes(encoded(PHOTO, "PNG", **options))
    (folder / "d.jpg").write_bytes(JPEGS["cmyk"])
    result = run_patchgen("pack", folder, "--size", 32, "--out", tmp_path / "set", "--workers", 1)
    assert result.status == 0
    assert result.err.splitlines() == [
        f"{folder / 'a.png'}: {P3_NOTE} (and 1 more image)",
        f"{folder / 'd.jpg'}: CMYK pixels are converted to RGB by a simple formula; {ADVICE}",
    ]


def test_images_without_findings_have_no_lines() -> None:
    assert header_findings(encoded(PHOTO, "PNG")) == header_findings(b"no image") == []
    assert describe_findings([]) == []


def test_random_damage_of_headers_ends_in_no_traceback() -> None:
    rng = np.random.default_rng(0)
    for data in (encoded(PHOTO, "JPEG", icc_profile=P3), encoded(PHOTO, "PNG", icc_profile=P3), JPEGS["progressive"]):
        for _ in range(150):
            spoilt = bytearray(data)
            for at in rng.integers(2, min(len(data), 900), 3):
                spoilt[at] = rng.integers(256)
            header_findings(bytes(spoilt), decode=True)
