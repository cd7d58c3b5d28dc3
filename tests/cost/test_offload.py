"""What a step with offloading takes, by hand, and runs against steps."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.cost.offload import OffloadCost, Placement, Rates, Shares, Sizes, Work, busy_s
from simulator.cost.shape import BatchShape
from tests.cost.support import advanced, batch, shapes
from tests.engine.support import MS, LinearCost

GPU, HOST, DISK = Shares(1.0, 0.0, 0.0), Shares(0.0, 1.0, 0.0), Shares(0.0, 0.0, 1.0)
SIZES = Sizes(ranks=1, weights=10**9, layer=10**8, kv=10_000, kv_layer=1_000, hidden=200, queries=200, layers=10)
RATES = Rates(host_link=1e9, disk_read=5e8, disk_write=2.5e8, host_attention=None)
WORK = Work(new=100, decodes=100, attended=50_000, cached=0)


def cost(place: Placement, rates: Rates = RATES, *, overlap: bool = True, gpu_batches: int = 1) -> OffloadCost:
    base = LinearCost(3 * MS, kv=10)  # 10 ns twice a token attended to: LinearCost counts the window too
    options = {"overlap": overlap, "gpu_batches": gpu_batches, "memory_bandwidth": 1e11}
    return OffloadCost(base, SIZES, rates, place, **options)  # type: ignore[arg-type]


def decodes(count: int, kv: int) -> BatchShape:
    return batch(count, kv)


def test_nothing_moves_where_all_is_on_the_gpu() -> None:
    assert busy_s(SIZES, RATES, Placement(GPU, GPU, GPU), WORK) == {
        "load": 0.0,
        "store": 0.0,
        "host": 0.0,
        "read": 0.0,
        "write": 0.0,
    }
    assert cost(Placement(GPU, GPU, GPU)).step_ns(decodes(10, 1000)) == 3 * MS + 20 * 10_000


def test_weights_in_host_memory_by_hand() -> None:
    """1 GB at 1 GB/s, once a step whatever the batch; computing hides under it."""
    place = Placement(HOST, GPU, GPU)
    assert busy_s(SIZES, RATES, place, WORK)["load"] == 1.0
    assert cost(place).step_ns(decodes(1, 1000)) == cost(place).step_ns(decodes(100, 1000)) == 10**9
    half = Placement(Shares(0.5, 0.5, 0.0), GPU, GPU)
    assert cost(half).step_ns(decodes(1, 1000)) == 5 * 10**8


def test_kv_in_host_memory_by_hand() -> None:
    """100 decodes that attend to 50,000 tokens of 10 kB: 0.5 s to load, 1 ms to store the 100 new ones."""
    lanes = busy_s(SIZES, RATES, Placement(GPU, HOST, GPU), WORK)
    assert lanes["load"] == pytest.approx(0.5) and lanes["store"] == pytest.approx(1e-3) and lanes["host"] == 0.0
    cached = busy_s(SIZES, RATES, Placement(GPU, HOST, GPU), Work(new=10, decodes=0, attended=0, cached=3000))
    assert cached["load"] == pytest.approx(0.03) and cached["store"] == pytest.approx(1e-4)


def test_attention_on_the_host_by_hand() -> None:
    """Queries go there and outputs come back, 2 kB each for 10 layers; 0.5 GB of KV are attended to at 2 GB/s."""
    rates = replace(RATES, host_attention=2e9)
    lanes = busy_s(SIZES, rates, Placement(GPU, HOST, GPU), WORK)
    assert lanes["host"] == pytest.approx(0.25)
    assert lanes["load"] == pytest.approx(100 * 2000 / 1e9) and lanes["store"] == pytest.approx(1e-3 + 2e-4)
    # The GPU attends to nothing: its decodes count one token each.
    shape = decodes(100, 500)
    found = cost(Placement(GPU, HOST, GPU), rates).step_ns(shape)
    assert found == pytest.approx(3 * MS + 20 * 100 + 0.25e9, abs=1)


def test_hidden_states_and_disk_by_hand() -> None:
    """200 B a token and layer, in and out; what is on disk crosses the host link too, and is read at 0.5 GB/s."""
    assert busy_s(SIZES, RATES, Placement(GPU, GPU, HOST), WORK)["store"] == pytest.approx(100 * 2000 / 1e9)
    lanes = busy_s(SIZES, RATES, Placement(DISK, DISK, GPU), WORK)
    assert lanes["load"] == pytest.approx(1.5) and lanes["read"] == pytest.approx(3.0)
    assert lanes["write"] == pytest.approx(100 * 10_000 / 2.5e8)


def test_ranks_have_links_of_their_own_and_share_the_disk() -> None:
    one = busy_s(SIZES, RATES, Placement(DISK, HOST, GPU), WORK)
    two = busy_s(replace(SIZES, ranks=2), RATES, Placement(DISK, HOST, GPU), WORK)
    assert two["load"] == one["load"] and two["read"] == 2 * one["read"]


def test_without_overlap_one_thing_comes_after_the_other() -> None:
    place = Placement(HOST, HOST, GPU)
    shape = decodes(100, 500)
    compute = 3 * MS + 20 * 50_000
    assert cost(place).step_ns(shape) == pytest.approx(1.5e9)
    assert cost(place, overlap=False).step_ns(shape) == pytest.approx(1.5e9 + 1e6 + compute)


def test_each_gpu_batch_reads_the_weights_again() -> None:
    """1 GB at 0.82 of 100 GB/s for each batch beyond the first; a block of two requests has two at most."""
    place = Placement(GPU, GPU, GPU)
    again = 1e9 / (1e11 * 0.82) * 1e9
    for requests, parts in ((100, 4), (2, 2), (1, 1)):
        shape = decodes(requests, 500)
        more = cost(place, gpu_batches=4).step_ns(shape) - cost(place).step_ns(shape)
        assert more == pytest.approx((parts - 1) * again, abs=1)


@settings(max_examples=40, deadline=None)
@given(
    shape=shapes(),
    k=st.integers(1, 20),
    share=st.floats(0.0, 1.0),
    overlap=st.booleans(),
    host_attention=st.sampled_from([None, 1e9]),
)
def test_runs_equal_steps(shape: BatchShape, k: int, share: float, overlap: bool, host_attention: float | None) -> None:
    parts = Shares(share, (1 - share) / 2, (1 - share) / 2)
    rates = replace(RATES, host_attention=host_attention)
    model = cost(Placement(parts, parts, parts), rates, overlap=overlap, gpu_batches=3)
    steps = [model.step_ns(advanced(shape, i)) for i in range(k)]
    assert model.run_ns(shape, k).tolist() == model.few_ns(shape, k) == steps
    assert model.stage_ns(shape) == steps[:1]
