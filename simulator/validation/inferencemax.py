"""How InferenceMAX's public scripts start the servers of DeepSeek-V3 and R1 on H200, and what rows don't say of them.

InferenceMAX (now InferenceX) publishes the scripts that start its servers, and the configurations that it runs:
``benchmarks/[single_node/]dsr1_fp8_h200[_trt][_slurm].sh``, ``.github/configs/nvidia-master.yaml``; those of its
disaggregated servers are the recipes of srt-slurm, ``recipes/trtllm/h200``. What they set is set here for the points
that are theirs by model, system and lengths. No measurement of theirs is used.

Not set, as the simulator doesn't model it: ``--attention-backend flashinfer`` (SGLang; the kernel tables are of its
default). ``stream_interval: 10`` and ``--stream-interval 10`` don't matter: both engines send a request's first token
at once (``py_decoding_iter == 1``; ``len(output_ids) % stream_interval == 1``), and TPOT is a mean.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

LENGTHS = (1024, 8192)
"""Prompts and answers of the scripts' load."""

_FLOOR = 8192
_FLOOR_SINCE = "2026-01-01"
"""``MAX_NUM_TOKENS`` of trtllm-serve is at least 8192 in the scripts that also run evaluations; those before, named
``..._slurm.sh``, have none. When that changed lies between the measurements of 2025-11-02 and of 2026-01-28."""

_MTP_RUN = "2026-01-14"
"""Day of the only workflow run of ``dsr1-fp8-h200-trt-mtp`` among the rows, told so: its configurations with attention
data parallelism (128 requests at 1024 in and out and at 8192 in, 256 at 8192 out) are among the rows of that one
run, and only the configuration with multi-token prediction has them; and of two rows that agree in everything recorded
(64 requests, 1024 in, 8192 out), that of this run takes 19.4 ms a token, that of 2026-01-28 32.2."""

MTP = (
    "served with multi-token prediction, which is not simulated: one of a run of TensorRT-LLM (2026-01-14) that only "
    "InferenceMAX's configuration dsr1-fp8-h200-trt-mtp fits"
)


@dataclass(frozen=True)
class Server:
    """What a script sets.

    Attributes
    ----------
    limits
        Keys of a pool's ``engine``.
    batching
        Parameters of the batching policy.
    kv
        Datatype of the cache; None: the engine's default.
    note
        A line for the result.
    """

    limits: Mapping[str, Any] = field(default_factory=dict)
    batching: Mapping[str, Any] = field(default_factory=dict)
    kv: str | None = None
    note: str = ""


def is_theirs(point: Mapping[str, Any]) -> bool:
    """Tell whether a point is of DeepSeek-V3 or R1 on H200 with the lengths of the scripts."""
    model = str(point["model_path"]).rsplit("/", 1)[-1]
    lengths = {int(point["isl"] or 0), int(point["osl"] or 0)}
    return point["system"] == "h200_sxm" and model in ("DeepSeek-V3", "DeepSeek-R1") and lengths <= set(LENGTHS)


def measured_on(point: Mapping[str, Any]) -> str | None:
    """Return the day of a measurement as year-month-day; None where the row names none."""
    found = re.search(r"measured=(\d{4}-\d{2}-\d{2})", str(point["silicon_data_source"]))
    return found[1] if found else None


def speculative(point: Mapping[str, Any]) -> str | None:
    """Return why an aggregated point is known to have been served with multi-token prediction; None: it isn't."""
    known = is_theirs(point) and point["backend"] == "trtllm" and point["mode"] == "agg"
    return MTP if known and measured_on(point) == _MTP_RUN else None


def most_tokens(point: Mapping[str, Any], clients: int) -> int:
    """Return the ``max_num_tokens`` that the scripts give trtllm-serve."""
    fits = (clients + int(point["isl"]) + 64 + 63) // 64 * 64
    day = measured_on(point)
    if is_theirs(point) and point["mode"] == "agg" and day is not None and day < _FLOOR_SINCE:
        return fits
    return max(fits, _FLOOR)


def server_of(point: Mapping[str, Any]) -> Server:
    """Return what the scripts set for a point; nothing where it isn't theirs."""
    if not is_theirs(point) or point["mode"] not in ("agg", "disagg"):
        return Server()
    if point["backend"] == "trtllm":
        # Of disaggregated servers the share of memory differs by recipe, 0.6 to 0.9: the default stays.
        limits = {"prefix_caching": False, **({"gpu_memory_utilization": 0.75} if point["mode"] == "agg" else {})}
        return Server(limits, kv="fp8", note="KV in fp8, no reuse of blocks, as InferenceMAX's scripts start it")
    if point["backend"] == "sglang" and point["mode"] == "agg":
        short = int(point["isl"]) == int(point["osl"]) == 1024
        return Server(
            {
                "max_num_batched_tokens": 32768,
                "max_num_seqs": 512 if short else 256,
                "gpu_memory_utilization": 0.82,
                "prefix_caching": False,
            },
            {"max_prefill_tokens": 32768},
            note="chunks and prompts of up to 32768 tokens a step, as InferenceMAX's scripts start it",
        )
    return Server()
