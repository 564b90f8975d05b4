"""Helpers that make small ICC profiles (ICC.1:2001-04, version 2.4) with primaries and a curve, or a gray curve."""

import struct

SRGB = ((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))
"""X, Y and Z of red, green and blue, relative to the white point D50."""
DISPLAY_P3 = ((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841))
ADOBE_RGB = ((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446))


def _fixed(*values: float) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def _xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + _fixed(*values)


def _curve(gamma: float | None) -> bytes:
    """Return the tag of a power law, or of sRGB's sampled curve if ``gamma`` is None."""
    if gamma is not None:
        return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))
    x = [k / 1023 for k in range(1024)]
    y = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in x]
    return b"curv\0\0\0\0" + struct.pack(">I1024H", 1024, *(round(v * 65535) for v in y))


def _description(text: str) -> bytes:
    ascii_text = text.encode("ascii") + b"\0"
    return b"desc\0\0\0\0" + struct.pack(">I", len(ascii_text)) + ascii_text + bytes(4 + 4 + 2 + 1 + 67)


def make_profile(
    name: str, primaries: tuple[tuple[float, ...], ...] | None = SRGB, gamma: float | None = None
) -> bytes:
    """Return the bytes of a profile with the description ``name``. Without primaries, the profile is for grays."""
    tags = {b"desc": _description(name), b"cprt": b"text\0\0\0\0none\0", b"wtpt": _xyz(0.9642, 1.0, 0.8249)}
    if primaries is None:
        tags[b"kTRC"] = _curve(gamma)
    else:
        for letter, values in zip(b"rgb", primaries, strict=True):
            tags[bytes([letter]) + b"XYZ"] = _xyz(*values)
            tags[bytes([letter]) + b"TRC"] = _curve(gamma)
    at, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for signature, content in tags.items():
        table += signature + struct.pack(">II", at + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    space = b"GRAY" if primaries is None else b"RGB "
    header = struct.pack(">I4sI4s4s4s", at + len(body), b"none", 0x02400000, b"mntr", space, b"XYZ ")
    header += struct.pack(">6H", 2024, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + _fixed(0.9642, 1.0, 0.8249)
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body
