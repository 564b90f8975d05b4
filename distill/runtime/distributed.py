"""A run on several ranks: the processes of one ``torchrun``, each of which has its own rows of every batch.

What a batch holds does not depend on their number. The first rank writes and speaks; whatever ends one ends all.
"""

import dataclasses
import os
import secrets
import signal
import socket
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

JOINING = timedelta(minutes=10)
"""Longest that a rank waits for another to begin."""
PATIENCE = timedelta(hours=2)
"""And later, for the other may be decoding a large set. One that dies is noticed at once."""

_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - NCCL's, when ranks share a machine
T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process is ``rank`` of ``world`` ranks, and ``local`` of those ``here``, on its machine."""

    rank: int = 0
    world: int = 1
    local: int = 0
    here: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes and speaks."""
        return self.rank == 0

    def mask(self, batch: int) -> Tensor:
        """Which rows of a batch are this rank's: bool (batch,).

        A share of the first half, and its mirror in the second; the middle of an odd batch is the last rank's. So the
        rows are the same in reverse, and each one's partner in ``augment.mix`` is here too, where it is looked for.
        """
        half = (batch + 1) // 2
        mask = torch.zeros(batch, dtype=torch.bool)
        mask[self.rank * half // self.world : (self.rank + 1) * half // self.world] = True
        return mask | mask.flip(0)

    def part(self, values: Tensor) -> Tensor:
        """This rank's of the rows of a batch (B, …), in their order."""
        return values if self.world == 1 else values[self.mask(len(values)).to(values.device)]

    def require_rows(self, batch: int) -> None:
        """Check that a batch gives every rank rows.

        Raises:
            DistillError: it does not.
        """
        if self.world > 1 and batch < 2 * self.world:
            raise DistillError(
                f"data.batch_size {batch}: too small for {self.world} ranks, expected at least {2 * self.world}, a "
                "sample and its partner for each; raise it or start fewer"
            )

    def weigh(self, loss: Tensor, batch: int) -> Tensor:
        """The mean over this rank's rows, so weighed that its mean over the ranks is the mean over ``batch``."""
        return loss if self.world == 1 else loss * (int(self.mask(batch).sum()) * self.world / batch)

    def mean(self, value: Tensor) -> Tensor:
        """The mean over the ranks of a number that each has on its device."""
        return value if self.world == 1 else self.total(value) / self.world

    def total(self, value: Tensor) -> Tensor:
        """The sum over the ranks of a tensor that has one shape on all of them."""
        if self.world == 1:
            return value
        summed = value.clone()
        dist.all_reduce(summed)
        return summed

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` is true on any rank; nobody goes on before all have asked."""
        return bool(self.total(torch.tensor(int(flag))))

    def gather(self, parts: dict[int, Tensor], count: int) -> Tensor:
        """Tensors (n, …) on the CPU, numbered from 0 to ``count`` and each on one rank, as one on all."""
        every: list[Any] = [parts] * self.world
        if self.world > 1:
            dist.all_gather_object(every, parts)
        held = {number: part for each in every for number, part in each.items()}
        return torch.cat([held[number] for number in range(count)])

    def from_first(self, make: Callable[[], T]) -> T:
        """What ``make`` gives on the first rank, on all of them."""
        if self.world == 1:
            return make()
        box = [make() if self.first else None]
        dist.broadcast_object_list(box)
        return box[0]  # type: ignore[return-value]

    def require_same(self, what: dict[str, Any]) -> None:
        """Check that a run is one run on all ranks, whose machines may hold other files.

        Raises:
            DistillError: a value of ``what`` is not what it is on the first rank.
        """
        for key, value in self.from_first(lambda: what).items():
            if what.get(key) != value:
                raise DistillError(
                    f"rank {self.rank}: has {key} {str(what.get(key))[:200]}, the first rank {str(value)[:200]}; "
                    "give all ranks the same config, set and teacher"
                )

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """A block that the first process of each machine has left before the others enter it, to find its files."""
        if self.local:
            self.any(False)
        yield
        if not self.local:
            self.any(False)


ALONE = Ranks()
"""One process that is the whole run."""


@contextmanager
def joined() -> Iterator[Ranks]:
    """The ranks that ``torchrun`` started this process among, connected; ``ALONE`` without it.

    Raises:
        DistillError: they do not find each other, or have no memory to share; or, on the first rank, another one is
            gone.
        SystemExit: on the others, when a rank is gone, for the first tells so.
    """
    ranks = Ranks(**launched())
    if ranks.world == 1:
        yield ranks
        return
    _require_address()
    try:
        with handling(signal.SIG_DFL):  # while it waits for others, nothing of Python's hears a signal
            _connect(ranks)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise DistillError(f"the ranks do not find each other: {reason[0][:160]}; start with torchrun") from error
    try:
        yield ranks
    except RuntimeError as error:
        if not _is_loss(error):
            raise
        if cause := next((line.strip() for line in str(error).splitlines() if _SHARED_MEMORY in line), None):
            raise DistillError(
                f"rank {ranks.rank}: {cause[:300]}; give {_SHARED_MEMORY} more room, or set NCCL_SHM_DISABLE=1"
            ) from error
        if not ranks.first:
            raise SystemExit(1) from error
        raise DistillError(
            "another rank has ended, torchrun says how; start again with --resume to go on from the last checkpoint"
        ) from error
    dist.destroy_process_group()


def _require_address() -> None:
    """Check that the first rank's machine is known here, which torch would try for ``JOINING``.

    Raises:
        DistillError: it is not.
    """
    if host := os.environ.get("MASTER_ADDR"):
        try:
            socket.getaddrinfo(host, None)
        except (OSError, UnicodeError) as error:
            raise DistillError(f"MASTER_ADDR {host!r}: no such machine is known here; start with torchrun") from error


def _connect(ranks: Ranks) -> None:
    store, _, _ = next(rendezvous("env://", timeout=JOINING))
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
        store=dist.PrefixStore(_name_of_start(store, ranks), store),  # type: ignore[attr-defined]
        rank=ranks.rank,
        world_size=ranks.world,
        timeout=PATIENCE,
    )


def _name_of_start(store: Any, ranks: Ranks) -> str:
    """A name that all ranks have agreed on, and no ranks before them.

    ``torchrun`` keeps its store over a restart, with the addresses of ranks that are no more; who read one waited for
    it for ever. So the first rank answers only who asks by a name of its own.
    """
    mine = secrets.token_hex(8)
    if not ranks.first:
        store.set(f"ask/{ranks.rank}", mine)
        name = store.get(f"answer/{mine}").decode()
        store.set(f"heard/{name}/{ranks.rank}", "")
        return name
    silent, end = set(range(1, ranks.world)), time.monotonic() + JOINING.total_seconds()
    while silent:
        for rank in silent:
            if store.check([f"ask/{rank}"]):
                store.set(f"answer/{store.get(f'ask/{rank}').decode()}", mine)
        time.sleep(0.02)
        silent = {rank for rank in silent if not store.check([f"heard/{mine}/{rank}"])}
        if time.monotonic() > end:
            raise ValueError(f"nothing is heard of rank {min(silent)}")
    return mine


def _is_loss(error: RuntimeError) -> bool:
    """Whether a collective failed: gloo has no type for it."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)
