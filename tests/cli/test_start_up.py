"""What a run imports: libraries that take long to import are imported only where they are used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

RUN = """
import sys
from simulator.runner import run

scenario = {"workload": {"trace": "bundled:burstgpt-style"}, "cluster": {"pools": [{"cost": COST}]}}
run(scenario, out=OUT)
print(*sorted(name for name in sys.modules if "." not in name))
"""


def imported(cost: dict[str, object], out: Path) -> set[str]:
    """Return the packages that a run imports."""
    code = RUN.replace("COST", repr(cost)).replace("OUT", repr(str(out)))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("cost", [{"kind": "fitted"}, {"kind": "roofline"}, {"kind": "constant", "step_s": 0.01}])
def test_a_run_to_parquet_imports_nothing_heavy_that_it_does_not_use(cost: dict[str, object], tmp_path: Path) -> None:
    found = imported(cost, tmp_path / "out")
    assert found.isdisjoint({"pandas", "scipy", "matplotlib", "rich", "typer"})
    assert {"numpy", "pyarrow", "simpy"} <= found
