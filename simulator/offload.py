"""Offloading in a scenario: whether GPU, host and disk hold what they are to hold, and what a result says of it.

Following FlexGen (Sheng et al., arXiv:2303.06865, section 4.3 and ``experimental/cost_model.py``) the GPU needs,
besides its shares, room for two layers' weights on their way, for the hidden states and the widest operator of one GPU
batch and, unless decodes attend on the host, for two layers' KV of one GPU batch; the host needs as much for what comes
from disk.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from policies import registry
from simulator.cost.offload import (
    HOST_ATTENTION_BYTES_PER_S,
    HOST_LINK_EFFICIENCY,
    OffloadCost,
    Placement,
    Rates,
    Shares,
    Sizes,
)
from simulator.errors import InputError
from simulator.memory import FRAMEWORK_BYTES, MemoryPlan, activation_bytes, nccl_bytes
from simulator.models.dtypes import DTYPE_BYTES, WEIGHT_FORMATS, canonical_dtype
from simulator.sharding import kv_elements_per_token_layer, layer_weight_bytes, rank_heads, share, stage_weight_bytes

if TYPE_CHECKING:
    from hardware_profiles import Accelerator, NodeType
    from simulator.cost.shape import CostModel
    from simulator.models.spec import ModelSpec
    from simulator.parallel import ParallelPlan
    from simulator.run_data import PoolData
    from simulator.scenario import Pool

HOST_MEMORY_SHARE = 0.9
"""Share of a node's host memory that engines may use where the scenario doesn't say: an assumption."""

_GIB = 2**30


@dataclass(frozen=True)
class TierNeeds:
    """What one tier needs, bytes: whatever the KV, and for each token that the cache holds."""

    fixed: float
    per_token: float


@dataclass(frozen=True)
class OffloadSetup:
    """What is known before the shares are.

    Attributes
    ----------
    gpu_bytes, host_bytes, disk_bytes
        What each tier has: one GPU, and host memory and disk of the replica; None where the scenario doesn't say.
    activations
        Peak of one GPU batch on one GPU, bytes.
    block_tokens
        Most tokens of a step, whose hidden states are kept between two layers.
    other
        What else a GPU needs: framework and collectives, bytes.
    """

    sizes: Sizes
    rates: Rates
    gpu_batches: int
    gpu_bytes: int
    host_bytes: int | None
    disk_bytes: int | None
    activations: int
    block_tokens: int
    other: int

    def needs(self, place: Placement) -> dict[str, TierNeeds]:
        """Return what each tier needs under a placement: linear in its shares."""
        sizes, weights, kv, hidden = self.sizes, place.weights, place.kv, place.activations
        block = self.block_tokens * sizes.hidden
        passing = 2 * sizes.kv_layer / self.gpu_batches
        passing_weights = 2 * sizes.layer * weights.away
        on_gpu = TierNeeds(
            sizes.weights * weights.gpu + passing_weights + block * hidden.gpu + self.activations + self.other,
            sizes.kv * kv.gpu + (0.0 if self.rates.host_attention else passing * kv.away),
        )
        in_host = TierNeeds(
            sizes.ranks * (sizes.weights * weights.cpu + 2 * sizes.layer * weights.disk + block * hidden.cpu),
            sizes.ranks * (sizes.kv * kv.cpu + passing * kv.disk),
        )
        on_disk = TierNeeds(
            sizes.ranks * (sizes.weights * weights.disk + block * hidden.disk), sizes.ranks * sizes.kv * kv.disk
        )
        return {"gpu": on_gpu, "cpu": in_host, "disk": on_disk}

    @property
    def holds(self) -> dict[str, int | None]:
        """Bytes of each tier."""
        return {"gpu": self.gpu_bytes, "cpu": self.host_bytes, "disk": self.disk_bytes}


@dataclass(frozen=True)
class OffloadPlan:
    """A pool's offloading with everything decided.

    Attributes
    ----------
    memory
        Of one GPU; ``num_kv_blocks`` is what all tiers together hold.
    used_bytes
        By tier: fixed needs and the whole KV cache, host and disk for all ranks.
    """

    setup: OffloadSetup
    place: Placement
    overlap: bool
    memory: MemoryPlan
    used_bytes: Mapping[str, int]

    def cost(self, base: CostModel, memory_bandwidth: float) -> OffloadCost:
        """Return the cost model of the pool on top of that with everything on the GPU."""
        return OffloadCost(
            base,
            self.setup.sizes,
            self.setup.rates,
            self.place,
            overlap=self.overlap,
            gpu_batches=self.setup.gpu_batches,
            memory_bandwidth=memory_bandwidth,
        )


def plan_offload(
    pool: Pool,
    model: ModelSpec,
    accelerator: Accelerator,
    node: NodeType | None,
    plan: ParallelPlan,
    limits: Mapping[str, Any],
    batching: Mapping[str, Any],
    where: str,
) -> OffloadPlan:
    """Return a pool's offloading: shares as given, or found by a linear programme.

    Raises
    ------
    InputError
        If a tier is too small, or the pool asks for what isn't modelled with offloading.
    """
    from simulator.offload_placement import best_placement

    assert pool.offload is not None
    where = f"{where}.offload"
    _check(pool, model, plan, limits, where)
    setup = _setup(pool, model, accelerator, node, plan, limits, batching)
    if pool.offload.placement is not None:
        place = best_placement(setup, pool, model, accelerator, plan, limits, where)
    else:
        given = (pool.offload.weights, pool.offload.kv, pool.offload.activations)
        place = Placement(*(Shares(tiers.gpu, tiers.cpu, tiers.disk) for tiers in given))
    blocks = _blocks(setup, place, limits["block_size"], where)
    wanted = limits["num_kv_blocks"]
    if wanted is not None and wanted > blocks:
        raise InputError(f"{where}: num_kv_blocks={wanted} is more than the {blocks} blocks that the tiers hold")
    blocks = blocks if wanted is None else wanted
    needs = setup.needs(place)
    tokens = blocks * limits["block_size"]
    used = {tier: math.ceil(need.fixed + need.per_token * tokens) for tier, need in needs.items()}
    sizes = setup.sizes
    memory = MemoryPlan(
        model=model.name,
        accelerator=accelerator.name,
        tp=plan.tp,
        pp=plan.pp,
        stage=0,
        total=accelerator.process_memory_bytes,
        reserve=accelerator.process_memory_bytes - setup.gpu_bytes,
        weights=math.ceil(sizes.weights * place.weights.gpu + 2 * sizes.layer * place.weights.away),
        activations=math.ceil(setup.activations + setup.block_tokens * sizes.hidden * place.activations.gpu),
        framework=FRAMEWORK_BYTES,
        nccl=nccl_bytes(plan.gpus),
        cuda_graphs=0,
        cuda_graphs_in_budget=False,
        kv_bytes=math.ceil(needs["gpu"].per_token * tokens),
        kv_window_bytes=0,
        kv_bytes_per_token=sizes.kv,
        block_size=limits["block_size"],
        num_kv_blocks=blocks,
        given_blocks=wanted is not None,
    )
    return OffloadPlan(setup, place, pool.offload.overlap, memory, used)


def _check(pool: Pool, model: ModelSpec, plan: ParallelPlan, limits: Mapping[str, Any], where: str) -> None:
    if plan.gpus > plan.tp:
        raise InputError(f"{where}: modelled for tensor parallelism alone; set the other sizes of 'parallel' to 1")
    if pool.cost.kind == "constant":
        raise InputError(
            f"{where} changes nothing where every step takes the same time; use another cost than constant"
        )
    if pool.engine.name is not None:
        raise InputError(
            f"{where}: engine {pool.engine.name!r} plans its memory by itself; leave engine.name out, and choose a "
            "batching policy (static, flexgen)"
        )
    if model.mla is not None:
        raise InputError(f"{where}: not modelled for latent attention (MLA), which {model.name} has; leave it out")
    if limits["swap_space_gib"]:
        raise InputError(
            f"{where}: host memory for swapped requests (engine.swap_space_gib = {limits['swap_space_gib']:g}) is not "
            "modelled beside it; set it to 0, and use a batching policy that doesn't swap"
        )
    if pool.engine.shared_prefix_attention is not None:
        raise InputError(f"{where}: not modelled with engine.shared_prefix_attention; leave one of them out")


def _setup(
    pool: Pool,
    model: ModelSpec,
    accelerator: Accelerator,
    node: NodeType | None,
    plan: ParallelPlan,
    limits: Mapping[str, Any],
    batching: Mapping[str, Any],
) -> OffloadSetup:
    offload = pool.offload
    assert offload is not None
    policy = registry.make("batching", batching["name"], batching["params"])
    batches = offload.gpu_batches or int(getattr(policy, "num_gpu_batches", 1))
    kv_dtype = canonical_dtype(pool.dtypes.kv or model.base_dtype, f"KV cache of {model.name}")
    width = DTYPE_BYTES[canonical_dtype(pool.dtypes.activations or model.base_dtype, f"activations of {model.name}")]
    kv_layer = -(-kv_elements_per_token_layer(model, plan.tp) * WEIGHT_FORMATS[kv_dtype].element_bits // 8)
    kinds = {model.is_moe_layer(layer) for layer in range(model.num_layers)}
    sizes = Sizes(
        ranks=plan.tp,
        weights=stage_weight_bytes(model, plan, pool.dtypes.weights)[0],
        layer=max(layer_weight_bytes(model, plan, kind, pool.dtypes.weights) for kind in kinds),
        kv=kv_layer * model.num_layers,
        kv_layer=kv_layer,
        hidden=math.ceil(model.hidden_size * width),
        queries=math.ceil(rank_heads(model, plan.tp) * model.head_dim * width),
        layers=model.num_layers,
    )
    attention = None
    if offload.host_attention:
        given = offload.host_attention_gb_per_s
        attention = HOST_ATTENTION_BYTES_PER_S if given is None else given * 1e9
    read, write = offload.disk_read_gb_per_s, offload.disk_write_gb_per_s
    host = None if offload.host_memory_gib is None else int(offload.host_memory_gib * _GIB)
    if host is None and node is not None:
        host = int(HOST_MEMORY_SHARE * node.host_memory_bytes * plan.tp / node.gpus)
    tokens, rows = share(limits["max_num_batched_tokens"], batches), share(limits["max_num_seqs"], batches)
    return OffloadSetup(
        sizes=sizes,
        rates=Rates(
            accelerator.pcie_bandwidth * HOST_LINK_EFFICIENCY,
            None if read is None else read * 1e9,
            None if write is None else write * 1e9,
            attention,
        ),
        gpu_batches=batches,
        gpu_bytes=math.ceil(accelerator.process_memory_bytes * limits["gpu_memory_utilization"]),
        host_bytes=host,
        disk_bytes=None if offload.disk_gib is None else int(offload.disk_gib * _GIB),
        activations=activation_bytes(model, plan.tp, tokens, rows),
        block_tokens=limits["max_num_batched_tokens"],
        other=FRAMEWORK_BYTES + nccl_bytes(plan.gpus),
    )


_NAMES = {"gpu": "the GPU", "cpu": "host memory", "disk": "the disk"}
_REMEDIES = {
    "gpu": "smaller gpu shares, a smaller max_num_batched_tokens or more gpu_batches",
    "cpu": "smaller cpu shares, or a larger host_memory_gib",
    "disk": "smaller disk shares, or a larger disk_gib",
}


def _blocks(setup: OffloadSetup, place: Placement, block_size: int, where: str) -> int:
    """Return the KV blocks that all tiers have room for.

    Raises
    ------
    InputError
        If one has room for none, or its size isn't known.
    """
    least: int | None = None
    for tier, need in setup.needs(place).items():
        has = setup.holds[tier]
        if not need.fixed and not need.per_token:
            continue
        if has is None:
            raise InputError(
                f"{where}: something lives in {_NAMES[tier]}, whose size isn't known; give "
                + ("a node, or host_memory_gib" if tier == "cpu" else "disk_gib")
            )
        block = need.per_token * block_size
        if need.fixed + block > has:
            raise InputError(
                f"{where}: {_NAMES[tier]} is too small: it needs {need.fixed / 1e9:.1f} GB without KV and "
                f"{block / 1e6:.1f} MB for each KV block, and has {has / 1e9:.1f} GB; use {_REMEDIES[tier]}"
            )
        if block:
            room = int((has - need.fixed) // block)
            least = room if least is None else min(least, room)
    assert least is not None  # the shares of KV add up to 1
    return least


def describe_offload(pools: Sequence[PoolData]) -> dict[str, Any]:
    """Return where the pools' weights, KV and hidden states live, for the summary; some pool offloads.

    By pool: the shares of each, and ``used_bytes`` by tier with a full KV cache, of one GPU, and of host and disk of
    one replica.
    """
    found = {}
    for pool in pools:
        plan = pool.offload
        if plan is not None:
            shares = {name: getattr(plan.place, name) for name in ("weights", "kv", "activations")}
            found[pool.name] = {
                **{name: {"gpu": each.gpu, "cpu": each.cpu, "disk": each.disk} for name, each in shares.items()},
                "gpu_batches": plan.setup.gpu_batches,
                "used_bytes": dict(plan.used_bytes),
            }
    return {"pools": found}
