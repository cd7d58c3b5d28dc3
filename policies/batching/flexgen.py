"""FlexGen: blocks of several GPU batches that go through the model layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from policies.batching._static_batches import StaticBatches
from policies.protocols import param


@dataclass
class Flexgen(StaticBatches):
    """Throughput-oriented blocks: ``num_gpu_batches`` batches share each layer's weights while they are on the GPU.

    FlexGen's zig-zag block schedule computes one layer for all GPU batches of a block before it fetches the next layer,
    so that weights that live off the GPU are fetched once a step for ``gpu_batch_size`` x ``num_gpu_batches``
    requests. What lives where, and what moving it takes, is the scenario's part ``offload``; without one this is
    request-level batching.

    A block starts with whoever waits when the last one has ended; prompts are padded to the longest of them, all slots
    go on until the last request has ended, and KV is reserved for ``max_model_len`` tokens, which stands for FlexGen's
    prompt length plus generation length: set both ``max_model_len`` and ``max_num_batched_tokens`` to the block's.

    Not modelled: the order of transfers within a layer, GPU batches of unlike size.
    """

    name: ClassVar[str] = "flexgen"
    source: ClassVar[str] = (
        "Sheng et al., FlexGen, ICML 2023, arXiv:2303.06865, section 4.2; FMInference/FlexGen flexgen/flex_opt.py"
    )
    supports_pipeline: ClassVar[bool] = False
    defaults: ClassVar[Mapping[str, Any]] = {
        "max_num_seqs": 1024,
        "max_num_batched_tokens": 32768,
        "prefix_caching": False,
    }

    gpu_batch_size: int = param(4, "requests that the GPU computes at a time", unit="requests", ge=1)
    num_gpu_batches: int = param(1, "GPU batches of a block", unit="batches", ge=1)

    def most_requests(self) -> int:
        """Return the requests of a block: the effective batch size."""
        return self.gpu_batch_size * self.num_gpu_batches
