"""TensorRT-LLM's balancer of attention data parallelism."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from policies.protocols import ArrivalView, BalancingPolicy, RanksView


@dataclass
class TRTLLM(BalancingPolicy):
    """Fewest tokens among the ranks that have no more than their share of the requests, the first of equals.

    A rank's share: all requests, the new one included, over the ranks, rounded up, or what the fullest has if that is
    more. TensorRT-LLM collects the requests of an iteration and deals out the longest prompt first; here each is dealt
    out as it comes. Waiting for other ranks' prompts (``attention_dp_config``: ``enable_balance``, off by default) is
    not modelled.
    """

    name: ClassVar[str] = "trtllm"
    source: ClassVar[str] = (
        "TensorRT-LLM 1.0 tensorrt_llm/_torch/pyexecutor/executor_request_queue.py "
        "(_schedule_attention_dp_requests, _balance_requests_across_ranks)"
    )

    def choose(self, request: ArrivalView, ranks: RanksView) -> int:
        """Return the rank with the fewest prompt and answer tokens of those with room in their share."""
        requests = ranks.outstanding_requests.tolist()
        share = max(-(-(sum(requests) + 1) // len(requests)), max(requests))
        tokens = ranks.outstanding_tokens.tolist()
        open_ranks = [rank for rank, count in enumerate(requests) if count < share] or list(range(len(requests)))
        return min(open_ranks, key=lambda rank: (tokens[rank], requests[rank], rank))
