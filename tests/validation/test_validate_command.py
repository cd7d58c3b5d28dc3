"""``simulate validate``: files, verdicts, page, and what it says of bad input."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from simulator import InputError
from simulator.cli import main
from simulator.validation import validate
from simulator.validation.cases import BATCH, Case, batches, run_cases
from simulator.validation.judging import headline, left_out, metric_words, run_verdicts
from simulator.validation.page import page
from simulator.validation.rows import COLUMNS, compared, not_judged, not_run, to_frame
from tests.validation.validate_support import write_points, write_run

pytestmark = pytest.mark.usefixtures("no_package")


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    said = capsys.readouterr()
    return int(caught.value.code or 0), said.out, said.err


def test_the_command_writes_both_files_and_ends_with_0_whatever_the_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    write_run(data, ttft_factor=2.0)
    write_points(data, {"mode": "disagg"})
    code, said, _ = call(capsys, "validate", "--data", str(data), "--out", str(out), "--workers", "1")
    assert code == 0
    header, *lines = (out / "validation.csv").read_text().splitlines()
    assert header == "dataset,case,metric,measured,simulated,error,peer_error,costs"
    frame = pd.read_csv(out / "validation.csv")
    assert len(lines) == len(frame)
    assert set(frame["dataset"]) == {"vllm_runs", "silicon", "kernels"}
    run = frame[frame["dataset"] == "vllm_runs"].set_index("metric")
    assert run.loc["ttft_mean", "error"] == pytest.approx(-0.5)
    html = (out / "validation.html").read_text()
    assert html.startswith("<!DOCTYPE html>")
    assert "rtxpro6000_tiny" in html
    assert "rtxpro6000_tiny" in said
    assert "bars are met" in said.splitlines()[0]
    assert "disaggregated" in said


def test_cases_by_name(tmp_path: Path) -> None:
    write_points(tmp_path, {"mode": "disagg"}, {"mode": "disagg", "system": "b200_sxm"})
    assert len(validate(tmp_path, only="silicon", workers=1)) == 2
    (row,) = validate(tmp_path, only="silicon", match="b200_sxm/*/*", workers=1).itertuples()
    assert row.case.startswith("b200_sxm/")
    with pytest.raises(InputError, match=r"no case's name matches 'h300\*'"):
        validate(tmp_path, only="silicon", match="h300*")


def test_the_default_data_is_beside_the_working_directory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    code, _, said = call(capsys, "validate")
    assert code == 2
    assert said.splitlines() == [
        "error: no measured data at ../shared/data: give --data DIR, a folder laid out as docs/validation.md says"
    ]
    write_run(tmp_path / "shared" / "data")
    assert len(validate(only="vllm_runs")) >= 15


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "silicone"], "unknown dataset 'silicone'; did you mean 'silicon'?"),
        (["--only", "vllm_runs"], "has no data for 'vllm_runs'"),
        (["--data", "nowhere"], "nowhere: no such folder"),
        (["--kernel-tables", "nowhere"], "nowhere: no such folder"),
        (["--measured", "x.json"], "--measured and --scenario go together"),
        (["--assume", "inferencemx"], "did you mean 'inferencemax'?"),
        (["--workers", "0"], "workers must be at least 1"),
    ],
)
def test_bad_input_is_one_line_and_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    code, _, said = call(capsys, "validate", "--data", str(tmp_path), *arguments)
    assert code == 2
    assert len(said.splitlines()) == 1
    assert message in said


def test_an_out_that_is_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    code, _, said = call(capsys, "validate", "--data", str(tmp_path), "--out", str(tmp_path / "file"))
    assert code == 2
    assert "can't be written to" in said


def test_columns_and_missing_values() -> None:
    assert COLUMNS == ("dataset", "case", "metric", "measured", "simulated", "error", "peer_error", "costs")
    frame = to_frame([compared("d", "c", "m", 0.0, 1.0, "x"), not_run("d", "c", "two\nlines")])
    assert frame["error"].isna().all()  # nothing is a fraction of 0
    assert frame["costs"].tolist() == ["x", "two lines"]


def _fail(error: Exception) -> list[object]:
    raise error


def test_no_case_stops_another_and_order_is_that_of_the_cases() -> None:
    def work(name: str) -> list[object]:
        return [compared("d", name, "m", 1.0, 2.0, "x")]

    cases = [
        Case("d", "first", partial(work, "first"), 1.0),
        Case("d", "input", partial(_fail, InputError("the reason")), 9.0),
        Case("d", "defect", partial(_fail, ZeroDivisionError("oh")), 5.0),
        Case("d", "last", partial(work, "last"), 7.0),
    ]
    ended: list[str] = []
    with ThreadPoolExecutor(2) as pool:
        rows = run_cases(cases, pool, lambda case: ended.append(case.name))
    assert [row.case for row in rows] == ["first", "input", "defect", "last"]
    assert rows[1].costs == "the reason"
    assert rows[2].costs == "a defect of the simulator: ZeroDivisionError: oh"
    assert rows == run_cases(cases, None)
    assert sorted(ended) == ["defect", "first", "input", "last"]


def test_verdicts_on_runs() -> None:
    """1 % for TPOT, 2 % for TTFT, and never above the peer; the run that a constant was calibrated on is not judged."""
    frame = to_frame(
        [
            compared("vllm_runs", "a", "ttft_mean", 100.0, 101.5, "measured: x", 0.016),
            compared("vllm_runs", "a", "ttft_p99", 100.0, 101.5, "measured: x", -0.014),
            compared("vllm_runs", "a", "tpot_mean", 100.0, 98.5, "measured: x", 0.9),
            compared("vllm_runs", "a", "tpot_p50", 100.0, 150.0, "measured: x"),
            compared("vllm_runs", "b", "e2e_mean", 100.0, 100.5, "measured: x | calibrated on b"),
            compared("vllm_runs", "c", "e2e_mean", 100.0, 100.5, "measured: x | calibrated on b"),
        ]
    )
    found = {(each.subject, each.metric): each.word for each in run_verdicts(frame)}
    assert found == {
        ("a", "ttft_mean"): "pass",
        ("a", "ttft_p99"): "fail",
        ("a", "tpot_mean"): "fail",
        ("b", "e2e_mean"): "not judged",
        ("c", "e2e_mean"): "pass",
    }
    assert headline(frame) == "2 of 4 bars are met; the worst is TPOT mean of a, -1.5% against 1%."


def test_reasons_that_differ_in_numbers_only_are_one() -> None:
    rows = [not_judged("silicon", f"c{i}", f"tp={i} of {i}.5 is too much") for i in (2, 3)]
    found = left_out(to_frame([*rows, not_run("silicon", "d", "something else")]))
    assert found[["cases", "reason", "example"]].values.tolist() == [
        [2, "tp=2 of 2.5 is too much", "c2"],
        [1, "something else", "d"],
    ]


def test_metrics_in_words() -> None:
    assert metric_words("ttft_p99") == "TTFT p99"
    assert metric_words("kernel_attention_skew_mixed_p90") == "attention skew mixed p90"
    assert metric_words("output_tokens_per_s_mae") == "output tokens/s mean absolute error"


def test_the_page_stands_alone_and_names_cannot_break_it() -> None:
    bad = "<script>alert('$x_{')</script>"
    costs = "measured: <b>x</b>"
    frame = to_frame(
        [
            compared("vllm_runs", bad, "ttft_mean", 1.0, 1.5, costs),
            compared("vllm_runs", bad, "tpot_mean", 0.01, 0.02, costs, -0.5),
            compared("silicon", f"h200/vllm/{bad}/1", "ttft_mean", 1.0, 30.0, costs),
            not_run("silicon", f"h200/vllm/{bad}/2", "<i>why</i>"),
        ]
    )
    html = page(frame)
    assert "<script" not in html
    assert "<b>x</b>" not in html
    assert "<i>why</i>" not in html
    assert "&lt;script&gt;" in html
    body = html.split("</style>", 1)[1]
    answer = html.index('<p class="answer">')
    assert answer < html.index("<table>") < html.index("<svg")
    assert body.count("<svg") == 3  # TTFT and TPOT of runs, TTFT of serving points
    for outside in ("<link", "@import", 'src="', "https://"):
        assert outside not in html.replace("http://www.w3.org", "")
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html
    assert 'name="viewport"' in html
    assert "var(--ink, " in html
    assert "+50.0%" in html
    assert "−50.0%" in html  # the peer's


def test_the_page_is_the_same_each_time() -> None:
    frame = to_frame([compared("vllm_runs", "a", "ttft_mean", 1.0, 1.5, "measured: x")])
    assert page(frame) == page(frame)


def test_other_processes_find_the_same(tmp_path: Path) -> None:
    for i in range(9):  # more than run in this process
        write_run(tmp_path, f"rtxpro6000_{i}", ttft_factor=1.0 + i / 10)
    here = validate(tmp_path, only="vllm_runs", workers=1)
    there = validate(tmp_path, only="vllm_runs", workers=2)
    pd.testing.assert_frame_equal(here, there)


def test_cases_of_a_large_table_run_together_and_the_longest_first() -> None:
    cases = [Case("d", str(i), list, float(i), "table") for i in range(BATCH + 1)]
    cases += [Case("d", "alone", list, 0.5), Case("d", "longer", list, 9.0)]
    found = batches(cases)
    assert found == [list(range(BATCH, 0, -1)), [0], [BATCH + 2], [BATCH + 1]]
