"""From a scenario's KV budget to what the memory plan, the engine and the costs take, and what results say of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from policies import registry
from policies.budget import KVBudget, ModelFacts
from policies.protocols import KVBudgetPolicy, PolicyError
from simulator.errors import InputError
from simulator.models.dtypes import DTYPE_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hardware_profiles import Accelerator
    from simulator.cost.shape import CostModel
    from simulator.models import ModelSpec
    from simulator.parallel import ParallelPlan
    from simulator.run_data import RunData
    from simulator.scenario import Pool


def model_facts(model: ModelSpec, kv_dtype: str | None = None, activation_dtype: str | None = None) -> ModelFacts:
    """Return what a budget policy may know of a model, with its datatypes; None: the model's own."""
    return ModelFacts(
        num_layers=model.num_layers,
        hidden_size=model.hidden_size,
        num_heads=model.num_heads,
        num_kv_heads=model.num_kv_heads,
        head_dim=model.head_dim,
        kv_elements=model.kv_elements_per_token_layer(),
        kv_bits=8 * DTYPE_BYTES[kv_dtype or model.base_dtype],
        activation_bits=8 * DTYPE_BYTES[activation_dtype or model.base_dtype],
    )


def resolve_budget(pool: Pool, index: int, model: ModelSpec, plan: ParallelPlan) -> KVBudget | None:
    """Return the budget of a pool; None where it has none.

    Raises
    ------
    InputError
        If it can't be modelled with this model, layout or engine.
    """
    if pool.kv_budget is None:
        return None
    policy = registry.make("kv_budget", pool.kv_budget.name, pool.kv_budget.params)
    assert isinstance(policy, KVBudgetPolicy)
    where = f"cluster.pools.{index}.kv_budget"
    facts = model_facts(model, pool.dtypes.kv, pool.dtypes.activations)
    try:
        budget = policy.budget(facts)
    except PolicyError as error:
        raise InputError(f"{where}: {error}") from error
    if budget.num_layers != model.num_layers:
        raise InputError(
            f"{where}: policy {policy.name!r} declares {budget.num_layers} layers, and {model.name} has "
            f"{model.num_layers}"
        )
    if model.num_sliding_layers:
        raise InputError(
            f"{where}: {model.name} has layers with a sliding window, with which a budget is not modelled; choose "
            "another model, or leave it out"
        )
    if model.mla is not None and budget.read_bits != facts.token_bits:
        raise InputError(
            f"{where}: {policy.name!r} changes the bits read of each token, and decode attention of {model.name} is "
            "bound by arithmetic (a latent shared by all heads); use dtypes.kv, or a budget of tokens"
        )
    if plan.pp > 1 and len(budget.groups) > 1:
        raise InputError(
            f"{where}: {policy.name!r} treats layers differently, which is not modelled with pipeline stages "
            f"(pp={plan.pp}); use pp=1 and a larger tp"
        )
    if plan.cp > 1:
        raise InputError(f"{where}: not modelled with context parallelism (cp={plan.cp}); use cp=1 and a larger tp")
    if pool.offload is not None:
        raise InputError(f"{where}: not modelled together with 'offload'; leave out one of the two")
    if pool.engine.shared_prefix_attention is not None:
        raise InputError(
            f"{where}: not modelled together with engine.shared_prefix_attention; leave out one of the two"
        )
    if not budget.shares_prefixes and pool.engine.prefix_caching:
        raise InputError(
            f"cluster.pools.{index}.engine.prefix_caching: tokens that {policy.name!r} drops are missing from a "
            "prefix, so nobody else can use it; leave prefix_caching out, or set it to false"
        )
    return budget


def without_prefixes(budget: KVBudget | None, limits: dict[str, Any], name: str) -> list[str]:
    """Switch the prefix cache off where a budget leaves no whole prefix; return notes on it."""
    if budget is None or budget.shares_prefixes or not limits["prefix_caching"]:
        return []
    limits["prefix_caching"] = False
    return [f"prefix caching is off: KV budget {name!r} drops tokens, so a prefix isn't whole for anybody else"]


def memory_terms(budget: KVBudget | None, model: ModelSpec, kv_dtype: str | None) -> Mapping[str, Any]:
    """Return what `simulator.memory.plan_memory` takes for a budget."""
    if budget is None:
        return {}
    share = budget.token_bits / model_facts(model, kv_dtype).token_bits
    return {"kv_share": share, "residual_tokens": budget.residual_tokens}


def budget_cost(
    inner: CostModel, budget: KVBudget | None, model: ModelSpec, pool: Pool, accelerator: Accelerator, ranks: int
) -> CostModel:
    """Return the costs under a budget; those without where it changes none, or where every step takes the same."""
    if budget is None or pool.cost.kind == "constant":
        return inner
    from simulator.cost.budget_cost import BudgetCost, Rates

    dtype = pool.dtypes.activations or model.base_dtype
    rates = Rates.of(
        peak_flops=accelerator.peak_flops.get(dtype) or max(accelerator.peak_flops.values()),
        memory_bandwidth=accelerator.memory_bandwidth,
        host_bandwidth=accelerator.pcie_bandwidth,
        ranks=ranks,
    )
    return BudgetCost(inner, budget, model_facts(model, pool.dtypes.kv).token_bits, rates)


def describe_kv_budget(data: RunData) -> dict[str, Any]:
    """Return the section ``kv_budget`` of a summary: what each pool with a budget keeps."""
    pools = []
    for pool in data.pools:
        budget = pool.kv_budget
        if budget is None:
            continue
        full = model_facts(pool.model or data.model, pool.kv_dtype)
        pools.append(
            {
                "pool": pool.name,
                "policy": pool.kv_budget_name,
                "bytes_per_token_layer": budget.token_bits / 8,
                "compression": full.token_bits / budget.token_bits,
                "read_share": budget.read_share,
                "drops_tokens": budget.capped,
                "kept_tokens_of_a_1000_token_prompt": budget.kept_tokens(1000),
                "offloads": budget.offload is not None,
            }
        )
    return {"pools": pools, "reason": None}
