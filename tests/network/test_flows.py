from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.engine.clock import ARRIVALS, NS_PER_S, Boundary, Environment
from simulator.network.flows import FlowGroup, LinkSpec, Network, stripe
from simulator.network.max_min import max_min_rates

GB = 10**9


class Lab:
    """A network with links of so many GB/s, and a log of (label, ns) of what was done."""

    def __init__(self, *gb_per_s: float, latency_s: float = 0.0, per_message_s: float = 0.0) -> None:
        self.env = Environment(initial_time=0)
        links = [LinkSpec(f"link{i}", rate * GB, latency_s, per_message_s) for i, rate in enumerate(gb_per_s)]
        self.network = Network(self.env, links, keep_timeline=True)
        self.log: list[tuple[str, int]] = []

    def done(self, label: str) -> object:
        return lambda now: self.log.append((label, now))

    def start(self, label: str, path: tuple[int, ...], num_bytes: int, **more: int):  # type: ignore[no-untyped-def]
        return self.network.start(path, num_bytes, self.done(label), label=label, **more)  # type: ignore[arg-type]

    def at(self, ns: int, do: object) -> None:
        Boundary(self.env).schedule(ns - self.env.now, ARRIVALS, [lambda _: do()])  # type: ignore[operator]

    def run(self) -> list[tuple[str, int]]:
        self.env.run()
        return self.log


def test_a_flow_alone_takes_latency_messages_and_bytes_over_bandwidth() -> None:
    """Two links of 10 and 4 GB/s, 1 us latency each, 2 us a message each: 2 + 3 x 4 us, then 8 GB at 4 GB/s."""
    lab = Lab(10, 4, latency_s=1e-6, per_message_s=2e-6)
    assert lab.network.estimate_ns((0, 1), 8 * GB, 3) == 2 * NS_PER_S + 14_000
    flow = lab.start("a", (0, 1), 8 * GB, messages=3)
    assert flow.remaining_bytes == 8 * GB and lab.network.active == (flow,)
    assert lab.run() == [("a", 2 * NS_PER_S + 14_000)]
    assert flow.ended and flow.remaining_bytes == 0 and lab.network.active == ()
    use = lab.network.use(1)
    assert (use.bytes, use.busy_ns, use.peak_flows) == (8 * GB, 2 * NS_PER_S, 1)


