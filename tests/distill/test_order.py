"""Every epoch one permutation, and any step without those before it."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.data.order import Order


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
