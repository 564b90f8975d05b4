"""Test that several ranks have the same results as one process: batches, statistics, losses and figures.

Also test the messages of a rank that fails.
"""

import contextlib
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import distill.cli
import distill.data.decode
import distill.runtime.distributed
from distill.augment import AugmentConfig, JitterConfig
from distill.data.batches import Resident, View
from distill.data.cache import open_source
from distill.data.config import DataConfig
from distill.data.sampler import Order, WindowOrder
from distill.data.stream import Streamed
from distill.errors import DistillError
from distill.runtime.compile import synchronize
from distill.runtime.device import pick_device
from distill.runtime.distributed import Ranks, RunContext
from distill.targets.targets import LabelTargets
from manifests import open_patchset
from tests.conftest import Program, assert_one_line

CPU = torch.device("cpu")
WORLD = 3
RANKS = [Ranks(rank=rank, world_size=WORLD, local_rank=rank, local_world_size=WORLD) for rank in range(WORLD)]


@settings(max_examples=30)
@given(st.integers(1, 9), st.data())
def test_rows_are_shared_out_and_are_the_same_in_reverse(world: int, data: st.DataObject) -> None:
    """Every row of a batch belongs to one rank, and a reversed batch has the same rows on each rank."""
    batch = data.draw(st.integers(2 * world, 200))
    masks = torch.stack([Ranks(rank=rank, world_size=world).row_mask(batch) for rank in range(world)])
    assert torch.equal(masks.sum(dim=0), torch.ones(batch, dtype=torch.int64))
    assert torch.equal(masks, masks.flip(1))
    counts = masks.sum(dim=1)
    assert int(counts.min()) >= 1 and int(counts.max() - counts.min()) <= 3


def test_a_batch_too_small_for_its_ranks_is_refused() -> None:
    Ranks(world_size=4).require_rows(8)
    with pytest.raises(DistillError, match=r"data\.batch_size 7: is too small for 4 ranks, expected at least 8"):
        Ranks(world_size=4).require_rows(7)


def test_the_mean_over_ranks_is_that_over_the_batch() -> None:
    """The mean of the ranks' scaled losses equals the mean loss of the whole batch."""
    losses = torch.rand(13, dtype=torch.float64)
    parts = [ranks.scale_loss(ranks.take_rows(losses).mean(), 13) for ranks in RANKS]
    assert torch.isclose(sum(parts) / WORLD, losses.mean())


AUGMENTS = {
    "cutmix": AugmentConfig(cutmix_alpha=1),
    "boxes": AugmentConfig(cutmix_alpha=1, cutmix_box="sample", jitter=JitterConfig(brightness=0.5, hue=0.1)),
    "mixup": AugmentConfig(
        pad_crop=0, resized_crop=(0.3, 1), size=16, cutmix_alpha=0, mixup_alpha=1, grayscale=0.5, solarize=0.5
    ),
}


@pytest.mark.parametrize("augment", AUGMENTS.values(), ids=AUGMENTS)
@pytest.mark.parametrize("batch", [12, 13])
def test_each_rank_has_its_rows_of_the_batch_and_its_labels(augment: AugmentConfig, batch: int) -> None:
    samples = torch.randint(0, 256, (40, 32, 32, 3), dtype=torch.uint8)
    labels = torch.arange(40) % 4

    def view(ranks: Ranks) -> tuple[View, LabelTargets]:
        order = Order(40, batch, 0)
        source = Resident(samples=samples, order=order, context=RunContext(device=CPU, ranks=ranks))
        targets = LabelTargets(
            labels=labels, order=order, num_classes=4, smoothing=0.1, context=RunContext(device=CPU, ranks=ranks)
        )
        return View(source=source, augment=augment, seed=1, period=99), targets

    whole, all_labels = view(Ranks())
    for step in range(4):
        expected = whole.batch(step)
        for ranks in RANKS:
            mine, targets = view(ranks)
            got = mine.batch(step)
            assert torch.equal(got.images, ranks.take_rows(expected.images))
            assert len(got.images) == mine.rows == len(mine.example())
            wanted = ranks.take_rows(all_labels(expected, torch.empty(0)))
            assert torch.equal(targets(got, torch.empty(0)), wanted)


