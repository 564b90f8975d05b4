"""Build networks of timm and transformers by name."""

import contextlib
import difflib
import functools
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from distill.errors import DistillError
from distill.models.arch import HF, TIMM, split_arch
from distill.models.limits import MAX_ARGUMENT, MAX_NUMBER, build_limited, require_small_numbers
from manifests.support.files import expand_home

_REFUSED = ("pretrained", "checkpoint", "num_classes", "features_only", "scriptable", "exportable", "cache_dir")


class LogitsOf(nn.Module):
    """Return only the logits of a network of transformers."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to logits (B, classes)."""
        logits: Tensor = self.network(x).logits
        return logits


def library_model(name: str, arguments: dict[str, Any], num_classes: int) -> nn.Module:
    """Return the network ``timm/NAME`` or ``hf/NAME`` with random parameters. No code of a model's author runs."""
    if name.startswith(TIMM):
        return timm_model(name, arguments, num_classes)
    transformers = library("transformers", name)
    with errors(name, "the network cannot be built"):
        config = hf_config(name, arguments, num_labels=num_classes)
        auto = transformers.AutoModelForImageClassification
        model = build_limited(name, functools.partial(auto.from_config, config, trust_remote_code=False))
    return LogitsOf(model.float().train())  # the config may declare 16 bits


def timm_model(name: str, arguments: dict[str, Any], num_classes: int, pretrained: bool = False) -> nn.Module:
    timm, plain = library("timm", name), name.removeprefix(TIMM)
    if not timm.is_model(plain):
        near = difflib.get_close_matches(plain.partition(".")[0], timm.list_models(), n=1)
        hint = f"did you mean '{TIMM}{near[0]}'?" if near else "choose a name of timm.list_models()"
        raise DistillError(f"arch {name[:100]!r}: timm has no network {plain[:100]!r}; {hint}")
    if refused := [key for key in arguments if key.startswith(_REFUSED)]:
        raise DistillError(
            f"arch {name!r}: the argument {refused[0]} is not allowed; use teacher.weights and num_classes"
        )
    require_small_numbers(name, arguments, MAX_ARGUMENT)
    options = arguments if pretrained else arguments | {"num_classes": num_classes}
    create = functools.partial(timm.create_model, plain, **options)
    with errors(name, "the network cannot be built" if not pretrained else "its weights cannot be read"):
        return build_limited(name, functools.partial(create, pretrained=pretrained), create)


def hf_config(name: str, arguments: dict[str, Any], **more: Any) -> Any:
    transformers, source = library("transformers", name), hf_source(name)
    config = transformers.AutoConfig.from_pretrained(source, trust_remote_code=False)
    if unknown := [key for key in arguments if not hasattr(config, key)]:
        raise DistillError(f"arch {name!r}: the config of the model has no key {unknown[0]!r}; correct the arguments")
    require_small_numbers(name, arguments, MAX_ARGUMENT)
    config.update(arguments)
    require_small_numbers(name, config.to_dict(), MAX_NUMBER)
    parts = [config, *(getattr(config, key, None) for key in config.sub_configs)]
    if any("/" in str(getattr(part, "_attn_implementation", "")) for part in parts):
        found = "the config names code of attention in a repository, which never runs"
        raise DistillError(f"arch {name[:200]!r}: {found}; remove attn_implementation from it")
    for key, value in more.items():
        if getattr(config, key) != value:  # setting num_labels removes the names of the labels
            setattr(config, key, value)
    return config


def require_local(arch: str, where: Path) -> None:
    """Check that the config of the network ``arch`` is on this machine, because the weight file ``where`` names it.

    A file of other people must not make the program connect to the internet.
    """
    name, _ = split_arch(arch)
    if not name.startswith(HF) or Path(source := hf_source(name)).is_dir():
        return
    config = library("transformers", name).AutoConfig
    try:
        config.from_pretrained(source, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        found = f"its network {name[:200]} is not in the cache of transformers"
        action = f"if you trust this name, give it yourself, such as --arch {name[:200]}, to download its config"
        raise DistillError(f"{where}: {found}; {action}") from error


def hf_source(name: str) -> str:
    """Return the folder or the repository of ``hf/NAME``."""
    try:
        source = expand_home(name.removeprefix(HF))
    except ValueError as error:
        raise DistillError(f"arch {name!r}: {error}") from error
    if not Path(source).is_dir() and (source.startswith((".", "/")) or source.count("/") > 1):
        raise DistillError(f"arch {name!r}: the folder {source} does not exist; check the path")
    return source


@functools.cache
def imported(package: str) -> ModuleType | None:
    try:
        return __import__(package)
    except ImportError:
        return None


def library(package: str, name: str) -> Any:
    if (module := imported(package)) is None:
        raise DistillError(f"arch {name[:100]!r}: the package {package} is not installed; run pip install {package}")
    return module


@contextlib.contextmanager
def errors(name: str, what: str, advice: str = "check the name and its arguments") -> Iterator[None]:
    """Convert an exception of a library to a DistillError of one line."""
    try:
        yield
    except DistillError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DistillError(f"arch {name[:200]!r}: {what}: {reason}; {advice}") from error
