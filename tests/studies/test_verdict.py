"""A run that is given up early gets the verdict of the whole run; one that is not is the same to the last bit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator import run
from simulator.errors import InputError
from simulator.scenario import Slo, Slos
from simulator.studies.points import Task, evaluate
from simulator.studies.verdict import Demand, Verdict, VerdictWatch, judge
from workloads import Trace, read_trace

STEP_S = 0.1


def scenario(requests: int = 300, rate: float = 20.0, **more: Any) -> dict[str, Any]:
    lengths = {"prompt": "lognormal:median=300,sigma=0.8", "output": "uniform:low=1,high=9"}
    generator = {"kind": "poisson", "params": {"requests": requests, "rate": rate, **lengths, "seed": 1}}
    workload = {"generator": generator, **more.pop("workload", {})}
    pool = {"cost": {"kind": "constant", "step_s": STEP_S}, "engine": {"max_num_seqs": 4}, **more.pop("pool", {})}
    cluster = {"pools": [pool], **more.pop("cluster", {})}
    return {"model": "llama-3.1-8b", "workload": workload, "cluster": cluster, **more}


def verdict_of(
    given: Mapping[str, Any], *demands: Demand, gives_up: bool = True, trace: Trace | None = None
) -> Verdict:
    watch = VerdictWatch(demands, gives_up=gives_up)
    run(given, progress=watch, trace=trace)
    return watch.verdict


def by_hand(tmp_path: Any, *, outputs: tuple[int, ...], classes: str = "") -> Trace:
    """Return requests that arrive together; the first has the first class."""
    path = tmp_path / "trace.csv"
    head = "arrival_s,prompt_tokens,output_tokens" + (",class" if classes else "")
    rows = [f"0,10,{n}" + (f",{classes[i]}" if classes else "") for i, n in enumerate(outputs)]
    path.write_text("\n".join([head, *rows]) + "\n")
    return read_trace(path)


ONE_AT_A_TIME = {"pool": {"engine": {"max_num_seqs": 1}}}


# -------------------------------------------------------------------------------------------------------- by hand


def test_counts_who_is_within_the_objectives(tmp_path: Any) -> None:
    # One at a time, a step a token: they end after 2, 4 and 6 steps, the first tokens come with steps 1, 3 and 5.
    trace = by_hand(tmp_path, outputs=(2, 2, 2))
    given = scenario(**ONE_AT_A_TIME)
    found = verdict_of(given, Demand(Slos(ttft_s=0.31), 0.6), Demand(Slos(ttft_s=0.29), 0.6), trace=trace)
    first, second = found.tallies
    assert (first.met, first.missed, first.of, first.is_met) == (2, 1, 3, True)
    assert not second.is_met
    assert not found.is_met


def test_a_share_that_is_just_reached_is_met(tmp_path: Any) -> None:
    trace = by_hand(tmp_path, outputs=(2, 2, 2))
    given = scenario(**ONE_AT_A_TIME)
    assert verdict_of(given, Demand(Slos(e2e_s=0.41), 2 / 3), trace=trace).is_met
    assert not verdict_of(given, Demand(Slos(e2e_s=0.41), math.nextafter(2 / 3, 1)), trace=trace).is_met


def test_a_demand_on_a_class_is_about_its_requests(tmp_path: Any) -> None:
    trace = by_hand(tmp_path, outputs=(2, 2, 2), classes="abb")
    given = scenario(**ONE_AT_A_TIME)
    late = Demand(Slos(classes={"b": Slo(ttft_s=0.31)}), 1.0)
    soon = Demand(Slos(classes={"a": Slo(ttft_s=0.11)}), 1.0)
    found = verdict_of(given, soon, late, trace=trace)
    assert [(each.of, each.is_met) for each in found.tallies] == [(1, True), (2, False)]
    with pytest.raises(InputError, match="no class 'c'; known: a, b"):
        verdict_of(given, Demand(Slos(classes={"c": Slo(ttft_s=1.0)})), trace=trace)


def test_requests_outside_the_window_are_not_counted() -> None:
    given = scenario(requests=400, rate=5, measure={"warmup_s": 20.0, "until_s": 40.0})
    (tally,) = verdict_of(given, Demand(Slos(ttft_s=100.0))).tallies
    summary = run(given).summary
    assert tally.of == summary["window"]["requests"]["arrived"] < 400


@pytest.mark.parametrize("share", [0.0, -1.0, 1.1, math.nan])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(InputError, match="above 0 and at most 1"):
        Demand(Slos(ttft_s=1.0), share)


def test_no_demand_is_refused() -> None:
    with pytest.raises(InputError, match="at least one demand"):
        VerdictWatch(())


# ------------------------------------------------------------------------------------------------------ exactness


VARIANTS: dict[str, dict[str, Any]] = {
    "open": {},
    "closed": {"workload": {"loop": {"kind": "closed", "clients": 9}}},
    "window": {"measure": {"warmup_s": 2.0, "until_s": 9.0}},
    "no drain": {"measure": {"drain": False}},
    "two replicas": {"pool": {"replicas": 2, "cost": {"kind": "constant", "step_s": STEP_S}}},
    "stages": {"pool": {"parallel": {"pp": 2}, "engine": {"max_num_seqs": 8}}},
    "clients that retry": {
        "clients": {"ttft_timeout_s": 1.0, "retries": {"max": 2, "on": ["timed_out"]}},
    },
    "disaggregated": {
        "cluster": {
            "pools": [
                {"name": role, "role": role, "node": "dgx-a100", "cost": {"kind": "constant", "step_s": STEP_S}}
                for role in ("prefill", "decode")
            ]
        },
        "disaggregation": {"kind": "connector"},
    },
}
LIMITS = {"ttft_s": 3.0, "tpot_s": 0.15, "itl_s": 0.25, "e2e_s": 4.0}


@pytest.mark.parametrize("variant", VARIANTS)
@settings(max_examples=3, deadline=None)
@given(rate=st.sampled_from([4.0, 8.0, 12.0, 40.0]), names=st.sets(st.sampled_from(sorted(LIMITS)), min_size=1))
def test_the_verdict_is_the_one_of_the_whole_run(variant: str, rate: float, names: set[str]) -> None:
    given = scenario(80, rate, **VARIANTS[variant])
    slos = Slos(**{name: LIMITS[name] for name in names})
    whole = run({**given, "objectives": slos.model_dump(exclude={"classes"})}).summary["objectives"]
    attainment = whole["attainment"]
    if attainment:  # a miss counted in vain would give this one up
        reached = verdict_of(given, Demand(slos, attainment))
        assert reached.is_met and reached.is_whole
        assert (reached.tallies[0].met, reached.tallies[0].of) == (whole["met"], whole["of"])
    if attainment < 1:
        over = Demand(slos, math.nextafter(attainment, 1))
        assert not verdict_of(given, over).is_met
        assert not verdict_of(given, over, gives_up=False).is_met
    for share in (0.5, 0.95):
        assert verdict_of(given, Demand(slos, share)).is_met == (attainment >= share)


def test_a_hopeless_run_is_given_up_early() -> None:
    demand = Demand(Slos(ttft_s=1.0), 0.99)
    hopeless = scenario(3000, 200.0)
    watch = VerdictWatch([demand])
    early = run(hopeless, progress=watch)
    assert not watch.verdict.is_met
    assert not watch.verdict.is_whole
    assert early.summary["interrupted"]
    whole = run(hopeless)
    assert early.summary["simulated_s"] < whole.summary["simulated_s"] / 10
    (tally,) = watch.verdict.tallies
    late = np.asarray(whole.requests["first_token_s"] - whole.requests["arrival_s"] > 1.0)
    assert 30 < tally.missed <= late.sum()


def test_a_run_whose_requests_are_too_slow_is_given_up_before_any_of_them_ends() -> None:
    # A request a second, each of 100 s: after 5 s more the first one is too late, and a tenth of 100 soon after.
    trace = Trace(np.arange(100.0), np.full(100, 10), np.full(100, 1000))
    watch = VerdictWatch([Demand(Slos(e2e_s=5.0), 0.9)])
    early = run(scenario(pool={"engine": {"max_num_seqs": 200}}), trace=trace, progress=watch)
    assert not watch.verdict.is_met and not watch.verdict.is_whole
    assert early.summary["simulated_s"] < 25


@pytest.mark.parametrize("rate", [1.0, 12.0])
def test_a_run_that_is_not_given_up_is_the_same_to_the_last_bit(rate: float) -> None:
    task = Task(scenario(200, rate))
    judged = judge(task, [Demand(Slos(ttft_s=1e6))])
    assert judged.verdict is not None and judged.verdict.is_whole
    assert judged.outcome == evaluate(task)


def test_what_fails_is_said_as_elsewhere() -> None:
    judged = judge(Task({"model": "llama-3.1-8b"}), [Demand(Slos(ttft_s=1.0))])
    assert judged.verdict is None
    assert "workload.trace" in judged.outcome.failure
    assert not judged.outcome.is_defect
