"""FasterTransformer: request-level static batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from policies.batching._static_batches import StaticBatches
from policies.protocols import param


@dataclass
class Static(StaticBatches):
    """Request-level batches: a new batch starts only when the last one has wholly ended.

    From FasterTransformer: up to ``batch_size`` waiting requests start together; their prompts are padded to
    the longest of them; every slot goes on computing in the dense layers until the last request of the batch
    has ended; KV is reserved for the longest context (``max_model_len``, or all of memory where that is
    less).

    A batch starts with whoever waits when the last one has ended; its padded prompts keep within
    ``max_num_batched_tokens``, the first request excepted, which stands for the buffers that
    FasterTransformer allocates for its largest batch.

    Not modelled: attention over the padding of finished slots, a delay to fill batches, micro-batches within
    a static batch for pipeline stages.
    """

    name: ClassVar[str] = "static"
    source: ClassVar[str] = (
        "NVIDIA/FasterTransformer, as described by Yu et al., Orca, OSDI 2022, section 2;"
        " microsoft/sarathi-serve sarathi/core/scheduler/faster_transformer_scheduler.py (commit 13f16cf)"
    )
    defaults: ClassVar[Mapping[str, Any]] = {
        "max_num_seqs": 256,
        "max_num_batched_tokens": 16384,
        "prefix_caching": False,
    }

    batch_size: int = param(8, "most requests of a batch", unit="requests", ge=1)

    def most_requests(self) -> int:
        """Return ``batch_size``."""
        return self.batch_size
