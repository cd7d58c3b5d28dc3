"""Collectives in processes of their own: PyTorch's CPU backend stands in for NCCL, which needs GPUs."""

from __future__ import annotations

import pytest

from simulator.calibration.microbenchmarks.case import Case, shape
from simulator.calibration.microbenchmarks.operators import collectives
from simulator.calibration.microbenchmarks.sampling import Plan
from tests.microbenchmarks.kernels import torch

PLAN = Plan(batch_s=1e-3, repeats=3, window_s=0.0, warmup_s=1e-3, tune_s=0.0)

pytestmark = pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="PyTorch was built without gloo")


def test_two_ranks_measure_what_each_collective_takes() -> None:
    cases = [
        Case(operator, "gloo", shape(message_bytes=size, ranks=2), "bf16")
        for operator in collectives.OPERATORS
        for size in (64, 2**16)
    ]
    samples = collectives._spawned(cases, 2, PLAN, "gloo")
    assert len(samples) == len(cases)
    assert all(0 < taken.time_s < 1 for taken in samples)


def test_what_a_rank_raises_is_raised() -> None:
    with pytest.raises(Exception, match="message_bytes"):
        collectives._spawned([Case("all_reduce", "gloo", (), "bf16")], 2, PLAN, "gloo")
