"""Convert the arguments of the Python interface: config keys for names and paths, checked copies for objects."""

import contextlib
import copy
import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distill.api.draft import Draft, PathLike, to_path
from distill.commands.evaluate import load_network
from distill.config.schema import Config
from distill.data.datasets import DatasetImages, MapDataset, read_images
from distill.data.fit import TransformFit, parse_transform
from distill.errors import DistillError
from distill.evaluation import SET_NAME
from distill.evaluation.sets import Sources
from distill.models.libraries import require_local
from distill.models.own import own_copy
from distill.runtime.device import pick_device
from distill.runtime.distributed import Ranks, RunContext, joined
from distill.targets.losses import Functions
from distill.targets.own_losses import describe_function
from distill.targets.teacher import PRETRAINED, Network, Teacher, join_teachers
from distill.training.trainer import InterruptedRun
from distill.user_code import name_of
from distill.weights.files import load_weights
from manifests import PatchSet
from manifests.remote.fetch import open_patchset
from manifests.support.counts import counted

TeacherLike = PathLike | Teacher | Network
EvalData = PathLike | MapDataset | Mapping[str, PathLike | MapDataset]
LossLike = Mapping[str, Any] | Callable[..., Tensor]


@contextlib.contextmanager
def session(device: str) -> Iterator[RunContext]:
    """Yield the context of a run. Restore the caller's random state and number of threads at the end."""
    threads = torch.get_num_threads()
    with joined() as ranks:
        picked = pick_device(device, ranks)
        try:
            with torch.random.fork_rng([picked] if picked.type == "cuda" else []):
                yield RunContext(device=picked, ranks=ranks)
        except InterruptedRun as stop:
            raise KeyboardInterrupt(f"{stop}; call it again with resume=True to continue") from stop
        finally:
            torch.set_num_threads(threads)


def run_folder(out: PathLike | None, default: str) -> Path:
    return Path("runs") / default if out is None else to_path(out)


def network_settings(group: str, network: str | nn.Module | None) -> dict[str, Any]:
    if network is None:
        return {}
    if not isinstance(network, str | nn.Module):
        found = f"is {type(network).__name__}, expected the name of a network or a torch.nn.Module"
        raise DistillError(f"{group}: {found}; for a class, give an instance")
    if isinstance(network, str):
        return {f"{group}.arch": network}
    return {f"{group}.arch": name_of(network), f"{group}.arch_arguments": None}


def add_losses(loss: LossLike | Sequence[LossLike] | None, draft: Draft[Config]) -> Functions:
    """Add the group ``loss`` to the config. Return the functions in it, each called once as a check.

    A loss is a function, or the keys of a loss, in which ``function`` may be a function.
    """
    functions: Functions = {}

    def described(one: Any) -> Any:
        if not isinstance(one, Mapping) and not callable(one):
            return one  # the check of the config refuses it
        keys: dict[str, Any] = {"function": one} if callable(one) else dict(one)
        if callable(function := keys.get("function")):
            classes = draft.parse().teacher.num_classes
            keys |= describe_function(function, classes, keys.get("arguments"))
            key = str(keys["function"]), str(keys["sha256"])
            if functions.setdefault(key, function) != function:
                found = f"two functions have the name {key[0]} and the same source, so a run cannot tell them apart"
                raise DistillError(f"loss: {found}; define each under its own name, or give one with 'arguments'")
        return keys

    if isinstance(loss, list | tuple):
        draft.parse()  # an error of the config is not an error of a loss
        draft.add({"loss": [described(one) for one in loss]})
    elif isinstance(loss, Mapping) or callable(loss):
        draft.add({f"loss.{key}": value for key, value in described(loss).items()})
    elif loss is not None:
        found = f"is {type(loss).__name__}, expected a function, a dict such as {{'name': 'kl'}}, or a list of these"
        raise DistillError(f"loss: {found}; give one of them")
    return functions


