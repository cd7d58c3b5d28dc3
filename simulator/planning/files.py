"""What a plan leaves in a directory: ``plan.json``, ``configurations.csv``, ``fleets.csv`` and ``fleet.yaml``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulator.resolve import resolve
from simulator.scenario_keys import anchor_paths
from simulator.studies.directories import check_own, csv_text, json_text, write_all
from simulator.terminal import plural
from simulator.write import REPORT, plain

if TYPE_CHECKING:
    from simulator.planning.fleets import Fleet
    from simulator.planning.planner import Candidate, PlanResult
    from simulator.planning.proving import Run

SCHEMA_VERSION = 1
PLAN = "plan.json"
CONFIGURATIONS = "configurations.csv"
FLEETS = "fleets.csv"
FLEET = "fleet.yaml"
OWN_FILES = frozenset({PLAN, CONFIGURATIONS, FLEETS, FLEET, REPORT})


def check_dir(place: Path, *, overwrite: bool) -> Path:
    """Return the directory, absolute, if a plan may be written there; for a check before a long plan.

    Raises
    ------
    InputError
        If it is a file, can't be made, or holds anything but an earlier plan that may be replaced.
    """
    return check_own(place, "plan", OWN_FILES.__contains__, overwrite=overwrite)


def write(result: PlanResult, place: Path) -> None:
    """Write a plan to a directory that `check_dir` returned."""
    files = {
        CONFIGURATIONS: csv_text(configuration_rows(result.candidates)),
        FLEETS: csv_text(fleet_rows(result)),
        PLAN: json_text(described(result)),
        FLEET: _scenario(result).to_yaml(),
    }
    write_all(place, files, OWN_FILES.__contains__)


def _scenario(result: PlanResult) -> Any:
    """Return the fleet's scenario with paths that hold from any directory."""
    from simulator.scenario import Scenario

    data = result.scenario.to_mapping()
    anchor_paths(data, Path.cwd())
    return Scenario.from_mapping(data)


def configuration_rows(candidates: Sequence[Candidate]) -> list[dict[str, Any]]:
    """Return a row a configuration, the best for its price first."""
    rows = []
    for each in candidates:
        capacity = each.share
        rows.append(
            {
                "configuration": each.configuration.text,
                "gpu": each.configuration.choice.gpu,
                "gpus": each.configuration.gpus,
                **dict(each.configuration.layout.sizes),
                **dict(each.configuration.changes),
                "usd_per_hour": round(each.configuration.price, 6),
                "share_of_requests": capacity,
                "usd_per_hour_for_all": round(each.configuration.price / capacity, 6) if capacity else None,
                **{f"share_of_{name}": found.share for name, found in each.capacities.items() if name},
                "probes": sum(len(found.probes) for found in each.capacities.values()),
                "left_out": each.dropped or None,
            }
        )
    return rows


def fleet_rows(result: PlanResult) -> list[dict[str, Any]]:
    """Return a row a fleet that was simulated: the plan, then every cheaper one, dearest first."""
    rows = [{**_fleet(result.fleet), "verdict": "the plan: meets the objectives", "on": None, "misses": None}]
    for each in (*result.enumeration.tried, *result.enumeration.disaggregated):
        failed = each.failed_on
        rows.append(
            {
                **_fleet(each.fleet),
                "roles": "prefill and decode apart" if each.fleet.is_disaggregated else "mixed",
                "share_by_capacities": each.nominal,
                "verdict": "fails",
                "on": None if failed is None else failed.where,
                "misses": None if failed is None else "; ".join(failed.misses),
            }
        )
    return rows


def _fleet(fleet: Fleet) -> dict[str, Any]:
    return {
        "fleet": fleet.text,
        "usd_per_hour": round(fleet.price, 6),
        "replicas": fleet.replicas,
        "gpus": fleet.gpus,
    }


def _run(run: Run) -> dict[str, Any]:
    return {
        "on": run.where,
        "seed": run.seed,
        "meets": run.met,
        "objectives": list(run.misses),
        "simulated_whole": run.is_whole,
    }


