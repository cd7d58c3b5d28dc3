"""Memory of one replica's GPUs: what the engine needs, and the KV cache that the rest makes.

Follows vLLM V1, which measures where this computes (``determine_available_memory`` in its ``v1/worker/gpu_worker.py``):
KV memory = total memory x ``gpu_memory_utilization`` - weights - peak of a profiling run - memory outside PyTorch. The
profiling run is a forward pass of ``max_num_batched_tokens`` tokens, then sampling for ``max_num_seqs`` requests. Every
GPU of a stage needs the same; the stage that has room for the fewest blocks decides for all, as in vLLM.

Layers with a sliding window: vLLM's hybrid KV manager keeps only the window for them (``hybrid_kv``). Its pool is
shared by all layers, so how many tokens fit depends on the lengths of the requests. Here ``max_num_seqs`` full windows
are set aside and the rest holds the layers that attend to everything; or all layers keep all tokens, whichever holds
more. Requests much longer than the window see what vLLM has; not modelled are the tokens that a prefill chunk holds
beyond the window until its step ends, and the blocks that vLLM's groups of equal size leave unused.

A KV budget (`policies.budget`) changes what a token takes, scales and low-rank parts included, and may leave the latest
tokens of each request uncompressed: that is set aside for ``max_num_seqs`` requests, like windows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from simulator.errors import InputError
from simulator.models.dtypes import DTYPE_BYTES, WEIGHT_FORMATS, canonical_dtype
from simulator.models.weights import weight_formats
from simulator.parallel import ParallelPlan, tp_feasible
from simulator.sharding import (
    kv_elements_per_token_layer,
    rank_heads,
    rank_kv_heads,
    share,
    stage_weight_bytes,
)

if TYPE_CHECKING:
    from hardware_profiles import Accelerator
    from simulator.models.spec import ModelSpec

_GB = 1e9
_MIB = 2**20

DEFAULT_GPU_MEMORY_UTILIZATION = 0.9
"""Share of the memory that the engine may use: vLLM's default."""

SAMPLER_BYTES_PER_LOGIT = 39
"""Bytes that PyTorch holds at its peak for each logit (rows x vocabulary) of a sampling step with top-p and top-k: fp32
copy, sorted values with int64 indices and the sort's second buffers, softmax, cumulative sum, masks. From vLLM logs of
256 rows: 1.26 GiB for Llama-3-8B with 1 and with 2 GPUs (vLLM pull request 10511) and 1.39 GiB for Qwen2.5-1.5B (vLLM
issue 12529), less the hidden states."""

FRAMEWORK_BYTES = 100 * _MIB
"""Memory outside PyTorch that grows while the engine loads (cuBLAS workspaces, kernels), on one GPU. vLLM logs 0.04 to
0.2 GiB as ``non_torch_memory`` (issues 12529 and 15340). The CUDA context is there before the engine measures, and
counts against the reserve."""

NCCL_BYTES = {2: 342 * _MIB, 4: 392 * _MIB}
"""NCCL's buffers on one GPU by number of ranks (the largest key that is not above it): ``nccl_mem`` of the system files
in aiconfigurator-core 0.12.0."""

CUDA_GRAPH_BYTES = 512 * _MIB
"""Captured CUDA graphs on one GPU, an assumption. What vLLM logs differs by model and number of sizes captured: an
estimate of 0.36 GiB for 16 sizes (gpustack/runner pull request 251), 2.4 GiB in vLLM 0.5.4 (vLLM issue 7553)."""

MOE_CHUNK_TOKENS = 32768
"""Tokens for which vLLM's fused MoE kernel holds intermediate rows at a time (``VLLM_FUSED_MOE_CHUNK_SIZE``)."""

_TRIED_TP = (1, 2, 4, 8, 16)
_TRIED_DTYPES = ("fp8", "int4")


