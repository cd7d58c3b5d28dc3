"""Searches: ranking, determinism, screening, interruption, failures."""

from __future__ import annotations

import csv
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import simulator
from simulator import Scenario, run, search
from simulator.errors import InputError
from simulator.studies import stages as module
from simulator.studies.plan_space import Plan
from simulator.studies.points import Outcome, Task, figures_of
from simulator.studies.search_result import Row, rank
from simulator.studies.targets import TARGETS, target
from workloads import Trace, generate


def trace(requests: int = 60) -> Trace:
    return generate(
        "poisson", rate=20, requests=requests, prompt="constant:value=300", output="constant:value=40", seed=1
    )


def scenario(**more: Any) -> Scenario:
    pool = {"node": "hgx-h200", "price_per_gpu_hour": 3.0, **more.pop("pool", {})}
    params = {"requests": 60, "rate": 20, "prompt": "constant:value=300", "output": "constant:value=40", "seed": 1}
    workload = {"generator": {"kind": "poisson", "params": params}}
    return Scenario.from_mapping({"model": "llama-3.1-8b", "workload": workload, "cluster": {"pools": [pool]}, **more})


FOUR: dict[str, Any] = {"gpus": 4, "workers": 1, "store": False}


def row(replicas: int = 1, tp: int = 1, **figures: Any) -> Row:
    full = {"unserved": 0, "overloaded": False, "attainment": None, "e2e_s_mean": 1.0, **figures}
    return Row(Plan((("tp", tp), ("pp", 1), ("ep", 1)), replicas), full, 1000)


# -------------------------------------------------------------------------------------------------------- ranking


def test_more_is_better_for_throughput_and_less_for_latency() -> None:
    fast, slow = row(tp=1, output_tokens_per_s=9.0, ttft_s_p99=0.2), row(tp=2, output_tokens_per_s=5.0, ttft_s_p99=0.1)
    assert rank([slow, fast], TARGETS["throughput"]) == [fast, slow]
    assert rank([fast, slow], target("ttft_p99")) == [slow, fast]


def test_equal_figures_are_ranked_by_latency_then_gpus_then_sizes() -> None:
    a = row(replicas=1, tp=4, output_tokens_per_s=5.0, e2e_s_mean=2.0)
    b = row(replicas=4, tp=1, output_tokens_per_s=5.0, e2e_s_mean=1.0)
    c = row(replicas=1, tp=2, output_tokens_per_s=5.0, e2e_s_mean=1.0)
    d = row(replicas=2, tp=1, output_tokens_per_s=5.0, e2e_s_mean=1.0)
    for given in ([a, b, c, d], [d, c, b, a]):
        assert rank(given, TARGETS["throughput"]) == [d, c, b, a]


def test_a_plan_that_is_cheap_because_it_is_too_small_comes_after_those_that_sustain_the_load() -> None:
    small = row(tp=1, cost_per_million_output_tokens=1.0, overloaded=True)
    enough = row(tp=2, cost_per_million_output_tokens=2.0)
    refusing = row(tp=4, cost_per_million_output_tokens=0.5, unserved=3)
    assert rank([small, refusing, enough], TARGETS["cost"]) == [enough, small, refusing]
    missing = row(tp=1, cost_per_million_output_tokens=1.0, attainment=0.89)
    meeting = row(tp=2, cost_per_million_output_tokens=2.0, attainment=0.9)
    assert rank([missing, meeting], TARGETS["cost"]) == [meeting, missing]


def test_failures_and_missing_figures_come_last() -> None:
    failed = replace(row(tp=8), figures={}, failure="it broke")
    empty, good = row(tp=4, goodput_requests_per_s=None), row(tp=2, goodput_requests_per_s=0.0)
    screened = replace(row(tp=1, goodput_requests_per_s=9.0), screened_only=True)
    assert rank([failed, empty, screened, good], TARGETS["goodput"]) == [good, empty, screened, failed]


@pytest.mark.parametrize("name", ["ttft_p99", "ttft-p99", "ttft_s_p99"])
def test_a_latency_is_understood_however_it_is_written(name: str) -> None:
    assert target(name).figure == "ttft_s_p99"


def test_an_unknown_target_names_the_nearest() -> None:
    with pytest.raises(InputError, match="unknown target 'goodputt'; did you mean 'goodput'"):
        target("goodputt")


