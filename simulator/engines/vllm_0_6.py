"""vLLM 0.6, its v0 engine without chunked prefill."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator.engines.base import Engine, EngineDefaults, Flag, names
from simulator.engines.vllm_0_19 import CACHE_FLAGS, IGNORED_FLAGS, PARALLEL_FLAGS, SCHEDULER_FLAGS

if TYPE_CHECKING:
    from hardware_profiles import Accelerator


def defaults(accelerator: Accelerator, tp: int, pp: int) -> EngineDefaults:
    """Return the limits of a server, the same for every GPU.

    ``max_num_batched_tokens`` is 2048 or the longest context, whichever is more; the policy itself takes the longest
    context where that is more.
    """
    return EngineDefaults(
        {
            "max_num_batched_tokens": 2048,
            "max_num_seqs": 256,
            "block_size": 16,
            "gpu_memory_utilization": 0.9,
            "prefix_caching": False,
            "swap_space_gib": 4.0,
        },
        notes=(
            "engine vllm@0.6: chunked prefill, which it turns on by itself for contexts above 32768 tokens, is not"
            " modelled; prompts are computed whole",
        ),
    )


ENGINE = Engine(
    name="vllm",
    version="0.6",
    policy="vllm",
    source=(
        "vLLM 0.6: vllm/config.py SchedulerConfig (max_num_batched_tokens = max(max_model_len, 2048)) and CacheConfig,"
        " vllm/engine/arg_utils.py EngineArgs (max_num_seqs 256, block_size 16, gpu_memory_utilization 0.9,"
        " swap_space 4)"
    ),
    defaults=defaults,
    flags=(
        *PARALLEL_FLAGS,
        *CACHE_FLAGS,
        *(flag for flag in SCHEDULER_FLAGS),
        Flag(("--enable-prefix-caching",), "engine.prefix_caching", "switch"),
        Flag(("--swap-space",), "engine.swap_space_gib", "float"),
        Flag(
            ("--preemption-mode",),
            "batching.params.preemption_mode",
            "text",
            values={"recompute": "recompute", "swap": "swap"},
        ),
        Flag(("--quantization", "-q"), "dtypes.weights", "text", values={"fp8": "fp8", "awq": "int4", "gptq": "int4"}),
        *IGNORED_FLAGS,
    ),
    not_modelled=names(
        "enable-chunked-prefill no-enable-chunked-prefill num-scheduler-steps multi-step-stream-outputs"
        " scheduler-delay-factor num-lookahead-slots use-v2-block-manager enable-lora max-loras max-lora-rank"
        " speculative-model num-speculative-tokens cpu-offload-gb enforce-eager max-seq-len-to-capture"
        " disable-custom-all-reduce disable-sliding-window distributed-executor-backend guided-decoding-backend"
        " max-parallel-loading-workers disable-async-output-proc dtype rope-scaling rope-theta"
        " max-context-len-to-capture tokenizer-pool-size worker-use-ray device quantization-param-path"
    ),
)
