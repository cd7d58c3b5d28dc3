"""Policies that go by latency objectives take the scenario's where their own are left out."""

from __future__ import annotations

from typing import Any

import pytest

from simulator.errors import InputError
from simulator.resolve import resolve
from simulator.scenario import Scenario

SCALED = {"pools": [{"replicas": 1, "max_replicas": 2}], "scaler": "slo"}


def _resolve(keys: dict[str, Any]) -> Any:
    return resolve(Scenario.from_mapping({"model": "llama-3.1-8b", **keys}))


@pytest.mark.parametrize("name", ["slo-aware", "early-rejection"])
def test_admission_goes_by_the_scenarios_objective(name: str) -> None:
    resolved = _resolve({"admission": name, "objectives": {"ttft_s": 1.5, "tpot_s": 0.2}})
    assert resolved.scenario.admission.params["ttft_s"] == 1.5
    assert f"admission '{name}' goes by the scenario's objectives: ttft_s = 1.5 s" in resolved.notes
    again = resolve(resolved.scenario)
    assert again.scenario == resolved.scenario


def test_its_own_objective_goes_before() -> None:
    own = {"name": "slo-aware", "params": {"ttft_s": 3.0}}
    resolved = _resolve({"admission": own, "objectives": {"ttft_s": 1.5}})
    assert resolved.scenario.admission.params["ttft_s"] == 3.0
    assert not [note for note in resolved.notes if "objectives" in note]


def test_the_scaler_takes_those_that_there_are() -> None:
    resolved = _resolve({"cluster": SCALED, "objectives": {"tpot_s": 0.05}})
    params = resolved.scenario.cluster.scaler.params
    assert (params["ttft_s"], params["tpot_s"]) == (None, 0.05)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (
            {"admission": "slo-aware", "objectives": {"tpot_s": 1.0}},
            r"admission: 'slo-aware' needs an objective: set objectives.ttft_s \(--ttft\), or admission.params.ttft_s$",
        ),
        (
            {"admission": "early-rejection", "objectives": {"classes": {"chat": {"ttft_s": 1.0}}}},
            "early-rejection' needs an objective.*; those of classes don't count here$",
        ),
        (
            {"cluster": SCALED},
            r"cluster.scaler: .slo. needs an objective: set objectives.ttft_s \(--ttft\) or objectives.tpot_s",
        ),
    ],
)
def test_without_an_objective_they_are_refused(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        _resolve(keys)
