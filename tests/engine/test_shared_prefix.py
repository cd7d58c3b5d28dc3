"""Which tokens decodes share: sums by hand, against counting anew, and fast-forwarded runs against stepwise ones."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies import registry
from simulator.cost.shape import BatchShape
from simulator.engine.kv import CacheUnit
from simulator.engine.shared_prefix import SharedPrefixes, SharingDecodeGroup
from simulator.shared_prefix import describe_shared_prefixes
from simulator.summary_sections import shared_prefix_attention
from tests.engine.support import MS, LinearCost, Request, fingerprint, simulate
from tests.engine.test_fast_forward import workloads


class SharingCost(LinearCost):
    """Linear in what is shared too, so that a wrong sum shows in a time."""

    def _at(self, shape: BatchShape, i: int) -> int:
        return super()._at(shape, i) + 101 * shape.shared_kv + 1_009 * shape.shared_read + 10_007 * shape.sharers


COST = SharingCost(3 * MS, token=20_011, kv=307)


def a_unit(tokens: int, depth: int = 0) -> CacheUnit:
    return CacheUnit(0, tokens // 16, tokens, depth, 1)


def sums(prefixes: SharedPrefixes) -> tuple[int, int, int]:
    return prefixes.attended, prefixes.read, prefixes.sharers


def test_a_tree_of_prefixes_by_hand() -> None:
    """A trunk of all, a branch of two, and a request that has nothing in common with anybody."""
    trunk, branch, other = a_unit(64), a_unit(32, 64), a_unit(16)
    prefixes = SharedPrefixes()
    prefixes.add([trunk, branch])
    prefixes.add([other])
    prefixes.add([])
    assert sums(prefixes) == (0, 0, 0)
    prefixes.add([trunk])
    assert sums(prefixes) == (128, 64, 2)
    prefixes.add([trunk, branch])
    assert sums(prefixes) == (3 * 64 + 2 * 32, 96, 3)
    prefixes.drop([trunk, branch])
    assert sums(prefixes) == (128, 64, 2)
    prefixes.drop([trunk])
    prefixes.drop([])
    assert sums(prefixes) == (0, 0, 0)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 3)), max_size=20), st.data())
def test_sums_are_those_of_counting_anew(paths: list[tuple[int, int, int]], data: st.DataObject) -> None:
    tree: dict[tuple[int, ...], CacheUnit] = {}

    def chain(path: tuple[int, int, int]) -> list[CacheUnit]:
        first, second, length = path
        keys = [(first,), (first, second), (first, second, 0)][:length]
        return [tree.setdefault(key, a_unit(16 * (1 + len(key)))) for key in keys]

    prefixes, members = SharedPrefixes(), []
    for path in paths:
        prefixes.add(chain(path))
        members.append(chain(path))
        if members and data.draw(st.booleans()):
            prefixes.drop(members.pop(data.draw(st.integers(0, len(members) - 1))))
        held = Counter(unit for units in members for unit in units)
        shared = {unit: count for unit, count in held.items() if count > 1}
        assert prefixes.attended == sum(unit.num_tokens * count for unit, count in shared.items())
        assert prefixes.read == sum(unit.num_tokens for unit in shared)
        assert prefixes.sharers == sum(any(unit in shared for unit in units) for units in members)


def test_a_timetable_by_hand() -> None:
    """Two prompts of 40 tokens begin with the same 32; the second computes 8 of them, and both decode 2 tokens more.

    Decodes: 41 + 41 tokens attended to, then 42 + 42; 64 of them shared, 32 read. The time of a decode step is 1 ms,
    100 ns a shared token, 1 us a token read for it and 10 us a sharer.
    """
    requests = [Request(0, 40, 3, (1, 2)), Request(0, 40, 3, (1, 2))]
    cluster = simulate(requests, cost=SharingCost(MS), hash_block_tokens=16, shared_prefix_attention=True)
    decode = MS + 101 * 64 + 1_009 * 32 + 10_007 * 2
    columns = cluster.recorder.columns
    assert columns["first_token_ns"].tolist() == [MS, MS]
    assert columns["last_token_ns"].tolist() == [MS + 2 * decode] * 2
    assert describe_shared_prefixes(cluster) == {
        "attended_tokens": 2 * (41 + 42),
        "shared_attended_tokens": 2 * 64,
        "shared_read_tokens": 2 * 32,
        "read_share": (166 - 64) / 166,
    }


def test_nothing_is_told_unless_asked_for() -> None:
    cluster = simulate([Request(0, 40, 3, (1, 2))] * 2, cost=SharingCost(MS), hash_block_tokens=16)
    assert cluster.recorder.columns["last_token_ns"].tolist() == [3 * MS, 3 * MS]
    assert shared_prefix_attention(cluster)["attended_tokens"] is None


@pytest.mark.parametrize("policy", ["vllm-v1", "vllm", "sglang"])
@settings(max_examples=15, deadline=None)
@given(options=workloads(), budget=st.sampled_from([16, 512]), overlap=st.booleans())
def test_fast_forward_equals_stepwise(policy: str, options: dict[str, Any], budget: int, overlap: bool) -> None:
    common = {
        "policy": registry.resolve("batching", policy),
        "cost": COST,
        "budget": budget,
        "async_scheduling": overlap,
        "shared_prefix_attention": True,
        **options,
    }
    fast, slow = simulate(**common), simulate(**common, fast_forward=False)
    assert fingerprint(fast) == fingerprint(slow)
    assert describe_shared_prefixes(fast) == describe_shared_prefixes(slow)
    if options["until"] is None:
        for replica in fast.replicas:
            for lane in replica.lanes:
                assert isinstance(lane.group, SharingDecodeGroup)
                assert sums(lane.group.prefixes) == (0, 0, 0)


@settings(max_examples=15, deadline=None)
@given(options=workloads(), stages=st.sampled_from([2, 3]))
def test_pipeline_stages_keep_the_invariants(options: dict[str, Any], stages: int) -> None:
    cost = SharingCost(3 * MS, token=20_011, stages=stages)
    common = {"cost": cost, "stages": stages, "shared_prefix_attention": True, **options}
    assert fingerprint(simulate(**common)) == fingerprint(simulate(**common))
