"""The power of one pool's replicas: from the accelerator's profile, the model's work, and what the scenario gives.

FLOPs and bytes of a step are those of the tokens in it, as in `simulator.model_work`: weights are read once a step (of
routed experts those that some token visits, routed uniformly), by context parallel ranks each its own; the keys and
values that decodes and chunks attend to once each, also where sequences share them or a KV budget drops them. Not in
it: activations, collectives (GPU-to-GPU links), transfers of KV and of what is offloaded, the host. Latent attention
counts in its plain form. With attention data parallelism, a replica here is one of the ranks; what a rank computes for
the others' tokens is theirs, and its dummy steps draw nothing.

Measured kernel power is no input: the only tables that have it (aiconfigurator-core, vLLM 0.22.0 on B200, attention and
experts alone) lack it for the dense products, and don't follow utilisation (docs/power.md gives figures).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from simulator.cost.kernels import math_dtype
from simulator.cost.operators import idle_experts
from simulator.cost.shape import BatchShape
from simulator.errors import InputError
from simulator.model_work import attention_flops_per_token, body_parameters
from simulator.models import weight_bytes_by_family, weight_formats
from simulator.models.dtypes import DTYPE_BYTES
from simulator.power.constants import (
    ACTIVE_SHARE,
    COMPUTE_SHARE,
    FREQUENCY_EXPONENT,
    IDLE_SHARE,
    MEMORY_SHARE,
)
from simulator.power.step_energy import StepEnergy

if TYPE_CHECKING:
    from hardware_profiles import Accelerator
    from simulator.cost.shape import CostModel
    from simulator.models.spec import ModelSpec
    from simulator.parallel import ParallelPlan
    from simulator.scenario_power import PoolPower

_MAX_EXPERT_TOKENS = 4096  # beyond, every expert has tokens
_PJ = 1e12
_MW = 1000.0


@dataclass(frozen=True)
class PowerModel:
    """Power of one pool.

    Attributes
    ----------
    idle_w
        Of one accelerator of a replica that is up, without a batch in flight.
    limit_w, board_w
        Most that one accelerator draws: its board's limit or the scenario's cap; its board's limit.
    overhead_w
        Of the rest of the server, for each accelerator, whether anything runs or not.
    steps
        Energy of steps.
    sources
        Where each figure comes from, a line each.
    clock
        Highest clock, over the accelerator's own.
    peak_flops
        Of the accelerators of one pipeline stage in the datatype of the feed-forward's products, FLOP/s.
    flops
        FLOPs of a step: of a token, a row of logits, a token attended to in full and in sliding layers.
    """

    idle_w: float
    limit_w: float
    board_w: float
    overhead_w: float
    steps: StepEnergy
    sources: tuple[str, ...]
    clock: float = 1.0
    peak_flops: float = 0.0
    flops: Mapping[str, float] | None = None


def power_model(
    accelerator: Accelerator,
    model: ModelSpec,
    plan: ParallelPlan,
    given: PoolPower,
    *,
    gpus_per_node: int | None,
    weights_dtype: str | None = None,
    activation_dtype: str | None = None,
    kv_dtype: str | None = None,
    by_time: bool = False,
    where: str = "power",
) -> PowerModel:
    """Return the power model of a pool.

    Parameters
    ----------
    given
        What the scenario says of the pool's power.
    gpus_per_node
        Of the pool's server type; None where none was named.
    by_time
        Steps say nothing of work (constant costs): a batch in flight draws ``busy_w``, left out: the limit.
    where
        Key of the pool in the scenario, for messages.

    Raises
    ------
    InputError
        For a cap that can't be: below idle and active power, above the board's limit.
    """
    idle_w, idle_source = _idle(accelerator, given)
    limit_w = accelerator.tdp_w if given.cap_w is None else given.cap_w
    active_w = ACTIVE_SHARE * accelerator.tdp_w
    if limit_w > accelerator.tdp_w:
        raise InputError(
            f"{where}.cap_w = {limit_w:g} is above the {accelerator.tdp_w:g} W that {accelerator.name} draws at most; "
            "leave it out, or lower it"
        )
    least_w = idle_w + 2 * active_w
    if given.cap_w is None and limit_w < least_w:
        raise InputError(
            f"{where}.idle_w = {idle_w:g} leaves {accelerator.name} nothing to compute with: it draws {limit_w:g} W at "
            f"most, of which {2 * active_w:g} W must be left for steps; at most {limit_w - 2 * active_w:g} W would do"
        )
    if limit_w < least_w:
        raise InputError(
            f"{where}.cap_w = {limit_w:g} leaves {accelerator.name} nothing to compute with: it draws {idle_w:g} W "
            f"idle and {active_w:g} W more whenever a step runs; at least {least_w:.0f} W would do"
        )
    overhead_w, overhead_source = _overhead(given, gpus_per_node, where)
    sources = [
        f"{accelerator.name}: {accelerator.tdp_w:g} W at most ({accelerator.sources.get('tdp_w', 'given')})",
        f"idle {idle_w:g} W ({idle_source})",
        *overhead_source,
    ]
    if given.cap_w is not None:
        sources.append(f"capped at {given.cap_w:g} W")
    if given.clock is not None:
        sources.append(f"clock held at {given.clock:g} of its own")
    clock = given.clock or 1.0
    if by_time or given.busy_w is not None:
        busy_w = limit_w if given.busy_w is None else given.busy_w
        if not idle_w <= busy_w <= limit_w:
            raise InputError(f"{where}.busy_w = {busy_w:g} must lie between idle, {idle_w:g} W, and {limit_w:g} W")
        said = "given" if given.busy_w is not None else "the most it draws, an upper bound: constant step times"
        sources.append(f"{busy_w:g} W with a batch in flight ({said})")
        busy = StepEnergy(round((busy_w - idle_w) * plan.rank_gpus * _MW))
        return PowerModel(idle_w, limit_w, accelerator.tdp_w, overhead_w, busy, tuple(sources), clock)
    sources.append(
        f"estimate by utilisation, not measured: of the limit {ACTIVE_SHARE:g} with a batch in flight, "
        f"{MEMORY_SHARE:g} at full bandwidth, {COMPUTE_SHARE:g} at peak FLOP/s, cut at the limit"
    )
    formats = weight_formats(model, weights_dtype)
    family = "experts" if model.is_moe else "gate_up"
    dtype = math_dtype(accelerator, formats[family], activation_dtype or model.base_dtype)
    peak = accelerator.peak_flops.get(dtype) or max(accelerator.peak_flops.values())
    # Dynamic power goes as clock^a, the time of arithmetic as 1 / clock: a FLOP's energy as clock^(a - 1).
    slower = clock ** (FREQUENCY_EXPONENT - 1)
    pj_per_flop = COMPUTE_SHARE * accelerator.tdp_w / peak * _PJ * slower
    pj_per_byte = MEMORY_SHARE * accelerator.tdp_w / accelerator.memory_bandwidth * _PJ
    weights = weight_bytes_by_family(model, weights_dtype)
    table = 0 if model.tied_embeddings else weights["embedding"]  # looked up, not read
    kv_bytes = DTYPE_BYTES[kv_dtype or model.base_dtype] * model.kv_elements_per_token_layer()
    full, sliding = model.full_attention_layers, model.num_sliding_layers
    pair = attention_flops_per_token(model) * pj_per_flop
    read = kv_bytes * pj_per_byte
    flops = {
        "token": 2.0 * body_parameters(model),
        "row": 2.0 * model.vocab_size * model.hidden_size,
        "attended": float(attention_flops_per_token(model) * full),
        "window": float(attention_flops_per_token(model) * sliding),
    }
    stage_gpus = plan.rank_gpus // plan.pp
    steps = StepEnergy(
        busy_mw=round(active_w * plan.rank_gpus * _MW),
        limit_mw=round((limit_w - idle_w - active_w) * stage_gpus * _MW),
        step_pj=round((sum(weights.values()) - weights["experts"] - table) * pj_per_byte * plan.cp),
        token_pj=round(flops["token"] * pj_per_flop),
        row_pj=round(flops["row"] * pj_per_flop),
        attended_pj=round((pair + read) * full),
        window_pj=round((pair + read) * sliding),
        pair_pj=2 * round(pair * full / 2),
        window_pair_pj=round(pair * sliding),
        context_pj=round(read * full),
        window_context_pj=round(read * sliding),
        experts_pj=_experts(model, weights["experts"] * pj_per_byte, plan.dp, plan.cp),
        window=model.sliding_window if sliding else None,
        stages=plan.pp,
    )
    return PowerModel(
        idle_w, limit_w, accelerator.tdp_w, overhead_w, steps, tuple(sources), clock, peak * stage_gpus, flops
    )


def _idle(accelerator: Accelerator, given: PoolPower) -> tuple[float, str]:
    if given.idle_w is not None:
        return given.idle_w, "given"
    if accelerator.idle_w is not None:
        return accelerator.idle_w, accelerator.sources.get("idle_w", "given")
    return IDLE_SHARE * accelerator.tdp_w, f"an assumption: {IDLE_SHARE:g} of the limit"


def _overhead(given: PoolPower, gpus_per_node: int | None, where: str) -> tuple[float, tuple[str, ...]]:
    """Return the watts of the rest of a server for each accelerator in it, and a line of it."""
    if given.node_overhead_w is None:
        return given.overhead_w_per_gpu, (f"rest of the server {given.overhead_w_per_gpu:g} W a GPU (given)",)[
            : given.overhead_w_per_gpu > 0
        ]
    if gpus_per_node is None:
        raise InputError(
            f"{where}.node_overhead_w needs the pool's 'node', to know how many GPUs share it; name one, or give "
            f"{where}.overhead_w_per_gpu"
        )
    each = given.node_overhead_w / gpus_per_node
    return each, (f"rest of the server {given.node_overhead_w:g} W for {gpus_per_node} GPUs (given)",)


def _experts(model: ModelSpec, whole_pj: float, ranks: int, copies: int) -> tuple[int, ...]:
    """Return the energy of reading routed experts' weights, by tokens of the step.

    With attention data parallelism the ranks share the experts: each counts its share of what as many tokens on every
    rank would touch. Context parallel ranks each have a copy, and a share of the tokens.
    """
    if model.moe is None:
        return ()
    idle = idle_experts(model, _MAX_EXPERT_TOKENS)[::ranks]
    each = (idle[-(-tokens // copies)] for tokens in range(len(idle)))
    return tuple(round((1.0 - float(share)) * whole_pj * copies / ranks) for share in each)


def with_watch(power: PowerModel, cost: CostModel, max_decodes: int) -> PowerModel:
    """Return the model with steps of few decodes, which can't reach the limit, marked so.

    A step of n decodes takes at least as long as one of n decodes without a context, and moves at most what the
    bandwidth lets through. Where the arithmetic of n decodes leaves it below the limit in that time, no step of n is at
    it (found by bisection). Attention is left out: it has far fewer FLOPs a byte than the limit would take.
    """
    steps = power.steps
    if steps.limit_mw is None or power.flops is None:
        return power
    memory_mw = MEMORY_SHARE / ACTIVE_SHARE * steps.busy_mw / steps.stages
    room_mw = steps.limit_mw - memory_mw
    if room_mw <= 0:
        return power
    shape = BatchShape()

    def below_limit(decodes: int) -> bool:
        shape.decodes = shape.logit_rows = shape.decode_window_growth = decodes
        shape.decode_kv = shape.decode_kv_sq = shape.decode_window_kv = decodes
        return decodes * (steps.token_pj + steps.row_pj) <= room_mw * cost.step_ns(shape)

    low, high = 0, max_decodes + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if below_limit(middle) else (low, middle)
    return replace(power, steps=replace(steps, watch_above=low))


__all__ = ["PowerModel", "power_model", "with_watch"]
