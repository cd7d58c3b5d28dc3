"""Disaggregated serving points: prefill and decode on servers (*workers*) of their own, as the rows' columns give them.

A row has a layout and a number of workers for each phase. Where it names no numbers it can't be judged, but for one
request at a time, which meets one worker of each phase however many there are. What joins the workers is not recorded
either: each begins with a new node, one interface a GPU, rail-optimised (the scenario's defaults); how KV is handed
over is as the engine's default has it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

PHASES = ("prefill", "decode")

SYSTEMS = ("h100_sxm", "h200_sxm")
"""Where they are simulated: servers of 8 GPUs, whose workers fit one each."""

COLUMNS = ("num_workers", "tp_size", "pp_size", "attention_dp_size", "moe_tp_size", "moe_ep_size")
"""Of each phase, behind its name."""


@dataclass(frozen=True)
class Workers:
    """The workers of one phase.

    Attributes
    ----------
    number
        How many; None where the row names none.
    columns
        Their layout under the names that aggregated points have.
    """

    number: int | None
    columns: Mapping[str, float | None]


def is_disaggregated(point: Mapping[str, Any]) -> bool:
    """Tell whether a point has prefill and decode on workers of their own."""
    return str(point["mode"]) == "disagg"


def workers_of(point: Mapping[str, Any], phase: str, number: Callable[[Any, str], float | None]) -> Workers:
    """Return the workers of a phase.

    Parameters
    ----------
    number
        Reads the text of a field, given its name; None for an empty one.
    """
    found = {name: number(point.get(f"{phase}_{name}"), f"{phase}_{name}") for name in COLUMNS}
    count = found.pop("num_workers")
    return Workers(None if count is None else int(count), found)


def left_out_disagg(point: Mapping[str, Any], clients: int | None) -> str | None:
    """Return why a disaggregated point is not simulated; None: it can be."""
    if point["system"] not in SYSTEMS:
        return f"disaggregated: simulated on {' and '.join(SYSTEMS)} only, whose workers fit a server each"
    for phase in PHASES:
        if not point.get(f"{phase}_tp_size"):
            return f"disaggregated: its row names no layout of its {phase} workers"
    if clients != 1 and not all(point.get(f"{phase}_num_workers") for phase in PHASES):
        return "disaggregated: its row names no numbers of workers, so how many share the requests is not known"
    return None


def backend_of(point: Mapping[str, Any]) -> str:
    """Return the backend as groups name it: disaggregated points apart."""
    return f"{point['backend']} disagg" if is_disaggregated(point) else str(point["backend"])


def disaggregated(
    pools: Mapping[str, dict[str, Any]], workers: Mapping[str, Workers], notes: list[str]
) -> dict[str, Any]:
    """Return the parts of a scenario for workers of both phases; assumptions are added to ``notes``.

    Parameters
    ----------
    pools
        A pool's plain data by phase, without name, role and replicas.
    """
    made = [{**pools[phase], "name": phase, "role": phase, "replicas": workers[phase].number or 1} for phase in PHASES]
    if any(workers[phase].number is None for phase in PHASES):
        notes.append("numbers of workers are not recorded: one of each phase, as one request at a time meets")
    notes.append("workers on nodes of their own, an interface a GPU, rail-optimised (assumed)")
    return {"cluster": {"pools": made}, "network": {"placement": "separate"}, "disaggregation": {}}
