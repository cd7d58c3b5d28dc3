"""vLLM 0.19, its v1 engine, as ``vllm serve`` starts it (usage context OPENAI_API_SERVER)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator.engines.base import Engine, EngineDefaults, Flag, names, switch

if TYPE_CHECKING:
    from hardware_profiles import Accelerator

LARGE_MEMORY_BYTES = 70 * 2**30
"""From this much memory, and unless it is an A100, vLLM takes larger batches (vLLM pull request 17885)."""

HOST_OVERHEAD_S = 0.83e-3
"""Seconds a step that the accelerators wait for the host: *calibrated*, the one constant of this version that was
estimated from a measured server (vLLM 0.19.0, Llama-3.1-8B on one RTX PRO 6000, 300 ShareGPT requests;
``docs/validation.md``): the value for which the mean TPOT of that run is right, which is the mean time of a step and
not amplified by queueing. All 15 errors of the run together, each over its tolerance, are least at 0.87."""


def cuda_graph_sizes(max_num_seqs: int) -> tuple[int, ...]:
    """Return the captured sizes, by ``VllmConfig._set_cudagraph_sizes``.

    Steps of 8 below 256 and of 16 from there, to twice the requests that run at most, and no more than 512.
    """
    largest = min(2 * max_num_seqs, 512)
    return tuple(size for size in (1, 2, 4, *range(8, 256, 8), *range(256, largest + 1, 16)) if size <= largest)


def defaults(accelerator: Accelerator, tp: int, pp: int) -> EngineDefaults:
    """Return the limits of a server, by ``EngineArgs.get_batch_defaults`` and ``CacheConfig``."""
    large = accelerator.process_memory_bytes >= LARGE_MEMORY_BYTES and "a100" not in accelerator.name.lower()
    return EngineDefaults(
        {
            "max_num_batched_tokens": 8192 if large else 2048,
            "max_num_seqs": 1024 if large else 256,
            "block_size": 16,
            "gpu_memory_utilization": 0.9,
            "prefix_caching": True,
            "swap_space_gib": 0.0,
            "async_scheduling": pp == 1,
            "host_overhead_s": HOST_OVERHEAD_S,
            "cuda_graph_steps": "all",  # piecewise graphs where there are chunks, whole ones else
        },
        notes=("asynchronous scheduling with pipeline stages is not modelled: off",) if pp > 1 else (),
    )


PARALLEL_FLAGS = (
    Flag(("--tensor-parallel-size", "-tp"), "parallel.tp"),
    Flag(("--pipeline-parallel-size", "-pp"), "parallel.pp"),
)

CACHE_FLAGS = (
    Flag(("--block-size",), "engine.block_size"),
    Flag(("--gpu-memory-utilization",), "engine.gpu_memory_utilization", "float"),
    Flag(("--num-gpu-blocks-override",), "engine.num_kv_blocks"),
    Flag(
        ("--kv-cache-dtype",),
        "dtypes.kv",
        "text",
        values={
            "auto": None,
            "fp8": "fp8",
            "fp8_e4m3": "fp8",
            "fp8_e5m2": "fp8",
            "bfloat16": "bf16",
            "float16": "fp16",
            "half": "fp16",
        },
    ),
)

SCHEDULER_FLAGS = (
    Flag(("--max-num-seqs",), "engine.max_num_seqs"),
    Flag(("--max-num-batched-tokens",), "engine.max_num_batched_tokens"),
    Flag(("--max-model-len",), "engine.max_model_len"),
    Flag(
        ("--scheduling-policy",),
        "queueing",
        "text",
        values={"fcfs": {"name": "fcfs"}, "priority": {"name": "priority"}},
    ),
)

IGNORED_FLAGS = tuple(
    Flag((name,), "", "text")
    for name in (
        "--host",
        "--port",
        "--api-key",
        "--served-model-name",
        "--tokenizer",
        "--tokenizer-mode",
        "--download-dir",
        "--revision",
        "--load-format",
        "--uvicorn-log-level",
    )
) + tuple(
    Flag((name,), "", "switch")
    for name in (
        "--trust-remote-code",
        "--disable-log-stats",
        "--disable-log-requests",
        "--no-enable-log-requests",
        "--disable-uvicorn-access-log",
    )
)
"""Where the server listens, what it logs and where files are: they change nothing that is simulated."""

ENGINE = Engine(
    name="vllm",
    version="0.19",
    policy="vllm-v1",
    source=(
        "vLLM 0.19: vllm/engine/arg_utils.py EngineArgs.get_batch_defaults() for the API server,"
        " vllm/config/cache.py CacheConfig, vllm/config/scheduler.py SchedulerConfig"
    ),
    defaults=defaults,
    cuda_graph_sizes=cuda_graph_sizes,
    flags=(
        *PARALLEL_FLAGS,
        *CACHE_FLAGS,
        *SCHEDULER_FLAGS,
        *switch("enable-prefix-caching", "engine.prefix_caching"),
        *switch("async-scheduling", "engine.async_scheduling"),
        Flag(("--enable-expert-parallel",), "parallel.ep", "switch", value="all"),
        Flag(("--data-parallel-size", "-dp"), "parallel.dp"),
        Flag(
            ("--all2all-backend",),
            "experts.exchange",
            "text",
            values={
                "allgather_reducescatter": "allgather",
                "deepep_high_throughput": "deepep-high-throughput",
                "deepep_low_latency": "deepep-low-latency",
            },
        ),
        Flag(
            ("--expert-placement-strategy",),
            "experts.placement",
            "text",
            values={"linear": {"name": "linear"}, "round_robin": {"name": "round-robin"}},
        ),
        Flag(("--enable-eplb",), "experts.placement", "switch", value={"name": "eplb"}),
        Flag(("--enforce-eager",), "engine.cuda_graph_sizes", "switch", value=()),
        Flag(("--long-prefill-token-threshold",), "batching.params.long_prefill_token_threshold"),
        Flag(("--enable-chunked-prefill",), "", "switch"),
        Flag(("--quantization", "-q"), "dtypes.weights", "text", values={"fp8": "fp8", "awq": "int4", "gptq": "int4"}),
        *IGNORED_FLAGS,
    ),
    not_modelled=names(
        "no-enable-chunked-prefill max-num-partial-prefills max-long-partial-prefills num-lookahead-slots"
        " scheduler-cls disable-chunked-mm-input disable-hybrid-kv-cache-manager"
        " data-parallel-rank data-parallel-size-local data-parallel-backend"
        " decode-context-parallel-size prefill-context-parallel-size enable-dbo eplb-config"
        " disable-custom-all-reduce distributed-executor-backend"
        " compilation-config cudagraph-capture-sizes max-cudagraph-capture-size kv-cache-memory-bytes swap-space"
        " cpu-offload-gb calculate-kv-scales kv-sharing-fast-prefill kv-offloading-size kv-offloading-backend"
        " prefix-caching-hash-algo mamba-cache-dtype mamba-ssm-cache-dtype mamba-block-size enable-lora max-loras"
        " max-lora-rank lora-dtype max-cpu-loras fully-sharded-loras lora-modules speculative-config"
        " kv-transfer-config kv-events-config dtype hf-overrides rope-scaling rope-theta disable-sliding-window"
        " disable-cascade-attn attention-backend limit-mm-per-prompt mm-processor-kwargs mm-processor-cache-gb"
        " mm-encoder-tp-mode skip-mm-profiling structured-outputs-config reasoning-parser enable-sleep-mode"
        " model-impl runner convert task additional-config optimization-level stream-interval"
    )
    | {"-dcp", "-O"},
    balancing="vllm",
    # model_executor/layers/fused_moe: a stream of their own up to VLLM_SHARED_EXPERTS_STREAM_TOKEN_THRESHOLD (envs.py).
    shared_beside=256,
)
