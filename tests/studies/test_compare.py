"""Sides on the same requests and seeds: what is compared, with whom, and what is refused."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from simulator import InputError, Scenario, run
from simulator.studies.compare import compare
from simulator.studies.compare_sides import differences
from workloads import Trace

POOL = {"accelerator": "h100-sxm", "cost": {"kind": "roofline"}}
PARAMS = {"rate": 10, "requests": 60, "prompt": "lognormal:median=300,sigma=1", "output": "lognormal:median=30,sigma=1"}
BASE = Scenario.from_mapping(
    {"workload": {"generator": {"kind": "poisson", "params": PARAMS}}, "cluster": {"pools": [POOL]}}
)
KEY = "cluster.pools.*.engine.max_num_seqs"
FEW: dict[str, Any] = {"workers": 1, "variants": {"wide": {KEY: 64}, "narrow": {KEY: 2}}}


def trace(rows: int = 40, gap_s: float = 0.2) -> Trace:
    return Trace(np.arange(rows) * gap_s, 100 + np.arange(rows) * 7 % 400, 5 + np.arange(rows) * 3 % 40)


def test_means_and_differences_are_those_of_single_runs() -> None:
    found = compare(BASE, seeds=3, **FEW)
    figures = {
        name: [run(BASE.updated({KEY: limit, "seed": seed})).summary["ttft_s"]["p99"] for seed in range(3)]
        for name, limit in (("wide", 64), ("narrow", 2))
    }
    row = found.of("narrow", "ttft_p99")
    assert row.own.mean == pytest.approx(np.mean(figures["narrow"]))
    assert row.pair is not None and row.pair.ratio is not None
    logs = np.log(np.array(figures["narrow"]) / np.array(figures["wide"]))
    ci = stats.t.interval(0.95, 2, logs.mean(), stats.sem(logs))
    assert (row.pair.ratio.low, row.pair.ratio.high) == pytest.approx(np.exp(ci))
    assert row.pair.difference.mean == pytest.approx(np.mean(figures["narrow"]) - np.mean(figures["wide"]))
    assert row.pair.p_value == pytest.approx(stats.ttest_1samp(logs, 0).pvalue)
    assert row.corrected == row.pair.p_value  # of one side
    assert found.of("wide", "ttft_p99").pair is None


def test_two_slots_queue_and_are_worse() -> None:
    found = compare(BASE, seeds=4, by="e2e_mean", **FEW)
    assert [side.name for side in found.sides] == ["wide", "narrow"]
    assert found.of("narrow", "e2e_mean").verdict == "worse"
    other_way = compare(BASE, seeds=4, baseline="narrow", **FEW)
    assert other_way.of("wide", "e2e_mean").verdict == "better"
    assert other_way.kept == 8 and other_way.simulated == 0  # the same runs, kept from before


def test_what_is_said_of_several_sides_is_by_the_corrected_p_value(monkeypatch: pytest.MonkeyPatch) -> None:
    variants = {"wide": {KEY: 64}, "narrow": {KEY: 2}, "narrower": {KEY: 1}}
    found = compare(BASE, variants=variants, seeds=4, by="e2e_mean", workers=1)
    narrow = found.of("narrow", "e2e_mean")
    others = [found.of(name, "e2e_mean").pair for name in ("narrow", "narrower")]
    least, most = sorted(pair.p_value for pair in others if pair is not None and pair.p_value is not None)
    assert {found.of(name, "e2e_mean").corrected for name in ("narrow", "narrower")} == {
        2 * least,
        max(2 * least, most),
    }
    assert narrow.verdict == "worse"
    monkeypatch.setattr("simulator.studies.compare.holm", lambda given: [1.0] * len(given))
    again = compare(BASE, variants=variants, seeds=4, by="e2e_mean", workers=1)
    assert again.of("narrow", "e2e_mean").verdict == "unclear"


def test_the_same_scenario_twice_is_the_same_in_everything() -> None:
    found = compare(BASE, variants={"a": {KEY: 32}, "b": {KEY: 32}}, seeds=2, workers=1)
    assert {each.verdict for each in found.comparisons if each.side == "b"} == {"same"}
    assert all(pair.sooner == pair.later == 0 for pair in found.requests["b"])
    assert (found.simulated, found.kept) == (3, 1)  # of the first seed both are, for their requests


def test_requests_are_paired_one_by_one_and_their_digest_is_told() -> None:
    found = compare(BASE, seeds=1, **FEW)
    pairs = {pair.metric: pair for pair in found.requests["narrow"]}
    rows = {name: run(BASE.updated({KEY: limit})).requests for name, limit in (("wide", 64), ("narrow", 2))}
    e2e = {name: (each["last_token_s"] - each["arrival_s"]).to_numpy() for name, each in rows.items()}
    assert pairs["e2e"].n == 60
    assert pairs["e2e"].later == pytest.approx((e2e["narrow"] > 1.01 * e2e["wide"]).mean())
    assert pairs["e2e"].difference_s[1] == pytest.approx(np.median(e2e["narrow"] - e2e["wide"]))
    assert len(found.trace) == 64
    without = compare(BASE, seeds=1, requests=False, **FEW)
    assert not without.requests and not without.trace


def test_one_seed_has_differences_and_no_intervals() -> None:
    found = compare(BASE, seeds=1, **FEW)
    row = found.of("narrow", "ttft_p99")
    assert row.verdict == "" and row.pair is not None
    assert row.pair.difference.mean is not None and row.pair.difference.low is None
    assert found.seeds_text == "one seed (0): differences have no intervals"


def test_a_replayed_trace_is_drawn_anew_for_each_seed_unless_told_otherwise() -> None:
    given = Scenario.from_mapping({"cluster": {"pools": [POOL]}})
    drawn = compare(given, seeds=2, trace=trace(), **FEW)
    assert "drawn anew for each" in drawn.seeds_text and drawn.seeds == (0, 1)
    assert all(side.scenario["workload"]["resample"]["block_s"] == 0.78 for side in drawn.sides)  # a tenth of 7.8 s
    asis = compare(given, seeds=2, trace=trace(), resample=False, **FEW)
    assert asis.seeds == (0,)
    assert "all 2 seeds gave the same figures" in asis.notes[0]
    pinned = BASE.updated({"workload.generator.params": {**PARAMS, "seed": 7}})
    assert "the generator's own seed is fixed" in compare(pinned, seeds=2, **FEW).notes[0]
    whole = given.updated({"workload.resample": {"block_s": 100.0}})
    assert "shorten workload.resample.block_s" in compare(whole, seeds=2, trace=trace(), **FEW).notes[0]
    assert all(each.pair is None or each.pair.difference.low is None for each in asis.comparisons)


def test_sides_with_a_random_router_differ_by_seed_though_the_trace_does_not() -> None:
    given = Scenario.from_mapping({"cluster": {"pools": [{**POOL, "replicas": 2}]}})
    found = compare(
        given, routers=["round-robin", "random"], seeds=3, trace=trace(gap_s=0.02), resample=False, workers=1
    )
    assert found.seeds == (0, 1, 2)
    assert found.of("round-robin", "e2e_mean").own.half == 0
    assert (found.of("random", "e2e_mean").own.half or 0) > 0


def test_a_side_that_can_not_run_is_told_and_the_others_are_compared() -> None:
    large = {"model": "llama-3.1-70b", "cluster.pools.*.parallel.tp": 2}
    found = compare(
        BASE,
        variants={
            "one": {"model": "llama-3.1-70b"},
            "two": large,
            "eight": {**large, "cluster.pools.*.parallel.tp": 8},
        },
        seeds=2,
        workers=1,
    )
    assert found.failed and found.baseline == "two"
    assert found.notes[0] == "the baseline one has no figures: sides are compared with two"
    (one,) = (side for side in found.sides if side.name == "one")
    assert "does not fit" in one.failure and found.sides[-1] == one
    assert found.of("eight", "e2e_mean").verdict == "better"
    with pytest.raises(InputError, match=r"only eight can run: one: llama-3\.1-70b does not fit"):
        compare(
            BASE, variants={"one": {"model": "llama-3.1-70b"}, "eight": {**large, "cluster.pools.*.parallel.tp": 8}}
        )


def test_a_side_that_fails_in_some_seeds_is_compared_by_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    from simulator.studies import store as module
    from simulator.studies.points import Outcome, Task, evaluate

    def sometimes(task: Task, *, work: Any = None) -> Outcome:
        return Outcome(failure="it broke") if task.scenario["seed"] == 1 else evaluate(task)

    real = module.run_tasks
    monkeypatch.setattr(module, "run_tasks", lambda work, *rest, **more: real(sometimes, *rest, **more))
    found = compare(BASE, seeds=3, requests=False, store=False, **FEW)
    assert found.sides[1].failure == "seed 1: it broke"
    row = found.of("narrow", "e2e_mean")
    assert row.pair is not None and (row.pair.n, row.own.n) == (2, 2)


def test_what_else_differs_is_told_and_what_was_named_is_not() -> None:
    found = compare(BASE, policies=["vllm-v1", "sarathi"], seeds=1, workers=1)
    (sarathi,) = (side for side in found.sides if side.name == "sarathi")
    keys = {each.key: (each.baseline, each.other) for each in sarathi.differs}
    assert keys["cluster.pools.0.engine.max_num_batched_tokens"] == (2048, 512)
    assert not any("batching" in key for key in keys if "tokens" not in key)


def test_differences_go_through_lists_of_parts() -> None:
    here = {"seed": 1, "pools": [{"name": "a", "x": 1}, {"name": "b"}], "sizes": [1, 2]}
    there = {"seed": 2, "pools": [{"name": "a", "x": 2}], "sizes": [1, 3], "new": 5}
    assert [str(each) for each in differences(here, there)] == [
        "pools.0.x: 1 -> 2",
        "pools.1.name: b -> not set",
        "sizes: [1, 2] -> [1, 3]",
        "new: not set -> 5",
    ]
    assert [each.key for each in differences(here, there, ["pools.*.x", "pools.1", "sizes"])] == ["new"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "compare what with what?"),
        ({"policies": "orca"}, r"policies takes a list of names, got 'orca'; write \['orca'\]"),
        ({"policies": ["orca", "orca"]}, "two sides are called 'orca'"),
        ({"policies": ["orca", "sarathy"]}, "sarathy: .*did you mean 'sarathi'"),
        ({"policies": ["orca", "static"], "baseline": "sarathi"}, "no side is called 'sarathi'"),
        ({"variants": {"a": {"workload.limit": 5}}}, "a: workload.limit can't differ between sides"),
        ({"variants": {"a": {"seed": 5}}}, "a: seed can't differ between sides"),
        ({"variants": {"a": {"cluster.pools.*.nonsense": 5}}}, "a: .*nonsense"),
        ({"policies": ["orca"], "by": "speed"}, "unknown metric 'speed'"),
        ({"policies": ["orca"], "by": "goodput"}, "goodput needs objectives: give one of --ttft"),
        ({"policies": ["orca"], "by": "cost"}, "cost needs prices, and base and orca have none: give --price"),
        ({"policies": ["orca"], "seeds": 0}, "from 1 to 10,000 replications"),
        ({"policies": ["orca"], "resample": True}, "only a replayed trace is resampled"),
    ],
)
def test_what_can_not_be_compared_is_refused_before_anything_runs(given: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        compare(BASE, progress=lambda *done: pytest.fail("it ran"), **given)


def test_scenarios_that_ask_something_else_are_refused_with_the_keys() -> None:
    other = BASE.updated({"workload.limit": 30, "objectives.ttft_s": 1.0})
    with pytest.raises(
        InputError, match=r"a and b don't ask the same: objectives.ttft_s \(not set and 1.0\), workload.lim"
    ):
        compare(scenarios={"a": BASE, "b": other})


def test_one_change_is_compared_with_the_scenario_as_it_is() -> None:
    found = compare(BASE, policies=["sarathi"], seeds=1, workers=1)
    assert found.baseline == "base" and [side.name for side in found.sides] == ["base", "sarathi"]


def test_files_say_what_the_result_does_and_each_side_runs_again(tmp_path: Path) -> None:
    found = compare(BASE, seeds=2, out=tmp_path / "out", **FEW)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"compare.csv", "runs.csv", "compare.json", "side-1-wide.yaml", "side-2-narrow.yaml"}
    rows = list(csv.DictReader((tmp_path / "out" / "compare.csv").read_text().splitlines()))
    assert len(rows) == len(found.comparisons) == len(found.frame())
    (row,) = (each for each in rows if each["metric"] == "ttft_p99" and each["side"] == "narrow")
    assert float(row["ratio"]) == found.of("narrow", "ttft_p99").pair.ratio.mean  # type: ignore[union-attr]
    runs = list(csv.DictReader((tmp_path / "out" / "runs.csv").read_text().splitlines()))
    again = run(tmp_path / "out" / "side-2-narrow.yaml")
    (first,) = (each for each in runs if each["side"] == "narrow" and each["seed"] == "0")
    assert float(first["ttft_s_p99"]) == again.summary["ttft_s"]["p99"] and len(first["digest"]) == 64
    told = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert told["baseline"] == "wide" and told["trace_sha256"] == found.trace
    assert math.isclose(told["requests"][0]["sooner"], found.requests["narrow"][0].sooner)
    with pytest.raises(InputError, match="it holds an earlier comparison"):
        compare(BASE, seeds=2, out=tmp_path / "out", **FEW)
    compare(BASE, variants={"x": {}, "y": {KEY: 3}}, seeds=1, workers=1, out=tmp_path / "out", overwrite=True)
    assert "side-1-wide.yaml" not in {path.name for path in (tmp_path / "out").iterdir()}
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match=r"it holds other files \(mine.txt, out\)"):
        compare(BASE, seeds=2, out=tmp_path, overwrite=True, **FEW)


def test_an_interruption_keeps_what_is_done() -> None:
    def progress(done: int, total: int, name: str) -> None:
        if done == 3:
            raise KeyboardInterrupt

    found = compare(BASE, seeds=3, progress=progress, **FEW)
    assert found.interrupted and sum(len(side.done) for side in found.sides) == 3