class MemoryTooSmallError(InputError):
    """A model that does not fit; the message says what would."""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Memory of one GPU, of the stage with the least room for KV; every term in bytes.

    Attributes
    ----------
    model, accelerator, tp, pp
        What the plan is for.
    stage
        The pipeline stage, from 0.
    total
        Memory that a process sees.
    reserve
        What the engine leaves alone: (1 - ``gpu_memory_utilization``) x total.
    weights
        One rank's slice of the stage's weights, scales included.
    activations
        Peak of the profiling run.
    framework
        Outside PyTorch, without NCCL.
    nccl
        Buffers of the collectives; 0 on one GPU.
    cuda_graphs
        Captured graphs.
    cuda_graphs_in_budget
        Whether they are taken from the KV memory (vLLM from 0.21) or from the reserve (before).
    kv_bytes
        What is left for KV.
    kv_window_bytes
        Of it, set aside for windows of sliding layers, or for the latest tokens that a KV budget leaves uncompressed.
    kv_bytes_per_token
        Per further token in the cache.
    block_size
        Tokens of a block.
    num_kv_blocks
        Blocks that fit, or as given.
    given_blocks
        Whether the number of blocks was given, as an engine reports it.
    dp, ep
        Attention data parallel ranks, each with a KV cache of its own as planned here, and expert parallel GPUs.
    """

    model: str
    accelerator: str
    tp: int
    pp: int
    stage: int
    total: int
    reserve: int
    weights: int
    activations: int
    framework: int
    nccl: int
    cuda_graphs: int
    cuda_graphs_in_budget: bool
    kv_bytes: int
    kv_window_bytes: int
    kv_bytes_per_token: int
    block_size: int
    num_kv_blocks: int
    given_blocks: bool = False
    dp: int = 1
    ep: int = 1

    @property
    def layout(self) -> str:
        """The parallel layout in words."""
        return f"tp={self.tp} pp={self.pp}" + (f" dp={self.dp} ep={self.ep}" if self.dp > 1 else "")

    @property
    def kv_tokens(self) -> int:
        """Tokens that the KV cache holds, of one rank."""
        return self.num_kv_blocks * self.block_size

    @property
    def needed(self) -> int:
        """Bytes that the engine needs before any KV, within its budget."""
        graphs = self.cuda_graphs if self.cuda_graphs_in_budget else 0
        return self.weights + self.activations + self.framework + self.nccl + graphs

    @property
    def budget(self) -> int:
        """Bytes that the engine may use."""
        return self.total - self.reserve

    def explain(self) -> str:
        """Return a table for people: each term of one GPU, in GB (10^9 bytes)."""
        graphs = "cuda graphs" if self.cuda_graphs_in_budget else "(cuda graphs, from the reserve)"
        rows = [
            ("total", self.total),
            ("reserve", -self.reserve),
            ("weights", -self.weights),
            ("activations, peak", -self.activations),
            ("framework", -self.framework),
            ("nccl", -self.nccl),
            (graphs, -self.cuda_graphs),
            ("left for kv", self.kv_bytes),
        ]
        if self.kv_window_bytes:
            rows.append(("of it, set aside", self.kv_window_bytes))
        width = max(len(name) for name, _ in rows)
        blocks = "as given" if self.given_blocks else f"{self.kv_bytes_per_token} B a token"
        return "\n".join(
            [
                f"{self.model} on {self.accelerator}, {self.layout}: one GPU of stage {self.stage}, GB",
                *(f"  {name:<{width}} {value / _GB:9.3f}" for name, value in rows),
                f"  {self.num_kv_blocks} blocks of {self.block_size} = {self.kv_tokens} tokens ({blocks})",
            ]
        )


@dataclass(frozen=True, slots=True)
class _Limits:
    """What the terms depend on besides the stage."""

    block_size: int
    weights_dtype: str | None
    kv_dtype: str
    utilization: float
    max_num_batched_tokens: int
    max_num_seqs: int
    sampled_seqs: int
    cuda_graph_bytes: int
    cuda_graphs_in_budget: bool
    hybrid_kv: bool
    kv_share: float = 1.0
    residual_tokens: int = 0


def plan_memory(
    model: ModelSpec,
    accelerator: Accelerator,
    plan: ParallelPlan | None = None,
    *,
    block_size: int = 16,
    weights_dtype: str | None = None,
    kv_dtype: str | None = None,
    gpu_memory_utilization: float = DEFAULT_GPU_MEMORY_UTILIZATION,
    max_num_batched_tokens: int = 8192,
    max_num_seqs: int = 256,
    sampled_seqs: int | None = None,
    num_kv_blocks: int | None = None,
    cuda_graph_bytes: int = CUDA_GRAPH_BYTES,
    cuda_graphs_in_budget: bool = False,
    hybrid_kv: bool = True,
    kv_share: float = 1.0,
    residual_tokens: int = 0,
    larger: Sequence[Accelerator] = (),
) -> MemoryPlan:
    """Return the memory plan of one replica.

    Parameters
    ----------
    model, accelerator
        What runs where.
    plan
        Parallel layout; None: one GPU.
    block_size
        Tokens of a KV block.
    weights_dtype
        As in `simulator.models.weights.weight_formats`; None: as published.
    kv_dtype
        Datatype of the cache; None: the model's 16-bit datatype.
    gpu_memory_utilization
        Share of the memory that the engine may use, in (0, 1].
    max_num_batched_tokens, max_num_seqs
        The engine's limits a step: tokens, and requests.
    sampled_seqs
        Requests for which the profiling run samples; None: all ``max_num_seqs``, as vLLM's does.
    num_kv_blocks
        Number of blocks as an engine reports it, taken instead of the computed one; None: compute it.
    cuda_graph_bytes, cuda_graphs_in_budget
        Captured graphs, bytes (0 in eager mode), and whether they are taken from the KV memory (vLLM from 0.21,
        as ``VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS`` says) or from the reserve (before).
    hybrid_kv
        Whether the engine frees what sliding windows have left behind.
    kv_share
        Bytes that a token takes over those of the datatype, where a KV budget compresses it.
    residual_tokens
        Latest tokens of each request that it leaves uncompressed.
    larger
        Accelerators to propose where this one is too small.

    Raises
    ------
    InputError
        If it does not fit: which term is too large, and what would fit.
    """
    plan = plan or ParallelPlan()
    plan.check(model)
    for name, value in (
        ("block_size", block_size),
        ("max_num_batched_tokens", max_num_batched_tokens),
        ("max_num_seqs", max_num_seqs),
    ):
        if value < 1:
            raise InputError(f"memory plan: {name} must be at least 1, got {value}")
    if not 0 < gpu_memory_utilization <= 1:
        raise InputError(f"memory plan: gpu_memory_utilization must be in (0, 1], got {gpu_memory_utilization}")
    if num_kv_blocks is not None and num_kv_blocks < 1:
        raise InputError(f"memory plan: num_kv_blocks must be at least 1, got {num_kv_blocks}")
    limits = _Limits(
        block_size,
        weights_dtype,
        canonical_dtype(kv_dtype or model.base_dtype, f"KV cache of {model.name}"),
        gpu_memory_utilization,
        max_num_batched_tokens,
        max_num_seqs,
        max_num_seqs if sampled_seqs is None else sampled_seqs,
        cuda_graph_bytes,
        cuda_graphs_in_budget,
        hybrid_kv,
        kv_share,
        residual_tokens,
    )
    worst = _worst_stage(model, accelerator, plan, limits)
    if num_kv_blocks is not None:
        return _with_blocks(worst, num_kv_blocks)
    if worst.num_kv_blocks < 1:
        raise MemoryTooSmallError(_does_not_fit(model, accelerator, worst, limits, larger))
    return worst


def activation_bytes(
    model: ModelSpec,
    tp: int,
    max_num_batched_tokens: int,
    sampled_seqs: int,
    last_stage: bool = True,
    dp: int = 1,
    moe_tp: int | None = None,
) -> int:
    """Return the peak of PyTorch's allocations in the profiling run on one rank, bytes.

    The larger of two instants, besides the hidden states and the residual of all tokens: the widest operator of a
    layer (query, key, value and attention output; or gate, up and their product; or the rows of the experts visited),
    or the sampler on full rows of logits (on the last stage), which every rank gathers. With attention data
    parallelism the experts see the tokens of all ``dp`` ranks, gathered, and ``moe_tp`` GPUs divide each expert; the
    rows that kernels make for experts of other GPUs are counted, as vLLM's fused kernel allocates them.
    """
    width = DTYPE_BYTES[model.base_dtype]
    tokens = max_num_batched_tokens
    heads = rank_heads(model, tp)
    if model.mla is not None:
        mla = model.mla
        per_head = 2 * (mla.qk_nope_head_dim + mla.qk_rope_head_dim) + mla.qk_nope_head_dim + 2 * mla.v_head_dim
        attention = heads * per_head + model.kv_elements_per_token_layer()
    else:
        attention = 2 * (heads + rank_kv_heads(model, tp)) * model.head_dim
    widest = tokens * attention
    if model.dense_layers:
        widest = max(widest, tokens * model.mlp_matrices * share(model.intermediate_size, tp))
    if model.moe is not None:
        inner = share(model.moe.expert_intermediate_size, tp if dp == 1 or moe_tp is None else moe_tp)
        gathered = tokens * dp
        rows = min(gathered, MOE_CHUNK_TOKENS) * model.moe.experts_per_token
        routed = rows * (max((model.mlp_matrices - 1) * inner, model.hidden_size) + inner)
        widest = max(widest, routed + gathered * model.hidden_size * (1 if dp == 1 else 2))
    forward = 2 * tokens * model.hidden_size + widest
    peak = math.ceil(forward * width)
    if last_stage:
        rows = min(sampled_seqs, tokens)
        sampler = rows * model.vocab_size * SAMPLER_BYTES_PER_LOGIT
        peak = max(peak, math.ceil(tokens * model.hidden_size * width) + sampler)
    return peak


def nccl_bytes(ranks: int) -> int:
    """Return the memory of NCCL's buffers on one GPU, bytes."""
    return max((size for count, size in NCCL_BYTES.items() if count <= ranks), default=0)