def eval_settings(data: EvalData | None) -> dict[str, Any]:
    """Return the config keys of evaluation data that is a path, or a mapping of names to paths."""
    if isinstance(data, PathLike):
        return {"eval.data": to_path(data)}
    paths = (
        {name: to_path(each) for name, each in data.items() if isinstance(each, PathLike)}
        if isinstance(data, Mapping)
        else {}
    )
    return {"eval.data": None, "eval.sets": paths} if isinstance(data, Mapping) and len(paths) == len(data) else {}


def own_module(network: str | nn.Module | None) -> nn.Module | None:
    return own_copy(network) if isinstance(network, nn.Module) else None


def own_datasets(data: EvalData | None) -> Sources | None:
    """Return evaluation data by name if it has a data set that is an object; None if the config names all data."""
    if data is None or eval_settings(data):
        return None
    if not isinstance(data, Mapping):
        return {"": data}
    for name in data:
        if not isinstance(name, str) or not re.match(SET_NAME, name):
            found = f"has the name {name!r}, expected letters, digits, '_', '-' and '.'"
            raise DistillError(f"eval: {found}; rename this set")
    return {name: to_path(each) if isinstance(each, PathLike) else each for name, each in data.items()}


def open_shards(shards: PathLike | PatchSet | MapDataset, ranks: Ranks) -> tuple[Path | DatasetImages, str, int]:
    """Return the folder of a patch set or the images of a data set, with their identity and size in pixels."""
    if not isinstance(shards, PathLike | PatchSet):
        images = read_images(shards)
        return images, images.sha256, images.samples.shape[1]
    with ranks.local_main_first():
        patchset = shards if isinstance(shards, PatchSet) else open_patchset(shards)
    return patchset.folder, patchset.manifest.set_id, patchset.manifest.size


def own_teacher(
    teacher: TeacherLike | Sequence[TeacherLike] | None, draft: Draft[Config]
) -> list[Teacher | Path] | None:
    """Add the keys of a teacher to the config. Return teachers that are modules, or None for one weight file.

    A weight file gives architecture and number of classes to a config that does not state them. A list may also
    contain weight files.
    """
    if isinstance(teacher, list | tuple):
        if not teacher:
            raise DistillError("teacher: the list is empty, expected at least one teacher; omit it or add a teacher")
        if len(teacher) > 1:
            members = [to_path(each) if isinstance(each, PathLike) else _to_teacher(each) for each in teacher]
            _require_own_input(members[0], draft, ("size", "interpolation", "classes"))
            arch, *others = map(_arch_of, members)
            draft.add({"teacher.weights": None, "teacher.arch": arch, "teacher.arch_arguments": None})
            draft.add({"teacher.others": [{"arch": each} for each in others]})
            return members
        (teacher,) = teacher
    if teacher is None:
        return None
    if isinstance(teacher, PathLike):
        draft.add({"teacher.weights": to_path(teacher)})
        missing = [key for key in ("arch", "num_classes") if draft.stated("teacher", key) is None]
        missing = [] if str(teacher) == PRETRAINED else missing
        weights = load_weights(to_path(teacher)) if missing else None
        if weights is not None and weights.arch is not None and "arch" in missing:
            require_local(weights.arch, to_path(teacher))
        draft.add({f"teacher.{key}": value for key in missing if (value := getattr(weights, key)) is not None})
        return None
    own = _to_teacher(teacher)
    _require_own_input(own, draft, ("size", "interpolation", "classes", "others"))
    draft.add({"teacher.arch": name_of(own.module), "teacher.weights": None, "teacher.arch_arguments": None})
    draft.add({"teacher.mean": tuple(own.mean), "teacher.std": tuple(own.std)})
    if own.size is not None:
        draft.add({"teacher.size": own.size, "teacher.interpolation": own.interpolation})
    return [own]


