"""Sparse window attention over GPU memory, host memory and recomputation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from policies.budget import Cap, KVBudget, LayerGroup, ModelFacts, Offload, Work
from policies.protocols import KVBudgetPolicy, param

_SCORE_BYTES = 12.0
"""Bytes a head and token read moves for the local attention sums, as in `policies.kv_budget.h2o`. An assumption."""


@dataclass
class Alisa(KVBudgetPolicy):
    """Attend to a few tokens of all; keep the latest on the GPU, older ones on the host, the oldest nowhere.

    From the paper: sparse window attention reads 1 - ``sparsity`` of the tokens, one half the latest, the other those
    with the largest attention over the latest steps; KV is stored in 8 bits; and a sequence goes through three phases
    as it grows: all of it on the GPU, then older tokens in host memory, then the oldest deleted and computed again when
    read.

    The paper solves for the lengths at which the phases change, for each workload and machine; here they are
    parameters, and their defaults assumptions. Chosen tokens are taken as spread evenly over a sequence, so that half
    of what is read meets the host's and the deleted tokens by their share, and all of it is loaded at every step, none
    kept from the step before, after one another with the computation. A deleted token's keys and values are projections
    of layer inputs, taken to be at hand: with a forward pass through all layers it would never pay. Host memory is
    taken to be large enough.

    Not seen here: the accuracy of the answers; which tokens are chosen.
    """

    name: ClassVar[str] = "alisa"
    source: ClassVar[str] = "ALISA, ISCA 2024, arXiv:2403.17312 (KV sparsity 80 %, INT8)"

    sparsity: float = param(0.8, "share of the tokens that a decode step doesn't read", ge=0, le=0.99)
    gpu_tokens: int = param(1024, "tokens of a sequence on the GPU", unit="tokens", ge=1)
    host_tokens: int = param(4096, "tokens of a sequence in host memory, those beyond are deleted", unit="tokens", ge=0)
    bits: int = param(8, "bits of a stored element", unit="bits", ge=4, le=16)

    def budget(self, model: ModelFacts) -> KVBudget:
        """Return a budget with tokens outside GPU memory."""
        dense = 1.0 - self.sparsity
        bits = float(self.bits * model.kv_elements)
        heads = model.num_layers * model.num_heads
        return KVBudget(
            groups=(LayerGroup(model.num_layers, keep=Cap(tokens=self.gpu_tokens)),),
            token_bits=bits,
            read_bits=bits,
            read_share=dense,
            step_kernels=3,
            per_decode=Work(memory_bytes=model.num_layers * (model.token_bits + bits) / 8),
            per_read=Work(memory_bytes=heads * _SCORE_BYTES),
            per_prefill=Work(memory_bytes=model.num_layers * (model.token_bits + bits) / 8),
            offload=Offload(
                gpu_tokens=self.gpu_tokens,
                host_tokens=self.host_tokens,
                load_share=dense / 2,
                recompute_share=dense / 2,
                recompute=Work(flops=2.0 * model.num_layers * model.hidden_size * model.kv_elements),
            ),
        )
