"""Prepare networks: fold the teacher's batch norms into convolutions, convert to 16 bits, compile, and apply DDP."""

import copy
import dataclasses
import logging
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.fx import symbolic_trace
from torch.fx.experimental.optimization import fuse
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.parallel import DistributedDataParallel

from distill.errors import DistillError
from distill.models.features import Outputs, WithFeatures
from distill.runtime.device import DTYPES, Precision, PrecisionChoice, autocast, choose_precision, processor
from distill.runtime.distributed import RunContext
from distill.weights.files import tensors_digest
from manifests.support.processes import keep_freed_memory

Compile = Literal["auto", "on", "off"]

KEPT_MEMORY = (1 << 31) - 1
LONG_RUN = 2000
"""Fewest steps of a run that is compiled for the CPU. Compilation takes seconds and saves a tenth of each step."""
logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrozenNetwork:
    """A network, such as a teacher, whose weights must stay the same."""

    network: Callable[[Tensor], Tensor | Outputs]  # ``folded``, or ``folded`` with features; compiled or not
    folded: nn.Module
    dtype: torch.dtype
    digest: str  # SHA-256 of the state of ``folded``

    def __call__(self, x: Tensor) -> Tensor:
        """Compute logits (B, classes) of ``dtype`` from normalized images (B, 3, H, W)."""
        return self.outputs(x)[0]

    @torch.no_grad()
    def outputs(self, x: Tensor) -> Outputs:
        """Compute logits (B, classes) from normalized images (B, 3, H, W), then the features if there are any."""
        if x.is_cuda:  # the last output may be overwritten: it was copied
            torch.compiler.cudagraph_mark_step_begin()  # imports torch._inductor, which takes seconds
        result = self.network(x.to(self.dtype))
        return tuple(each.clone() for each in result) if isinstance(result, tuple) else (result.clone(),)

    def require_unchanged(self) -> None:
        """Raise DistillError if a weight or a buffer has changed since the network was frozen."""
        if tensors_digest(self.folded.state_dict()) != self.digest:
            raise DistillError("weights of the teacher changed during the run; report this error to the developers")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Accelerator:
    """Prepares the networks of a run: 16-bit precision, folded batch norms, compilation, DDP."""

    context: RunContext
    precision: Precision
    compile: Compile
    steps: int  # of the whole run, so that a resumed run compiles as before
    compiled: list[str] = dataclasses.field(default_factory=list)  # names of the compiled networks
    copies: dict[tuple[nn.Module, Precision], nn.Module] = dataclasses.field(default_factory=dict)  # of ``folded``

    def describe(self) -> dict[str, Any]:
        """Return the settings and versions that change the rounding of a run, as JSON values."""
        return {
            "torch": str(torch.__version__),
            "threads": torch.get_num_threads(),
            "device": self.context.device.type,
            "processor": processor(self.context.device),
            "precision": self.precision,
            "compiled": sorted(self.compiled),
        } | ({"ranks": self.context.ranks.world_size} if self.context.ranks.world_size > 1 else {})

    def folded(self, model: nn.Module) -> nn.Module:
        """Return a copy of ``model`` with folded batch norms and weights in ``precision``.

        ``model`` must be in eval mode. Folding multiplies a batch norm into the weights of the convolution before it.
        """
        key = (model, self.precision)
        if key not in self.copies:
            self.copies[key] = self._frozen_copy(model, _fused)
        return self.copies[key]

    def _frozen_copy(self, model: nn.Module, fold: Callable[[nn.Module], nn.Module]) -> nn.Module:
        try:
            copied = fold(model)
        except Exception as error:  # noqa: BLE001 - torch.fx traces any code, and fails in as many ways
            if any(isinstance(module, _BatchNorm) for module in model.modules()):
                reason = _first_line(error)
                logger.info(f"the teacher is slower, because its batch norms cannot be folded: {reason}")
            copied = copy.deepcopy(model)
        copied.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        _convert(copied, DTYPES[self.precision])
        return copied

    def frozen(
        self, model: nn.Module, example: Tensor, names: Sequence[str] = (), adapters: Sequence[nn.Module] = ()
    ) -> FrozenNetwork:
        """Return the copy of ``model`` that ``folded`` makes, compiled if the run compiles networks.

        ``model`` must be in eval mode. ``example`` is a batch of normalized images (B, 3, H, W). If there are
        ``names``, the copy keeps all modules of ``model``, and also returns features, see ``WithFeatures``.
        """
        dtype = DTYPES[self.precision]
        folded = self._frozen_copy(model, lambda each: _fused_modules(each, names)) if names else self.folded(model)
        whole = WithFeatures(folded, names, adapters).eval() if names else folded
        network = self._compiled(whole, example.to(dtype), "teacher", {"freezing": True})
        return FrozenNetwork(network=network, folded=folded, dtype=dtype, digest=tensors_digest(folded.state_dict()))

    def student(self, model: nn.Module, example: Tensor, parts: int = 1) -> Callable[[Tensor], Any]:
        """Return ``model``, compiled for the shape of ``example``, or in DDP if the run has several ranks.

        ``parts`` is the number of parts in which a step computes its batch. In parts, ``model`` is not compiled.
        """
        if self.context.ranks.world_size > 1:
            if self._compiles():
                logger.info("the student is not compiled, because several ranks train it")
            return parallel(model, self.context.device)
        if parts > 1:
            if self._compiles():
                logger.info("the student is not compiled, because optim.accumulate computes batches in parts")
            return model
        return self._compiled(model, example, "student", {})

    def _compiles(self) -> bool:
        pays = self.context.device.type == "cuda" or self.steps >= LONG_RUN
        return self.compile == "on" or (self.compile == "auto" and pays)

    def _compiled(self, model: nn.Module, example: Tensor, what: str, options: dict[str, Any]) -> Any:
        """Return ``model`` compiled, or unchanged if compilation is off or fails. ``what`` is for messages."""
        if not self._compiles():
            return model
        if self.context.device.type == "cuda":  # a CUDA graph, because hundreds of kernels start slower than they run
            options |= {"triton.cudagraphs": True}
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it warns where there is no CUDA
        compiled = torch.compile(model, options=options)
        try:
            self._try(model, compiled, example)
        except Exception as error:  # noqa: BLE001 - compilers, linkers and drivers fail in as many ways
            found = f"the {what} is not compiled: {_first_line(error)}"
            logger.info(f"{found}; set train.compile off to avoid this attempt")
            torch.compiler.reset()
            return model
        self.compiled.append(what)
        return compiled

    def _try(self, model: nn.Module, compiled: Any, example: Tensor) -> None:
        """Compile the model by a first call (and backward, in training mode). Then restore the state of ``model``."""
        if not model.training:
            with torch.no_grad():
                compiled(example)
            return
        state = copy.deepcopy(model.state_dict())
        with autocast(self.context.device, self.precision):
            result = compiled(example)
        outputs = result if isinstance(result, tuple) else (result,)
        sum(each.float().sum() for each in outputs).backward()
        model.zero_grad(set_to_none=True)
        model.load_state_dict(state)


