"""Test outlines against the worked example of FORMAT.md, and with sets that do not record positions of patches."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from manifests import open_patchset
from manifests.crop_outlines import COLUMNS, _outline, read_outlines
from manifests.errors import PatchSetError


def test_the_worked_example() -> None:
    values = (0, 296.953125, 177.357421875, 228.138671875, 187.818359375, -17.53125, -3.3984375, False, False)
    row = dict(zip(COLUMNS, values, strict=True))
    corners = np.array(_outline(row, 32, 45).corners)
    center = corners.mean(axis=0)
    pixel = center + (corners[1] - center) * 15.5 / 16  # the center of the last pixel of the first row
    assert pixel == pytest.approx((512.668, 229.065), abs=1e-3)  # the warp rounds its matrix
    mirrored = np.array(_outline(row | {"hflip": True}, 32, 45).corners)
    assert mirrored == pytest.approx(corners[[1, 0, 3, 2]])
    upset = np.array(_outline(row | {"vflip": True}, 32, 45).corners)
    assert upset == pytest.approx(corners[[3, 2, 1, 0]])


def test_of_a_set(patchset_path: Path) -> None:
    patchset = open_patchset(patchset_path)
    outlines = read_outlines(patchset, [0, 79, 80, 199])
    assert outlines is not None and [outline.source for outline in outlines] == [0] * 4
    again = read_outlines(patchset, [199])
    assert again is not None and again[0] == outlines[3]
    with pytest.raises(PatchSetError, match="no patch 200"):
        read_outlines(patchset, [200])


@pytest.mark.parametrize("geometry", [None, {}, {"oversize": "2"}, {"oversize": 0}, {"oversize": 1e308}])
def test_a_set_of_another_writer_has_none(patchset_path: Path, geometry: object) -> None:
    patchset = open_patchset(patchset_path)
    manifest = patchset.manifest.model_copy(update={"recipe": {"geometry": geometry}})
    assert read_outlines(dataclasses.replace(patchset, manifest=manifest), [0]) is None
