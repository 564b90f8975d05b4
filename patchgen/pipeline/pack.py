"""Pack images into a set: read all images, choose how to store them, and write them into shards."""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

from manifests.foreign.image_data import ImageData, find_images
from manifests.foreign.image_files import StoredImage, read_stored
from manifests.format.digest import pixel_root
from manifests.format.schema import Manifest
from manifests.limits import ImageFormat
from manifests.support.console import note, progress_bar
from patchgen.errors import PatchgenError
from patchgen.pipeline.build import build
from patchgen.pipeline.plan import BuildPlan, Card, check_card, default_shard_size, source_record
from patchgen.pipeline.shard import PackTask, ShardTask
from patchgen.sources.packed_images import Form, choose, content_digest, form_of
from patchgen.sources.photo_checks import Finding, describe_findings, header_findings


def pack(
    data: Path,
    folder: Path,
    *,
    size: int | None,
    image_format: ImageFormat | None,
    shard_size: int | None,
    workers: int,
    card: Card,
) -> Manifest:
    """Write the images in ``data`` as a set into ``folder``, in the order in which ``find_images`` returns them.

    Continue a pack that was interrupted. At the end, print notes about files that were not packed.
    """
    check_card(card)
    found = _find_images(data)
    items = found.images
    digests, forms = _read_images(items)
    recipe, chosen = choose(forms, size, image_format, str(data))
    root = pixel_root(digests)  # of the digests of files instead of pixels
    extent = (max(form.width for form in forms), max(form.height for form in forms))
    plan = _PackPlan(
        items=items,
        digests=tuple(digests),
        n=len(items),
        size=chosen,
        seed=0,
        shard_size=shard_size or default_shard_size(chosen),
        recipe=recipe,
        sources=(source_record(data.resolve().name or "images", (root, root), extent, card),),
    )
    manifest = build(plan, [], folder, workers=workers)
    for line in found.notes:
        note(line)
    if found.unread:
        note(f"only {found.where} was packed; these were not packed: {', '.join(found.unread[:3])}")
    return manifest


@dataclasses.dataclass(frozen=True, kw_only=True)
class _PackPlan(BuildPlan):
    items: tuple[StoredImage, ...]
    digests: tuple[bytes, ...]  # raw SHA-256 of each image

    def tasks(self) -> list[ShardTask]:
        """Return a task for each shard of the set. A task contains the images of its shard."""
        tasks: list[ShardTask] = []
        for task in super().tasks():
            own = slice(task.first_index, task.first_index + task.n)
            tasks.append(PackTask(**vars(task), items=self.items[own], digests=self.digests[own]))
        return tasks

    @property
    def plan_id(self) -> str:
        """Return the SHA-256, as hex, of the plan and the names of all images. Tables contain these names."""
        listed = "\n".join(item.name for item in self.items).encode("utf-8", "surrogateescape")
        return hashlib.sha256(super().plan_id.encode() + listed).hexdigest()


def _find_images(data: Path) -> ImageData:
    try:
        found = find_images(data) if data.exists() else None
    except OSError as error:
        what = f"the images cannot be read: {error.strerror or error}"
        raise PatchgenError(f"{error.filename or data}: {what}; make them readable and pack again") from error
    if found is None or not found.images:
        what = "the path does not exist" if found is None else "no image was found"
        advice = "give a folder of images, WebDataset tars, or CIFAR's binary or Python files"
        raise PatchgenError(f"{data}: {what}; {advice}")
    return found


def _read_images(items: Sequence[StoredImage]) -> tuple[list[bytes], set[Form]]:
    """Return the SHA-256 (32 bytes) of each image, and all forms. Print notes if a viewer shows other pixels."""
    digests: list[bytes] = []
    forms: set[Form] = set()
    found: list[tuple[str, Finding]] = []
    with progress_bar("reading images", len(items)) as update:
        for done, item in enumerate(items, 1):
            content = read_stored(item)
            digests.append(content_digest(content))
            forms.add(form_of(content, item.where))
            if isinstance(content, bytes):
                found += [(item.where, finding) for finding in header_findings(content)]
            update(done)
    for line in describe_findings(found):
        note(line)
    return digests, forms
