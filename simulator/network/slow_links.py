"""A word of warning where tensor parallel ranks wait for slow links at every layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator.cost.links import tensor_link

if TYPE_CHECKING:
    from hardware_profiles import Accelerator, NodeType
    from simulator.parallel import ParallelPlan


def slow_link_note(pool: str, accelerator: Accelerator, node: NodeType | None, plan: ParallelPlan) -> str | None:
    """Return a sentence where a pool's tensor parallel groups reach each other over PCIe or a network, else None."""
    if plan.tp == 1:
        return None
    link = tensor_link(accelerator, node, plan.tp)
    if link.kernels:
        return None
    return (
        f"pool {pool!r} has tensor parallelism over a slow link: tp={plan.tp} over {link.name} at "
        f"{link.bandwidth / 1e9:.3g} GB/s a GPU, which each layer waits for twice; pipeline stages, or GPUs joined by "
        "NVLink, wait less"
    )
