"""What a run imports: libraries that take long to import are imported only where they are used."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

RUN = """
import sys
from simulator.runner import run

scenario = {"workload": {"trace": "bundled:burstgpt-style"}, "cluster": {"pools": [{"cost": COST}]}}
run(scenario, out=OUT)
print(*sorted(sys.modules))
"""

FEATURES = {
    "policies.budget",
    "simulator.admission",
    "simulator.clients",
    "simulator.cost.context_parallel",
    "simulator.cost.offload",
    "simulator.cost.timing",
    "simulator.cost.together",
    "simulator.disaggregation",
    "simulator.engine.budget",
    "simulator.engine.budget_group",
    "simulator.engine.control",
    "simulator.engine.load",
    "simulator.engine.lockstep",
    "simulator.engine.prefill_balance",
    "simulator.engine.rank_routing",
    "simulator.engine.shared_prefix",
    "simulator.engine.tenants",
    "simulator.engine.tiered_kv",
    "simulator.faults",
    "simulator.kv_budget",
    "simulator.kv_tiers",
    "simulator.lockstep_result",
    "simulator.network",
    "simulator.offload",
    "simulator.perfetto",
    "simulator.power.capped_cost",
    "simulator.presets",
    "simulator.rescheduling",
    "simulator.scaling",
    "simulator.shared_prefix",
    "simulator.studies",
    "simulator.tenants",
    "workloads.generators",
    "workloads.stats",
    "workloads.writers",
}
"""Modules of what a run may have, or what is done with traces, that a plain run does without."""


def imported(cost: dict[str, object], out: Path) -> set[str]:
    """Return the modules that a run imports."""
    code = RUN.replace("COST", repr(cost)).replace("OUT", repr(str(out)))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("cost", [{"kind": "fitted"}, {"kind": "roofline"}, {"kind": "constant", "step_s": 0.01}])
def test_a_run_to_parquet_imports_nothing_heavy_that_it_does_not_use(cost: dict[str, object], tmp_path: Path) -> None:
    found = imported(cost, tmp_path / "out")
    assert found.isdisjoint({"pandas", "scipy", "matplotlib", "rich", "typer"})
    assert not found & FEATURES
    assert {"numpy", "pyarrow", "simpy"} <= found


def test_the_modules_of_features_are_called_so() -> None:
    assert all(importlib.util.find_spec(name) is not None for name in FEATURES)
