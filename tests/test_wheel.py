"""The wheel: the import packages and the bundled traces and nothing else, and it works from any directory."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"simulator", "policies", "workloads", "hardware_profiles", "traces"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel as pip would (the build backend is fetched)."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.glob("*.whl")
    return built


def test_the_wheel_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == PACKAGES
    data = {Path(name).suffix for name in names if not name.split("/")[0].endswith(".dist-info")}
    assert data <= {".py", ".yaml", ".parquet", ".csv", ".gz", ".md", ".typed", ".json", ".html"}
    assert any(name.startswith("hardware_profiles/accelerators/") for name in names)
    assert any(name.startswith("simulator/models/catalogue/") for name in names)
    assert {"simulator/reports/page.html", "simulator/validation/known_errors.json"} <= {*names}


def test_a_bundled_trace_runs_from_any_directory_with_the_installed_wheel(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(site), "NO_COLOR": "1"}
    code = "import simulator; print(simulator.__file__); from simulator.cli import main; main()"
    for name in ("burstgpt-style", "shared-prefix"):
        done = subprocess.run(
            [sys.executable, "-c", code, "run", f"bundled:{name}", "--limit", "50", "--out", name],
            cwd=elsewhere,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.startswith(str(site))  # the wheel's package, not the checkout's
        assert "50 of 50 requests finished" in done.stdout
        assert (elsewhere / name / "summary.json").is_file()
