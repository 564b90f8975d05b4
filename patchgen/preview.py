"""Draw a contact sheet: a grid of patches, and the outlines of these patches in the photo."""

import colorsys
import io
import math
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from manifests import Manifest, PatchSet
from manifests.crop_outlines import Outline, read_outlines
from manifests.patchset import evenly_spaced
from manifests.support.counts import counted
from patchgen.errors import PatchgenError
from patchgen.pipeline.plan import plan_of
from patchgen.sources.photo import Photo
from patchgen.sources.synthetic import write_picture

Color = tuple[int, int, int]
_PAPER, _INK, _FAINT = (24, 24, 27), (244, 244, 245), (161, 161, 170)
_TILE = 96  # smallest side of a tile in pixels
_GAP, _MARGIN, _FRAME = 8, 32, 3
_TALLEST = 4  # largest height / width of the photo in a sheet


def contact_sheet(patchset: PatchSet, photos: Sequence[Photo], *, count: int) -> Image.Image:
    """Return an RGB image of ``count`` patches, whose indices are evenly spaced.

    With ``photos``, the image also shows the photos, and the outline of each patch in the color of the patch's frame.
    """
    manifest = patchset.manifest
    indices = evenly_spaced(patchset, count)
    count = len(indices)
    about = math.ceil(math.sqrt(count * 1.6))
    # The number of columns nearest to ``about`` that divides the count, so that all rows are full.
    columns = min(
        range(1, count + 1), key=lambda c: (count % c > 0 or not about / 2 <= c <= 2 * about, abs(c - about))
    )
    colors = [_color(i) for i in range(count)] if photos else []
    grid = _grid(patchset, indices, columns, colors)
    parts = [_heading(manifest, grid.width), grid]
    if photos:
        plan_of(manifest, photos, n=manifest.n)  # checks that these are the photos of the set
        outlines = read_outlines(patchset, indices) or []
        for number, photo in enumerate(photos):
            own = [(o, c) for o, c in zip(outlines, colors, strict=False) if o.source == number]
            parts.append(_photo(photo, own, grid.width))
    height = sum(part.height + _MARGIN // 2 for part in parts) + _MARGIN * 3 // 2
    sheet, y = Image.new("RGB", (grid.width + 2 * _MARGIN, height), _PAPER), _MARGIN
    for part in parts:
        sheet.paste(part, (_MARGIN, y))
        y += part.height + _MARGIN // 2
    return sheet


def write_sheet(path: Path, sheet: Image.Image) -> None:
    """Write a sheet as a PNG or JPEG file. The suffix of the file's name determines the format."""
    formats = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
    if path.suffix.lower() not in formats:
        what = f"the name ends in {path.suffix!r}, expected {', '.join(formats)}"
        raise PatchgenError(f"{path}: {what}; choose another --out")
    buffer = io.BytesIO()
    sheet.save(buffer, formats[path.suffix.lower()])
    write_picture(path, buffer.getvalue())


def _heading(manifest: Manifest, width: int) -> Image.Image:
    names = ", ".join(source.name for source in manifest.sources)
    title = f"{counted(manifest.n, 'patch', ',')} of {manifest.size} px from {names}"
    details = f"{manifest.recipe.get('name', 'recipe')} · seed {manifest.seed} · set {manifest.set_id[:16]}"
    image = Image.new("RGB", (width, 56), _PAPER)
    draw = ImageDraw.Draw(image)
    draw.text((0, 0), title, fill=_INK, font=ImageFont.load_default(22))
    draw.text((0, 30), details, fill=_FAINT, font=ImageFont.load_default(16))
    return image


def _grid(patchset: PatchSet, indices: list[int], columns: int, colors: list[Color]) -> Image.Image:
    side = patchset.manifest.size * max(1, math.ceil(_TILE / patchset.manifest.size))
    rows = math.ceil(len(indices) / columns)
    image = Image.new("RGB", (columns * (side + _GAP) - _GAP, rows * (side + _GAP) - _GAP), _PAPER)
    draw = ImageDraw.Draw(image)
    for i, index in enumerate(indices):
        x, y = (i % columns) * (side + _GAP), (i // columns) * (side + _GAP)
        image.paste(Image.fromarray(patchset[index]).resize((side, side), Image.Resampling.NEAREST), (x, y))
        if colors:
            draw.rectangle((x - 1, y - 1, x + side, y + side), outline=colors[i], width=_FRAME)
    return image


def _photo(photo: Photo, outlines: list[tuple[Outline, Color]], width: int) -> Image.Image:
    # Lines are drawn at twice the size and shrunk with the photo, so that they are smooth.
    scale = min(2 * width / photo.width, 2 * _TALLEST * width / photo.height)
    size = max(2, round(photo.width * scale)), max(2, round(photo.height * scale))
    image = Image.fromarray(photo.pixels).resize(size, Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(image)
    for outline, color in outlines:
        points = [(x * scale, y * scale) for x, y in outline.corners]
        for ink, thickness in ((_PAPER, 2 * _FRAME + 2), (color, 2 * _FRAME - 2)):
            draw.line([*points, *points[:2]], fill=ink, width=thickness, joint="curve")
    return image.resize((size[0] // 2, size[1] // 2), Image.Resampling.BOX)


def _color(i: int) -> Color:
    """Return color number ``i``. Its hue differs much from the hues of the previous colors."""
    red, green, blue = colorsys.hsv_to_rgb((i * 0.618034) % 1, (0.9, 0.5, 0.7)[i % 3], (1.0, 1.0, 0.8)[i % 3])
    return round(red * 255), round(green * 255), round(blue * 255)