# --------------------------------------------------------------------------------------------------------- search


def test_the_best_plan_is_the_best_of_its_runs_one_by_one(tmp_path: Path) -> None:
    found = search(scenario(), by="e2e_mean", **FOUR, out=tmp_path / "out")
    assert found.best is not None and found.best_scenario is not None
    figures = {each.plan: run(scenario().updated(each.plan.changes())).summary["e2e_s"]["mean"] for each in found.rows}
    assert figures[found.best.plan] == min(figures.values())
    assert [figures[each.plan] for each in found.rows] == sorted(figures.values())
    assert {each.value(found.by) for each in found.rows} == set(figures.values())
    again = run(tmp_path / "out" / "best.yaml").summary["e2e_s"]["mean"]
    assert again == found.best.value(found.by)


def test_processes_and_threads_and_this_process_find_the_same(tmp_path: Path) -> None:
    texts = []
    for name, how in (("one", {"workers": 1}), ("two", {"workers": 2}), ("pool", {"executor": ThreadPoolExecutor(3)})):
        found = search(scenario(), by="throughput", gpus=4, out=tmp_path / name, **how)
        details = json.loads((tmp_path / name / "search.json").read_text())
        details.pop("took_s")
        texts.append(((tmp_path / name / "plans.csv").read_text(), details, found.rows))
    assert texts[0] == texts[1] == texts[2]


def test_the_heuristic_stands_beside_and_the_gain_is_over_it() -> None:
    found = search(scenario(), by="e2e_mean", **FOUR)
    assert found.baseline is not None and found.baseline.plan.text == "1 x (tp 4)"
    assert found.best is not None and found.gain is not None
    assert found.gain == found.baseline.value(found.by) / found.best.value(found.by)  # type: ignore[operator]
    assert found.gain >= 1


def test_the_heuristic_is_simulated_even_where_only_other_plans_are_wanted() -> None:
    found = search(scenario(), by="throughput", only={"tp": [1]}, **FOUR)
    assert found.baseline is not None and found.baseline.plan.text == "1 x (tp 4)"
    assert all(each.plan.by_name["tp"] == 1 for each in found.rows)
    assert found.frame()["baseline"].sum() == 1


def test_cost_prefers_few_gpus_and_only_of_those_that_sustain_the_load() -> None:
    found = search(scenario(), by="cost", only={"tp": [1], "cp": [1], "pp": [1]}, **FOUR)
    assert [each.plan.replicas for each in found.rows] == [1, 2, 3, 4]
    assert found.best is not None and not found.best.figures["overloaded"]
    one = {"tp": [1], "cp": [1], "pp": [1]}
    assert search(scenario(), by="cost", only=one, fewer=False, **FOUR).rows[0].plan.replicas == 4


def test_energy_is_that_of_an_output_token_and_its_lack_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def reporting(figure: float | None) -> Any:
        def evaluate(task: Task) -> Outcome:
            summary = run(task.scenario).summary
            replicas = task.scenario["cluster"]["pools"][0]["replicas"]
            value = None if figure is None else figure * replicas
            return Outcome(figures_of({**summary, "energy": {"energy_j_per_output_token": value}}))

        return evaluate

    monkeypatch.setattr(module, "evaluate", reporting(0.5))
    found = search(scenario(), by="energy", only={"tp": [1], "pp": [1], "cp": [1]}, **FOUR)
    assert [each.value(found.by) for each in found.rows] == [0.5, 1.0, 1.5, 2.0]  # 1 to 4 replicas
    monkeypatch.setattr(module, "evaluate", reporting(None))
    with pytest.raises(InputError, match="no plan has a figure for 'energy': the runs report no energy"):
        search(scenario(), by="energy", only={"tp": [4]}, **FOUR)


def test_goodput_is_that_of_the_objectives() -> None:
    found = search(scenario(objectives={"ttft_s": 10.0}), by="goodput", only={"tp": [4]}, **FOUR)
    assert found.best is not None and found.best.figures["attainment"] == 1.0


def test_given_requests_are_searched_as_the_scenario_filters_them() -> None:
    base = Scenario.from_mapping({"workload": {"limit": 10}, "cluster": {"pools": [{"node": "hgx-h200"}]}})
    found = search(base, trace=trace(), only={"tp": [4], "pp": [1]}, **FOUR)
    assert found.rows[0].figures["finished"] == 10
    assert any("not by the scenario" in note for note in found.notes)


