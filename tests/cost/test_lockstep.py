"""Joint costs of attention data parallel ranks: by hand, runs equal to steps, exchange by bytes, layouts over nodes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hardware_profiles import load_accelerator, load_node
from simulator import InputError
from simulator.calibration.schema import frame
from simulator.cost.exchange import DEEPEP_LATENCY_S, Exchange
from simulator.cost.expert_load import ExpertLoad
from simulator.cost.fitted_kernels import fitted_cost
from simulator.cost.graphs import NO_GRAPHS, CudaGraphs
from simulator.cost.links import NETWORK_EFFICIENCY
from simulator.cost.lockstep import LockstepCost
from simulator.cost.operator_cost import OperatorCost
from simulator.cost.roofline import roofline_cost
from simulator.models import load_model
from simulator.parallel import ParallelPlan
from simulator.sharding import rank_vocab, stage_weight_bytes
from tests.cost.support import advanced, batch

H200 = load_accelerator("h200")
V3 = load_model("deepseek-v3")


def joint(
    dp: int,
    *,
    graphs: CudaGraphs = NO_GRAPHS,
    node: str | None = None,
    exchange: str = "allgather",
    fitted: bool = False,
) -> tuple[LockstepCost, OperatorCost]:
    """Return the joint cost of DeepSeek-V3 on so many H200, a rank each, and a rank's own."""
    make = fitted_cost if fitted else roofline_cost
    where = None if node is None else load_node(node)
    rank = make(V3, H200, ParallelPlan(ep=dp, dp=dp), node=where, host_overhead_s=0.0)
    return LockstepCost(rank, Exchange(rank.shapes, where, exchange), graphs), rank


EIGHT, RANK = joint(8)
GRAPHS = joint(8, graphs=CudaGraphs((1, 2, 4, 8, 64), decode_only=True))[0]


def test_a_step_is_the_slowest_rank_and_the_experts_of_all_tokens() -> None:
    shapes = [batch(3, 100), batch(40, 2000), batch(2, 50, [(500, 0)])]
    times = EIGHT.together(shapes, 1)
    tokens = [3, 40, 502]
    own = [round(RANK.seconds(shape, count) * 1e9) for shape, count in zip(shapes, tokens, strict=True)]
    assert times.own[:, 0].tolist() == own
    total = np.array([float(sum(tokens) + 5)])  # five ranks without work compute a token each
    experts = 58 * RANK.experts(total, np.zeros(1))  # 58 of 61 layers have experts; so many tokens visit all
    assert times.experts == pytest.approx(experts[0] * 1e9, rel=1e-4)
    assert times.steps.tolist() == [max(own) + times.exchange + times.experts]


def test_ranks_pad_to_the_one_with_the_most_tokens_in_a_graph() -> None:
    assert GRAPHS.computed_tokens([batch(3, 10), batch(5, 10)]) == ([8, 8], 64)
    assert GRAPHS.computed_tokens([batch(3, 10), batch(65, 10)]) == ([3, 65], 68 + 6)  # beyond the largest graph
    assert GRAPHS.computed_tokens([batch(3, 10), batch(0, 0, [(5, 0)])]) == ([3, 5], 8 + 6)  # chunks run without one
    assert EIGHT.computed_tokens([batch(3, 10)]) == ([3], 10)


@settings(max_examples=30, deadline=None)
@given(
    ranks=st.lists(st.tuples(st.integers(0, 70), st.integers(1, 3000), st.integers(0, 300)), min_size=1, max_size=8),
    k=st.integers(2, 40),
    cost=st.sampled_from([EIGHT, GRAPHS]),
)
def test_a_run_is_its_steps(ranks: Sequence[tuple[int, int, int]], k: int, cost: LockstepCost) -> None:
    shapes = [batch(n or not new, kv, [(new, 7)] if new else []) for n, kv, new in ranks]
    run = cost.together(shapes, k)
    for i in (0, 1, k - 1):
        step = cost.together([advanced(shape, i) for shape in shapes], 1)
        assert step.own[:, 0].tolist() == run.own[:, i].tolist()
        assert (step.exchange, step.experts) == (run.exchange, run.experts)


def test_a_rank_alone_is_a_step_beside_idle_ones() -> None:
    shape = batch(5, 700)
    assert EIGHT.step_ns(shape) == EIGHT.together([shape], 1).steps[0]
    assert EIGHT.few_ns(shape, 3) == EIGHT.run_ns(shape, 3).tolist()