def test_two_flows_share_and_the_later_one_slows_the_first() -> None:
    """10 GB alone for 0.5 s moves 5; 5 left at 5 GB/s until 1.5 s; the other has moved 5 of 8 and needs 0.3 s more."""
    lab = Lab(10)
    lab.start("first", (0,), 10 * GB)
    lab.at(NS_PER_S // 2, lambda: lab.start("second", (0,), 8 * GB))
    assert lab.run() == [("first", 1_500_000_000), ("second", 1_800_000_000)]
    use = lab.network.use(0)
    assert (use.bytes, use.busy_ns, use.peak_flows) == (18 * GB, 1_800_000_000, 2)
    assert lab.network.timeline == [
        (0, 0, 10 * GB),
        (500_000_000, 0, 10 * GB),
        (1_500_000_000, 0, 10 * GB),
        (1_800_000_000, 0, 0.0),
    ]


def test_what_a_narrow_link_leaves_goes_to_others() -> None:
    """A flow held to 2 GB/s by its second link leaves 8 GB/s of the first to the other."""
    lab = Lab(10, 2)
    lab.start("narrow", (0, 1), 2 * GB)
    lab.start("wide", (0,), 16 * GB)
    assert lab.run() == [("narrow", NS_PER_S), ("wide", NS_PER_S + 800_000_000)]


def test_flows_on_other_links_are_left_alone() -> None:
    lab = Lab(1, 1)
    flow = lab.start("a", (0,), GB)
    lab.at(1, lambda: None)
    lab.env.run(until=1)
    before = flow._version
    lab.start("b", (1,), GB)
    lab.env.run(until=2)
    assert flow._version == before


def test_a_link_that_fails_stalls_and_goes_on_when_it_is_back() -> None:
    """4 GB at 2 GB/s: 1 s, down for 3 s, then at half of the bandwidth for the 2 GB left."""
    lab = Lab(2)
    flow = lab.start("a", (0,), 4 * GB)
    seen = []
    lab.at(NS_PER_S, lambda: lab.network.set_capacity(0, 0.0))
    lab.at(2 * NS_PER_S, lambda: seen.append((flow.remaining_bytes, flow.rate, lab.network.estimate_ns((0,), 1))))
    lab.at(4 * NS_PER_S, lambda: lab.network.set_capacity(0, 0.5))
    assert lab.run() == [("a", 6 * NS_PER_S)]
    assert seen == [(2 * GB, 0.0, None)]


def test_a_cancelled_flow_gives_its_share_back_and_is_never_done() -> None:
    """Two flows of 10 GB at 5 GB/s each; one is cancelled after 1 s; the other has 10 GB/s from then."""
    lab = Lab(10)
    moved = []
    first = lab.start("first", (0,), 10 * GB)
    lab.start("second", (0,), 10 * GB)
    lab.at(NS_PER_S, lambda: moved.append(first.cancel()))
    assert lab.run() == [("second", 1_500_000_000)]
    assert moved == [5 * GB] and first.ended and first.cancel() == 5 * GB
    assert lab.network.use(0).bytes == 15 * GB


def test_a_flow_cancelled_in_its_latency_has_moved_nothing() -> None:
    lab = Lab(1, latency_s=1.0)
    flow = lab.start("a", (0,), GB)
    assert flow.cancel() == 0
    assert lab.run() == [] and lab.network.use(0).bytes == 0 and lab.network.active == ()


def test_a_flow_cancelled_by_another_that_ends_with_it_is_not_done() -> None:
    lab = Lab(2)
    flows: list[object] = []
    lab.network.start((0,), GB, lambda now: lab.log.append(("moved", flows[1].cancel())))  # type: ignore[attr-defined]
    flows += [None, lab.start("second", (0,), GB)]
    assert lab.run() == [("moved", GB)]


def test_flows_without_bytes_or_links_pay_their_latency_only() -> None:
    lab = Lab(1, latency_s=1e-6)
    lab.start("empty", (0,), 0)
    lab.start("local", (), GB)
    assert lab.log == []
    assert lab.run() == [("local", 0), ("empty", 1000)]
    assert lab.network.use(0).busy_ns == 0


def test_who_is_told_can_start_the_next_at_once() -> None:
    lab = Lab(1)

    def again(left: int, now: int) -> None:
        lab.log.append((str(left), now))
        if left:
            lab.network.start((0,), GB, partial(again, left - 1))

    lab.network.start((0,), GB, partial(again, 2))
    assert lab.run() == [("2", NS_PER_S), ("1", 2 * NS_PER_S), ("0", 3 * NS_PER_S)]


def test_ends_come_before_arrivals_of_the_same_instant() -> None:
    lab = Lab(1)
    lab.at(NS_PER_S, lambda: lab.log.append(("arrival", lab.env.now)))
    lab.start("a", (0,), GB)
    assert lab.run() == [("a", NS_PER_S), ("arrival", NS_PER_S)]


def test_stripes_are_done_with_the_last() -> None:
    """11 bytes over links of 1 and 4 GB/s: 6 and 5 bytes, the slow link decides."""
    assert stripe([(0,), (1,)], 11) == [((0,), 6), ((1,), 5)]
    assert stripe([(0,), (1,)], 1) == [((0,), 1)]
    assert stripe([(0,), (1,)], 0) == [((0,), 0)]
    lab = Lab(1, 4)
    group = lab.network.start_striped([(0,), (1,)], 8 * GB, lab.done("both"))  # type: ignore[arg-type]
    lab.at(NS_PER_S, lambda: lab.log.append(("left", group.remaining_bytes)))
    assert lab.run() == [("left", 3 * GB), ("both", 4 * NS_PER_S)]
    assert group.ended and group.num_bytes == 8 * GB


def test_a_cancelled_group_is_never_done_and_tells_what_it_moved() -> None:
    lab = Lab(1, 4)
    group = lab.network.start_striped([(0,), (1,)], 8 * GB, lab.done("both"))  # type: ignore[arg-type]
    moved = []
    lab.at(2 * NS_PER_S, lambda: moved.append(group.cancel()))
    assert lab.run() == [] and moved == [6 * GB] and group.ended


def test_an_error_of_who_is_told_leaves_the_network_usable() -> None:
    lab = Lab(1)

    def refuse(_: int) -> None:
        raise RuntimeError("no")

    lab.network.start((0,), GB, refuse)
    lab.start("next", (0,), 2 * GB)
    with pytest.raises(RuntimeError, match="no"):
        lab.env.run()
    lab.start("third", (0,), GB)
    assert lab.run() == [("next", 4 * NS_PER_S), ("third", 4 * NS_PER_S)]


@pytest.mark.parametrize("bad", [0.0, -1.0, math.inf, math.nan])
def test_a_link_needs_a_bandwidth(bad: float) -> None:
    with pytest.raises(ValueError, match="needs a bandwidth above 0"):
        LinkSpec("x", bad)


def test_misuse_is_refused() -> None:
    lab = Lab(1)
    with pytest.raises(ValueError, match="can't have -1 bytes"):
        lab.start("a", (0,), -1)
    with pytest.raises(ValueError, match="0 to 1 times its bandwidth"):
        lab.network.set_capacity(0, 2.0)
    with pytest.raises(ValueError, match="same name"):
        Network(lab.env, [LinkSpec("a", 1.0), LinkSpec("a", 1.0)])
    with pytest.raises(ValueError, match="at least one"):
        lab.network.start_group([], lambda _: None)


# ----------------------------------------------------------------------------------------------------- properties

flows = st.lists(
    st.tuples(
        st.integers(0, 2_000),  # start, ns
        st.lists(st.integers(0, 3), min_size=1, max_size=3).map(tuple),
        st.integers(0, 5_000),  # bytes
        st.none() | st.integers(0, 3_000),  # cancelled at, ns
    ),
    min_size=1,
    max_size=14,
)
changes = st.lists(st.tuples(st.integers(0, 4_000), st.integers(0, 3), st.sampled_from([0.0, 0.25, 1.0])), max_size=4)


@settings(deadline=None)
@given(flows, changes, st.integers(0, 50))
def test_every_byte_is_delivered_once_and_no_link_carries_more_than_it_can(
    planned: list[tuple[int, tuple[int, ...], int, int | None]], capacity: list[tuple[int, int, float]], latency: int
) -> None:
    def simulate() -> tuple[object, ...]:
        env = Environment(initial_time=0)
        specs = [LinkSpec(str(i), rate * GB, latency / NS_PER_S) for i, rate in enumerate((1, 2, 3, 5))]
        network = Network(env, specs, keep_timeline=True)
        ended: dict[int, int] = {}
        moved: dict[int, int] = {}
        made = {}

        def at(ns: int, do: object) -> None:
            Boundary(env).schedule(ns, ARRIVALS, [lambda _: do()])  # type: ignore[operator]

        def begin(i: int) -> None:
            _, path, num_bytes, _ = planned[i]
            made[i] = network.start(path, num_bytes, lambda now: ended.update({i: now}))

        def drop(i: int) -> None:
            if i in made:
                moved[i] = made[i].cancel()

        for i, (start, _, _, cancelled) in enumerate(planned):
            at(start, partial(begin, i))
            if cancelled is not None:
                at(cancelled, partial(drop, i))
        for ns, link, factor in capacity:
            at(ns, partial(network.set_capacity, link, factor))
        for link in range(4):  # all links are whole in the end, so that everything arrives
            at(10_000, partial(network.set_capacity, link, 1.0))
        env.run()

        assert network.active == () and network._joining == network._ending == []
        for i, (start, path, num_bytes, _) in enumerate(planned):
            if i in ended:
                assert moved.get(i, num_bytes) == num_bytes  # at most cancelled when it had ended
                assert ended[i] >= start + latency * len(path)
            else:
                assert 0 <= moved[i] <= num_bytes
        for link, spec in enumerate(specs):
            use = network.use(link)
            carried = sum(p.count(link) * moved.get(i, b) for i, (_, p, b, _) in enumerate(planned))
            assert use.bytes == carried
            # Ends are rounded to whole ns, so that a flow may seem too quick by half of one.
            assert use.bytes <= spec.bandwidth / NS_PER_S * use.busy_ns + len(planned) * spec.bandwidth / NS_PER_S
        assert network.timeline is not None
        for ns, link, rate in network.timeline:
            assert rate <= specs[link].bandwidth * (1 + 1e-12), (ns, link)
        assert all(a[0] <= b[0] for a, b in pairwise(network.timeline))
        return ended, moved, [network.use(link) for link in range(4)], network.timeline

    assert simulate() == simulate()


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 2_000),  # start, ns
            st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=3).map(tuple), min_size=1, max_size=4),
            st.integers(0, 5_000),  # bytes of each
            st.none() | st.integers(0, 3_000),  # cancelled at, ns
        ),
        min_size=1,
        max_size=8,
    ),
    changes,
)
def test_rates_are_always_those_that_all_flows_together_would_be_given(
    planned: list[tuple[int, list[tuple[int, ...]], int, int | None]], capacity: list[tuple[int, int, float]]
) -> None:
    """Groups come and go on links that change: what was worked out for parts is that of the whole, to the last bit."""
    env = Environment(initial_time=0)
    network = Network(env, [LinkSpec(str(i), rate * GB, i * 1e-8) for i, rate in enumerate((1, 2, 3, 5))])
    checked = 0

    def check(_: object = None) -> None:
        nonlocal checked
        flows = [flow for flow in network.active if flow.active]
        whole = max_min_rates([network.capacity(link) for link in range(4)], [flow.path for flow in flows])
        assert [flow.rate for flow in flows] == whole
        checked += 1

    def at(ns: int, do: Callable[[], object]) -> None:
        Boundary(env).schedule(ns, ARRIVALS, [lambda _: do()])
        # What was done at this instant changes rates at once, before any step.
        Boundary(env).schedule(ns, ARRIVALS + 1, [check])

    for start, paths, num_bytes, cancelled in planned:
        made: list[FlowGroup] = []
        parts = [(path, num_bytes) for path in paths]
        at(start, lambda made=made, parts=parts: made.append(network.start_group(parts, check)))  # type: ignore[misc]
        if cancelled is not None:
            at(cancelled, lambda made=made: [group.cancel() for group in made])  # type: ignore[misc]
    for ns, link, factor in capacity:
        at(ns, partial(network.set_capacity, link, factor))
    for link in range(4):
        at(10_000, partial(network.set_capacity, link, 1.0))
    env.run()
    assert network.active == () and checked >= len(planned)


