"""SGLang 0.5."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator.engines.base import Engine, EngineDefaults, Flag, names

if TYPE_CHECKING:
    from hardware_profiles import Accelerator

_MIB = 2**20

_BY_MEMORY = (
    # Below so many MiB of memory: chunk size, and largest batch of the CUDA graphs with tp below 4 and from 4.
    (20 * 1024, 2048, 8, 8),
    (35 * 1024, 2048, 24, 80),
    (60 * 1024, 4096, 32, 160),
    (90 * 1024, 8192, 256, 512),
    (160 * 1024, 8192, 256, 512),
    (1 << 62, 16384, 512, 512),
)


def cuda_graph_sizes(largest: int) -> tuple[int, ...]:
    """Return the captured batches of decodes, by ``ServerArgs._generate_cuda_graph_batch_sizes``."""
    sizes = (1, 2, 4, 8, 12, *range(16, 257, 8), *range(272, 512, 16), *range(512, largest + 1, 32))
    return tuple(size for size in sizes if size <= largest)


def defaults(accelerator: Accelerator, tp: int, pp: int) -> EngineDefaults:
    """Return the limits of a server, by ``ServerArgs._handle_gpu_memory_settings``."""
    return _limits(accelerator, tp, pp, 1)


def data_parallel(accelerator: Accelerator, tp: int, dp: int) -> EngineDefaults:
    """Return the limits of one of ``dp`` attention ranks on ``tp`` GPUs, by ``ServerArgs._handle_data_parallelism``.

    Its chunk and its running requests are a rank's share, and it counts on answers' lengths less (0.3).
    """
    found = _limits(accelerator, tp, 1, dp)
    limits = {**found.limits, "max_num_seqs": max(1, found.limits["max_num_seqs"] // dp)}
    limits["max_num_batched_tokens"] = max(1, limits["max_num_batched_tokens"] // dp)
    return EngineDefaults(limits, {"schedule_conservativeness": 0.3})


def _limits(accelerator: Accelerator, tp: int, pp: int, dp: int) -> EngineDefaults:
    memory = accelerator.memory_bytes / _MIB
    chunk, graphs_small, graphs_large = next(row[1:] for row in _BY_MEMORY if memory < row[0])
    graph_batch = graphs_small if tp < 4 else graphs_large
    reserved = 512 + max(chunk, 2048) * 1.5 + graph_batch * 2 + tp * pp / 8 * 1024
    if dp > 1:  # graphs of padded batches take more, large ones more still
        reserved += graph_batch * dp * (3 if graph_batch <= 300 else 4.5)
    if memory > 60 * 1024:
        reserved = max(reserved, 10 * 1024)
    return EngineDefaults(
        {
            "max_num_batched_tokens": chunk,
            "max_num_seqs": 2048,
            "block_size": 1,
            "gpu_memory_utilization": round((memory - reserved) / memory, 3),
            "prefix_caching": True,
            "swap_space_gib": 0.0,
            "async_scheduling": pp == 1,  # its overlap schedule (event_loop_overlap)
            "cuda_graph_sizes": cuda_graph_sizes(graph_batch),
            "cuda_graph_steps": "decode",
        },
    )


ENGINE = Engine(
    name="sglang",
    version="0.5",
    policy="sglang",
    source=(
        "SGLang 0.5: python/sglang/srt/server_args.py ServerArgs and _handle_gpu_memory_settings(); at least 2048"
        " running requests by model_executor/model_runner.py; page size 1"
    ),
    defaults=defaults,
    flags=(
        Flag(("--tp-size", "--tensor-parallel-size"), "parallel.tp"),
        Flag(("--pp-size", "--pipeline-parallel-size"), "parallel.pp"),
        Flag(("--ep-size", "--expert-parallel-size"), "parallel.ep"),
        Flag(("--dp-size", "--data-parallel-size"), "parallel.attention_dp"),
        Flag(("--enable-dp-attention",), "", "switch"),
        Flag(
            ("--load-balance-method",),
            "parallel.balancing",
            "text",
            values={"round_robin": {"name": "round-robin"}},
        ),
        Flag(("--moe-a2a-backend",), "experts.exchange", "text", values={"none": "allgather", "deepep": "deepep"}),
        Flag(("--ep-num-redundant-experts",), "experts.redundant"),
        Flag(("--enable-eplb",), "experts.placement", "switch", value={"name": "eplb"}),
        Flag(("--mem-fraction-static",), "engine.gpu_memory_utilization", "float"),
        Flag(("--max-running-requests",), "engine.max_num_seqs"),
        Flag(("--chunked-prefill-size",), "engine.max_num_batched_tokens"),
        Flag(("--max-prefill-tokens",), "batching.params.max_prefill_tokens"),
        Flag(("--schedule-conservativeness",), "batching.params.schedule_conservativeness", "float"),
        Flag(("--context-length",), "engine.max_model_len"),
        Flag(("--page-size",), "engine.block_size"),
        Flag(("--schedule-policy",), "queueing", "text", values={"fcfs": {"name": "fcfs"}}),
        Flag(
            ("--radix-eviction-policy",),
            "kv_eviction",
            "text",
            values={"lru": {"name": "lru"}, "lfu": {"name": "lfu"}},
        ),
        Flag(("--disable-overlap-schedule",), "engine.async_scheduling", "switch", value=False),
        Flag(("--disable-radix-cache",), "engine.prefix_caching", "switch", value=False),
        Flag(
            ("--kv-cache-dtype",),
            "dtypes.kv",
            "text",
            values={"auto": None, "fp8_e4m3": "fp8", "fp8_e5m2": "fp8", "bf16": "bf16", "bfloat16": "bf16"},
        ),
        Flag(("--quantization",), "dtypes.weights", "text", values={"fp8": "fp8", "awq": "int4", "gptq": "int4"}),
        *(Flag((f"--{name}",), "", "text") for name in ("host", "port", "served-model-name", "tokenizer-path")),
        *(Flag((f"--{name}",), "", "switch") for name in ("trust-remote-code", "enable-metrics", "log-requests")),
    ),
    not_modelled=names(
        "enable-mixed-chunk enable-priority-scheduling max-queued-requests max-total-tokens"
        " num-continuous-decode-steps enable-hierarchical-cache hicache-ratio hicache-size enable-lmcache"
        " deepep-mode eplb-algorithm init-expert-location"
        " moe-runner-backend enable-two-batch-overlap speculative-algorithm speculative-draft-model-path"
        " speculative-num-steps speculative-eagle-topk disaggregation-mode disaggregation-transfer-backend"
        " enable-torch-compile cuda-graph-max-bs cuda-graph-bs disable-cuda-graph attention-backend sampling-backend"
        " enable-lora lora-paths max-loras-per-batch cpu-offload-gb dtype swa-full-tokens-ratio"
        " disable-custom-all-reduce nnodes node-rank enable-pdmux prefill-max-requests"
    ),
    kv_memory="static",
    data_parallel=data_parallel,
    together={"--dp-size": "--enable-dp-attention"},
    # models/deepseek_v2.py: one more expert of the routed ones' kernels under tensor parallelism (fused shared
    # experts), else on another stream of the CUDA graph (forward_normal_dual_stream); so up to the largest graph.
    shared_beside=512,
)
