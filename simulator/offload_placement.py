"""Where to keep weights, KV and hidden states: FlexGen's linear programme (arXiv:2303.06865, section 4.3).

For a block of equal requests, the shares on GPU, host and disk that make prefill and all decode steps end soonest under
the same times and memory needs as the simulation has (`simulator.cost.offload.busy_s`, `OffloadSetup.needs`).
A decode step is taken as in the middle of the answer. FlexGen also searches the size of the block; here it is given.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import linprog

from simulator.cost.fitted_kernels import fitted_cost, has_fits
from simulator.cost.offload import OffloadCost, Placement, Shares, Work, busy_s
from simulator.cost.roofline import roofline_cost
from simulator.cost.shape import BatchShape
from simulator.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hardware_profiles import Accelerator
    from simulator.models.spec import ModelSpec
    from simulator.offload import OffloadSetup
    from simulator.parallel import ParallelPlan
    from simulator.scenario import Pool
    from simulator.scenario_offload import PlacementSearch

Floats = npt.NDArray[np.float64]

_TIERS = ("gpu", "cpu", "disk")
_SHARES = 9

DIGITS = 4
"""Shares are rounded to so many decimals, down on the GPU and then in host memory: solvers differ in the last ones."""
SLACK = 0.999
"""Share of each tier that the programme may fill, for the rounding."""


def best_placement(
    setup: OffloadSetup,
    pool: Pool,
    model: ModelSpec,
    accelerator: Accelerator,
    plan: ParallelPlan,
    limits: Mapping[str, Any],
    where: str,
) -> Placement:
    """Return the shares that serve the block soonest.

    Raises
    ------
    InputError
        If no placement holds the block.
    """
    assert pool.offload is not None and pool.offload.placement is not None
    block = pool.offload.placement
    make: Callable[..., Any] = fitted_cost if has_fits(accelerator) else roofline_cost
    base = make(
        model,
        accelerator,
        plan,
        weights_dtype=pool.dtypes.weights,
        activation_dtype=pool.dtypes.activations,
        kv_dtype=pool.dtypes.kv,
    )
    # Unknowns: the nine shares, then the seconds of the prefill step and of a decode step.
    above: list[Floats] = []  # row @ unknowns <= limit
    limits_above: list[float] = []

    def bound(form: Callable[[Placement], float], limit: float, step: int | None = None) -> None:
        """Demand that a form, less the seconds of a step, is at most a limit."""
        constant, row = _affine(form)
        if step is not None:
            row[_SHARES + step] = -1.0
        above.append(row)
        limits_above.append(limit - constant)

    for step, shape in enumerate(_shapes(block)):
        compute = _compute_s(base, setup, accelerator, shape)
        work = Work(shape.decodes + shape.prefill_tokens, shape.decodes, shape.decode_kv, 0)

        def lane(place: Placement, name: str, work: Work = work) -> float:
            return float(busy_s(setup.sizes, setup.rates, place, work)[name])

        names = [name for name in busy_s(setup.sizes, setup.rates, _place(np.zeros(_SHARES)), work) if name != "host"]
        if pool.offload.overlap:
            bound(partial(lane, name="host"), -compute, step)
            for name in names:
                bound(partial(lane, name=name), 0.0, step)
        else:

            def together(place: Placement, work: Work = work) -> float:
                return float(sum(busy_s(setup.sizes, setup.rates, place, work).values()))

            bound(together, -compute, step)
    tokens = block.requests * max(block.prompt_tokens + block.output_tokens, limits["max_model_len"] or 0)
    for tier, has in setup.holds.items():
        if has is not None:
            bound(partial(_need, setup=setup, tier=tier, tokens=tokens), SLACK * has)
    there = {"gpu": True, "cpu": setup.host_bytes is not None}
    there["disk"] = setup.disk_bytes is not None and None not in (setup.rates.disk_read, setup.rates.disk_write)
    wholes = np.zeros((3, _SHARES + 2))
    for each in range(3):
        wholes[each, 3 * each : 3 * each + 3] = 1.0
    found = linprog(
        c=[0.0] * _SHARES + [1.0, block.output_tokens - 1.0],
        A_ub=np.array(above),
        b_ub=np.array(limits_above),
        A_eq=wholes,
        b_eq=np.ones(3),
        bounds=[(0, 1 if there[tier] else 0) for _ in range(3) for tier in _TIERS] + [(0, None)] * 2,
        method="highs",
    )
    if found.status != 0:
        raise InputError(
            f"{where}.placement: no placement holds {block.requests} requests of "
            f"{block.prompt_tokens + block.output_tokens} tokens; use fewer requests, more host memory or a disk "
            "(disk_gib, disk_read_gb_per_s, disk_write_gb_per_s)"
        )
    return Placement(*(_rounded(found.x[3 * each : 3 * each + 3], there["disk"]) for each in range(3)))


def _place(shares: Floats) -> Placement:
    """Return the placement of nine shares: weights, KV, hidden states, each on GPU, host and disk."""
    return Placement(*(Shares(*map(float, shares[3 * each : 3 * each + 3])) for each in range(3)))


def _need(place: Placement, setup: OffloadSetup, tier: str, tokens: int) -> float:
    """Return the bytes of a tier that a placement needs for so many tokens in the cache."""
    need = setup.needs(place)[tier]
    return float(need.fixed + need.per_token * tokens)


def _affine(form: Callable[[Placement], float]) -> tuple[float, Floats]:
    """Return the constant and the coefficients of a form that is linear in the shares; those of the seconds are 0."""
    constant = form(_place(np.zeros(_SHARES)))
    row = np.zeros(_SHARES + 2)
    row[:_SHARES] = [form(_place(unit)) - constant for unit in np.eye(_SHARES)]
    return constant, row


def _rounded(shares: Floats, disk_there: bool) -> Shares:
    """Return shares that add up to 1, no upper tier getting more than was found."""
    gpu, cpu = (min(1.0, max(0.0, int(part * 10**DIGITS + 1e-3) / 10**DIGITS)) for part in shares[:2].tolist())
    cpu = min(cpu, round(1.0 - gpu, DIGITS)) if disk_there else round(1.0 - gpu, DIGITS)
    return Shares(gpu, cpu, round(1.0 - gpu - cpu, DIGITS))


def _shapes(block: PlacementSearch) -> tuple[BatchShape, BatchShape]:
    """Return the step that computes the prompts, and the decode step in the middle of the answers."""
    count, prompt = block.requests, block.prompt_tokens
    prefill, decode = BatchShape(), BatchShape()
    prefill.chunks = [(prompt, 0)] * count
    prefill.prefill_tokens = count * prompt
    decode.decodes = count
    middle = prompt + max(1, block.output_tokens // 2)
    decode.decode_kv = decode.decode_window_kv = count * middle
    decode.decode_kv_sq = count * middle * middle
    decode.decode_window_growth = count
    prefill.logit_rows = decode.logit_rows = count
    return prefill, decode


def _compute_s(base: Any, setup: OffloadSetup, accelerator: Accelerator, shape: BatchShape) -> float:
    """Return the seconds of computing on the GPU, as if no KV were there where decodes attend on the host."""
    away = Shares(0.0, 1.0, 0.0)
    cost = OffloadCost(
        base,
        setup.sizes,
        setup.rates,
        Placement(away, away, away),
        overlap=True,
        gpu_batches=setup.gpu_batches,
        memory_bandwidth=accelerator.memory_bandwidth,
    )
    return cost.lanes_s(shape)["compute"]