def test_the_rank_holds_all_attention_and_its_share_of_the_experts() -> None:
    one = roofline_cost(V3, H200, ParallelPlan(), host_overhead_s=0.0)
    # Everything but the experts is as on one GPU.
    shape = batch(16, 1000)
    parts = one.breakdown(shape)
    rest = sum(value for name, value in parts.items() if name != "experts")
    assert RANK.seconds(shape, 16) == pytest.approx(rest, rel=1e-9)


def test_gathered_bytes_cross_the_links_by_hand() -> None:
    _, rank = joint(16, node="hgx-h200")
    node = load_node("hgx-h200")
    exchange = Exchange(rank.shapes, node, "allgather")
    tokens = np.array([1e6])
    network = sum(nic.count * nic.bandwidth for nic in node.nics) * NETWORK_EFFICIENCY
    size = 1e6 * 7168 * 2
    # Of an all-gather over two nodes half comes in by the interfaces, and 15 of 16 parts reach a GPU over NVLink, which
    # takes longer; the same goes back.
    within = size * 15 / 16 / exchange._link.bandwidth
    assert within > size / 2 / network
    assert exchange.seconds(tokens / 16, tokens, False)[0] == pytest.approx(2 * within, rel=1e-3)
    assert "2 nodes" in exchange.sources[0]


def test_all_to_all_by_hand() -> None:
    _, rank = joint(8)
    exchange = Exchange(rank.shapes, None, "deepep-low-latency")
    link = exchange._link.bandwidth
    # Each token goes to 8 experts, of which 7 of 8 are elsewhere: a byte an element there, two back.
    latency = 2 * DEEPEP_LATENCY_S["deepep_ll"]
    expected = latency + 100 * 7 * 7168 * 3 / link
    assert exchange.seconds(np.array([100.0]), np.array([800.0]), False)[0] == pytest.approx(expected, rel=1e-12)
    # Of high-throughput kernels a token goes but once to a rank, so fewer bytes move.
    bulk = Exchange(rank.shapes, None, "deepep-high-throughput")
    many = np.array([1e5]), np.array([8e5])
    assert bulk.seconds(*many, True)[0] < exchange.seconds(*many, False)[0]
    both = Exchange(rank.shapes, None, "deepep")
    assert both.seconds(*many, True)[0] == bulk.seconds(*many, True)[0]
    assert both.seconds(*many, False)[0] == exchange.seconds(*many, False)[0]


def test_measured_exchanges_come_first() -> None:
    made = {"hardware": "h200", "software": "x", "software_version": "1", "date": "2026-01-01", "source": "here"}
    sizes = {"hidden_size": 7168, "num_experts": 256, "top_k": 8, "ranks": 8, "nodes": 1, "kernel": "deepep_ll"}
    parts = [
        frame(
            {"operator": name, "time_s": [time] * 2, "message_bytes": [1, 10**9], "ranks": 8, "kernel": "NCCL", **made},
            2,
        )
        for name, time in (("all_gather", 1e-3), ("reduce_scatter", 2e-3))
    ]
    parts += [
        frame({"operator": name, "time_s": [time] * 2, "tokens": [1, 256], **sizes, **made}, 2)
        for name, time in (("moe_dispatch", 3e-3), ("moe_combine", 4e-3))
    ]
    table = pd.concat(parts, ignore_index=True)
    one = np.array([16.0])
    for backend, seconds in (("allgather", 3e-3), ("deepep-low-latency", 7e-3)):
        exchange = Exchange(RANK.shapes, None, backend, table)
        assert exchange.seconds(one, one * 8, False)[0] == pytest.approx(seconds)
        assert all("measured over 8 ranks" in line for line in exchange.sources)


@pytest.mark.parametrize("gpus", [16, 32])
def test_layouts_over_nodes_are_bounded(gpus: int) -> None:
    """Nobody measured 16 and 32 H200: with as many tokens a rank, experts take no longer than on 8, exchange does."""
    more, rank = joint(gpus, node="hgx-h200", fitted=True)
    few = joint(8, node="hgx-h200", fitted=True)[0]
    for shape in (batch(32, 2000), batch(0, 0, [(2048, 0)])):
        wide, narrow = more.together([shape] * gpus, 1), few.together([shape] * 8, 1)
        assert (wide.own == narrow.own[0]).all()  # each rank does what it did
        assert wide.exchange > narrow.exchange
        bytes_in = shape.tokens * gpus * V3.hidden_size * 2 * (1 - 8 / gpus)
        node = load_node("hgx-h200")
        peak = sum(nic.count * nic.bandwidth for nic in node.nics)
        assert wide.exchange > 58 * 2 * bytes_in / peak * 1e9  # no faster than the interfaces
        # A rank has as many rows and fewer experts; skew over more ranks is worse, by their number at most.
        assert wide.experts < narrow.experts * gpus / 8
        # Experts can't be read faster than memory allows once all are visited.
        if shape.prefill_tokens:
            held = 58 * 256 / gpus * 3 * V3.hidden_size * 2048
            assert wide.experts > held / H200.memory_bandwidth * 1e9
    assert rank.shapes.plan.gpus == gpus


