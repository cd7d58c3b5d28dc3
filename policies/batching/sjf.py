"""Shortest predicted job first, on vLLM's composition of steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from policies.batching.vllm_v1 import VllmV1


@dataclass
class Sjf(VllmV1):
    """Shortest predicted job first: vLLM v1's steps, the waiting request of the shortest predicted output first.

    The order is the queueing policy ``sjf``'s, which is this policy's default and where ageing against
    starvation is set; steps are composed as by ``vllm-v1``, so that a comparison with it shows the order
    alone. Output lengths come from the scenario's predictor: an oracle gives true shortest job first, a noisy
    one, whose error the scenario sets, stands for a learnt ranking. Without a predictor the queueing policy
    raises a `PolicyError`.

    Not modelled: running requests are not preempted for shorter ones (the paper's scheduler may do so between
    iterations); what the predictor itself costs.
    """

    name: ClassVar[str] = "sjf"
    source: ClassVar[str] = (
        "Fu et al., Efficient LLM Scheduling by Learning to Rank, NeurIPS 2024, arXiv:2408.15792; steps as in vllm-v1"
    )
    queueing: ClassVar[str] = "sjf"
