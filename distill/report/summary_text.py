"""What a run was, in words: what it learnt from, what was done to it in each step, what it was judged on."""

import re
from pathlib import PurePath

from distill.report.collect import RunRecord
from distill.report.run_files import AugmentPart
from manifests.format.schema import Manifest
from manifests.support.counts import counted


def story(record: RunRecord) -> str:
    """A run in a sentence or two."""
    seen, images = record.figure("samples_seen"), record.figure("eval_images")
    samples = counted(seen, "sample", ",") if seen else "samples"
    if record.supervised:
        learnt = f"A {record.learner.arch} learnt from {samples} of labelled images."
    else:
        teacher = record.config.teacher.arch if record.config.teacher else "teacher"
        what = (
            f"{counted(record.manifest.n, 'patch', ',')} of {_photos(record.manifest)}"
            if record.manifest
            else "a patch set"
        )
        learnt = f"A {record.learner.arch} saw {samples} of {what}, and what a {teacher} said of them, but no label."
    if not images:
        return f"{learnt} It was not evaluated."
    data = record.config.eval.data if record.config.eval else None
    where = f" ({PurePath(data).name})" if data else ""
    per_class = record.figure("per_class") or [None]
    classes = counted(sum(top1 is not None for top1 in per_class), "class")
    return f"{learnt} It was judged on {counted(images, 'image', ',')} of {classes}{where}."


def _photos(manifest: Manifest) -> str:
    sources = manifest.sources
    return sources[0].name if len(sources) == 1 else f"{len(sources)} photos"


def augmented(augment: AugmentPart) -> str:
    """What a config's ``augment`` does to patches in every step; empty where that is nothing."""
    done = []
    if augment.resized_crop:
        done.append("cropped at random and resized")
    elif augment.pad_crop:
        done.append(f"moved by up to {augment.pad_crop} px")
    if augment.flip:
        done.append("mirrored half of the time")
    if augment.jitter:
        done.append("changed in colour")
    for share, word in ((augment.grayscale, "made gray"), (augment.solarize, "solarised")):
        if share:
            done.append(word if share >= 1 else f"{word} in {share:.0%} of cases")
    for alpha, word in ((augment.cutmix_alpha, "CutMix"), (augment.mixup_alpha, "MixUp")):
        if alpha:
            done.append(f"mixed with others ({word})")
    return ", ".join(done)


def without_folders(text: str) -> str:
    """A config without the folders of its files: a page is mailed, and they tell of its writer's machine."""
    return re.sub(r"(?m)^(\s*\w+: )['\"]?/.*/", r"\1…/", text)
