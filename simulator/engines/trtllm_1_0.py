"""TensorRT-LLM 1.0, as ``trtllm-serve`` starts it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator.engines.base import Engine, EngineDefaults, Flag, names

if TYPE_CHECKING:
    from hardware_profiles import Accelerator


def defaults(accelerator: Accelerator, tp: int, pp: int) -> EngineDefaults:
    """Return the limits of a server, the same for every GPU."""
    return EngineDefaults(
        {
            "max_num_batched_tokens": 8192,
            "max_num_seqs": 2048,
            "block_size": 32,
            "gpu_memory_utilization": 0.9,
            "prefix_caching": True,
            "swap_space_gib": 0.0,
            "async_scheduling": pp == 1,  # disable_overlap_scheduler is False by default
        },
        {"capacity_policy": "guaranteed_no_evict", "chunked_context": False},
    )


ENGINE = Engine(
    name="trtllm",
    version="1.0",
    policy="trtllm",
    source=(
        "TensorRT-LLM 1.0: tensorrt_llm/commands/serve.py, tensorrt_llm/llmapi/llm_args.py KvCacheConfig"
        " (free_gpu_memory_fraction 0.9, tokens_per_block 32, block reuse on) and SchedulerConfig"
    ),
    defaults=defaults,
    flags=(
        Flag(("--max_batch_size",), "engine.max_num_seqs"),
        Flag(("--max_num_tokens",), "engine.max_num_batched_tokens"),
        Flag(("--max_seq_len",), "engine.max_model_len"),
        Flag(("--tp_size",), "parallel.tp"),
        Flag(("--pp_size",), "parallel.pp"),
        Flag(("--ep_size",), "parallel.ep"),
        Flag(("--enable_attention_dp",), "parallel.attention_dp", "switch", value="tp"),
        Flag(
            ("--kv_cache_free_gpu_memory_fraction", "--free_gpu_memory_fraction"),
            "engine.gpu_memory_utilization",
            "float",
        ),
        Flag(("--tokens_per_block",), "engine.block_size"),
        Flag(("--enable_chunked_prefill",), "batching.params.chunked_context", "switch"),
        *(Flag((f"--{name}",), "", "text") for name in ("host", "port", "log_level", "tokenizer")),
        Flag(("--trust_remote_code",), "", "switch"),
    ),
    not_modelled=names(
        "max_beam_width cluster_size gpus_per_node backend extra_llm_api_options num_postprocess_workers"
        " reasoning_parser tool_parser metadata_server_config_file server_role fail_fast_on_attention_window_too_large"
        " moe_cluster_parallel_size speculative_config"
    ),
    kv_memory="free",
    balancing="trtllm",
    # _torch/models/modeling_deepseekv3.py: maybe_execute_in_parallel on another stream, which it does in CUDA graphs
    # only; those are captured for batches of up to 128 (CudaGraphConfig.max_batch_size).
    shared_beside=128,
)
