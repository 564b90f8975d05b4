"""Networks made fast: the teacher folded into half precision and compiled, the student compiled where that pays.

Whatever cannot be done falls back to the plain network, with a line that says so.
"""

import copy
import dataclasses
import logging
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from distill.errors import DistillError, Say
from distill.runtime.ddp import parallel
from distill.runtime.device import processor
from distill.runtime.distributed import ALONE, Ranks
from distill.runtime.precision import DTYPES, Precision, autocast
from distill.weights.files import state_digest
from manifests.support.processes import keep_freed_memory

Compile = Literal["auto", "on", "off"]

KEPT_MEMORY = (1 << 31) - 1
LONG_RUN = 2000
"""Steps from which on compiling for the CPU has paid for itself: seconds, for a tenth of each step."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frozen:
    """A frozen network as it is computed: ``network`` is ``folded``, compiled or not; ``digest`` is of its state."""

    network: Callable[[Tensor], Tensor]
    folded: nn.Module
    dtype: torch.dtype
    digest: str

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) to logits (B, classes) of ``dtype``, which the next call leaves alone."""
        torch.compiler.cudagraph_mark_step_begin()  # what a CUDA graph gave last may be overwritten: it was copied
        return self.network(x.to(self.dtype)).clone()

    def require_unchanged(self) -> None:
        """Prove that nothing moved a weight or a buffer since the network was frozen.

        Raises:
            DistillError: something did, so the run's labels cannot be trusted.
        """
        if state_digest(self.folded) != self.digest:
            raise DistillError("the teacher changed during the run; its labels cannot be trusted: report this")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Engine:
    """How the networks of a run are computed; ``steps`` is its whole length, so that resuming changes nothing.

    ``compiled`` tells which networks were; ``copies`` are what ``folded`` made, by model and precision.
    """

    device: torch.device
    precision: Precision
    compile: Compile
    steps: int
    say: Say
    ranks: Ranks = ALONE
    compiled: list[str] = dataclasses.field(default_factory=list)
    copies: dict[tuple[nn.Module, Precision], nn.Module] = dataclasses.field(default_factory=dict)

    def prepare_process(self) -> None:
        """Let this process keep memory between steps: a third of the time of large batches on a CPU."""
        if self.device.type == "cpu":
            keep_freed_memory(KEPT_MEMORY)

    def describe(self) -> dict[str, Any]:
        """What the rounding of a run depends on, as plain values."""
        return {
            "torch": str(torch.__version__),
            "threads": torch.get_num_threads(),
            "device": self.device.type,
            "processor": processor(self.device),
            "precision": self.precision,
            "compiled": sorted(self.compiled),
        } | ({"ranks": self.ranks.world} if self.ranks.world > 1 else {})

    def folded(self, model: nn.Module) -> nn.Module:
        """Copy a network in eval mode: batch norms folded into convolutions, weights in ``precision``, not compiled.

        The copy is made once, and is what ``frozen`` compiles.
        """
        key = (model, self.precision)
        if key not in self.copies:
            copied = self._fold(model).to(memory_format=torch.channels_last)
            _convert(copied, DTYPES[self.precision])
            self.copies[key] = copied
        return self.copies[key]

    def frozen(self, model: nn.Module, example: Tensor) -> "Frozen":
        """A frozen network made fast: batch norms folded into convolutions, weights in ``precision``, compiled.

        ``model`` in eval mode is left as it is. ``example`` is normalised images (B, 3, H, W) as they will come.
        """
        dtype, folded = DTYPES[self.precision], self.folded(model)
        options = {"freezing": True} | self._options()
        network = self._compiled(folded, example.to(dtype), "teacher", options) if self._compiles() else folded
        return Frozen(network=network, folded=folded, dtype=dtype, digest=state_digest(folded))

    def student(self, model: nn.Module, example: Tensor) -> Callable[[Tensor], Tensor]:
        """``model`` as a function that trains it, and shares its weights; on several ranks with all of them."""
        if self.ranks.world > 1:
            if self._compiles():
                self.say("the student is not compiled: several ranks train it")
            return parallel(model, self.device)
        return self._compiled(model, example, "student", self._options()) if self._compiles() else model

    def scaler(self) -> torch.amp.GradScaler:
        """Keeps small gradients of fp16 from vanishing; does nothing with bf16 and fp32."""
        return torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")

    def _compiles(self) -> bool:
        pays = self.device.type == "cuda" or self.steps >= LONG_RUN
        return self.compile == "on" or (self.compile == "auto" and pays)

    def _options(self) -> dict[str, Any]:
        """On a GPU, a network is one CUDA graph: starting its hundreds of kernels takes longer than running them."""
        return {"triton.cudagraphs": True} if self.device.type == "cuda" else {}

    def _fold(self, model: nn.Module) -> nn.Module:
        try:
            folded: nn.Module = fuse(model)  # a copy
        except Exception as error:  # noqa: BLE001 - torch.fx traces any code, and fails in as many ways
            self.say(f"the teacher's batch norms are not folded: {_first_line(error)}")
            return copy.deepcopy(model)
        return folded.eval().requires_grad_(False)

    def _compiled(self, model: nn.Module, example: Tensor, what: str, options: dict[str, Any]) -> Any:
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it warns that there is no CUDA
        compiled = torch.compile(model, options=options)
        try:
            self._try(model, compiled, example)
        except Exception as error:  # noqa: BLE001 - compilers, linkers and drivers fail in as many ways
            self.say(f"the {what} is not compiled: {_first_line(error)}; train.compile off saves the attempt")
            torch.compiler.reset()
            return model
        self.compiled.append(what)
        return compiled

    def _try(self, model: nn.Module, compiled: Any, example: Tensor) -> None:
        """Compile now, forward and backward, and leave ``model`` as it was."""
        if not model.training:
            with torch.no_grad():
                compiled(example)
            return
        state = copy.deepcopy(model.state_dict())
        with autocast(self.device, self.precision):
            logits = compiled(example)
        logits.float().sum().backward()
        model.zero_grad(set_to_none=True)
        model.load_state_dict(state)


def _convert(network: nn.Module, dtype: torch.dtype) -> None:
    """All but the batch norms that could not be folded, whose statistics need more than eight bits."""
    for module in network.modules():
        if not isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            for value in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                if value.is_floating_point():
                    value.data = value.data.to(dtype)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__
