"""How long a grid takes: an estimate from its shapes, and the clock that holds ``--quick`` to its promise."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from hardware_profiles import Accelerator
from simulator.calibration.microbenchmarks.case import Case
from simulator.calibration.microbenchmarks.operators import collectives, copies
from simulator.calibration.microbenchmarks.sampling import Plan

QUICK_LIMIT_S = 165.0
"""``--quick`` starts no case after as many seconds: the last one and the imports still end within three minutes."""

EFFICIENCY = 0.5
"""Share of the data sheet's rates that an estimate takes kernels to reach: an assumption, on the slow side for large
shapes. Small ones are held up by `LEAST_S`."""

LEAST_S = 5e-6
"""Seconds of a launch at least: an assumption."""

SETUP_S = 0.15
"""Seconds to make a case ready and capture its graphs: an assumption."""

COMPILE_S = 2.0
"""Seconds to compile one tile of a kernel. Triton 3.9 took 0.1 to 4.1 s (2.4 at the 90th percentile) for those here,
for compute capability 9.0 on one core of a server without a GPU."""

TILES = {"gemm": 7, "prefill_attention": 4, "decode_attention": 5, "experts": 6}
"""Tiles that are compiled once and tried at each case; 3 of other operators."""

COLLECTIVES_START_S = 15.0
"""Seconds to start the processes of a number of ranks: an assumption."""


def roofline_s(case: Case, profile: Accelerator) -> float:
    """Return the least seconds of a launch by the data sheet.

    Parameters
    ----------
    profile
        Of the GPU; types that it has no rate for are reckoned at bf16's.
    """
    rate = profile.peak_flops.get(case.dtype or "bf16", profile.peak_flops.get("bf16", profile.peak_flops.get("fp16")))
    bandwidth = profile.pcie_bandwidth if copies.over_pcie(case) else profile.memory_bandwidth
    return max(case.flops / rate if rate else 0.0, case.bytes / bandwidth)


def estimate_s(cases: Iterable[Case], profile: Accelerator, plan: Plan) -> float:
    """Return roughly how many seconds a grid takes.

    Each case: making it ready, trying its tiles, warm-up at its limit, samples. Each tile of a group is compiled once.
    """
    total, groups, ranks = 0.0, set(), set()
    for case in cases:
        launch_s = max(LEAST_S, roofline_s(case, profile) / EFFICIENCY)
        batch_s = max(plan.batch_s, launch_s)
        samples_s = max(plan.repeats * batch_s, plan.window_s)
        total += plan.warmup_s + samples_s + 2 * launch_s
        if case.operator in collectives.OPERATORS:
            ranks.add(case["ranks"])
            continue
        tiles = _tiles(case)
        # A variant is launched once, timed once, and tried three times.
        total += SETUP_S + (tiles * (2 * launch_s + max(plan.tune_s, 3 * launch_s)) if tiles > 1 else 0.0)
        groups.add((case.group, tiles))
    return total + sum(tiles * COMPILE_S for _, tiles in groups) + COLLECTIVES_START_S * len(ranks)


def _tiles(case: Case) -> int:
    if not case.kernel.startswith("triton") or case.operator == "launch":
        return 1
    return TILES.get(case.operator, 3)


@dataclass(slots=True)
class Budget:
    """Seconds that a run may take.

    Attributes
    ----------
    limit_s
        None: no limit.
    now
        Clock, s.
    """

    limit_s: float | None
    now: Callable[[], float] = time.monotonic
    _began: float | None = field(default=None, init=False)

    def start(self) -> None:
        """Start the clock."""
        self._began = self.now()

    @property
    def spent(self) -> bool:
        """True where no other case may be started."""
        if self.limit_s is None or self._began is None:
            return False
        return self.now() - self._began >= self.limit_s
