"""Make the optimizer of a network, and describe the state that it keeps."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.optim import Optimizer

from distill.optim.config import Groups, MuonConfig, OptimConfig


def make_optimizer(config: OptimConfig, network: nn.Module) -> Optimizer:
    """Return the optimizer that ``config`` describes, for all parameters of ``network``."""
    parameters = list(network.parameters())
    if not isinstance(config, MuonConfig):
        return config.make(_groups(config, parameters))
    weights = muon_weights(network)
    own = set(map(id, weights))
    others = [parameter for parameter in parameters if id(parameter) not in own]
    return MuonWithPartner(config, weights, config.make_partner(_groups(config, others)))


def _groups(config: OptimConfig, parameters: list[nn.Parameter]) -> Groups:
    """Return ``parameters`` as one group, or as two groups: with and without weight decay."""
    if config.no_decay is None:
        return [{"params": parameters}]
    decayed = [parameter for parameter in parameters if parameter.ndim > 1]
    others = [parameter for parameter in parameters if parameter.ndim <= 1]
    return [{"params": decayed}, {"params": others, "weight_decay": 0.0}]


def muon_weights(network: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of ``network`` that Muon changes: matrices, except embeddings, and convolutions."""
    found = {
        id(parameter): parameter
        for module in network.modules()
        for parameter in module.parameters(recurse=False)
        if (parameter.ndim == 2 and not isinstance(module, nn.Embedding))
        or (parameter.ndim > 2 and isinstance(module, _ConvNd))
    }
    return list(found.values())


class MuonWithPartner(Optimizer):
    """Muon for ``weights``, and ``partner`` for other parameters, as one optimizer.

    The first group of parameters is Muon's, with the arguments of torch's Muon; the others are the partner's. torch's
    Muon takes matrices only and computes in bfloat16, which is slow on most CPUs. Here a weight (A, B, …) counts as a
    matrix (A, B · …), and a CPU computes in float32.
    """

    def __init__(self, config: MuonConfig, weights: list[nn.Parameter], partner: Optimizer) -> None:
        group = config.make([{"params": [nn.Parameter(torch.zeros(2, 2))]}]).param_groups[0]
        self._partner = partner
        super().__init__([group | {"params": weights}, *partner.param_groups], {})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Change all parameters by their gradients. ``closure`` is not used."""
        own, *others = self.param_groups  # a schedule or a checkpoint may have changed or replaced groups and state
        for weight in own["params"]:
            if weight.grad is not None:
                _muon_step(weight, weight.grad.flatten(1), own, self.state[weight])
        self._partner.param_groups, self._partner.state = others, self.state
        self._partner.step()


def _muon_step(weight: Tensor, gradient: Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
    """Change ``weight`` (A, B, …) by its ``gradient`` (A, B · …) as torch's Muon does."""
    momentum, lr = group["momentum"], group["lr"]
    mean = state.setdefault("momentum_buffer", torch.zeros_like(gradient))
    mean.lerp_(gradient, 1 - momentum)
    change = gradient.lerp(mean, momentum) if group["nesterov"] else mean
    change = _orthogonalized(change, group["ns_coefficients"], group["ns_steps"], group["eps"])
    rows, columns = change.shape
    factor = {
        "original": max(1.0, rows / columns) ** 0.5,
        "match_rms_adamw": 0.2 * max(rows, columns) ** 0.5,
        "spectral_unclamped": (rows / columns) ** 0.5,
    }[group["adjust_lr_fn"] or "original"]
    weight.mul_(1 - lr * group["weight_decay"])
    weight.add_(change.view_as(weight), alpha=-lr * factor)


def _orthogonalized(matrix: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """Return a matrix (A, B) with nearly the same singular vectors and with singular values near 1.

    This is the Newton-Schulz iteration of Jordan et al. 2024, https://kellerjordan.github.io/posts/muon.
    """
    a, b, c = coefficients
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if is_tall else matrix).to(_muon_dtype(matrix.device))
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if is_tall else x


def _muon_dtype(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "cpu" else torch.bfloat16


def state_template(config: OptimConfig, network: nn.Module) -> dict[int, dict[str, Tensor]]:
    """Return the state of each parameter, by its number, after a step of a new optimizer of a copy of ``network``.

    A checkpoint of a run with this ``config`` has the same keys, shapes and dtypes, but other values.
    """
    copied = copy.deepcopy(network)
    for parameter in copied.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer = make_optimizer(config, copied)
    optimizer.step()
    state: dict[int, dict[str, Tensor]] = optimizer.state_dict()["state"]
    return state
