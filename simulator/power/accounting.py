"""What a run drew: the ``energy`` section of the summary, and power over time.

Figures are of the whole run, from its start to its end, idle time included. Tokens are those of all finished requests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from simulator.engine.clock import NS_PER_S
from simulator.power.constants import JOULES_PER_KWH

if TYPE_CHECKING:
    from simulator.engine.control import Control
    from simulator.metrics import Rows
    from simulator.run_data import PoolData, RunData

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_NJ_PER_J = 1e9


def idle_watts(pools: Sequence[PoolData], num_replicas: int) -> Floats:
    """Return what each replica's accelerators draw together while they are idle; NaN where it isn't known."""
    watts = np.full(num_replicas, np.nan)
    for pool in pools:
        if pool.power is not None:
            watts[list(pool.replicas)] = pool.power.idle_w * pool.gpus_per_replica
    return watts


def power_watts(samples: Mapping[str, Ints], interval_ns: int, idle: Floats, control: Control | None = None) -> Floats:
    """Return the mean power of a replica's accelerators over the interval that ends with each sample, shape (n,).

    While a replica is given back (`Control.up_ns`) it draws nothing.

    Parameters
    ----------
    samples
        `Timeline.columns`.
    idle
        Idle watts by replica.
    """
    replica, energy = samples["replica"], samples["energy_nj"]
    order = np.argsort(replica, kind="stable")
    gained = np.diff(energy[order], prepend=0)
    first = np.diff(replica[order], prepend=-1) != 0
    gained = np.where(first, energy[order], gained)
    watts = np.empty(len(gained))
    watts[order] = gained / interval_ns
    if control is None or not control.any_down:
        return watts + idle[replica]
    ends = samples["t_ns"].tolist()
    up = [control.up_ns(i, max(0, end - interval_ns), end) for i, end in zip(replica.tolist(), ends, strict=True)]
    share: Floats = np.array(up, dtype=np.float64) / interval_ns
    return watts + idle[replica] * share


def energy_section(data: RunData, rows: Rows, *, up_ns: Mapping[int, int] | None = None) -> dict[str, Any]:
    """Return the ``energy`` section of the summary.

    Parameters
    ----------
    up_ns
        How long each replica was up, by index; left out: the whole run.
    """
    cluster, end_ns = data.cluster, data.cluster.end_ns
    unknown = [pool.name for pool in data.pools if pool.power is None]
    if unknown or not data.pools or not end_ns:
        reason = f"no power model for pool {', '.join(unknown)}" if unknown else "no time passed or no pool is known"
        return {"total_j": None, "energy_j_per_token": None, "reason": reason}
    counters = [replica.energy_counters for replica in cluster.replicas]
    up = [end_ns if up_ns is None else up_ns.get(i, 0) for i in range(len(counters))]
    idle = idle_watts(data.pools, len(counters)).tolist()
    idle_j = [watts * ns / NS_PER_S for watts, ns in zip(idle, up, strict=True)]
    above_j = [each.total_nj / _NJ_PER_J for each in counters]
    recorder = cluster.recorder
    peaks, at = _peaks(data, np.array(idle))
    overhead_w = _overhead_watts(data.pools, len(counters))
    overhead_j = [watts * ns / NS_PER_S for watts, ns in zip(overhead_w, up, strict=True)]
    seconds = end_ns / NS_PER_S
    prompt_j = sum(each.prompt_steps_pj for each in counters) / 1e12
    accelerators, overhead = sum(idle_j) + sum(above_j), sum(overhead_j)
    total = accelerators + overhead
    output = int(rows.output[rows.finished].sum(dtype=np.int64))
    tokens = output + int(rows.prompt[rows.finished].sum(dtype=np.int64))
    gpu_hours = sum(up[i] * pool.gpus_per_replica / NS_PER_S / 3600 for pool in data.pools for i in pool.replicas)
    return {
        "total_j": total,
        "accelerators_j": accelerators,
        "rest_of_servers_j": overhead,
        "energy_j_per_token": total / tokens if tokens else None,
        "energy_j_per_output_token": total / output if output else None,
        "mean_power_w": total / seconds,
        "peak_power_w": None if at is None else at + sum(overhead_w),
        "peak_interval_s": recorder.sample_interval_ns / NS_PER_S,
        "by_phase_j": {
            "idle": sum(idle_j),
            "steps_with_prompts": prompt_j,
            "steps_of_decodes": sum(above_j) - prompt_j,
        },
        **_outside(data.scenario.get("power") or {}, total, gpu_hours),
        "replicas": [
            {
                "replica": i,
                "accelerators_j": idle_j[i] + above_j[i],
                "mean_power_w": (idle_j[i] + above_j[i]) * NS_PER_S / up[i] if up[i] else None,
                "peak_power_w": peaks[i],
                "at_limit_s": each.limited_ns / NS_PER_S,
            }
            for i, each in enumerate(counters)
        ],
        "pools": [
            {
                "name": pool.name,
                "accelerators_j": sum(idle_j[i] + above_j[i] for i in pool.replicas),
                "rest_of_servers_j": sum(overhead_j[i] for i in pool.replicas),
                "idle_w": pool.power.idle_w,
                "limit_w": pool.power.limit_w,
                "sources": list(pool.power.sources),
            }
            for pool in data.pools
            if pool.power is not None
        ],
        "reason": None if tokens else "no request finished",
    }


def _peaks(data: RunData, idle: Floats) -> tuple[list[float | None], float | None]:
    """Return the largest sampled power of each replica, and of all together; None where nothing was sampled."""
    recorder = data.cluster.recorder
    samples = recorder.timeline.columns()
    watts = power_watts(samples, recorder.sample_interval_ns, idle, data.cluster.control)
    if not len(watts):
        return [None] * len(idle), None
    peaks = np.zeros(len(idle))
    np.maximum.at(peaks, samples["replica"], watts)
    _, instant = np.unique(samples["t_ns"], return_inverse=True)
    return [*peaks.tolist()], float(np.bincount(instant, weights=watts).max())


def _overhead_watts(pools: Sequence[PoolData], num_replicas: int) -> list[float]:
    watts = [0.0] * num_replicas
    for pool in pools:
        if pool.power is not None:
            for i in pool.replicas:
                watts[i] = pool.power.overhead_w * pool.gpus_per_replica
    return watts


def _outside(given: Mapping[str, Any], total_j: float, gpu_hours: float) -> dict[str, Any]:
    """Return what the site draws, and what it costs in money and carbon; null with a reason where not given."""
    site_kwh = total_j * given.get("pue", 1.0) / JOULES_PER_KWH
    price, grid = given.get("price_per_kwh"), given.get("grid_g_per_kwh")
    embodied = given.get("embodied_g_per_gpu_hour")
    operational_g = None if grid is None else grid * site_kwh
    embodied_g = None if embodied is None else embodied * gpu_hours
    return {
        "pue": given.get("pue", 1.0),
        "site_kwh": site_kwh,
        "electricity_cost": None if price is None else price * site_kwh,
        "electricity_cost_reason": "no power.price_per_kwh" if price is None else None,
        "carbon_g": operational_g,
        "carbon_reason": "no power.grid_g_per_kwh" if grid is None else None,
        "embodied_carbon_g": embodied_g,
        "embodied_carbon_reason": "no power.embodied_g_per_gpu_hour" if embodied is None else None,
    }