def make_accelerator(context: RunContext, precision: PrecisionChoice, mode: Compile, steps: int) -> Accelerator:
    """Return the accelerator of a run of ``steps`` steps; ``precision`` may be ``auto``.

    On a CPU, this call makes the process reuse freed memory. This saves a third of the time of large batches.
    """
    if context.device.type == "cpu":
        keep_freed_memory(KEPT_MEMORY)
    chosen = choose_precision(precision, context.device)
    return Accelerator(context=context, precision=chosen, compile=mode, steps=steps)


def _fused(model: nn.Module) -> nn.Module:
    """Fold batch norms with torch's ``fuse``, which is wrong if a convolution has several batch norms after it."""
    fused: Any = fuse(model)
    called = [node.target for node in fused.graph.nodes if node.op == "call_module"]
    for name in sorted({name for name in called if called.count(name) > 1}):
        if isinstance(fused.get_submodule(name), _ConvNd):
            raise ValueError(f"the convolution {name} is used more than once")
    return fused


def _fused_modules(model: nn.Module, observed: Sequence[str]) -> nn.Module:
    """Return a copy of ``model`` with the folded weights of ``_fused``, but all modules and the code of ``model``.

    A batch norm that was folded is an identity in the copy. Layers in ``observed`` keep their own output.
    """
    fused: Any = _fused(model)
    kept = {node.target for node in fused.graph.nodes if node.op == "call_module"}
    copied = copy.deepcopy(model)
    for node in symbolic_trace(model).graph.nodes:
        if node.op == "call_module" and node.target not in kept:
            layer = str(node.args[0].target)
            if layer not in observed:
                copied.set_submodule(layer, fused.get_submodule(layer))
                copied.set_submodule(str(node.target), nn.Identity())
    return copied


