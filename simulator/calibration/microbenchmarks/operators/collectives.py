"""Collectives of the GPUs of this machine through torch.distributed and NCCL, a process a GPU."""
# mypy: disable-error-code="import-not-found,attr-defined,no-untyped-call"

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from simulator.calibration.microbenchmarks.case import ELEMENT_BYTES, Case, shape
from simulator.calibration.microbenchmarks.sampling import Batch, Plan, Reading, Sample, sample

OPERATORS = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")

SIZES = tuple(2**i for i in range(12, 30, 2))
"""Bytes: 4 KiB to 256 MiB."""

QUICK_SIZES = (65536, 16 * 2**20)

_DTYPE = "bf16"


def cases(gpus: int, quick: bool) -> list[Case]:
    """Return the grid: sizes and numbers of ranks, powers of two up to all GPUs (``quick``: the most); empty with one.

    ``message_bytes`` is the larger buffer of a rank: what an all-reduce or all-to-all has, an all-gather leaves, a
    reduce-scatter takes (as nccl-tests counts).
    """
    ranks = [n for n in (2, 4, 8, 16) if n <= gpus]
    if quick:
        ranks = ranks[-1:]
    sizes = QUICK_SIZES if quick else SIZES
    return [
        Case(operator, "nccl", shape(message_bytes=size, ranks=n), _DTYPE)
        for n in ranks
        for operator in OPERATORS
        for size in sizes
    ]


class _Silent:
    """Reads nothing: power of one rank says little of a collective."""

    def read(self) -> Reading:
        """Return nothing."""
        return Reading()


def measure(cases: Sequence[Case], ranks: int, plan: Plan) -> list[Sample]:
    """Return the samples of cases of one number of ranks, in their order, as the slowest rank saw them.

    Raises
    ------
    Exception
        Whatever a rank raised, of `torch.multiprocessing`.
    """
    return _spawned(cases, ranks, plan, "nccl")


def _spawned(cases: Sequence[Case], ranks: int, plan: Plan, backend: str) -> list[Sample]:
    import torch.multiprocessing as processes

    context = processes.get_context("spawn")
    results: Any = context.SimpleQueue()
    joined = processes.spawn(
        _rank, args=(ranks, _free_port(), tuple(cases), plan, backend, results), nprocs=ranks, join=False
    )
    samples: list[Sample] = []
    while len(samples) < len(cases):
        if not results.empty():
            samples.append(results.get())
        elif joined.join(timeout=0.05):  # raises what a rank raised
            while not results.empty():
                samples.append(results.get())
            break
    while not joined.join():
        pass
    return samples


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _rank(index: int, ranks: int, port: int, cases: tuple[Case, ...], plan: Plan, backend: str, results: Any) -> None:
    """Measure all cases on one rank; rank 0 reports."""
    import torch
    import torch.distributed as distributed

    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    device, own = "cpu", None
    if backend == "nccl":
        device = f"cuda:{index}"
        own = torch.device(device)
        torch.cuda.set_device(own)
    distributed.init_process_group(backend, rank=index, world_size=ranks, device_id=own)
    plan = replace(plan, window_s=0.0)  # a window is for power, which isn't read here
    try:
        for case in cases:
            batch = _agreed(_batch(call_of(case, ranks, device), device), device)
            taken = sample(batch, plan, _Silent())
            if index == 0:
                results.put(taken)
    finally:
        distributed.destroy_process_group()


def call_of(case: Case, ranks: int, device: str) -> Callable[[], Any]:
    """Return a call of the collective on buffers of its own."""
    import torch
    import torch.distributed as distributed

    held = max(ranks, case["message_bytes"] // ELEMENT_BYTES[_DTYPE] // ranks * ranks)
    whole = torch.ones(held, dtype=torch.bfloat16, device=device)
    part = torch.ones(held // ranks, dtype=torch.bfloat16, device=device)
    if case.operator == "all_reduce":
        return lambda: distributed.all_reduce(whole, op=distributed.ReduceOp.MAX)  # a maximum never overflows
    if case.operator == "all_gather":
        return lambda: distributed.all_gather_into_tensor(whole, part)
    if case.operator == "reduce_scatter":
        return lambda: distributed.reduce_scatter_tensor(part, whole, op=distributed.ReduceOp.MAX)
    received = torch.empty_like(whole)
    return lambda: distributed.all_to_all_single(received, whole)


def _batch(call: Callable[[], Any], device: str) -> Batch:
    """Return a batch that starts on all ranks together."""
    import torch
    import torch.distributed as distributed

    def run(launches: int) -> float:
        distributed.barrier()
        if device == "cpu":
            began = time.perf_counter()
            for _ in range(launches):
                call()
            return time.perf_counter() - began
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        start.record()
        for _ in range(launches):
            call()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) * 1e-3

    return run


def _agreed(batch: Batch, device: str) -> Batch:
    """Return a batch whose time is that of the slowest rank: all ranks then decide alike how many more to run."""
    import torch
    import torch.distributed as distributed

    def run(launches: int) -> float:
        spent = torch.tensor([batch(launches)], dtype=torch.float64, device=device)
        distributed.all_reduce(spent, op=distributed.ReduceOp.MAX)
        return float(spent.item())

    return run
