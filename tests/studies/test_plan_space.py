"""Which plans there are, counted by hand, and which of them can't run."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware_profiles import load_accelerator
from simulator.errors import InputError
from simulator.memory import MemoryTooSmallError, plan_memory
from simulator.models import load_model
from simulator.parallel import ParallelPlan
from simulator.resolve import Resolved
from simulator.scenario import Scenario
from simulator.studies import plan_space
from simulator.studies.plan_space import Budget, Infeasible, Plan, check, enumerate_plans, heuristic, prune, refusal
from simulator.studies.search import search

DENSE = load_model("llama-3.1-8b")
LARGE = load_model("llama-3.1-70b")
EXPERTS = load_model("mixtral-8x7b")
H100 = {"cluster": {"pools": [{"node": "dgx-h100", "cost": {"kind": "constant", "step_s": 0.01}}]}}


def scenario(model: str, **pool: object) -> Scenario:
    data = {**H100["cluster"]["pools"][0], **pool}
    return Scenario.from_mapping({"model": model, "cluster": {"pools": [data]}})


def classic(plans: list[Plan]) -> list[tuple[int, int, int]]:
    """(replicas, tp, pp) of the plans that have no other dimension."""
    return [
        (plan.replicas, plan.by_name["tp"], plan.by_name["pp"])
        for plan in plans
        if all(size == 1 for name, size in plan.sizes if name not in ("tp", "pp"))
    ]


def test_four_gpus_of_one_node_have_six_plans_of_tensor_and_pipeline_parallelism() -> None:
    plans = enumerate_plans(DENSE, Budget(1, 4, "node"))
    assert sorted(classic(plans)) == [(1, 1, 4), (1, 2, 2), (1, 4, 1), (2, 1, 2), (2, 2, 1), (4, 1, 1)]


def test_tensor_parallelism_keeps_to_a_node_and_stages_cross_it() -> None:
    plans = enumerate_plans(DENSE, Budget(2, 2, "node"))
    # tp 1: pp 1, 2, 4; tp 2: pp 1, 2; tp 4 would cross the nodes
    assert sorted(classic(plans)) == [(1, 1, 4), (1, 2, 2), (2, 1, 2), (2, 2, 1), (4, 1, 1)]


def test_every_plan_of_all_gpus_uses_all_of_them_and_no_plan_comes_twice() -> None:
    plans = enumerate_plans(EXPERTS, Budget(3, 8, "node"))
    assert {plan.gpus for plan in plans} == {24}
    assert len(set(plans)) == len(plans)


def test_experts_are_spread_over_the_divisors_of_a_stage() -> None:
    sizes = {"tp": [4], "pp": [1], **{name: [1] for name in ("dp", "cp") if name in _names()}}
    plans = enumerate_plans(EXPERTS, Budget(1, 4, "node"), only=sizes)
    assert [plan.by_name["ep"] for plan in plans] == [1, 2, 4]
    assert {plan.by_name["ep"] for plan in enumerate_plans(DENSE, Budget(1, 4, "node"))} == {1}


def test_with_fewer_gpus_every_number_of_replicas_is_a_plan() -> None:
    plans = enumerate_plans(DENSE, Budget(1, 4, "node"), only={"tp": [2], "pp": [1]}, fewer=True)
    assert classic(plans) == [(1, 2, 1), (2, 2, 1)]
    assert [plan.replicas for plan in enumerate_plans(DENSE, Budget(1, 4, "node"), only={"tp": [1], "replicas": [3]})]


def test_an_unknown_dimension_names_the_nearest() -> None:
    with pytest.raises(InputError, match="plans have no dimension 'ppp'; did you mean 'pp'"):
        enumerate_plans(DENSE, Budget(1, 4, "node"), only={"ppp": [1]})


def test_dimensions_are_those_that_a_plan_and_a_scenario_have() -> None:
    assert {"tp", "pp", "ep"} <= _names() <= {each.name for each in plan_space.DIMENSIONS}


def test_a_dimension_that_plans_do_not_have_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True)
    class Smaller:
        tp: int = 1
        pp: int = 1

    monkeypatch.setattr(plan_space, "ParallelPlan", Smaller)
    assert _names() == {"tp", "pp"}


def _names() -> set[str]:
    return {each.name for each in plan_space.dimensions()}


def test_a_plan_is_written_as_people_write_it() -> None:
    plan = Plan((("tp", 4), ("pp", 2), ("ep", 1)), 3)
    assert plan.text == "3 x (tp 4, pp 2)"
    assert (plan.gpus_per_replica, plan.gpus) == (8, 24)
    assert Plan((("tp", 1), ("pp", 1), ("ep", 1)), 1).text == "1 x (tp 1)"


# -------------------------------------------------------------------------------------------------------- pruning


@given(st.sampled_from(["a100-40gb", "h100-sxm"]), st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2]))
def test_what_memory_prunes_is_what_the_memory_plan_refuses(gpu: str, tp: int, pp: int) -> None:
    base = Scenario.from_mapping({"model": LARGE.name, "cluster": {"pools": [{"accelerator": gpu}]}})
    plan = Plan(
        tuple({each.name: {"tp": tp, "pp": pp}.get(each.name, 1) for each in plan_space.dimensions()}.items()), 1
    )
    found = check(base, LARGE, Budget(1, tp * pp, "node"), plan)
    try:
        # the limits that vllm-v1, the default policy, has
        engine = found.pools[0].pool.engine if isinstance(found, Resolved) else None
        tokens = 2048 if engine is None else engine.max_num_batched_tokens or 0
        plan_memory(LARGE, load_accelerator(gpu), ParallelPlan(tp, pp), max_num_batched_tokens=tokens)
    except MemoryTooSmallError:
        assert isinstance(found, Infeasible) and found.kind == "memory"
        assert "does not fit" in found.reason
    else:
        assert isinstance(found, Resolved)


def test_each_refusal_has_its_kind_and_a_sentence() -> None:
    base = scenario(EXPERTS.name)
    budget = Budget(1, 8, "dgx-h100")
    kinds = {
        Plan((("tp", 16), ("pp", 1), ("ep", 1)), 1): ("nodes", "don't divide the 8 of a dgx-h100"),
        Plan((("tp", 3), ("pp", 1), ("ep", 1)), 1): ("layout", "does not split the 32 heads"),
        Plan((("tp", 8), ("pp", 64), ("ep", 1)), 1): ("layout", "exceeds the 32 layers"),
        Plan((("tp", 1), ("pp", 1), ("ep", 1)), 8): ("memory", "would fit: tp=2"),
    }
    for plan, (kind, words) in kinds.items():
        sizes = plan.by_name
        full = Plan(tuple((each.name, sizes.get(each.name, 1)) for each in plan_space.dimensions()), plan.replicas)
        found = check(base, EXPERTS, budget, full)
        assert isinstance(found, Infeasible)
        assert (found.kind, words in found.reason) == (kind, True), found


def test_a_small_replica_that_would_span_two_nodes_is_refused() -> None:
    plans = enumerate_plans(DENSE, Budget(3, 8, "dgx-h100"), only={"tp": [1], "cp": [1], "pp": [3]})
    found = [check(scenario(DENSE.name), DENSE, Budget(3, 8, "dgx-h100"), plan) for plan in plans]
    assert found and all(isinstance(each, Infeasible) and each.kind == "nodes" for each in found)
    assert "replicas of 3 GPUs don't divide the 8 of a dgx-h100" in found[0].reason  # type: ignore[union-attr]


def test_a_policy_without_pipelines_leaves_one_stage() -> None:
    base, budget = scenario(DENSE.name, batching="fastgen"), Budget(1, 2, "h")
    plans = enumerate_plans(DENSE, budget, only={"tp": [1], "cp": [1]} if "cp" in _names() else {"tp": [1]})
    feasible, refused = prune(base, DENSE, budget, plans)
    assert [plan.by_name["pp"] for plan, _ in feasible] == [1]
    assert [(each.plan.by_name["pp"], each.kind) for each in refused] == [(2, "engine")]
    assert "has no pipeline parallelism" in refused[0].reason


# ---------------------------------------------------------------------------------------- heuristic, none feasible


def test_the_heuristic_is_tensor_parallelism_over_a_node_and_replicas_over_nodes() -> None:
    feasible, _ = prune(scenario(LARGE.name), LARGE, Budget(2, 8, "n"), enumerate_plans(LARGE, Budget(2, 8, "n")))
    found = heuristic([plan for plan, _ in feasible])
    assert found is not None and found.text == "2 x (tp 8)"


def test_the_heuristic_has_stages_only_where_the_model_needs_them() -> None:
    model = load_model("llama-3.1-405b")
    budget = Budget(4, 8, "n")
    feasible, refused = prune(scenario(model.name), model, budget, enumerate_plans(model, budget))
    found = heuristic([plan for plan, _ in feasible])
    assert found is not None and found.text == "2 x (tp 8, pp 2)"
    assert any(each.plan.text == "4 x (tp 8)" and each.kind == "memory" for each in refused)


def test_where_nothing_fits_the_refusal_names_what_would() -> None:
    model, budget = load_model("llama-3.1-405b"), Budget(1, 8, "dgx-h100")
    base = scenario(model.name)
    feasible, refused = prune(base, model, budget, enumerate_plans(model, budget))
    assert not feasible
    said = refusal(base, model, budget, refused)
    assert said.startswith("no plan of llama-3.1-405b can run on 1 x dgx-h100 (8 GPUs): ")
    assert "1 x (tp 8): llama-3.1-405b does not fit on h100-sxm with tp=8 pp=1" in said
    assert said.endswith("2 x dgx-h100 would do (1 x (tp 8, pp 2))")


@pytest.mark.skipif("cp" not in {each.name for each in plan_space.dimensions()}, reason="plans have no cp")
def test_context_parallel_ranks_share_a_node_with_tensor_parallel_ones_as_the_scenario_says() -> None:
    budget = Budget(2, 4, "n")
    plans = enumerate_plans(DENSE, budget, only={"pp": [1]})
    assert {(plan.by_name["tp"], plan.by_name["cp"]) for plan in plans if plan.gpus_per_replica == 8} == {
        (2, 4),
        (4, 2),
    }
    base = scenario(DENSE.name, parallel={"context": "ulysses"}, node="hgx-h200")
    plan = next(plan for plan in plans if plan.text == "4 x (tp 1, cp 2)")
    found = check(base, DENSE, budget, plan)
    assert isinstance(found, Resolved) and found.pools[0].plan.context == "ulysses"
    across = check(base, DENSE, budget, next(plan for plan in plans if plan.gpus_per_replica == 8))
    assert isinstance(across, Infeasible) and across.kind == "nodes"


def test_a_search_that_would_hardly_end_is_refused_with_what_to_narrow() -> None:
    keys: dict[str, object] = {"workload": {"trace": "bundled:burstgpt-style"}}
    with pytest.raises(InputError, match=r"100,000 GPUs can be laid out in 3,\d+ plans.*--only tp=4,8"):
        search(keys, gpus=100_000)
