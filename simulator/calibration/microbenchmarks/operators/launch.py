"""What a launch costs: from Python, from PyTorch, as a CUDA graph, and within one."""
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

from simulator.calibration.microbenchmarks.case import Case, Variant, Work
from simulator.calibration.microbenchmarks.operators.base import Gpu, Limits

KERNELS = ("triton kernel", "torch operator", "graph of one kernel", "kernel in a graph")
"""Our empty kernel by Triton's launcher; a PyTorch operator on one element; a replay of a graph that holds one empty
kernel (these three by the host's clock, launched back to back); an empty kernel as one node of a long graph, by
events."""


def cases(limits: Limits) -> list[Case]:
    """Return the four of them, which no limit bounds."""
    return [Case("launch", kernel, ()) for kernel in KERNELS]


def prepare(case: Case, gpu: Gpu) -> Work:
    """Make one of them ready."""
    import torch

    from simulator.calibration.microbenchmarks.device import capture
    from simulator.calibration.microbenchmarks.kernels.empty import empty

    if case.kernel == "kernel in a graph":
        return Work((Variant("", lambda i: empty()),), 1, "graph")
    if case.kernel == "triton kernel":
        return Work((Variant("", lambda i: empty()),), 1, "host")
    if case.kernel == "torch operator":
        one = torch.ones(1, device=gpu.device)
        return Work((Variant("", lambda i: one.zero_()),), 1, "host")
    graph = capture(empty, before=empty)
    return Work((Variant("", lambda i: graph.replay()),), 1, "host")
