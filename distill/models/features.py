"""Networks that also return features: the outputs of some of their modules."""

import copy
import difflib
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.errors import DistillError

Outputs = tuple[Tensor, ...]  # logits (B, classes), then features


class Adapter(nn.Module):
    """Pool features, then change their number of channels with a learned projection.

    Features are maps (B, C, H, W), tokens (B, N, C) or vectors (B, C). With ``pooled``, the result is the mean over
    all positions, (B, C). Otherwise, ``size`` (height, width) is the size to which maps are pooled, if it differs.
    """

    def __init__(self, *, pooled: bool, size: tuple[int, int] | None, projection: nn.Module | None = None) -> None:
        super().__init__()
        self._pooled, self._size, self.projection = pooled, size, projection

    def forward(self, x: Tensor) -> Tensor:
        if self._pooled and x.ndim > 2:
            x = x.mean((2, 3)) if x.ndim == 4 else x.mean(1)
        elif self._size is not None and tuple(x.shape[2:]) != self._size:
            x = F.adaptive_avg_pool2d(x, self._size)
        return x if self.projection is None else self.projection(x)


class WithFeatures(nn.Module):
    """Return the logits of ``network`` and, for each of ``names``, the adapted output of the module of this name.

    If a module is called several times, its last call counts. The output is copied, because the next module may
    change it in place.
    """

    def __init__(self, network: nn.Module, names: Sequence[str], adapters: Sequence[nn.Module]) -> None:
        super().__init__()
        self.network, self.adapters = network, nn.ModuleList(adapters)
        self.names, self._found = tuple(names), _Found()
        self._hooks: list[Any] = []
        self.hook()

    def hook(self) -> None:
        """Observe the modules of ``network``. Call this again after modules of ``network`` were replaced."""
        for handle in self._hooks:
            handle.remove()
        modules = [(name, self.network.get_submodule(name)) for name in dict.fromkeys(self.names)]
        self._hooks = [module.register_forward_hook(_observer(self._found, name)) for name, module in modules]

    def forward(self, x: Tensor) -> Outputs:
        """Return logits and features of normalized images (B, 3, H, W)."""
        found: dict[str, Tensor] = {}
        self._found.outputs = found
        logits = self.network(x)
        self._found.outputs = None  # evaluations call the network itself, and keep no features
        for name in self.names:
            if name not in found:
                missing = f"the module {name!r} was not called in a step"
                raise DistillError(f"loss: {missing}; name a module that the network calls in each forward pass")
        features = [adapt(found[name]) for name, adapt in zip(self.names, self.adapters, strict=True)]
        return (logits, *features)


class _Found:
    """The outputs of the observed modules in the current call of a network. Copies of the network share it."""

    outputs: dict[str, Tensor] | None = None


def _observer(found: _Found, name: str) -> Callable[[nn.Module, Any, Any], None]:
    def observe(module: nn.Module, arguments: Any, output: Any) -> None:
        if found.outputs is not None:
            found.outputs[name] = (output[0] if isinstance(output, tuple | list) else output).clone()

    return observe


def features_of(network: nn.Module, names: Sequence[str], size: int, what: str) -> list[Tensor]:
    """Return the outputs of modules of ``network`` for two images of ``size`` px. ``what`` names it in errors.

    The network stays in its mode and keeps its buffers, so give a copy of a network in training mode. If ``what`` is
    ``student``, features must have a gradient.

    Raises:
        DistillError: a module does not exist, is not called, or has an output that is no feature.
    """
    for name in names:
        require_module(network, name, what)
    found = _Found()
    found.outputs = {}
    hooks = [network.get_submodule(name).register_forward_hook(_checked(found, name, what)) for name in set(names)]
    try:
        with torch.set_grad_enabled(what == "student"):
            network(_example(network, size))
    finally:
        for hook in hooks:
            hook.remove()
    if unused := next((name for name in names if name not in found.outputs), None):
        action = "name a module that the network calls in each forward pass"
        raise DistillError(f"loss: the module {unused!r} of the {what} is not called for an image; {action}")
    return [found.outputs[name].detach() for name in names]


