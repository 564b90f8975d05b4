"""Faster networks: the teacher folded and in half precision, and both networks compiled where that pays.

Where a step fails, the plain network is used and a log line says so.
"""

import copy
import dataclasses
import logging
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from distill.errors import DistillError
from distill.runtime.context import RunContext
from distill.runtime.ddp import parallel
from distill.runtime.device import processor
from distill.runtime.precision import DTYPES, Precision, PrecisionChoice, autocast, choose_precision
from distill.weights.files import state_digest
from manifests.support.processes import keep_freed_memory

Compile = Literal["auto", "on", "off"]

KEPT_MEMORY = (1 << 31) - 1
LONG_RUN = 2000
"""Number of steps from which on compiling for the CPU pays: it takes seconds and saves a tenth of each step."""
logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrozenNetwork:
    """A frozen network: ``network`` computes ``folded``, compiled or not; ``digest`` is that of its state."""

    network: Callable[[Tensor], Tensor]
    folded: nn.Module
    dtype: torch.dtype
    digest: str

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """Compute logits (B, classes) of ``dtype`` from normalised images (B, 3, H, W)."""
        torch.compiler.cudagraph_mark_step_begin()  # may overwrite the last output, which was copied
        return self.network(x.to(self.dtype)).clone()

    def require_unchanged(self) -> None:
        """Check that no weight and no buffer changed since the network was frozen."""
        if state_digest(self.folded) != self.digest:
            raise DistillError("the teacher changed during the run; its logits cannot be trusted: report this")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Accelerator:
    """Prepares the networks of a run: precision, folding, compilation, DDP.

    ``steps`` is the length of the whole run, so that a resumed run compiles as it did before. ``compiled`` names the
    networks that were compiled; ``copies`` holds the results of ``folded``.
    """

    context: RunContext
    precision: Precision
    compile: Compile
    steps: int
    compiled: list[str] = dataclasses.field(default_factory=list)
    copies: dict[tuple[nn.Module, Precision], nn.Module] = dataclasses.field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """Return what the rounding of a run depends on, as plain values."""
        return {
            "torch": str(torch.__version__),
            "threads": torch.get_num_threads(),
            "device": self.context.device.type,
            "processor": processor(self.context.device),
            "precision": self.precision,
            "compiled": sorted(self.compiled),
        } | ({"ranks": self.context.ranks.world_size} if self.context.ranks.world_size > 1 else {})

    def folded(self, model: nn.Module) -> nn.Module:
        """Return a copy of a network in eval mode, batch norms folded into convolutions, weights in ``precision``.

        The copy of each network is kept; ``frozen`` compiles it.
        """
        key = (model, self.precision)
        if key not in self.copies:
            copied = self._fold(model).to(memory_format=torch.channels_last)
            _convert(copied, DTYPES[self.precision])
            self.copies[key] = copied
        return self.copies[key]

    def frozen(self, model: nn.Module, example: Tensor) -> FrozenNetwork:
        """Return ``model``, which is in eval mode and stays unchanged, folded, in ``precision`` and compiled.

        ``example`` is a batch of normalised images (B, 3, H, W).
        """
        dtype, folded = DTYPES[self.precision], self.folded(model)
        options = {"freezing": True} | self._options()
        network = self._compiled(folded, example.to(dtype), "teacher", options) if self._compiles() else folded
        return FrozenNetwork(network=network, folded=folded, dtype=dtype, digest=state_digest(folded))

    def student(self, model: nn.Module, example: Tensor) -> Callable[[Tensor], Tensor]:
        """Return a function that computes ``model`` with its own weights: compiled, or with DDP on several ranks."""
        if self.context.ranks.world_size > 1:
            if self._compiles():
                logger.info("the student is not compiled: several ranks train it")
            return parallel(model, self.context.device)
        return self._compiled(model, example, "student", self._options()) if self._compiles() else model

    def scaler(self) -> torch.amp.GradScaler:
        """Return a loss scaler, which is active with fp16 only."""
        return torch.amp.GradScaler(self.context.device.type, enabled=self.precision == "fp16")

    def _compiles(self) -> bool:
        pays = self.context.device.type == "cuda" or self.steps >= LONG_RUN
        return self.compile == "on" or (self.compile == "auto" and pays)

    def _options(self) -> dict[str, Any]:
        """Return compiler options: a CUDA graph, since launching hundreds of kernels is slower than running them."""
        return {"triton.cudagraphs": True} if self.context.device.type == "cuda" else {}

    def _fold(self, model: nn.Module) -> nn.Module:
        try:
            folded: nn.Module = fuse(model)  # a copy
        except Exception as error:  # noqa: BLE001 - torch.fx traces any code, and fails in as many ways
            logger.info(f"the teacher's batch norms are not folded: {_first_line(error)}")
            return copy.deepcopy(model)
        return folded.eval().requires_grad_(False)

    def _compiled(self, model: nn.Module, example: Tensor, what: str, options: dict[str, Any]) -> Any:
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it warns where there is no CUDA
        compiled = torch.compile(model, options=options)
        try:
            self._try(model, compiled, example)
        except Exception as error:  # noqa: BLE001 - compilers, linkers and drivers fail in as many ways
            logger.info(f"the {what} is not compiled: {_first_line(error)}; train.compile off saves the attempt")
            torch.compiler.reset()
            return model
        self.compiled.append(what)
        return compiled

    def _try(self, model: nn.Module, compiled: Any, example: Tensor) -> None:
        """Compile now, forward and backward, without changing ``model``."""
        if not model.training:
            with torch.no_grad():
                compiled(example)
            return
        state = copy.deepcopy(model.state_dict())
        with autocast(self.context.device, self.precision):
            logits = compiled(example)
        logits.float().sum().backward()
        model.zero_grad(set_to_none=True)
        model.load_state_dict(state)


def make_accelerator(
    context: RunContext, precision: PrecisionChoice, compile_mode: Compile, steps: int
) -> Accelerator:
    """Choose the precision of a run of ``steps`` steps.

    On a CPU this process then keeps memory that it frees, which saves a third of the time of large batches.
    """
    chosen = choose_precision(precision, context.device)
    if context.device.type == "cpu":
        keep_freed_memory(KEPT_MEMORY)
    return Accelerator(context=context, precision=chosen, compile=compile_mode, steps=steps)


def _convert(network: nn.Module, dtype: torch.dtype) -> None:
    """Convert all but batch norms that could not be folded: their statistics need more than eight bits."""
    for module in network.modules():
        if not isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            for value in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                if value.is_floating_point():
                    value.data = value.data.to(dtype)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__
