"""Divide each batch of a run among ranks, which are the processes that one ``torchrun`` started.

The content of a batch does not depend on the number of ranks. Only the main rank writes files and prints. When one
rank ends, all ranks end.
"""

import dataclasses
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from distill.errors import DistillError
from distill.runtime.torchrun_env import launched
from manifests.support.processes import handling

JOIN_TIMEOUT = timedelta(minutes=10)  # longest wait for another rank to start
COLLECTIVE_TIMEOUT = timedelta(hours=2)  # longest wait for a rank that works, such as one that decodes a large set

_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - NCCL uses it if ranks share a machine
T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ranks:
    """The rank of this process and the number of ranks, in the run and on this machine. The default is one rank."""

    rank: int = 0  # number of this process
    world_size: int = 1  # processes of the run
    local_rank: int = 0  # number of this process on this machine
    local_world_size: int = 1  # processes of the run on this machine

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, the only rank that writes files and prints."""
        return self.rank == 0

    def row_mask(self, batch_size: int) -> Tensor:
        """Return which rows of a batch belong to this rank: bool (batch_size,).

        Rows i and ``batch_size`` - 1 - i belong to the same rank, because ``augment.mix`` mixes these two rows. The
        middle row of an odd batch belongs to the last rank.
        """
        half = (batch_size + 1) // 2
        mask = torch.zeros(batch_size, dtype=torch.bool)
        mask[self.rank * half // self.world_size : (self.rank + 1) * half // self.world_size] = True
        return mask | mask.flip(0)

    def take_rows(self, values: Tensor) -> Tensor:
        """Return the rows of ``values`` (B, …) that belong to this rank, in the same order."""
        return values if self.world_size == 1 else values[self.row_mask(len(values)).to(values.device)]

    def split_rows(self, batch_size: int, parts: int) -> list[Tensor]:
        """Return the rows of each of ``parts`` parts of a batch, as positions in this rank's rows: int64 (rows,).

        Parts do not depend on the number of ranks. Each rank has rows in each part if it has 2 · ``parts`` rows.
        """
        rows = torch.arange(batch_size)
        numbers = self.take_rows(torch.minimum(rows, batch_size - 1 - rows) % parts)
        return [(numbers == part).nonzero()[:, 0] for part in range(parts)]

    def require_rows(self, batch_size: int) -> None:
        """Check that a batch has at least two samples for each rank."""
        if self.world_size > 1 and batch_size < 2 * self.world_size:
            found = f"too small for {self.world_size} ranks, expected at least {2 * self.world_size}"
            action = "which is two samples for each rank; raise data.batch_size or start fewer ranks"
            raise DistillError(f"data.batch_size {batch_size}: is {found}, {action}")

    def scale_loss(self, loss: Tensor, batch_size: int) -> Tensor:
        """Scale ``loss``, the mean over this rank's rows, so that the mean over all ranks is the batch mean."""
        if self.world_size == 1:
            return loss
        return loss * (int(self.row_mask(batch_size).sum()) * self.world_size / batch_size)

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean of ``value`` over all ranks. The shape must be the same on all ranks."""
        return value if self.world_size == 1 else self.sum(value) / self.world_size

    def sum(self, value: Tensor) -> Tensor:
        """Return the sum of ``value`` over all ranks. The shape must be the same on all ranks."""
        if self.world_size == 1:
            return value
        summed = value.clone()
        dist.all_reduce(summed)
        return summed

    def any(self, flag: bool) -> bool:
        """Wait until all ranks have called this method, and return whether ``flag`` is true on any rank."""
        return bool(self.sum(torch.tensor(int(flag))))

    def gather(self, parts: dict[int, Tensor], count: int) -> Tensor:
        """Concatenate the CPU tensors (n, …) of all ranks, and return the same result on all ranks.

        ``parts`` are the tensors of this rank. The keys, from 0 to ``count`` - 1, are the positions in the result.
        """
        every: list[Any] = [parts] * self.world_size
        if self.world_size > 1:
            dist.all_gather_object(every, parts)
        found = {number: part for each in every for number, part in each.items()}
        return torch.cat([found[number] for number in range(count)])

    def broadcast(self, compute: Callable[[], T]) -> T:
        """Call ``compute`` on the main rank and return its result on all ranks."""
        if self.world_size == 1:
            return compute()
        box = [compute() if self.is_main else None]
        dist.broadcast_object_list(box)
        return box[0]  # type: ignore[return-value]

    def require_same(self, values: dict[str, Any]) -> None:
        """Check that ``values`` are equal on all ranks. They can differ if machines have different files."""
        for key, value in self.broadcast(lambda: values).items():
            if (own := values.get(key)) != value:
                pairs = enumerate(zip(str(own), str(value), strict=False))
                start = max(next((i for i, (a, b) in pairs if a != b), 0) - 50, 0)  # show the first difference
                found = f"{key} is {str(own)[start:][:200]}, but rank 0 has {str(value)[start:][:200]}"
                action = "start all ranks with the same config, set and teacher"
                raise DistillError(f"rank {self.rank}: {found}; {action}")

    @contextmanager
    def local_main_first(self) -> Iterator[None]:
        """Run the block first on local rank 0 of each machine, so that the other ranks can use files of that rank."""
        if self.local_rank:
            self.any(False)
        yield
        if not self.local_rank:
            self.any(False)


SINGLE_PROCESS = Ranks()


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunContext:
    """The device of this process, and the ranks that share each batch."""

    device: torch.device
    ranks: Ranks = SINGLE_PROCESS


@contextmanager
def joined() -> Iterator[Ranks]:
    """Connect the ranks of ``torchrun``, and yield the ``Ranks`` of this process. Without torchrun, yield one rank.

    Raises:
        DistillError: the ranks cannot connect or have no shared memory, or, on the main rank, another rank has ended.
        SystemExit: another rank has ended. Only ranks other than the main rank raise this.
    """
    ranks = Ranks(**launched())
    if ranks.world_size == 1:
        yield ranks
        return
    try:
        with handling(signal.SIG_DFL):  # Python runs no handler while it waits in C
            _connect(ranks)
    except (RuntimeError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        found = f"the ranks cannot connect to each other: {reason[:160]}"
        raise DistillError(f"{found}; start all ranks again with torchrun") from error
    try:
        yield ranks
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):  # gloo has no error type
            raise
        if cause := next((line.strip() for line in str(error).splitlines() if _SHARED_MEMORY in line), None):
            action = f"enlarge {_SHARED_MEMORY}, or set NCCL_SHM_DISABLE=1"
            raise DistillError(f"rank {ranks.rank}: {cause[:300]}; {action}") from error
        if not ranks.is_main:
            raise SystemExit(1) from error
        action = "start all ranks again with --resume to continue from the last checkpoint"
        raise DistillError(f"another rank has ended, and torchrun prints the reason; {action}") from error
    dist.destroy_process_group()


def _connect(ranks: Ranks) -> None:
    store, _, _ = next(rendezvous("env://", timeout=JOIN_TIMEOUT))
    store = dist.PrefixStore(_start_name(store, ranks), store)  # type: ignore[attr-defined]
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    rank, size = ranks.rank, ranks.world_size
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=COLLECTIVE_TIMEOUT)


def _start_name(store: Any, ranks: Ranks) -> str:
    """Return a name that all ranks share and that no earlier start of ``torchrun`` used.

    When ``torchrun`` starts ranks again, the store still has the addresses of ranks that have ended. A rank that read
    an old address would wait until the timeout. So each rank writes a random key, and the main rank
    stores the name under this key.
    """
    own = secrets.token_hex(8)
    if not ranks.is_main:
        store.set(f"ask/{ranks.rank}", own)
        name = store.get(f"answer/{own}").decode()
        store.set(f"received/{name}/{ranks.rank}", "")
        return name
    waiting, end = set(range(1, ranks.world_size)), time.monotonic() + JOIN_TIMEOUT.total_seconds()
    while waiting:
        for rank in waiting:
            if store.check([f"ask/{rank}"]):
                store.set(f"answer/{store.get(f'ask/{rank}').decode()}", own)
        time.sleep(0.02)
        waiting = {rank for rank in waiting if not store.check([f"received/{own}/{rank}"])}
        if time.monotonic() > end:
            raise ValueError(f"no answer from rank {min(waiting)}")
    return own
