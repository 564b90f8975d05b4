"""Test the order of samples: every epoch is a permutation, and any step can be computed without earlier steps."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.data.sampler import Order, WindowOrder


@settings(max_examples=60)
@given(st.integers(1, 50), st.integers(1, 70), st.integers(0, 5))
def test_every_epoch_is_one_permutation(n: int, batch_size: int, seed: int) -> None:
    order = Order(n, batch_size, seed)
    steps = -(-3 * n // batch_size)
    seen = torch.cat([order.batch(step) for step in range(steps)])
    assert len(seen) == steps * batch_size
    for epoch in range(3):
        assert sorted(seen[epoch * n : (epoch + 1) * n].tolist()) == list(range(n))


def test_order_from_the_middle_is_the_order_from_the_start() -> None:
    whole = Order(100, 7, 1)
    batches = [whole.batch(step) for step in range(40)]
    late = Order(100, 7, 1)
    assert all(torch.equal(late.batch(step), batches[step]) for step in range(25, 40))
    assert not torch.equal(torch.cat(batches)[:100], torch.cat(batches)[100:200])
    assert not torch.equal(Order(100, 7, 2).batch(0), batches[0])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=8), st.integers(1, 40), st.integers(1, 9), st.integers(0, 5))
def test_every_epoch_of_windows_is_one_permutation(sizes: list[int], batch_size: int, window: int, seed: int) -> None:
    order = WindowOrder(sizes, batch_size, seed, window)
    n = sum(sizes)
    steps = -(-3 * n // batch_size)
    seen = torch.cat([order.batch(step) for step in range(steps)])
    assert len(seen) == steps * batch_size
    for epoch in range(3):
        assert sorted(seen[epoch * n : (epoch + 1) * n].tolist()) == list(range(n))


def test_windows_hold_whole_shards_in_an_order_of_their_own() -> None:
    """A window contains whole shards, and every epoch and every seed has another order of shards."""
    order = WindowOrder([10] * 12, 20, 0, 2)
    windows = [{int(i) // 10 for i in order.batch(step)} for step in range(12)]
    assert all(len(window) == 2 for window in windows) and set().union(*windows[:6]) == set(range(12))
    assert windows[:6] != windows[6:] and sorted(map(min, windows[:6])) != list(map(min, windows[:6]))
    late = WindowOrder([10] * 12, 20, 0, 2)
    assert torch.equal(late.batch(9), order.batch(9))
    assert not torch.equal(WindowOrder([10] * 12, 20, 1, 2).batch(0), order.batch(0))
