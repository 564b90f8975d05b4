"""A run described in words: its data, its augmentation and its evaluation."""

import re
from pathlib import PurePath

from distill.report.collect import RunRecord
from distill.report.run_files import AugmentPart
from manifests.support.counts import counted


def describe_run(record: RunRecord) -> str:
    """Return a description of a run in one or two sentences."""
    seen, images = record.figure("samples_seen"), record.figure("eval_images")
    samples, arch = counted(seen, "sample", ",") if seen else "samples", record.config.trained.arch
    if record.config.teacher is None:
        trained = f"A {arch} was trained on {samples} of labelled images."
    else:
        patches = "a patch set"
        if record.manifest:
            sources = record.manifest.sources
            photos = sources[0].name if len(sources) == 1 else f"{len(sources)} photos"
            patches = f"{counted(record.manifest.n, 'patch', ',')} of {photos}"
        teacher = record.config.teacher.arch
        trained = f"A {arch} was trained on {samples} of {patches}, with the outputs of a {teacher} and no labels."
    if not images:
        return f"{trained} It was not evaluated."
    data = record.config.eval.data if record.config.eval else None
    where = f" ({PurePath(data).name})" if data else ""
    per_class = record.figure("per_class") or [None]
    classes = counted(sum(top1 is not None for top1 in per_class), "class")
    return f"{trained} It was evaluated on {counted(images, 'image', ',')} of {classes}{where}."


def describe_augmentation(augment: AugmentPart) -> str:
    """Return what a config's ``augment`` group does to patches in every step; empty if nothing."""
    parts = []
    if augment.resized_crop:
        parts.append("cropped at random and resized")
    elif augment.pad_crop:
        parts.append(f"moved by up to {augment.pad_crop} px")
    if augment.flip:
        parts.append("mirrored half of the time")
    if augment.jitter:
        parts.append("changed in color")
    for share, word in ((augment.grayscale, "turned gray"), (augment.solarize, "solarized")):
        if share:
            parts.append(word if share >= 1 else f"{word} in {share:.0%} of cases")
    for alpha, word in ((augment.cutmix_alpha, "CutMix"), (augment.mixup_alpha, "MixUp")):
        if alpha:
            parts.append(f"mixed with others ({word})")
    return ", ".join(parts)


def without_folders(text: str) -> str:
    """Return a config with the folders of its paths removed, because pages are shared."""
    return re.sub(r"(?m)^(\s*\w+: )['\"]?/.*/", r"\1…/", text)