def test_a_layout_that_the_scenario_gives_is_noted_as_not_used() -> None:
    base = scenario(pool={"parallel": {"tp": 2}, "engine": {"name": "vllm@0.19", "args": {"max-num-seqs": 7}}})
    found = search(base, only={"tp": [1], "pp": [1]}, **FOUR)
    assert any("were not used" in note for note in found.notes)
    assert found.best_scenario is not None
    assert found.best_scenario.cluster.pools[0].engine.max_num_seqs == 7
    assert found.best_scenario.cluster.pools[0].parallel.tp == 1


def test_the_best_plan_of_a_mixture_of_experts_runs_again_whatever_its_dimensions(tmp_path: Path) -> None:
    base = scenario(model="qwen3-30b-a3b", pool={"parallel": {"tp": 2, "attention_dp": 2}})
    found = search(base, by="e2e_mean", only={"dp": [2], "tp": [1]}, gpus=2, workers=1, out=tmp_path / "out")
    assert found.best is not None and found.best.plan.by_name["dp"] == 2
    assert [each.plan.by_name["ep"] for each in sorted(found.rows, key=lambda each: each.plan.sizes)] == [1, 2]
    assert run(tmp_path / "out" / "best.yaml").summary["e2e_s"]["mean"] == found.best.value(found.by)
    assert any("were not used" in note for note in found.notes)


# ------------------------------------------------------------------------------------------- screening, interrupts


def test_screening_keeps_the_finalists_and_says_so() -> None:
    found = search(scenario(), by="e2e_mean", screen=20, finalists=2, **FOUR)
    whole = [each for each in found.rows if not each.screened_only]
    assert found.stages == (
        f"screening: {len(found.rows)} of {len(found.rows)} plans on the first 20 of 60 requests",
        f"final: {len(whole)} of {len(whole)} plans on all 60 requests",
    )
    assert len(whole) in (2, 3)  # the heuristic may be among the finalists
    assert [each.screened_only for each in found.rows] == sorted(each.screened_only for each in found.rows)
    assert all(each.figures["finished"] == (20 if each.screened_only else 60) for each in found.rows)
    assert found.baseline is not None and not found.baseline.screened_only


