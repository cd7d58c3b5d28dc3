"""How KV blocks are copied to host memory and back: a part of a pool."""

from typing import Annotated, Literal

from pydantic import Field

from simulator.scenario_base import Count, Part


class Swap(Part):
    """How KV blocks are copied to host memory and back, where a policy swaps."""

    call_overhead_s: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    """Time that submitting one copy takes, seconds; a copy takes that of all its calls, or of moving its bytes if that
    is more. 0: calls cost nothing. One ``cudaMemcpyAsync`` takes 5 to 7 us (Wu et al., DualPath, arXiv:2602.21548,
    section 5.2)."""
    blocks_per_call: Count = 1
    """KV blocks of one layer that lie together and are copied by two calls, for keys and values."""
    keep_copies: bool = False
    """Keep the host's copy of a request that comes back, so that the next time only what was added goes out."""
    over: Literal["own", "links"] = "own"
    """What blocks are copied over: ``own``, each GPU's PCIe link at its data sheet's bandwidth, used by nothing else;
    ``links``, the cluster's links (`network`), where they contend with other replicas' swaps, KV and weights."""