@pytest.mark.parametrize("gpus", [8, 16, 32])
@pytest.mark.parametrize("fitted", [False, True])
def test_steps_over_nodes_lie_between_their_bounds(gpus: int, fitted: bool) -> None:
    """Not below reading weights and KV once, not above the parts of all ranks one after the other."""
    cost, rank = joint(gpus, node="hgx-h200" if gpus > 8 else None, fitted=fitted)
    shape = batch(64, 4000)
    times = cost.together([shape] * gpus, 1)
    (step,) = times.steps
    # 64 x 8 visits a rank and 256 / gpus experts: none is left out but a share of (1 - 8 / 256)^(64 gpus), below 1 %.
    experts = 58 * 256 / gpus * 3 * 7168 * 2048
    held = stage_weight_bytes(V3, ParallelPlan(ep=gpus, dp=gpus))[0]
    read = held - rank_vocab(V3, 1) * 7168 * 2  # all weights but the rows of the embedding
    assert experts < read
    kv = 64 * 4000 * 61 * 576 * 2
    assert step > (0.98 * read + kv) / H200.memory_bandwidth * 1e9
    apart = sum(rank.breakdown(shape).values()) * 1e9
    assert step <= gpus * apart + times.exchange + times.experts + 1
    assert step == pytest.approx(apart + times.exchange + times.experts, rel=1e-6)  # ranks alike wait for nobody


@pytest.mark.parametrize("gpus", [16, 32])
def test_more_load_never_takes_less_time_over_nodes(gpus: int) -> None:
    cost, _ = joint(gpus, node="hgx-h200", fitted=True)

    def step(decodes: int, kv: int, ranks: int = gpus) -> int:
        return int(cost.together([batch(decodes, kv)] * ranks, 1).steps[0])

    assert step(1, 100) <= step(4, 100) <= step(16, 100) <= step(64, 100) <= step(256, 100)
    assert step(16, 100) <= step(16, 1000) <= step(16, 10000)
    assert step(16, 1000, 1) <= step(16, 1000, gpus // 2) <= step(16, 1000, gpus)


def test_more_ranks_serve_the_same_requests_no_slower_in_their_own_part() -> None:
    """512 decodes over 8, 16 and 32 ranks: own parts and experts take less, the exchange is what is added."""
    found = []
    for gpus in (8, 16, 32):
        cost, _ = joint(gpus, node="hgx-h200", fitted=True)
        times = cost.together([batch(512 // gpus, 4000)] * gpus, 1)
        found.append((int(times.own.max()), times.experts, times.exchange))
    own, experts, exchange = zip(*found, strict=True)
    assert own[0] > own[1] > own[2]
    assert experts[0] > experts[1] > experts[2]
    assert exchange[0] < exchange[1]


def test_a_hot_rank_takes_as_long_as_so_many_more_tokens() -> None:
    plan = ParallelPlan(ep=8, dp=8)
    hot = roofline_cost(V3, H200, plan, load=ExpertLoad("balanced", 2.0, "stated"))
    even = roofline_cost(V3, H200, plan, load=ExpertLoad("balanced", 1.0, "stated"))
    tokens, idle = np.array([4096.0]), np.zeros(1)
    assert hot.experts(tokens, idle) == even.experts(2 * tokens, idle)
    assert "stated" in hot.sources


def test_ranks_that_dont_fill_nodes_are_refused() -> None:
    with pytest.raises(InputError, match="12 expert parallel ranks don't fill nodes of 8 GPUs"):
        rank = roofline_cost(load_model("qwen3-30b-a3b"), H200, ParallelPlan(dp=12))
        Exchange(rank.shapes, load_node("hgx-h200"), "allgather")
    with pytest.raises(InputError, match="unknown exchange 'pigeons'"):
        Exchange(RANK.shapes, None, "pigeons")