def test_an_interrupted_search_keeps_what_was_done(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    done: list[Task] = []

    def evaluate(task: Task) -> Outcome:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(task)
        return Outcome({"output_tokens_per_s": float(len(done)), "overloaded": True, "unserved": 0})

    monkeypatch.setattr(module, "evaluate", evaluate)
    found = search(scenario(), by="throughput", **FOUR, out=tmp_path / "out")
    assert found.interrupted
    assert [each.value(found.by) for each in found.rows] == [2.0, 1.0]
    rows = list(csv.DictReader((tmp_path / "out" / "plans.csv").read_text().splitlines()))
    assert [each["rank"] for each in rows if each["rank"]] == ["1", "2"]
    assert json.loads((tmp_path / "out" / "search.json").read_text())["interrupted"] is True


def test_a_plan_that_fails_is_told_with_its_reason_and_does_not_lose_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(scenario: Any, **_: Any) -> Any:
        if scenario["cluster"]["pools"][0]["parallel"]["tp"] == 2:
            raise ZeroDivisionError("by nothing")
        return run(scenario)

    monkeypatch.setattr(simulator.runner, "run", broken)
    found = search(scenario(), by="throughput", **FOUR)
    failed = [each for each in found.rows if each.failure]
    assert {each.plan.by_name["tp"] for each in failed} == {2}
    assert {each.failure for each in failed} == {"a defect of the simulator: ZeroDivisionError: by nothing"}
    assert found.has_defects and found.best is not None
    assert found.rows[-1].failure and not found.rows[0].failure


def test_if_every_plan_fails_for_bad_input_the_search_does() -> None:
    with pytest.raises(InputError, match=r"plans could be simulated: .*the trace has no class 'gold'"):
        search(scenario(objectives={"classes": {"gold": {"ttft_s": 1.0}}}), by="goodput", **FOUR)


# --------------------------------------------------------------------------------------------------------- misuse


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"by": "goodput"}, "a search by goodput needs objectives"),
        ({"nodes": 0}, "nodes must be at least 1, got 0"),
        ({"gpus": 9}, "--gpus 9 with nodes of 8 GPUs"),
        ({"nodes": 2, "gpus": 8}, "--gpus 8 with nodes of 8 GPUs"),
        ({"finalists": 0}, "finalists must be at least 1"),
        ({"screen": -1}, "screen must be at least 0"),
        ({"workers": 0}, "workers must be at least 1"),
        ({"only": {"tp": [3]}}, "is among those that 'only' allows"),
    ],
)
def test_bad_input_is_refused_with_a_reason(how: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        search(scenario(), **how)


def test_a_search_by_cost_needs_a_price() -> None:
    with pytest.raises(InputError, match="a search by cost needs a price"):
        search(scenario(pool={"price_per_gpu_hour": None}), by="cost", **FOUR)


def test_gpus_without_a_node_type_need_a_number() -> None:
    with pytest.raises(InputError, match="on how many GPUs"):
        search(scenario(pool={"node": None, "accelerator": "h200"}))
    found = search(scenario(pool={"node": None, "accelerator": "h200"}), gpus=2, workers=1, only={"pp": [1]})
    assert {each.plan.gpus for each in found.rows} == {2}


def test_two_pools_are_refused() -> None:
    two = Scenario.from_mapping({"cluster": {"pools": [{"name": "a"}, {"name": "b"}]}})
    with pytest.raises(InputError, match="search plans one pool, and the scenario has 2"):
        search(two, gpus=2)


def test_a_directory_with_other_files_is_never_written_to(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(InputError, match=r"it holds other files \(mine.txt\)"):
        search(scenario(), out=tmp_path, **FOUR)
    search(scenario(), only={"tp": [4]}, out=tmp_path / "new", **FOUR)
    with pytest.raises(InputError, match="it holds an earlier search"):
        search(scenario(), only={"tp": [4]}, out=tmp_path / "new", **FOUR)
    search(scenario(), only={"tp": [4]}, out=tmp_path / "new", overwrite=True, **FOUR)


def test_a_plan_that_holds_no_request_can_not_run() -> None:
    base = scenario(pool={"engine": {"num_kv_blocks": 16}})  # 256 tokens, and prompts of 300
    with pytest.raises(InputError, match="even the shortest prompt of 300 tokens"):
        search(base, **FOUR)


# --------------------------------------------------------------------------------------------------- engine limits


def test_limits_are_searched_with_the_plans_and_the_best_scenario_has_them() -> None:
    one = {"tp": [1], "pp": [1], "cp": [1]}
    base = scenario(objectives={"ttft_s": 5.0})
    found = search(base, by="e2e_mean", only=one, limits={"max-num-seqs": [1, 64]}, fewer=False, **FOUR)
    assert [row.plan.text for row in found.rows] == ["4 x (tp 1), max_num_seqs 64", "4 x (tp 1), max_num_seqs 1"]
    assert found.best_scenario is not None
    assert found.best_scenario.cluster.pools[0].engine.max_num_seqs == 64
    assert list(found.frame()["engine.max_num_seqs"].dropna()) == [64, 1]
    alone = run(base.updated({"cluster.pools.0.replicas": 4, "cluster.pools.0.engine.max_num_seqs": 1}))
    assert found.rows[1].figures["e2e_s_mean"] == alone.summary["e2e_s"]["mean"]
    # The plan of the guides has the engine's own limits, and stands beside.
    assert found.baseline is not None and found.baseline.plan.limits == ()


def test_limits_combine() -> None:
    limits = {"max_num_seqs": [8, 16], "engine.max_num_batched_tokens": [512, 1024]}
    found = search(scenario(), by="e2e_mean", only={"tp": [4]}, limits=limits, **FOUR)
    assert len(found.rows) == 4
    assert {row.plan.limits for row in found.rows} == {
        (("cluster.pools.0.engine.max_num_seqs", a), ("cluster.pools.0.engine.max_num_batched_tokens", b))
        for a in (8, 16)
        for b in (512, 1024)
    }


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"max_num_sequences": [1]}, "did you mean 'max_num_seqs'"),
        ({"max_num_seqs": ["many"]}, "max_num_seqs"),
        ({"max_num_seqs": []}, "at least one value"),
        ({"max_num_seqs": [[1, 2]]}, "numbers or words"),
        ({"parallel.tp": [1]}, "the layout is searched anyway"),
        ({"max_num_seqs": [1], "engine.max_num_seqs": [2]}, "there twice"),
    ],
)
def test_limits_that_are_none_are_refused(limits: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        search(scenario(), limits=limits, **FOUR)


def test_goodput_per_gpu_and_per_price_count_what_is_used() -> None:
    base = scenario(objectives={"ttft_s": 5.0})
    found = search(base, by="goodput_per_gpu", only={"tp": [1, 2], "pp": [1], "cp": [1]}, **FOUR)
    for each in found.rows:
        goodput = each.figures["goodput_requests_per_s"]
        assert each.figures["goodput_per_gpu"] == goodput / each.plan.gpus
        assert each.figures["goodput_per_price"] == pytest.approx(goodput * 3600 / (3.0 * each.plan.gpus))
    assert found.best is not None and found.best.plan.gpus == 1  # one sustains this load
    with pytest.raises(InputError, match="goodput_per_gpu needs objectives"):
        search(scenario(), by="goodput_per_gpu", **FOUR)
    with pytest.raises(InputError, match="goodput_per_price needs a price"):
        search(scenario(pool={"price_per_gpu_hour": None}, objectives={"ttft_s": 5.0}), by="goodput_per_price", **FOUR)


# ---------------------------------------------------------------------------------------------------------- pareto


def test_the_pareto_front_by_hand() -> None:
    def made(tp: int, ttft: float, cost: float | None, **more: Any) -> Row:
        return row(tp=tp, ttft_s_p99=ttft, cost_per_million_output_tokens=cost, **more)

    fast, cheap, worse = made(8, 0.1, 9.0), made(1, 0.9, 1.0), made(2, 0.9, 2.0)
    unpriced, refusing, too_small = (
        made(4, 0.01, None),
        made(3, 0.01, 0.1, unserved=1),
        made(5, 1.0, 0.1, overloaded=True),
    )
    screened = replace(made(6, 0.01, 0.1), screened_only=True)
    rows = (fast, cheap, worse, unpriced, refusing, too_small, screened)
    found = replace(search(scenario(), by="e2e_mean", only={"tp": [4]}, **FOUR), rows=rows)
    assert found.pareto("ttft_p99", "cost") == (fast, cheap)
    assert found.pareto("cost", "ttft_p99") == (fast, cheap)
    with pytest.raises(InputError, match="at least two figures"):
        found.pareto("cost")
    with pytest.raises(InputError, match="unknown target 'price'"):
        found.pareto("cost", "price")


def test_tables_and_files_mark_the_front(tmp_path: Path) -> None:
    only = {"tp": [1, 2, 4], "pp": [1], "cp": [1]}
    weighed = ["tpot_mean", "cost"]
    found = search(scenario(), by="cost", only=only, pareto=weighed, fewer=False, out=tmp_path / "out", **FOUR)
    front = {each.plan.text for each in found.pareto()}
    told = json.loads((tmp_path / "out" / "search.json").read_text())
    assert told["pareto"]["by"] == weighed and set(told["pareto"]["plans"]) == front
    frame = found.frame()
    simulated = frame[frame["kind"].isna()]
    assert set(simulated[simulated["pareto"]]["plan"]) == front and front
    assert "pareto" not in search(scenario(), by="cost", only={"tp": [4]}, **FOUR).frame()
    with pytest.raises(InputError, match="at least two figures"):
        search(scenario(), by="cost", pareto=["cost"], **FOUR)


def test_a_search_that_was_ended_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    how: dict[str, Any] = {"by": "e2e_mean", "only": {"cp": [1]}, "gpus": 4, "workers": 1, "store": tmp_path / "store"}
    real, done = module.evaluate, []

    def evaluate(task: Task) -> Outcome:
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(task)
        return real(task)

    monkeypatch.setattr(module, "evaluate", evaluate)
    first = search(scenario(), **how)
    assert first.interrupted and len(first.rows) == 3
    monkeypatch.setattr(module, "evaluate", lambda task: done.append(task) or real(task))
    again = search(scenario(), **how)
    assert not again.interrupted and len(done) == len(again.rows) > 3  # none of the three was simulated again
    monkeypatch.undo()
    assert again.rows == search(scenario(), **{**how, "store": False}).rows
