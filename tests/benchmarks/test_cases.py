from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from benchmarks import growth
from benchmarks.__main__ import main
from benchmarks.cases import AZURE_RATE, AZURE_REQUESTS, CASES, LOADS, Run, Setting, Skipped, like_azure
from benchmarks.measuring import ROOT
from benchmarks.profile import by_module
from policies.registry import names
from simulator.scenario import Scenario
from tests.benchmarks.test_measuring import ONE
from workloads.generators import generate

NOWHERE = Path("no such folder")


def runs_of(case: str, setting: Setting) -> list[Run]:
    """Return the runs of a case, as if each had served 2 requests a second (100 in 50 s)."""
    generator = CASES[case](setting)
    runs = [next(generator)]
    while True:
        try:
            runs.append(generator.send(ONE))
        except StopIteration:
            return runs


@pytest.mark.parametrize("case", [case for case in CASES if case != "mooncake"])
@pytest.mark.parametrize("quick", [True, False])
def test_every_scenario_of_a_case_is_a_scenario(case: str, quick: bool) -> None:
    runs = runs_of(case, Setting(NOWHERE, quick))
    assert len({run.name for run in runs}) == len(runs)
    for run in runs:
        Scenario.from_mapping(run.scenario)


def test_an_absent_trace_skips_a_case_or_is_stood_in_for() -> None:
    with pytest.raises(Skipped, match="mooncake_conversation"):
        next(CASES["mooncake"](Setting(NOWHERE)))
    assert next(CASES["azure"](Setting(NOWHERE))).name == "stand-in, sarathi"


def test_traces_that_are_there_are_taken(tmp_path: Path) -> None:
    for name in ("azure_llm_2023_conv.csv", "mooncake_conversation.jsonl"):
        (tmp_path / name).touch()
    assert runs_of("azure", Setting(tmp_path))[0].name == "whole, sarathi"
    assert [run.name for run in runs_of("mooncake", Setting(tmp_path))] == ["4 replicas", "64 replicas"]


def test_loads_are_relative_to_the_throughput_of_all_at_once() -> None:
    scales = [run.scenario["workload"]["rate_scale"] for run in runs_of("load", Setting(NOWHERE))]
    saturation = 2 / AZURE_RATE  # 100 requests in 50 s, over the trace's own rate
    assert scales[1 : 1 + len(LOADS)] == pytest.approx([load * saturation for load in LOADS])


def test_every_router_is_measured() -> None:
    measured = Counter(run.scenario["router"] for run in runs_of("replicas", Setting(NOWHERE)))
    assert set(measured) == set(names("routing"))


def test_the_stand_in_has_lengths_and_rate_of_the_azure_trace() -> None:
    trace = generate("poisson", **like_azure(AZURE_REQUESTS)["generator"]["params"])
    assert trace.prompt_tokens.mean() == pytest.approx(1155, rel=0.03)
    assert trace.output_tokens.mean() == pytest.approx(211, rel=0.06)  # no output is longer than 1,000 tokens
    assert len(trace) / trace.arrival_s[-1] == pytest.approx(AZURE_RATE, rel=0.03)


def test_a_quick_run_reports_and_writes_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "speed.json"
    assert main(["decodes", "mooncake", "--quick", "--data", str(tmp_path), "--json", str(file)]) == 0
    plain = json.loads(file.read_text())
    assert plain["timeouts_per_s"] > 0
    assert "mooncake" in plain["skipped"]
    (run,) = plain["runs"]
    assert (run["case"], run["requests"], run["against_stepwise"]["same_results"]) == ("decodes", 512, True)
    assert run["iterations"] >= 512
    assert run["events"] < run["iterations"] < run["against_stepwise"]["stepwise"]["events"]
    assert min(run[key] for key in ("load_s", "loop_s", "loop_cpu_s", "write_s", "peak_memory_bytes")) > 0
    said = capsys.readouterr().out
    assert "decodes: 512 in flight" in said
    assert "skipped: mooncake" in said


def test_unknown_cases_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["azur"])
    assert "unknown case 'azur'" in capsys.readouterr().err


@pytest.mark.parametrize("study", growth.STUDIES)
def test_every_point_of_a_picture_is_a_scenario(study: str) -> None:
    for size in growth.STUDIES[study].sizes:
        for _, scenario, _ in growth.series(study, size):
            Scenario.from_mapping(scenario)


def test_a_picture_shows_the_cost_of_each_line(tmp_path: Path) -> None:
    points = [{"size": 1, "requests": 10, "loop_cpu_s": 1e-4}, {"size": 100, "requests": 10, "loop_cpu_s": 2e-4}]
    study = growth.Study("A title", "replicas", (1, 100))
    for name in ("a.svg", "b.svg"):
        growth.draw(study, {"one line": points}, tmp_path / name)
    text = (tmp_path / "a.svg").read_text()
    assert all(part in text for part in ("A title", "replicas", "one line", "µs per request"))
    assert text == (tmp_path / "b.svg").read_text()
    growth.draw(study, {"one line": points[:1]}, tmp_path / "c.svg")
    assert text != (tmp_path / "c.svg").read_text()


def test_pictures_are_drawn_again_from_the_stored_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = growth.Study("Small", "output tokens of each", (100,))
    monkeypatch.setattr(growth, "STUDIES", {"output": study})
    growth.main(["output", "--runs", "1", "--out", str(tmp_path)])
    lines = json.loads((tmp_path / "growth.json").read_text())["output"]["lines"]
    (fast,), (stepwise,) = lines["fast-forward"], lines["stepwise"]
    assert (fast["size"], fast["requests"]) == (100, 64)
    assert fast["iterations"] == stepwise["iterations"] >= 100
    assert fast["events"] < 100 <= stepwise["events"]
    drawn = (tmp_path / "output.svg").read_text()
    (tmp_path / "output.svg").unlink()
    growth.main(["--plot-only", "--out", str(tmp_path)])
    assert (tmp_path / "output.svg").read_text() == drawn


def test_own_time_is_summed_by_module_and_that_of_c_functions_goes_to_their_callers() -> None:
    ours, heap = (str(ROOT / "simulator" / "engine" / "lane.py"), 1, "f"), ("/lib/simpy/core.py", 2, "step")
    stats = {
        ours: (1, 1, 2.0, 5.0, {}),
        heap: (1, 1, 1.0, 1.0, {}),
        ("~", 0, "<heappop>"): (4, 4, 0.75, 0.75, {heap: (3, 3, 0.5, 0.5), ours: (1, 1, 0.25, 0.25)}),
    }
    assert by_module(stats) == {"simulator/engine/lane": 2.25, "simpy": 1.5}