def last_map(network: nn.Module, size: int, what: str) -> str:
    """Return the name of the last module of ``network`` whose output has several positions: maps, or tokens.

    This is usually the module before the mean over positions and the classifier. ``size`` are the pixels a side of an
    image. ``what`` names the network in errors.

    Raises:
        DistillError: no module has such an output.
    """
    found: list[str] = []

    def observe(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, arguments: Any, output: Any) -> None:
            first = output[0] if isinstance(output, tuple | list) and output else output
            if isinstance(first, Tensor) and (
                (first.ndim == 4 and first.shape[2] * first.shape[3] > 1) or (first.ndim == 3 and first.shape[1] > 1)
            ):
                found.append(name)

        return hook

    hooks = [module.register_forward_hook(observe(name)) for name, module in network.named_modules() if name]
    try:
        with torch.no_grad():
            network(_example(network, size))
    finally:
        for each in hooks:
            each.remove()
    if not found:
        problem = f"no module of the {what} has an output with several positions"
        raise DistillError(f"loss: {problem}; name a module: {{name: features, student: …, teacher: …}}")
    return found[-1]


def require_gradients(network: WithFeatures, size: int) -> None:
    """Check that features depend on all parameters of ``network`` that are trained. ``network`` stays unchanged."""
    copied = WithFeatures(copy.deepcopy(network.network), network.names, copy.deepcopy(list(network.adapters)))
    _, *features = copied(_example(copied, size))
    names, values = zip(*((n, p) for n, p in copied.named_parameters() if p.requires_grad), strict=True)
    gradients = torch.autograd.grad(sum(each.sum() for each in features), values, allow_unused=True)
    if unused := [n.removeprefix("network.") for n, g in zip(names, gradients, strict=True) if g is None]:
        more = f" (and {len(unused) - 1} more)" if len(unused) > 1 else ""
        action = "choose the last module before the classifier, or add a loss of logits such as {name: kl}"
        raise DistillError(f"loss: the features do not depend on {unused[0]}{more}, so it is not trained; {action}")


def _example(network: nn.Module, size: int) -> Tensor:
    """Return two random images, in the dtype and on the device of ``network``."""
    weight = next((each for each in network.parameters() if each.is_floating_point()), torch.zeros(0))
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0)).to(weight)


def require_module(network: nn.Module, name: str, what: str) -> None:
    """Check that ``network`` has a module ``name``. The error gives the nearest names."""
    known = [each for each, _ in network.named_modules() if each]
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    first = [each for each, _ in network.named_children()]
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"it has {', '.join(first[:10]) or 'none'}"
    raise DistillError(f"loss: the {what} has no module {name!r}; {hint}")


def _checked(found: _Found, name: str, what: str) -> Callable[[nn.Module, Any, Any], None]:
    def observe(module: nn.Module, arguments: Any, output: Any) -> None:
        first = output[0] if isinstance(output, tuple | list) and output else output
        if not isinstance(first, Tensor) or first.ndim not in (2, 3, 4) or len(first) != 2:
            got = f"a tensor of shape {tuple(first.shape)}" if isinstance(first, Tensor) else type(first).__name__
            expected = "expected maps (B, C, H, W), tokens (B, N, C) or vectors (B, C)"
            problem = f"the module {name!r} of the {what} returns {got} for two images"
            raise DistillError(f"loss: {problem}, {expected}; choose another module")
        if not first.is_floating_point() or (what == "student" and not first.requires_grad):
            problem = f"the module {name!r} of the {what} returns a {first.dtype} without a gradient"
            raise DistillError(f"loss: {problem}, so the loss would not train the student; choose another module")
        if found.outputs is not None:
            found.outputs[name] = first

    return observe
