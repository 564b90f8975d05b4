"""Set the momentum and epsilon of a network's batch norms."""

import logging

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from distill.errors import DistillError

STALE = 0.01
"""Share of their first values from which on the statistics of batch norms are said to be too old."""
logger = logging.getLogger(__name__)


def set_batch_norms(network: nn.Module, *, momentum: float | None = None, eps: float | None = None) -> None:
    """Set the momentum and epsilon of all batch norms of ``network``; None leaves a value unchanged.

    ``momentum`` is the share of a batch in the running statistics, as in torch; Keras has 1 minus it. ``eps`` is
    added to the variance.

    Raises:
        DistillError: a value is given, and the network has no batch norm.
    """
    if momentum is None and eps is None:
        return
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    if not norms:
        raise DistillError("the network has no batch norm, so bn_momentum and bn_eps have no use; leave them out")
    for norm in norms:
        norm.momentum = norm.momentum if momentum is None else momentum
        norm.eps = norm.eps if eps is None else eps


def warn_of_stale_statistics(momentum: float | None, steps: int) -> None:
    """Log a warning if ``steps`` are too few for the batch norms' running statistics at this ``momentum``."""
    if momentum is not None and (left := (1 - momentum) ** steps) > STALE:
        logger.info(
            f"the batch norms' statistics keep {left:.0%} of their first values after {steps} steps, which spoils "
            f"the result: raise bn_momentum {momentum} or the number of steps"
        )
