from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.network.max_min import completion_times, max_min_rates


def test_one_flow_has_its_narrowest_link() -> None:
    assert max_min_rates([5.0, 3.0, 9.0], [[0, 1, 2]]) == [3.0]


def test_equal_flows_share_a_link_equally() -> None:
    assert max_min_rates([9.0], [[0], [0], [0]]) == [3.0, 3.0, 3.0]


def test_example_of_bertsekas_and_gallager() -> None:
    """Data Networks, section 6.5.2: links (1,3), (2,3), (3,5), (4,5) of capacity 1; flows 1 to 5.

    Flows 2, 3 and 5 share (2,3) with 1/3 each, flow 1 has what flow 3 leaves of (3,5), flow 4 a link of its own.
    """
    l13, l23, l35, l45 = range(4)
    flows = [[l13, l35], [l23], [l23, l35], [l45], [l23]]
    assert max_min_rates([1.0] * 4, flows) == pytest.approx([2 / 3, 1 / 3, 1 / 3, 1.0, 1 / 3])


def test_a_long_flow_over_a_parking_lot() -> None:
    """Three links of 10, 8 and 6, a flow over all and one on each: 3 for the long one, then the rest of each link."""
    assert max_min_rates([10.0, 8.0, 6.0], [[0, 1, 2], [0], [1], [2]]) == [3.0, 7.0, 5.0, 3.0]


def test_a_link_crossed_twice_counts_twice() -> None:
    assert max_min_rates([10.0], [[0, 0]]) == [5.0]
    assert max_min_rates([9.0], [[0, 0], [0]]) == [3.0, 3.0]


def test_a_dead_link_stalls_its_flows_only() -> None:
    assert max_min_rates([0.0, 4.0], [[0, 1], [1]]) == [0.0, 4.0]


def test_a_flow_without_links_is_not_limited() -> None:
    assert max_min_rates([1.0], [[], [0]]) == [math.inf, 1.0]
    assert max_min_rates([], []) == []


networks = st.integers(1, 6).flatmap(
    lambda links: st.tuples(
        st.lists(st.integers(0, 50).map(float), min_size=links, max_size=links),
        st.lists(st.lists(st.integers(0, links - 1), min_size=1, max_size=4), min_size=1, max_size=12),
    )
)


@given(networks)
def test_rates_are_max_min_fair_by_definition(network: tuple[list[float], list[list[int]]]) -> None:
    """No link carries more than it can, and each flow has a full link on which nobody has more than it has."""
    capacities, paths = network
    rates = max_min_rates(capacities, paths)
    carried = [
        sum(rate * path.count(link) for rate, path in zip(rates, paths, strict=True)) for link in range(len(capacities))
    ]
    for capacity, load in zip(capacities, carried, strict=True):
        assert load <= capacity * (1 + 1e-12)
    for rate, path in zip(rates, paths, strict=True):
        bottlenecks = [
            link
            for link in path
            if carried[link] == pytest.approx(capacities[link], abs=1e-9)
            and all(other <= rate * (1 + 1e-12) for other, by in zip(rates, paths, strict=True) if link in by)
        ]
        assert bottlenecks


@given(networks, st.randoms())
def test_order_changes_nothing(network: tuple[list[float], list[list[int]]], random: object) -> None:
    capacities, paths = network
    rates = max_min_rates(capacities, paths)
    order = list(range(len(paths)))
    random.shuffle(order)  # type: ignore[attr-defined]
    renamed = list(range(len(capacities)))
    random.shuffle(renamed)  # type: ignore[attr-defined]
    of_renamed = {renamed[link]: capacity for link, capacity in enumerate(capacities)}
    shuffled = max_min_rates(of_renamed, [[renamed[link] for link in reversed(paths[i])] for i in order])
    assert shuffled == [rates[i] for i in order]


@given(networks, st.data())
def test_flows_over_one_path_may_be_counted(network: tuple[list[float], list[list[int]]], data: st.DataObject) -> None:
    capacities, paths = network
    distinct = [list(path) for path in dict.fromkeys(map(tuple, paths))]
    counts = data.draw(st.lists(st.integers(1, 4), min_size=len(distinct), max_size=len(distinct)))
    singly = [path for path, count in zip(distinct, counts, strict=True) for _ in range(count)]
    rates = max_min_rates(capacities, distinct, counts)
    assert max_min_rates(capacities, singly) == [
        rate for rate, count in zip(rates, counts, strict=True) for _ in range(count)
    ]


def test_completion_times_of_flows_that_begin_together() -> None:
    """10 a second: 5 each until the first has its 10 at 2 s; the other's 10 left take 1 s more."""
    assert completion_times([10.0], [[0], [0]], [10.0, 20.0]) == [2.0, 3.0]
    assert completion_times([10.0, 0.0], [[0], [0, 1], []], [10.0, 1.0, 5.0]) == [1.0, math.inf, 0.0]
    assert completion_times([10.0], [[0]], [0.0]) == [0.0]
