"""Pack images into a set: count them, choose how they are stored, and write them as a build writes patches."""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from manifests.errors import PatchSetError
from manifests.foreign.image_data import ImageData, find_images
from manifests.foreign.image_files import StoredImage, read_stored
from manifests.format.digest import pixel_root
from manifests.format.schema import Manifest
from manifests.limits import ImageFormat
from manifests.support.console import counting, note, progress_bar
from patchgen.errors import PatchgenError
from patchgen.pipeline.build import write_set
from patchgen.pipeline.plan import BuildPlan, default_shard_size, is_unicode, require_limits, require_texts
from patchgen.pipeline.shard import PackTask, plan_tasks
from patchgen.sources.packed_images import Form, choose, content_digest, form_of
from patchgen.sources.photo_checks import Tally, header_findings

EXPECTED = "a folder of images, WebDataset tars, or CIFAR's binary or Python files"


def pack(
    data: Path,
    folder: Path,
    *,
    size: int | None,
    image_format: ImageFormat | None,
    shard_size: int | None,
    workers: int,
    card: dict[str, str | None],
) -> Manifest:
    """Write the images in ``data`` into ``folder`` as a set, in the order of their names; resume if interrupted.

    Notes at the end say what was left out.

    Raises:
        PatchgenError: there is no image, one is damaged, or they have several sizes and ``size`` is None; and as
            ``write_set``.
    """
    require_texts([card])
    found = _find_images(data)
    items = found.images
    digests, forms = _read_images(items)
    recipe, chosen = choose(forms, size, image_format, str(data))
    plan = _PackPlan(
        names=tuple(item.name for item in items),
        n=len(items),
        size=chosen,
        seed=0,
        shard_size=shard_size or default_shard_size(chosen),
        recipe=recipe,
        sources=(_source(data, digests, forms) | card,),
    )
    require_limits(plan)
    tasks = [
        PackTask(
            **dataclasses.asdict(task),
            items=items[task.first_index : task.first_index + task.n],
            digests=tuple(digests[task.first_index : task.first_index + task.n]),
        )
        for task in plan_tasks(plan.n, plan.shard_size)
    ]
    manifest = write_set(plan, tasks, folder, workers=workers)
    for line in found.notes:
        note(line)
    if found.unread:
        note(f"{found.where} is packed, not {', '.join(found.unread[:3])}")
    return manifest


@dataclasses.dataclass(frozen=True, kw_only=True)
class _PackPlan(BuildPlan):
    """The plan of a pack. Names of images are in the tables only, so a shard with other names is written again."""

    names: tuple[str, ...]

    @property
    def plan_id(self) -> str:
        """SHA-256, as hex, of what an image's bytes and row depend on."""
        listed = "\n".join(self.names).encode("utf-8", "surrogateescape")
        return hashlib.sha256(super().plan_id.encode() + listed).hexdigest()


def _find_images(data: Path) -> ImageData:
    """Return the images to pack; of data with splits, the training images.

    Raises:
        PatchgenError: there are none, or they cannot be read.
    """
    try:
        if not data.exists():
            raise PatchgenError(f"{data}: does not exist; expected {EXPECTED}")
        found = find_images(data)
    except PatchSetError as error:
        raise PatchgenError(str(error)) from error
    except OSError as error:
        raise PatchgenError(f"{error.filename or data}: cannot be read: {error.strerror or error}") from error
    if not found.images:
        raise PatchgenError(f"{data}: holds no image; expected {EXPECTED}")
    return found


def _read_images(items: Sequence[StoredImage]) -> tuple[list[bytes], set[Form]]:
    """Return the raw digest of every image, and all forms that occur."""
    digests, forms, tally = [], set(), Tally()
    with progress_bar("reading images", len(items)) as update:
        add = counting(update)
        for item in items:
            content = read_stored(item)
            digests.append(content_digest(content))
            forms.add(form_of(content, item.where))
            if isinstance(content, bytes):
                tally.add(item.where, header_findings(content))
            add(1)
    for line in tally.lines():
        note(line)
    return digests, forms


def _source(data: Path, digests: list[bytes], forms: set[Form]) -> dict[str, Any]:
    """Return the manifest's source: all images together, as wide and high as the largest."""
    name = data.resolve().name or "images"
    if not is_unicode(name):
        raise PatchgenError(f"{str(data)!a}: its name is not UTF-8 text; rename it")
    digest = pixel_root(digests)  # the same hash, here of the digests of files
    return {
        "name": name,
        "sha256": digest,
        "pixels": digest,
        "width": max(form.width for form in forms),
        "height": max(form.height for form in forms),
        "licence": None,
        "url": None,
        "attribution": None,
    }
