"""Figures of the utilisation model of power: shares of a board's power limit, and where each comes from.

A board draws, while a step runs,

    idle + active + memory x (bytes/s over peak bandwidth) + compute x (FLOP/s over peak)

and at most its limit: where the sum is more, clocks fall until it isn't, and measured step times hold that already.
Shares are of the data sheet's power limit (TDP). Two shares in place of one utilisation, because decodes are bound by
memory and prompts by arithmetic: Splitwise (arXiv:2311.18677) and POLCA (arXiv:2308.12908) see prompts near the limit,
token generation far below it, and rising with the batch.

How far published measurements lie from what these figures say is in docs/power.md. None is fitted to a result of this
simulator.
"""

from __future__ import annotations

IDLE_SHARE = 0.15
"""Idle, of an accelerator whose profile has no ``idle_w``: an assumption; where there is one it is 0.11 (H200) to 0.37
(A40) of the limit, 0.15 on A100."""

ACTIVE_SHARE = 0.05
"""Drawn whenever a step runs, whatever it computes (clocks, schedulers, caches): an assumption. H200 decodes that move
little start at 137 W (arXiv:2605.11999, abstract), 0.08 of the limit above idle."""

MEMORY_SHARE = 0.36
"""At full memory bandwidth. H100 SXM, one sequence: 300 W (ML.ENERGY v3.0, as quoted by the power model of vLLM's
semantic-router fleet simulator); of 700 W, 86 W idle, bandwidth used to some 0.7 (an assumption):
(0.43 - 0.12 - 0.05) / 0.7 = 0.37. B200 decode attention at 0.83 of its bandwidth draws 580 W in the median
(aiconfigurator-core 0.12.0, vLLM 0.22.0): (0.58 - 0.19 - 0.05) / 0.83 = 0.41."""

COMPUTE_SHARE = 1.2
"""At peak FLOP/s, which no kernel reaches. An assumption between two bounds: matrix products reach 0.82 of peak at the
limit (`simulator.cost.efficiency`), which 0.9 would do for; served batches of 128 draw 600 W on H100 (ML.ENERGY, as
above) and 517 W on H200 (Serial Alice, Phi-3-mini), which need 1.7 to 2.3. Power rises less than in proportion."""

FREQUENCY_EXPONENT = 2.0
"""Power above idle goes as the clock to this: an assumption between 1 (a fixed voltage) and 3 (one in proportion to
the clock, as CMOS at best)."""

COMPUTE_BOUND_MFU = 0.8
"""Share of peak FLOP/s at which all of a step's time is arithmetic, and goes as 1 / clock; below it that share of the
time does, in proportion. `simulator.cost.efficiency`: matrix products reach 0.82 of peak on H100, 0.86 on A100."""

JOULES_PER_KWH = 3.6e6
"""By definition."""