def test_a_streamed_rank_decodes_only_its_rows(patchset_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[str] = []
    original = distill.data.decode.decode_sample

    def decode(sample: dict[str, Any], *options: Any) -> Any:
        decoded.append(sample["__key__"])
        return original(sample, *options)

    patchset = open_patchset(patchset_path)
    with open_source(patchset, DataConfig(workers=0), 3, RunContext(device=CPU)) as source:
        assert isinstance(source, Resident)
        pixels = source.samples
    monkeypatch.setattr(distill.data.decode, "decode_sample", decode)
    order = WindowOrder([shard.n for shard in patchset.manifest.shards], 13, 3, 2)
    for ranks in RANKS:
        decoded.clear()
        wanted = [int(order.wanted((epoch, window), ranks).sum()) for epoch in range(4) for window in range(2)]
        with contextlib.closing(Streamed(patchset, order, 0, RunContext(device=CPU, ranks=ranks))) as source:
            for step in range(31):  # two epochs of the set
                assert torch.equal(source.images(step), pixels[ranks.take_rows(order.batch(step))])
        assert 100 < sum(wanted[:4]) < 170 and len(decoded) <= sum(wanted)


class Together:
    """Threads that replace ranks. ``all_reduce`` adds the values of all threads."""

    def __init__(self, world: int) -> None:
        self._barrier, self._values = threading.Barrier(world), {}

    def all_reduce(self, value: torch.Tensor, **_: Any) -> None:
        self._values[threading.get_ident()] = value.clone()
        self._barrier.wait()
        total = sum(self._values.values())
        self._barrier.wait()
        value.copy_(total)

    def run(self, *works: Callable[[], None]) -> None:
        self._values.clear()  # keys are thread identifiers; new threads may reuse them
        threads = [threading.Thread(target=work) for work in works]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def test_synced_batch_norm_is_batch_norm_of_the_whole_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    together = Together(WORLD)
    monkeypatch.setattr(torch.distributed, "all_reduce", together.all_reduce)
    whole = nn.Sequential(nn.BatchNorm2d(5)).double()
    for value in whole.parameters():
        nn.init.uniform_(value)
    copies = [nn.Sequential(nn.BatchNorm2d(5)).double() for _ in RANKS]
    for copy in copies:
        copy.load_state_dict(whole.state_dict())
        synchronize(copy)
        assert copy.state_dict().keys() == whole.state_dict().keys()
    for _ in range(2):
        x = (3 + 2 * torch.randn(13, 5, 4, 4, dtype=torch.float64)).requires_grad_()
        gradient = torch.randn(13, 5, 4, 4, dtype=torch.float64)
        parts = [ranks.take_rows(x.detach()).requires_grad_() for ranks in RANKS]
        y = whole(x)
        y.backward(gradient)
        got: dict[int, torch.Tensor] = {}

        def work(rank: int, parts: Any = parts, gradient: Any = gradient, got: Any = got) -> None:
            got[rank] = copies[rank](parts[rank])
            got[rank].backward(RANKS[rank].take_rows(gradient))

        together.run(*(lambda rank=rank: work(rank) for rank in range(WORLD)))
        for rank, ranks in enumerate(RANKS):
            torch.testing.assert_close(got[rank], ranks.take_rows(y))
            torch.testing.assert_close(parts[rank].grad, ranks.take_rows(x.grad))
    for expected, *summed in zip(whole.parameters(), *(copy.parameters() for copy in copies), strict=True):
        torch.testing.assert_close(sum(value.grad for value in summed), expected.grad)
    for copy in copies:
        torch.testing.assert_close(copy.state_dict(), whole.state_dict())
        torch.testing.assert_close(copy.eval()(x), whole.eval()(x))


def test_each_rank_has_a_gpu_of_its_own() -> None:
    ranks = Ranks(rank=1, world_size=2, local_rank=1, local_world_size=2)
    assert pick_device("cpu", ranks) == CPU
    with pytest.raises(DistillError, match="--device cuda:0: names one GPU, but 2 ranks run"):
        pick_device("cuda:0", ranks)


@pytest.fixture
def as_rank(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def be(rank: str) -> None:
        for name, value in {"RANK": rank, "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}.items():
            monkeypatch.setenv(name, value)

    return be


def test_other_commands_are_refused(run_distill: Program, as_rank: Callable[[str], None]) -> None:
    as_rank("0")
    assert_one_line(run_distill("configs"), "configs: this command runs in one process", "start it without torchrun")
    as_rank("first")
    assert_one_line(run_distill("configs"), "environment: expected numbers, found {'RANK': 'first', ")


def test_a_rank_speaks_only_when_it_alone_fails(
    run_distill: Program, as_rank: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rank other than the main rank waits ten seconds before printing an error.

    If the main rank fails too, ``torchrun`` ends the other ranks earlier. So the error is printed once.
    """
    waited: list[float] = []
    monkeypatch.setattr(distill.cli.time, "sleep", waited.append)
    before = signal.getsignal(signal.SIGTERM)
    as_rank("1")
    result = run_distill("configs")
    signal.signal(signal.SIGTERM, before)
    assert_one_line(result, "rank 1: distill: configs: this command runs in one process")
    assert waited == [10.0] and result.out == ""


@pytest.mark.parametrize("rank", [0, 1])
def test_nccl_without_shared_memory_is_not_taken_for_a_lost_rank(rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """If NCCL has too little shared memory, the error message names shared memory, not a lost rank."""
    here = {"rank": rank, "world_size": 2, "local_rank": rank, "local_world_size": 2}
    monkeypatch.setattr(distill.runtime.distributed, "launched", lambda: here)
    monkeypatch.setattr(distill.runtime.distributed, "_connect", lambda ranks: None)
    said = (
        "NCCL error, unhandled system error\nLast error:\nError while creating shared memory segment /dev/shm/nccl-x"
    )
    with (
        pytest.raises(DistillError, match=rf"rank {rank}: Error while creating .* /dev/shm/nccl-x; enlarge /dev/shm"),
        distill.runtime.distributed.joined(),
    ):
        raise torch.distributed.DistBackendError(said)