def _worst_stage(model: ModelSpec, accelerator: Accelerator, plan: ParallelPlan, limits: _Limits) -> MemoryPlan:
    """Plan of the stage with room for the fewest blocks, the first of several."""
    weights = stage_weight_bytes(model, plan, limits.weights_dtype)
    plans = [
        _stage_plan(model, accelerator, plan, limits, stage, members, weights[stage])
        for stage, members in enumerate(plan.stage_layers(model.num_layers))
    ]
    return min(plans, key=lambda candidate: (candidate.num_kv_blocks, candidate.stage))


def _stage_plan(
    model: ModelSpec,
    accelerator: Accelerator,
    plan: ParallelPlan,
    limits: _Limits,
    stage: int,
    layers: range,
    weights: int,
) -> MemoryPlan:
    """Plan of one GPU of a stage; blocks are negative where even the rest does not fit."""
    total = accelerator.process_memory_bytes
    budget = math.ceil(total * limits.utilization)
    last = stage == plan.pp - 1
    tokens, rows = share(limits.max_num_batched_tokens, plan.cp), share(limits.sampled_seqs, plan.cp)
    activations = activation_bytes(model, plan.tp, tokens, rows, last, plan.dp, plan.moe_tp)
    nccl = nccl_bytes(plan.gpus)
    graphs = limits.cuda_graph_bytes if limits.cuda_graphs_in_budget else 0
    left = budget - weights - activations - FRAMEWORK_BYTES - nccl - graphs
    bits = WEIGHT_FORMATS[limits.kv_dtype].element_bits
    per_layer = -(-kv_elements_per_token_layer(model, plan.attention_ranks) * bits // 8)
    if plan.context == "ring":
        per_layer = share(per_layer, plan.cp)  # a rank holds its share of the tokens, so that much of each on average
    window_bytes = 0
    if limits.kv_share != 1.0:
        whole, per_layer = per_layer, math.ceil(per_layer * limits.kv_share)
        window_bytes = limits.max_num_seqs * limits.residual_tokens * max(0, whole - per_layer) * len(layers)
    per_token = per_layer * len(layers)
    blocks = (left - window_bytes) // (per_token * limits.block_size)
    sliding = sum(model.is_sliding_layer(layer) for layer in layers) if model.sliding_window else 0
    if limits.hybrid_kv and 0 < sliding < len(layers) and model.sliding_window:
        kept = -(-model.sliding_window // limits.block_size) + 1  # a window may begin anywhere in a block
        window = limits.max_num_seqs * kept * limits.block_size * per_layer * sliding
        full = per_layer * (len(layers) - sliding)
        hybrid_blocks = (left - window) // (full * limits.block_size)
        if hybrid_blocks > blocks:
            blocks, per_token, window_bytes = hybrid_blocks, full, window
    return MemoryPlan(
        model=model.name,
        accelerator=accelerator.name,
        tp=plan.tp,
        pp=plan.pp,
        stage=stage,
        total=total,
        reserve=total - budget,
        weights=weights,
        activations=activations,
        framework=FRAMEWORK_BYTES,
        nccl=nccl,
        cuda_graphs=limits.cuda_graph_bytes,
        cuda_graphs_in_budget=limits.cuda_graphs_in_budget,
        kv_bytes=left,
        kv_window_bytes=window_bytes,
        kv_bytes_per_token=per_token,
        block_size=limits.block_size,
        num_kv_blocks=blocks,
        dp=plan.dp,
        ep=plan.ep,
    )


def _with_blocks(plan: MemoryPlan, blocks: int) -> MemoryPlan:
    """Return the plan with the number of blocks that an engine reported, and the bytes that they take."""
    size = blocks * plan.block_size * plan.kv_bytes_per_token + plan.kv_window_bytes
    return replace(plan, num_kv_blocks=blocks, kv_bytes=size, given_blocks=True)


def _does_not_fit(
    model: ModelSpec, accelerator: Accelerator, worst: MemoryPlan, limits: _Limits, larger: Sequence[Accelerator]
) -> str:
    """One line: which terms need how much, what there is, and what would fit."""
    block = worst.kv_bytes_per_token * worst.block_size + worst.kv_window_bytes
    terms = [
        ("weights", worst.weights),
        ("activations", worst.activations),
        ("framework and NCCL", worst.framework + worst.nccl),
    ]
    if worst.cuda_graphs_in_budget:
        terms.append(("CUDA graphs", worst.cuda_graphs))
    terms.append(("one KV block", block))
    terms.sort(key=lambda term: -term[1])
    listed = " + ".join(f"{name} {size / _GB:.1f}" for name, size in terms if size >= 0.05 * _GB)
    remedies = _remedies(model, accelerator, worst, limits, larger)
    return (
        f"{model.name} does not fit on {accelerator.name} with {worst.layout}: one GPU needs "
        f"{(worst.needed + block) / _GB:.1f} GB ({listed}) and has {worst.budget / _GB:.1f} GB "
        f"({limits.utilization:.0%} of {worst.total / _GB:.1f}); "
        + (f"would fit: {', or '.join(remedies)}" if remedies else "no larger tp or narrower weights would fit either")
    )


def _remedies(
    model: ModelSpec, accelerator: Accelerator, worst: MemoryPlan, limits: _Limits, larger: Sequence[Accelerator]
) -> list[str]:
    """List what would fit, one change at a time: more ranks, narrower weights, another accelerator, smaller steps."""
    plan = ParallelPlan(worst.tp, worst.pp, worst.ep if worst.dp > 1 else 1, dp=worst.dp)

    def fits(where: Accelerator, layout: ParallelPlan, with_limits: _Limits) -> bool:
        return _worst_stage(model, where, layout, with_limits).num_kv_blocks >= 1

    found = []
    for tp in _TRIED_TP:
        wider = replace(plan, tp=tp) if worst.dp > 1 else ParallelPlan(tp, worst.pp)
        if tp > worst.tp and tp_feasible(model, tp) and fits(accelerator, wider, limits):
            found.append(f"tp={tp}")
            break
    if worst.dp > 1 and model.moe is not None and worst.ep < worst.tp * worst.dp:
        spread = replace(plan, ep=worst.tp * worst.dp)
        if model.moe.num_experts % spread.ep == 0 and fits(accelerator, spread, limits):
            found.append(f"ep={spread.ep}")
    stored = weight_formats(model, limits.weights_dtype)
    stored_bits = max(WEIGHT_FORMATS[stored[family]].element_bits for family in ("qkv", "experts"))
    for dtype in _TRIED_DTYPES:
        narrower = replace(limits, weights_dtype=dtype)
        if WEIGHT_FORMATS[dtype].element_bits < stored_bits and fits(accelerator, plan, narrower):
            found.append(f"dtypes.weights={dtype}")
            break
    for other in sorted(larger, key=lambda each: (each.process_memory_bytes, each.name)):
        if other.process_memory_bytes > accelerator.process_memory_bytes and fits(other, plan, limits):
            found.append(f"accelerator={other.name}")
            break
    fewer = replace(
        limits,
        max_num_batched_tokens=min(limits.max_num_batched_tokens, 2048),
        max_num_seqs=min(limits.max_num_seqs, 64),
        sampled_seqs=min(limits.sampled_seqs, 64),
    )
    if not found and fits(accelerator, plan, fewer):
        found.append(f"max_num_batched_tokens={fewer.max_num_batched_tokens} with max_num_seqs={fewer.max_num_seqs}")
    return found