def test_a_link_that_is_never_full_does_not_connect_flows_until_it_is_degraded() -> None:
    """Two flows of 2 GB over a link of 1 GB/s each and one of 2 GB/s that both cross, which lets 0.5 through later."""
    env = Environment(initial_time=0)
    links = [LinkSpec("a", GB), LinkSpec("b", GB), LinkSpec("both", 2 * GB, never_full=True)]
    network = Network(env, links, keep_timeline=True)
    ended: list[int] = []
    first = network.start((0, 2), 2 * GB, ended.append)
    env.run(until=1)
    version = first._version
    network.start((1, 2), 2 * GB, ended.append)
    env.run(until=NS_PER_S)
    assert first._version == version and first.rate == GB
    network.set_capacity(2, 0.25)
    env.run()
    # 1 GB is left of the first and a nanosecond's byte more of the second: 0.25 GB/s each.
    assert ended == [5 * NS_PER_S, 5 * NS_PER_S + 2]
    assert network.use(2).bytes == 4 * GB and network.use(2).peak_flows == 2
    assert network.timeline is not None and (1, 2, 2.0 * GB) in network.timeline


def test_a_group_of_nothing_but_empty_flows_ends() -> None:
    lab = Lab(1)
    group: FlowGroup = lab.network.start_group([((0,), 0), ((), 0)], lab.done("both"))  # type: ignore[arg-type]
    assert lab.run() == [("both", 0)] and group.remaining_bytes == 0


def test_what_is_expected_counts_the_flows_of_now() -> None:
    """10 GB/s: alone 1 GB takes 0.1 s; beside another, which only begins, 0.2 s; two together beside it 0.3 s."""
    lab = Lab(10, 100, latency_s=1e-6)
    assert lab.network.expected_ns([((0,), GB)]) == NS_PER_S // 10 + 1000
    lab.start("a", (0,), 100 * GB)
    assert lab.network.expected_ns([((0,), GB)]) == NS_PER_S // 5 + 1000
    assert lab.network.expected_ns([((0,), GB), ((0,), GB // 2)]) == pytest.approx(0.3e9 + 1000, abs=2)
    assert lab.network.expected_ns([((1,), GB)]) == NS_PER_S // 100 + 1000
    lab.network.set_capacity(0, 0)
    assert lab.network.expected_ns([((0,), GB)]) is None
    assert lab.network.expected_ns([((0,), 0)]) == 1000