def _require_own_input(teacher: Teacher | Path, draft: Draft[Config], keys: Sequence[str]) -> None:
    """Check that the config states no other input for a teacher that is an object, because it had no effect."""
    for key in keys:
        stated = draft.stated("teacher", key)
        if stated is not None and stated != getattr(teacher, key, None):
            advice = "give a list of teachers" if key == "others" else f"use distill.Teacher(…, {key}=…)"
            found = f"is {str(stated)[:80]} in the config, which has no effect on a teacher that is an object"
            raise DistillError(f"teacher.{key}: {found}; omit it, and {advice}")


def _to_teacher(teacher: Any) -> Teacher:
    if isinstance(teacher, Network):
        how: dict[str, Any] = {"size": teacher.size, "interpolation": teacher.interpolation, "weight": teacher.weight}
        return Teacher(teacher.model, teacher.mean, teacher.std, teacher.classes, **how)
    if not isinstance(teacher, Teacher):
        found = f"is {type(teacher).__name__}, expected a weight file or a distill.Teacher"
        raise DistillError(f"teacher: {found}; pass a module as distill.Teacher(module, mean, std)")
    return teacher


def _arch_of(teacher: Teacher | Path) -> str:
    return name_of(teacher.module) if isinstance(teacher, Teacher) else load_weights(teacher).arch or "unknown"


def loaded_teacher(teachers: list[Teacher | Path], draft: Draft[Config], size: int, context: RunContext) -> Network:
    """Check teachers with images as in training. The number of classes of the first becomes that of the config."""
    stated = draft.stated("teacher", "num_classes")
    parsed = draft.parse(num_classes=stated or 2)
    size, combine = parsed.augment.output_size(size), draft.stated("teacher", "combine")
    members = [to_network(each, size, context.device) for each in teachers]
    network, *others = members
    if stated is None:
        draft.add({"teacher.num_classes": network.num_classes})
    elif (stated := parsed.teacher.num_classes) != network.num_classes:
        found = f"has {counted(network.num_classes, 'class')}, but teacher.num_classes of the config is {stated}"
        action = f'give settings={{"teacher.num_classes": {network.num_classes}}}, or choose another teacher'
        raise DistillError(f"network {network.arch}: {found}; {action}")
    if others:
        shown = [_described(each) | {"num_classes": each.num_classes} for each in others]
        first = _described(network)
        draft.add(
            {f"teacher.{key}": value for key, value in first.items() if key != "arch"} | {"teacher.others": shown}
        )
    return join_teachers(network, others, combine or "logits")


def _described(network: Network) -> dict[str, Any]:
    """Return the keys of a config that describe a teacher among several."""
    keys = {name: getattr(network, name) for name in ("arch", "mean", "std", "weight", "size")}
    keys |= {"interpolation": network.interpolation} if network.size else {}
    return {key: value for key, value in keys.items() if value is not None}


def to_network(network: PathLike | Network | Teacher, size: int, device: torch.device) -> Network:
    if isinstance(network, Teacher):
        return network.network(size, device)
    if isinstance(network, PathLike):
        return load_network(to_path(network), None, None, None, device)
    if not isinstance(network, Network):
        action = "give a module as distill.Teacher(module, mean, std)"
        raise DistillError(f"network: is {type(network).__name__}, expected a weight file or a network; {action}")
    model = copy.deepcopy(network.model).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return dataclasses.replace(network, model=model)


def evaluation_fit(network: PathLike | Network | Teacher, transform: Any, size: int | None) -> TransformFit:
    """Return the function that resizes and crops images for ``network``."""
    if size is not None:
        raise DistillError("size and transform are both given; give only one of them")
    if isinstance(network, PathLike):
        arch = load_weights(to_path(network)).arch or ""
    else:
        arch = network.arch if isinstance(network, Network) else name_of(getattr(network, "module", network))
    return parse_transform(transform, "transform").fit(arch, "transform")
