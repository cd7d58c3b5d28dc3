"""Designs, worked out by hand: which points, what they set, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator import Scenario
from simulator.errors import InputError
from simulator.studies.design import Point, Range, changes_of, make_design, scenario_at, values_of

POOL = "cluster.pools.*."


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1..5:+2", [1, 3, 5]),
        ("1..6:+2", [1, 3, 5]),
        ("1..16:*2", [1, 2, 4, 8, 16]),
        ("0..1:5", [0, 0.25, 0.5, 0.75, 1]),
        ("0.1..0.5:+0.1", [0.1, 0.2, 0.3, 0.4, 0.5]),  # not 0.30000000000000004
        ("-1..1:3", [-1, 0, 1]),
        ("2..2:1", [2]),
        ("0.5..2", Range(0.5, 2.0)),
        ("1..2:log", Range(1.0, 2.0, is_log=True)),
        ("16..256:log:int", Range(16.0, 256.0, is_log=True, is_whole=True)),
        ("../trace.csv", None),
        ("sarathi", None),
    ],
)
def test_a_range_is_written_so(text: str, values: object) -> None:
    assert values_of(text) == values


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("8..1:*2", "8..1:.*: the range is empty; its lower end goes first, as in 1..8"),
        ("2..2", "the range is empty"),
        ("1..8:*1", "by more than 1 from a number above 0"),
        ("0..8:*2", "by more than 1 from a number above 0"),
        ("1..8:+0", "goes up by more than 0"),
        ("1..8:1", "a number of values"),
        ("1..8:x", "after the colon goes a step"),
        ("0..8:log", "a logarithmic range begins above 0"),
        ("0.5..8:int", "begins and ends with one"),
        ("0..1:+1e-9", "more than a sweep takes"),
    ],
)
def test_a_range_that_is_none_is_refused(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        values_of(text)


def test_axes_variants_and_lists_are_combined() -> None:
    found = make_design(
        {"tp": [1, 2]}, variants={"a": {"policy": "sarathi"}, "b": {}}, points=[{"name": "slow", "rate_scale": 0.5}]
    )
    assert [point.name for point in found] == ["a, slow, tp=1", "a, slow, tp=2", "b, slow, tp=1", "b, slow, tp=2"]
    assert found[1].keys == {"policy": "sarathi", "rate_scale": 0.5, "tp": 2}
    assert found[1].changes == {
        f"{POOL}batching": "sarathi",
        "workload.rate_scale": 0.5,
        f"{POOL}parallel.tp": 2,
    }


def test_long_keys_are_named_by_their_last_word_unless_two_end_alike() -> None:
    short = make_design({"cluster.pools.0.engine.max_num_seqs": [8], "workload.limit": [5]})
    assert short[0].name == "max_num_seqs=8, limit=5"
    alike = make_design({"cluster.pools.0.replicas": [1], "cluster.pools.1.replicas": [2]})
    assert alike[0].name == "cluster.pools.0.replicas=1, cluster.pools.1.replicas=2"


@given(st.integers(1, 40), st.integers(0, 2**32))
def test_a_latin_hypercube_has_one_point_in_each_part_of_each_range(count: int, seed: int) -> None:
    found = make_design({"rate_scale": "2..4", "time_scale": "1..100:log"}, lhs=count, seed=seed)
    assert len(found) == count
    parts = [sorted(int((p.keys["rate_scale"] - 2) / 2 * count - 1e-3) for p in found)]
    parts.append(sorted(int(math.log(p.keys["time_scale"], 100) * count - 1e-3) for p in found))
    for each in parts:  # to the six digits that are kept, at the edges of the parts
        assert all(abs(part - place) <= 1 for place, part in enumerate(each))


def test_a_hypercube_is_the_seeds_and_crossed_with_lists() -> None:
    axes: dict[str, Any] = {"rate_scale": "0.5..2", "max_num_seqs": "1..4:int", "tp": [1, 2]}
    one, again, other = (make_design(axes, lhs=4, seed=seed) for seed in (1, 1, 2))
    assert one == again != other
    assert len(one) == 8
    assert sorted(point.keys["max_num_seqs"] for point in one) == [1, 1, 2, 2, 3, 3, 4, 4]


@given(st.integers(1, 50), st.integers(0, 50), st.booleans(), st.floats(0, 1, exclude_max=True))
def test_whole_numbers_of_a_range_lie_within_it(low: int, width: int, is_log: bool, share: float) -> None:
    value = Range(low, low + width, is_log, True).at(share)
    assert isinstance(value, int) and low <= value <= low + width


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "nothing varies"),
        ({"over": {"tp": []}}, "tp: no value to try"),
        ({"over": {"tp": [1, 1]}}, "tp: 1 is there twice"),
        ({"over": {"policy": "sarathi"}}, "policy: give a list of values"),
        ({"over": {"tp": 4}}, "tp: give a list of values"),
        ({"over": {"tp": "1..8"}}, "tp: how many values.*1..8:5"),
        ({"over": {"tp": [1]}, "lhs": 4}, "a Latin hypercube needs a range"),
        ({"over": {"tp": "1..8"}, "lhs": 0}, "at least 1 point, got 0"),
        ({"over": {"tpp": [1]}}, "unknown key 'tpp'; did you mean 'tp'?"),
        ({"over": {"qqqqqq": [1]}}, "unknown key 'qqqqqq'; write a dotted key"),
        ({"over": {"policy-param": ["a=1"]}}, r"cluster\.pools\.0\.batching\.params\.NAME"),
        ({"over": {"seed": [1, 2]}}, "give them with --seeds"),
        ({"over": {"tp": [1], f"{POOL}parallel.tp": [2]}}, "'tp' and .* are set by two parts"),
        ({"over": {"cluster.pools.0.replicas": [1], "replicas": [2]}}, "are set by two parts"),
        ({"over": {"clients": [1], "workload.loop": ["open"]}}, "are set by two parts"),
        ({"over": {"tp": [1]}, "variants": {"a": {"tp": 2}}}, "'tp' is set by two parts"),
        ({"over": {"tp": "1..200:200", "limit": "1..200:200"}}, "40,000 points are more than a sweep takes"),
        ({"variants": {}}, "variants: there are none"),
        ({"points": [{"tp": 1}, {"tp": 1}]}, "two points are called 'tp=1'"),
        ({"points": [{"name": "a", "tp": 1}, {"name": "a", "tp": 2}]}, "two points are called 'a'"),
        ({"points": [{}]}, "number 1 sets no key"),
        ({"points": [3]}, "each is a mapping of keys, got 3"),
    ],
)
def test_a_design_that_is_none_is_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        make_design(**arguments)


def test_names_of_flags_mean_their_keys() -> None:
    assert changes_of("max-num-seqs", 8) == changes_of("max_num_seqs", 8) == {f"{POOL}engine.max_num_seqs": 8}
    assert changes_of("clients", 3) == {"workload.loop.kind": "closed", "workload.loop.clients": 3}
    assert changes_of("loop", "sessions") == {"workload.loop": {"kind": "sessions"}}
    assert changes_of("no_drain", True) == {"measure.drain": False}
    assert changes_of("prefix_caching", False) == {f"{POOL}engine.prefix_caching": False}
    assert changes_of("engine", "vllm@0.19") == {f"{POOL}engine.name": "vllm", f"{POOL}engine.version": "0.19"}
    assert changes_of("router", "p2c") == {"router": "p2c"}


def test_a_point_changes_the_scenario_and_may_lay_a_preset_under_it() -> None:
    base = Scenario.from_mapping({"cluster": {"pools": [{"replicas": 2, "engine": {"max_num_seqs": 7}}]}})
    pool = scenario_at(base, Point("a", {"engine": "sglang", "tp": 2})).cluster.pools[0]
    assert (pool.engine.name, pool.engine.max_num_seqs, pool.parallel.tp, pool.replicas) == ("sglang", 7, 2, 2)
    moved = scenario_at(base, Point("b", {"preset": "llumnix"}))
    assert (moved.router.name, moved.cluster.pools[0].replicas) == ("llumnix", 2)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"tp": "x"}, r"point p: cluster.pools.0.parallel.tp: must be a whole number, got 'x'"),
        ({"workload.rate_scal": 1}, "point p: workload.rate_scal: unknown key 'rate_scal'; did you mean 'rate_scale'?"),
        ({"policy": "sarathy"}, "point p: .*did you mean 'sarathi'?"),
        ({"tp": 0, "pp": 0}, r"point p: .*must be at least 1, got 0 \(and 1 more\)"),
    ],
)
def test_a_point_that_is_none_is_named_with_its_key(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        scenario_at(Scenario(), Point("p", keys))