def _convert(network: nn.Module, dtype: torch.dtype) -> None:
    """Convert ``network`` to ``dtype``, except batch norms, which need more precision than bfloat16 has."""
    for module in network.modules():
        if not isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            for value in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                if value.is_floating_point():
                    value.data = value.data.to(dtype)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__


def parallel(network: nn.Module, device: torch.device) -> nn.Module:
    """Wrap ``network`` in DDP. Batch norms use the rows of all ranks. The network must already be on ``device``."""
    if device.type != "cuda":
        synchronize(network)
    else:
        nn.SyncBatchNorm.convert_sync_batchnorm(network)
    if isinstance(network, WithFeatures):
        network.hook()
    return DistributedDataParallel(network, device_ids=None if device.type != "cuda" else [device])


def synchronize(network: nn.Module) -> None:
    """Replace each batch norm in ``network`` by a ``SyncedBatchNorm`` with the same parameters and buffers."""
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, _BatchNorm):
                setattr(parent, name, SyncedBatchNorm(child))


class SyncedBatchNorm(_BatchNorm):
    """Batch norm (Ioffe & Szegedy 2015, arXiv 1502.03167) on CPUs, with statistics of the rows of all ranks.

    ``nn.SyncBatchNorm`` of torch computes the same, but only on GPUs.
    """

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum)
        self._parameters, self._buffers, self.training = norm._parameters, norm._buffers, norm.training

    def forward(self, x: Tensor) -> Tensor:
        """Normalize ``x`` (B, C, …) in float32 or float64. A rank may have a single row."""
        if not self.training:
            return super().forward(x)
        wide = x if x.dtype == torch.float64 else x.float()
        dims, shape = [0, *range(2, x.ndim)], (1, -1, *[1] * (x.ndim - 2))
        spread, center = (value.double() for value in torch.var_mean(wide, dims, correction=0))
        own = torch.full_like(center, x.numel() // x.shape[1])
        total = _AllReduce.apply(torch.stack([own, own * center, own * (spread + center.square())]))
        count = total[0].detach()
        mean = total[1] / count
        variance = (total[2] / count - mean.square()).clamp(min=0)  # exact enough in float64
        unbiased = variance.detach() * count / (count - 1)
        buffers: Any = self._buffers
        for name, value in (("running_mean", mean.detach()), ("running_var", unbiased)):
            buffers[name].lerp_(value.to(buffers[name].dtype), self.momentum)
        buffers["num_batches_tracked"].add_(1)
        scale = (variance + self.eps).rsqrt().to(wide.dtype) * self.weight
        centered = wide - mean.to(wide.dtype).view(shape)
        return torch.addcmul(self.bias.view(shape), centered, scale.view(shape)).to(x.dtype)

    def _check_input_dim(self, input: Tensor) -> None:
        """Accept any number of dimensions after the channels."""


class _AllReduce(torch.autograd.Function):
    """The sum of a tensor over all ranks. In the backward pass, the gradients are also summed over all ranks."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        summed = value.clone()
        dist.all_reduce(summed)
        return summed

    backward = forward
