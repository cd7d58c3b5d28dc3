"""Step times under a cap on power or a held clock: steps that would draw more than the cap take longer.

A step of duration t whose uncapped power P (`simulator.power.step_energy`, at most the board's limit) is above the cap
runs at the clock f < 1 at which

    idle + (P - idle) x f^a = cap

(``FREQUENCY_EXPONENT``), and of its time the share that is arithmetic, FLOPs over 0.8 of peak x t, goes as 1 / f;
memory keeps its own clock. So prompts pay for a cap and decodes hardly do, as Splitwise and POLCA found. Boards average
their power over milliseconds; here the cap holds for every step alone. A held clock stretches all steps so, and a cap
may lower it further.

All of a step's FLOPs and energies are exact integers, and what follows is elementwise +, -, x, /, and a square root,
each of which every processor rounds alike: runs and single steps agree to the last bit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from math import sqrt

import numpy as np
import numpy.typing as npt

from simulator.cost.shape import BatchShape, CostModel
from simulator.power.constants import COMPUTE_BOUND_MFU, FREQUENCY_EXPONENT
from simulator.power.model import PowerModel
from simulator.power.step_energy import StepEnergy

Floats = npt.NDArray[np.float64]

assert FREQUENCY_EXPONENT == 2.0, "the clock under a cap is a square root here"


class CappedCost:
    """The step times of another cost model, stretched; see the module.

    Parameters
    ----------
    inner
        Step times without the cap.
    power
        Of the pool: limit, clock, and energies at that clock.
    """

    def __init__(self, inner: CostModel, power: PowerModel) -> None:
        assert power.flops is not None, "a cap needs power by utilisation"
        self._inner = inner
        self._power = power
        self._energy: StepEnergy = power.steps
        self._clock = power.clock
        self._busy_mw = power.steps.busy_mw / power.steps.stages
        assert power.steps.limit_mw is not None
        self._room_mw = self._busy_mw + power.steps.limit_mw  # above idle, of the GPUs that a batch has at a time
        self._board_mw = self._room_mw * ((power.board_w - power.idle_w) / (power.limit_w - power.idle_w))
        self._flops_per_ns = power.peak_flops * COMPUTE_BOUND_MFU / 1e9
        self._flops: Mapping[str, float] = power.flops

    @property
    def sources(self) -> tuple[str, ...]:
        """Those of the inner model, and the stretch."""
        limits = [f"at most {self._power.limit_w:g} W a GPU"]
        if self._clock < 1.0:
            limits.append(f"at most {self._clock:g} of its clock")
        stretch = f"stretched by a model of power (an estimate): {', '.join(limits)}"
        return (*self._inner.sources, stretch)

    @property
    def substitutions(self) -> Counter[str]:
        """Steps beyond what was measured, as the inner model counts them."""
        return getattr(self._inner, "substitutions", None) or Counter()

    def step_ns(self, shape: BatchShape) -> int:
        """Duration of one step."""
        return self._stretched(shape, 0, self._inner.step_ns(shape))

    def few_ns(self, shape: BatchShape, k: int) -> list[int]:
        """Durations of a few steps."""
        return [self._stretched(shape, i, taken) for i, taken in enumerate(self._inner.few_ns(shape, k))]

    def run_ns(self, shape: BatchShape, k: int) -> npt.NDArray[np.int64]:
        """Durations of ``k`` steps."""
        taken = self._inner.run_ns(shape, k).tolist()
        return np.fromiter((self._stretched(shape, i, ns) for i, ns in enumerate(taken)), dtype=np.int64, count=k)

    def stage_ns(self, shape: BatchShape) -> list[int]:
        """Time in each pipeline stage: each stretched as the whole step is."""
        taken = self._inner.stage_ns(shape)
        total = sum(taken)
        stretched = self._stretched(shape, 0, total)
        return [max(1, round(ns * (stretched / total))) for ns in taken]

    def _stretched(self, shape: BatchShape, step: int, taken_ns: int) -> int:
        """Return how long the ``step``-th step of a run takes, which takes ``taken_ns`` at its own clock."""
        bound = self._arithmetic(shape, step) / (self._flops_per_ns * taken_ns)
        if bound > 1.0:
            bound = 1.0
        stretch = 1.0 + bound * (1.0 / self._clock - 1.0)
        energy = self._energy.linear_pj(shape, step)
        drawn = self._busy_mw + energy / (taken_ns * stretch)
        if drawn > self._room_mw:
            uncapped = drawn if drawn < self._board_mw else self._board_mw
            if uncapped > self._room_mw:
                clock = self._clock * sqrt(self._room_mw / uncapped)
                stretch = 1.0 + bound * (1.0 / clock - 1.0)
        stretched = round(taken_ns * stretch)
        return stretched if stretched > 1 else 1

    def _arithmetic(self, shape: BatchShape, step: int) -> float:
        """Return the FLOPs of the ``step``-th step of a run, prompt chunks in sliding layers as if they saw all."""
        flops, decodes = self._flops, shape.decodes
        total = shape.tokens * flops["token"] + shape.logit_rows * flops["row"]
        total += (shape.decode_kv + step * decodes) * flops["attended"]
        total += (shape.decode_window_kv + step * shape.decode_window_growth) * flops["window"]
        for new, cached in shape.chunks:
            pairs = new * (cached + step * new) + new * (new + 1) // 2
            total += pairs * (flops["attended"] + flops["window"])
        return total


__all__ = ["CappedCost"]
