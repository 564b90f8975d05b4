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
    """torch's Muon for ``weights``, and ``partner`` for other parameters, as one optimizer.

    The first group of parameters is Muon's, the others are the partner's. torch's Muon takes matrices only, so a step
    copies each weight (A, B, …) into a matrix (A, B · …) and back. The momentum keeps the shape of the matrix.
    """

    def __init__(self, config: MuonConfig, weights: list[nn.Parameter], partner: Optimizer) -> None:
        self._matrices = [nn.Parameter(weight.detach().flatten(1)) for weight in weights]
        self._muon, self._partner = config.make([{"params": self._matrices}]), partner
        super().__init__([self._muon.param_groups[0] | {"params": weights}, *partner.param_groups], {})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Change all parameters by their gradients. ``closure`` is not used."""
        own, *others = self.param_groups  # a schedule or a checkpoint may have changed or replaced groups and state
        self._muon.param_groups = [own | {"params": self._matrices}]
        self._partner.param_groups, self._partner.state = others, self.state
        for weight, matrix in zip(own["params"], self._matrices, strict=True):
            matrix.data = weight.detach().flatten(1)
            matrix.grad = None if weight.grad is None else weight.grad.flatten(1)
            if matrix.grad is not None:
                self._muon.state[matrix] = self.state[weight]
        self._muon.step()
        for weight, matrix in zip(own["params"], self._matrices, strict=True):
            if matrix.data_ptr() != weight.data_ptr():  # else the matrix is a view: of a 1×1 convolution or a matrix
                weight.copy_(matrix.view_as(weight))
            matrix.grad = None
        self._partner.step()


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
