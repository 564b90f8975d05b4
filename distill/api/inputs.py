"""Convert the arguments of the Python interface: config keys for names and paths, checked copies for objects."""

import contextlib
import copy
import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from distill.commands.evaluate import load_network
from distill.config import presets
from distill.config.schema import Config, SupervisedConfig, make_config, read_groups
from distill.data.datasets import DatasetImages, MapDataset, read_images
from distill.data.fit import TransformFit, parse_transform
from distill.errors import DistillError
from distill.evaluation import SET_NAME
from distill.evaluation.sets import Sources
from distill.models.own import own_copy
from distill.runtime.device import pick_device
from distill.runtime.distributed import Ranks, RunContext, joined
from distill.targets.teacher import Network, Teacher
from distill.training.trainer import InterruptedRun
from distill.user_code import name_of
from distill.weights.files import load_weights
from manifests import PatchSet
from manifests.remote.fetch import open_patchset
from manifests.support.counts import counted
from manifests.support.files import expand_home

PathLike = str | Path
EvalData = PathLike | MapDataset | Mapping[str, PathLike | MapDataset]
ConfigLike = PathLike | Mapping[str, Any]
C = TypeVar("C", Config, SupervisedConfig)


class Draft(Generic[C]):
    """A config of a caller, and the settings that replace its values."""

    def __init__(self, model: type[C], config: ConfigLike, settings: Mapping[str, Any] | None) -> None:
        self._model: type[C] = model
        self._settings = dict(settings or {})
        self._given: dict[str, Any] = {}
        self.name, self._where = "python", "from Python"
        if isinstance(config, Mapping):
            self._groups: Mapping[str, Any] = config
        else:
            self._where = str(config)
            self.name, text = presets.read(presets.CONFIGS, str(to_path(config)))
            self._groups = read_groups(text, self._where)

    def add(self, given: Mapping[str, Any]) -> None:
        """Add the values of arguments by config key."""
        if both := sorted(given.keys() & self._settings.keys()):
            raise DistillError(f"settings {both[0]}: an argument sets this key too; give only one of them")
        self._given |= given

    def stated(self, group: str, key: str) -> Any:
        """Return the value of a key in the settings or in the config, or None."""
        keys = self._groups.get(group)
        return self._settings.get(f"{group}.{key}", keys.get(key) if isinstance(keys, Mapping) else None)

    def parse(self, **more: Any) -> C:
        """Return the config with all settings. ``more`` are further values of the group ``teacher``."""
        given = self._settings | self._given | {f"teacher.{key}": value for key, value in more.items()}
        return make_config(self._groups, self._where, given, self._model)


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


def to_path(value: PathLike) -> Path:
    try:
        return Path(expand_home(str(value)))
    except ValueError as error:
        raise DistillError(str(error)) from error


def run_folder(out: PathLike | None, default: str) -> Path:
    return Path("runs") / default if out is None else to_path(out)


def network_settings(group: str, network: str | nn.Module | None) -> dict[str, Any]:
    if network is None:
        return {}
    if not isinstance(network, str | nn.Module):
        found = f"is {type(network).__name__}, expected the name of a network or a torch.nn.Module"
        raise DistillError(f"{group}: {found}; for a class, give an instance")
    return {f"{group}.arch": network if isinstance(network, str) else name_of(network)}


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


def own_teacher(teacher: PathLike | Teacher | Network | None, draft: Draft[Config]) -> Teacher | None:
    """Add the keys of a teacher to the config. Return a teacher that is a module, or None for a weight file.

    A weight file gives architecture and number of classes to a config that does not state them.
    """
    if isinstance(teacher, PathLike):
        draft.add({"teacher.weights": to_path(teacher)})
        missing = [key for key in ("arch", "num_classes") if draft.stated("teacher", key) is None]
        weights = load_weights(to_path(teacher)) if missing else None
        draft.add({f"teacher.{key}": value for key in missing if (value := getattr(weights, key)) is not None})
        return None
    if teacher is None:
        return None
    if isinstance(teacher, Network):
        teacher = Teacher(teacher.model, teacher.mean, teacher.std, teacher.classes)
    if not isinstance(teacher, Teacher):
        found = f"is {type(teacher).__name__}, expected a weight file or a distill.Teacher"
        raise DistillError(f"teacher: {found}; pass a module as distill.Teacher(module, mean, std)")
    draft.add({"teacher.arch": name_of(teacher.module), "teacher.weights": None})
    draft.add({"teacher.mean": tuple(teacher.mean), "teacher.std": tuple(teacher.std)})
    return teacher


def loaded_teacher(teacher: Teacher, draft: Draft[Config], size: int, context: RunContext) -> Network:
    """Check a teacher with images as in training. Its number of classes becomes that of the config."""
    stated = draft.stated("teacher", "num_classes")
    size = draft.parse(num_classes=stated or 2).augment.output_size(size)
    network = teacher.network(size, context.device)
    if stated is None:
        draft.add({"teacher.num_classes": network.num_classes})
    elif stated != network.num_classes:
        found = f"has {counted(network.num_classes, 'class')}, but teacher.num_classes of the config is {stated}"
        action = f'give settings={{"teacher.num_classes": {network.num_classes}}}, or choose another teacher'
        raise DistillError(f"network {network.arch}: {found}; {action}")
    return network


def to_network(network: PathLike | Network | Teacher, size: int, device: torch.device) -> Network:
    if isinstance(network, Teacher):
        return network.network(size, device)
    if not isinstance(network, Network):
        return load_network(to_path(network), None, None, None, device)
    model = copy.deepcopy(network.model).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return dataclasses.replace(network, model=model)


def evaluation_fit(network: PathLike | Network | Teacher, transform: Any, size: int | None) -> TransformFit:
    """Return the function that resizes and crops images for ``network``."""
    if size is not None:
        raise DistillError("size and transform are both given; give only one of them")
    if isinstance(network, PathLike):
        arch = load_weights(to_path(network)).arch or ""
    else:
        arch = network.arch if isinstance(network, Network) else name_of(network.module)
    return parse_transform(transform, "transform").fit(arch, "transform")
