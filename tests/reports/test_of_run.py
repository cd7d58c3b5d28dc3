"""The report of a run says what its summary says, for hostile names and a large trace as well."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import simulator
from simulator import InputError
from simulator.reports.of_run import answer
from tests.reports.page import Element, faults, read
from tests.reports.test_of_reproduce import study

ONE_SECOND = {"kind": "constant", "step_s": 1.0}


def made(
    tmp_path: Path,
    rows: list[str],
    objectives: dict[str, float] | None = None,
    measure: dict[str, float] | None = None,
    **pool: Any,
) -> Path:
    """Run requests with steps of one second; return the directory of the result."""
    trace = tmp_path / "trace.csv"
    trace.write_text("\n".join(["arrival_s,prompt_tokens,output_tokens,class", *rows]) + "\n", encoding="utf-8")
    scenario = {
        "workload": {"trace": str(trace)},
        "objectives": objectives or {},
        "measure": measure or {},
        "cluster": {"pools": [{"cost": ONE_SECOND, **pool}]},
    }
    simulator.run(scenario, out=tmp_path / "out")
    return tmp_path / "out"


def page(directory: Path) -> Element:
    written = simulator.report(directory)
    html = written.path.read_text(encoding="utf-8")
    assert faults(html) == []
    return read(html)


def test_the_answer_has_the_figures_that_decide(tmp_path: Path) -> None:
    # Two requests alone on a server of 1 s steps: TTFT 1 s each, 2 and 4 output tokens; TPOT 1 s, E2E 2 s and 4 s.
    out = made(tmp_path, ["0,10,2,a", "10,10,4,a"], {"ttft_s": 2, "e2e_s": 3})
    said = " ".join(answer(simulator.load_result(out).summary))
    assert said.startswith("1 x a100-80gb served 0.143 requests/s of llama-3.1-8b (0.100 offered). ")
    assert "TTFT p99 1.00 s against an objective of 2 s, met by all requests; " in said
    assert "E2E p99 3.98 s against an objective of 3 s, met by 50.0 % of requests. " in said
    assert said.endswith("50.0 % of requests met every objective. Goodput: 0.0714 requests/s.")


def test_without_objectives_it_says_so(tmp_path: Path) -> None:
    said = " ".join(answer(simulator.load_result(made(tmp_path, ["0,10,2,a"])).summary))
    assert said.endswith("At the 99th percentile: TTFT 1.00 s, TPOT 1.00 s and E2E 2.00 s. No objectives were given.")


def test_the_page_goes_from_the_answer_to_the_scenario(tmp_path: Path) -> None:
    root = page(made(tmp_path, ["0,10,2,a", "1,10,2,b"], {"ttft_s": 2}))
    assert [each.text for each in root.all("h2")] == [
        "Figures",
        "Plots",
        "Assumptions and what isn't modelled",
        "Sources of costs",
        "Known errors, from validation",
        "Run it again",
        "What the figures mean",
        "Version and time taken",
    ]
    assert len(root.all("svg")) == 6  # four latencies, time, GPUs; no link carried anything
    assert "no part of this run moves data over links" in root.whole_text
    assert "simulate run --scenario scenario.yaml --out again" in root.whole_text
    assert "which no measured server was compared with" in root.whole_text  # constant steps


def test_it_is_the_same_for_a_result_in_memory_and_on_disk(tmp_path: Path) -> None:
    scenario = {"workload": {"trace": "bundled:burstgpt-style", "limit": 40}}
    result = simulator.run(scenario, out=tmp_path / "out")
    one = simulator.report(result, out=tmp_path / "one.html")
    assert simulator.report(tmp_path / "out").path.read_bytes() == one.path.read_bytes()
    with pytest.raises(InputError, match="where to"):
        simulator.report(result)


def test_names_of_users_cannot_break_the_page(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>$\\frac"
    root = page(made(tmp_path, [f"0,10,2,{evil}", "0,10,3,b"], name=evil))
    assert evil in root.whole_text


def test_a_report_neither_stops_the_next_run_nor_outlives_it(tmp_path: Path) -> None:
    out = made(tmp_path, ["0,10,2,a"])
    simulator.report(out)
    simulator.run(simulator.load_result(out).scenario, out=out, overwrite=True)
    assert not (out / "report.html").exists()


def test_of_many_requests_it_stays_small(tmp_path: Path) -> None:
    rows = [f"{place / 40},{10 + place % 500},{1 + place % 7},c{place % 3}" for place in range(20_000)]
    out = made(tmp_path, rows, {"ttft_s": 2}, replicas=20, cost={"kind": "constant", "step_s": 0.01})
    root = page(out)
    assert (out / "report.html").stat().st_size < 600_000
    assert "least to most of 20 replicas" in root.whole_text


def test_what_went_wrong_is_in_the_answer(tmp_path: Path) -> None:
    rows = [f"{place / 10},100,20,a" for place in range(300)] + ["30,999999999,1,a"]
    out = made(tmp_path, rows, engine={"max_num_seqs": 2})
    said = " ".join(answer(simulator.load_result(out).summary))
    assert "Of 301 requests 1 rejected." in said
    assert "Overloaded" in said and said.endswith("Latencies then depend on how long the run is.")


def test_a_run_in_which_nothing_was_served_has_a_report(tmp_path: Path) -> None:
    root = page(made(tmp_path, ["0,10,2,a"], measure={"warmup_s": 1.0}))
    assert "Not drawn: no request has a TTFT" in root.whole_text
    assert "TTFT unknown, TPOT unknown and E2E unknown" in root.whole_text


def test_directories_without_a_result_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"it has none of .*summary\.json \(simulate run --out\)"):
        simulator.report(tmp_path)
    with pytest.raises(InputError, match="there is no such directory"):
        simulator.report(tmp_path / "nowhere")
    (tmp_path / "summary.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="cannot read the result"):
        simulator.report(tmp_path)


def test_a_page_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    study(tmp_path)
    with pytest.raises(InputError, match=r"cannot write .*Is a directory"):
        simulator.report(tmp_path, out=tmp_path)
    with pytest.raises(InputError, match=r"cannot write .*No such file or directory"):
        simulator.report(tmp_path, out=tmp_path / "nowhere" / "page.html")
    assert [each.name for each in tmp_path.iterdir()] == ["study.json"]