def described(result: PlanResult) -> dict[str, Any]:
    """Return a plan as plain data; only ``took_s`` differs between two plans of the same."""
    trace_run = result.runs[0]
    return {
        "schema_version": SCHEMA_VERSION,
        "model": result.model,
        "requests": result.requests,
        "requests_per_s": result.rate,
        "busiest_requests_per_s": result.peak_rate,
        "objectives": [each.text for each in result.objectives],
        "answer": answer(result),
        "plan": {
            **_fleet(result.fleet),
            "pools": [
                {"configuration": each.text, "pool": each.name, "replicas": number, "usd_per_hour": number * each.price}
                for each, number in result.fleet.parts
            ],
            "router": result.scenario.router.name,
        },
        "prices": [
            {
                "gpu": each.gpu,
                "usd_per_gpu_hour": each.price,
                "at_most_gpus": each.at_most,
                **(
                    {"given": True}
                    if each.offer is None
                    else {
                        "provider": each.offer.provider,
                        "region": each.offer.region,
                        "purchase": each.offer.purchase,
                        "seen": each.offer.seen,
                        "source": each.offer.source,
                        "recorded": each.offer.recorded or None,
                    }
                ),
            }
            for each in result.choices
        ],
        "proof": {
            "meets_on": [_run(run) for run in result.runs],
            "seeds": result.seeds_vary,
            "one_replica_fewer": [
                {**_fleet(fleet), "runs": [_run(run) for run in runs]} for fleet, runs in result.removals
            ],
            "cheaper_fleets": {
                "simulated": num_tried(result),
                "failed": num_tried(result),
                "of_them_disaggregated": len(result.enumeration.disaggregated),
                "not_simulated": result.enumeration.untried,
                "disaggregated_not_simulated": result.enumeration.disaggregated_untried,
                "not_simulated_have_at_most": result.enumeration.untried_below or None,
            },
        },
        "rounds": [{"fleet": fleet.text, "meets": met} for fleet, met in result.rounds],
        "configurations": configuration_rows(result.candidates),
        "fleets": fleet_rows(result),
        "refused": [
            {"gpu": choice.gpu, "layout": each.plan.text, "kind": each.kind, "reason": each.reason}
            for choice, each in result.refused
        ],
        "summary": dict(trace_run.summary),
        "what_ifs": [
            {
                "name": each.name,
                "change": each.change,
                "plan_holds": each.plan_holds,
                "answer": each.text,
                "fleet": None if each.fleet is None else each.fleet.text,
                "usd_per_hour": each.price,
                "how": each.how,
            }
            for each in result.what_ifs
        ],
        "lower_bound": _bound(result),
        "notes": list(result.notes),
        "simulations": result.simulations,
        "took_s": dict(result.took_s),
        "scenario": plain(resolve(_scenario(result)).scenario.to_mapping(everything=True)),
    }


def _bound(result: PlanResult) -> dict[str, Any] | None:
    bound = result.bound
    if bound is None:
        return None
    return {
        "window_s": bound.window_s,
        "gpus": [round(float(value), 4) for value in bound.gpus],
        "usd_per_hour": [round(float(value), 4) for value in bound.price],
        "mean_gpus": bound.mean_gpus,
        "mean_usd_per_hour": bound.mean_price,
        "fewest_with": bound.fewest.text,
        "cheapest_with": bound.cheapest.text,
        "plan_uses": bound.mean_gpus / result.fleet.gpus,
        "full_steps_requests_per_s": {each.text: rate for each, rate in bound.rates},
    }


def num_tried(result: PlanResult) -> int:
    """Return how many cheaper fleets were simulated, of either kind."""
    return len(result.enumeration.tried) + len(result.enumeration.disaggregated)


def answer(result: PlanResult) -> str:
    """Return the answer in a sentence."""
    fleet = result.fleet
    parts = " and ".join(f"{number} x {each.text}" for each, number in fleet.parts)
    wanted = " and ".join(each.text for each in result.objectives)
    month = fleet.price * HOURS_A_MONTH
    return (
        f"{parts}: {plural(fleet.gpus, 'GPU')} for ${fleet.price:,.2f} an hour (${month:,.0f} a month) serve the "
        f"{plural(result.requests, 'request')} within {wanted}."
    )


HOURS_A_MONTH = 730
"""Hours of a month: 365 x 24 / 12."""

__all__ = ["OWN_FILES", "PLAN", "answer", "check_dir", "configuration_rows", "described", "fleet_rows", "write"]
