"""Energy of steps: by hand, against a sum over every single step, and the same however steps are put together."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simulator.cost.shape import BatchShape
from simulator.engine.cluster import Cluster
from simulator.power.step_energy import EnergyCounters, StepEnergy, spread
from tests.engine.support import ENERGY, MS, LinearCost, Request, fingerprint, simulate

ONLY_BUSY = StepEnergy(busy_mw=300_000)


def total_nj(cluster: Cluster) -> int:
    """Return what all replicas drew above idle, nJ."""
    return sum(replica.energy_counters.total_nj for replica in cluster.replicas)


class Watching(LinearCost):
    """Adds up the energy of each step that is asked for, from its definition alone."""

    def __init__(self, energy: StepEnergy, **cost: int) -> None:
        super().__init__(3 * MS, **cost)
        self.energy, self.drawn_pj, self.prompts_pj, self.limited_ns = energy, 0, 0, 0

    def step_ns(self, shape: BatchShape) -> int:
        taken, e = super().step_ns(shape), self.energy
        drawn = e.step_pj + (shape.decodes + shape.prefill_tokens) * e.token_pj + shape.logit_rows * e.row_pj
        drawn += shape.decode_kv * e.attended_pj
        if e.window is not None:
            drawn += shape.decode_window_kv * e.window_pj
        for new, cached in shape.chunks:
            attended = [cached + i for i in range(1, new + 1)]
            drawn += sum(attended) * e.pair_pj + (cached + new) * e.context_pj
            if e.window is not None:
                drawn += sum(min(n, e.window) for n in attended) * e.window_pair_pj
                drawn += min(cached + new, new + e.window - 1) * e.window_context_pj
        if e.experts_pj:
            drawn += e.experts_pj[min(shape.tokens, len(e.experts_pj) - 1)]
        if (shape.chunks or shape.decodes > e.watch_above) and e.limit_mw is not None and drawn > e.limit_mw * taken:
            drawn = e.limit_mw * taken
            self.limited_ns += taken
        self.drawn_pj += drawn + e.busy_mw * taken
        if shape.chunks:
            self.prompts_pj += drawn + e.busy_mw * taken
        return taken


def test_busy_power_times_busy_time() -> None:
    # 1 prompt step and 4 decodes of 10 ms each at 300 W: 15 J; from 50 ms on nothing.
    cluster = simulate([Request(0, 5, 5)], energy=ONLY_BUSY, sample_ns=20 * MS)
    assert total_nj(cluster) == 15_000_000_000
    assert cluster.recorder.timeline.columns()["energy_nj"].tolist() == [6_000_000_000, 12_000_000_000]
    assert cluster.replicas[0].energy_counters.prompt_steps_pj == 3_000_000_000_000


def test_each_part_of_a_step() -> None:
    # Prompt of 5: 5 tokens, 1 row, pairs 1 + ... + 5, KV of 5. Two decodes: 1 token and row each, 6 and 7 attended.
    parts = {"step_pj": 3, "token_pj": 1, "row_pj": 5, "attended_pj": 7, "pair_pj": 1, "context_pj": 5}
    counts = {"step_pj": 5, "token_pj": 9, "row_pj": 5, "attended_pj": 6 + 7 + 8 + 9, "pair_pj": 15, "context_pj": 5}
    for name in parts:
        cluster = simulate([Request(0, 5, 5)], energy=StepEnergy(0, **{name: 2000}))
        assert total_nj(cluster) == 2 * counts[name], name


def test_the_limit_holds_for_a_step_by_itself() -> None:
    # 10 ms a step, limit 100 W: 1 J. The prompt of 100 would draw 10 J, each decode draws 0.1 J.
    energy = StepEnergy(0, limit_mw=100_000, token_pj=100_000_000_000, watch_above=256)
    cluster = simulate([Request(0, 100, 3)], energy=energy)
    assert total_nj(cluster) == 1_200_000_000
    assert cluster.replicas[0].energy_counters.limited_ns == 10 * MS


def test_a_step_in_flight_counts_in_proportion() -> None:
    # The prompt's step draws 1 J in 10 ms; a decode 0.01 J.
    energy = StepEnergy(0, token_pj=10_000_000_000)
    cluster = simulate([Request(0, 100, 2)], energy=energy, sample_ns=4 * MS)
    drawn = cluster.recorder.timeline.columns()["energy_nj"].tolist()
    assert drawn == [400_000_000, 800_000_000, 1_002_000_000, 1_006_000_000, 1_010_000_000]
    stopped = simulate([Request(0, 100, 2)], energy=energy, until=3 * MS)
    assert total_nj(stopped) == 300_000_000


def requests_of(seed: int, count: int) -> list[Request]:
    """Return random requests that overlap."""
    rng = np.random.default_rng(seed)
    arrivals = np.cumsum(rng.exponential(8 * MS, count).astype(int))
    return [Request(int(at), int(rng.integers(1, 130)), int(rng.integers(1, 80))) for at in arrivals]


@pytest.mark.parametrize(
    ("options", "changes"),
    [
        ({}, {}),
        ({}, {"limit_mw": None}),
        ({"window": 40}, {}),
        ({}, {"experts_pj": tuple(range(0, 10**10, 10**8))}),
        ({"blocks": 40, "budget": 64}, {"watch_above": 0}),
        ({"async_scheduling": True}, {}),
    ],
)
def test_energy_is_the_sum_over_all_steps(options: dict[str, Any], changes: dict[str, Any]) -> None:
    energy = replace(ENERGY, window=options.get("window"), **changes)
    cost = Watching(energy, token=20_011, kv=307)
    stepwise = simulate(requests_of(3, 30), cost=cost, energy=energy, fast_forward=False, **options)
    counters = stepwise.replicas[0].energy_counters
    assert counters.total_nj == cost.drawn_pj // 1000
    assert counters.prompt_steps_pj == cost.prompts_pj
    assert counters.limited_ns == cost.limited_ns
    assert energy.limit_mw is None or 0 < cost.limited_ns < stepwise.replicas[0].counters.busy_ns
    fast = simulate(requests_of(3, 30), cost=LinearCost(3 * MS, token=20_011, kv=307), energy=energy, **options)
    assert fast.replicas[0].energy_counters == counters


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**32 - 1),
    window=st.sampled_from([None, 20, 90]),
    sample_ns=st.sampled_from([MS // 7, 11 * MS, 10**9]),
    watch_above=st.sampled_from([0, 3, 300]),
    experts=st.booleans(),
)
def test_fast_and_stepwise_draw_the_same_at_every_instant(
    seed: int, window: int | None, sample_ns: int, watch_above: int, experts: bool
) -> None:
    table = tuple(range(0, 10**10, 10**8)) if experts else ()
    energy = replace(ENERGY, watch_above=watch_above, experts_pj=table)
    prints = [
        fingerprint(
            simulate(
                requests_of(seed, 12),
                cost=LinearCost(3 * MS, token=20_011, kv=307),
                energy=energy,
                window=window,
                sample_ns=sample_ns,
                fast_forward=fast,
            )
        )
        for fast in (True, False)
    ]
    assert prints[0] == prints[1]


def test_power_never_falls_below_nothing_and_energy_never_back() -> None:
    cluster = simulate(requests_of(5, 20), cost=LinearCost(3 * MS, token=20_011, kv=307), sample_ns=MS // 3)
    energy = cluster.recorder.timeline.columns()["energy_nj"]
    assert (np.diff(energy) >= 0).all()
    assert energy[-1] <= total_nj(cluster)


@given(st.integers(0, 10**16), st.integers(1, 10**9), st.floats(0, 1))
def test_spread_is_exact(energy: int, duration: int, share: float) -> None:
    elapsed = int(duration * share)
    found = spread(np.array([energy]), np.array([duration]), np.array([elapsed]))
    assert int(found[0]) == energy * elapsed // duration


def test_the_quick_way_of_adding_is_the_plain_one() -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        shape = BatchShape()
        shape.decodes = int(rng.integers(0, 5))
        shape.decode_kv = shape.decodes * int(rng.integers(1, 500))
        shape.chunks = [(int(rng.integers(1, 60)), int(rng.integers(0, 300))) for _ in range(int(rng.integers(0, 3)))]
        shape.prefill_tokens = sum(new for new, _ in shape.chunks)
        shape.logit_rows = shape.decodes + len(shape.chunks)
        steps = int(rng.integers(1, 4))
        durations = [int(ns) for ns in rng.integers(MS // 10, 10 * MS, steps + 1)]
        plain, quick = EnergyCounters(), EnergyCounters()
        ENERGY.add(plain, shape, durations, steps)
        ENERGY.adder(quick)(shape, durations, steps)
        assert plain == quick
        assert plain.own_pj == ENERGY.run_meter()(shape, durations, steps) - sum(
            ENERGY.decodes_pj(shape, i) for i in range(steps)
        )


def test_what_a_run_has_drawn_is_a_line_where_one_says_it() -> None:
    rng = np.random.default_rng(2)
    kinds: Counter[str] = Counter()
    for _ in range(400):
        shape = BatchShape()
        shape.decodes = int(rng.integers(0, 30))
        shape.decode_kv = shape.decodes * int(rng.integers(1, 500))
        shape.chunks = [(int(rng.integers(1, 60)), int(rng.integers(0, 300))) for _ in range(int(rng.integers(0, 3)))]
        shape.prefill_tokens = sum(new for new, _ in shape.chunks)
        durations = [int(ns) for ns in rng.integers(1, 4, 5) * int(10 ** rng.uniform(2, 7))]
        line = ENERGY.run_line(shape, durations)
        if line is None:
            kinds["some at the limit"] += 1
            continue
        first, more, steady_mw = line
        kinds["limit" if steady_mw else "line"] += 1
        for done in range(1, 5):
            whole = done * first + done * (done - 1) // 2 * more + steady_mw * sum(durations[:done])
            assert whole == ENERGY.run_meter()(shape, durations, done)
            step = first + done * more + steady_mw * durations[done]
            assert step == ENERGY.step_dynamic_pj(shape, done, durations[done])
    assert min(kinds[kind] for kind in ("some at the limit", "limit", "line")) > 10
