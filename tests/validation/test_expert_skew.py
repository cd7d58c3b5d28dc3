"""The busiest rank's rows, worked out, against kernels measured on the busiest rank; nothing is fitted to them."""

from __future__ import annotations

import numpy as np
import pytest

from policies.parallelism.linear import Linear
from simulator.calibration.load import load_measurements
from simulator.cost.expert_load import hottest, popularity
from simulator.cost.tables import curve
from simulator.errors import InputError

TOKENS = np.array([256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0])


def test_balanced_kernels_with_the_busiest_ranks_rows_are_near_skewed_ones() -> None:
    """DeepSeek-V3's experts on H200, TensorRT-LLM's kernels, a power law of exponent 1.2 over 4, 8 and 16 ranks."""
    try:
        rows = load_measurements("aiconfigurator:h200_sxm/trtllm")
    except InputError as error:
        pytest.skip(str(error))
    rows = rows[(rows["operator"] == "experts") & (rows["hidden_size"] == 7168) & (rows["num_experts"] == 256)]
    rows = rows[(rows["kernel"] == "moe_torch_flow_cutlass") & (rows["weight_dtype"] == "fp8_block")]
    rows = rows[(rows["moe_tp"] == 1) & (rows["intermediate_size"] == 2048)]
    worked_out, ignored = [], []
    for ranks in (4, 8, 16):
        place = Linear().place([1.0] * 256, ranks, 1, 0)
        draws = (popularity("power-law", 256, 1.2, None, np.random.default_rng(seed)) for seed in range(100))
        busiest = float(np.median([hottest(shares, place) for shares in draws]))
        times = {}
        for routing in ("balanced", "power_law_1.2"):
            part = rows[(rows["moe_ep"] == ranks) & (rows["routing"] == routing)]
            found = part.groupby("tokens", sort=True)["time_s"].min()
            times[routing] = found.index.to_numpy(dtype=np.float64), found.to_numpy(dtype=np.float64)
        skewed = curve(*times["power_law_1.2"], TOKENS, hold=False)
        worked_out += (curve(*times["balanced"], TOKENS * busiest, hold=False) / skewed - 1.0).tolist()
        ignored += (curve(*times["balanced"], TOKENS, hold=False) / skewed - 1.0).tolist()
    assert np.median(np.abs(worked_out)) < 0.10
    assert np.median(np.abs(ignored)) > 0.25  # what leaving skew out would cost
