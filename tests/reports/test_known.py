"""What a report says of known errors: those of the same GPU, engine and model, or that there are none."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from simulator.reports.document import Table, Text
from simulator.reports.known import Subject, section, subjects_of
from simulator.validation.known_errors import KnownError, known_errors, merged, packaged


def said(subject: Subject) -> tuple[str, list[Table]]:
    blocks = section([subject]).blocks
    return " ".join(each.text for each in blocks if isinstance(each, Text)), [
        each for each in blocks if isinstance(each, Table)
    ]


def test_errors_of_a_server_like_it_are_shown() -> None:
    text, (table,) = said(Subject("h100-sxm", "vllm", "llama-3.1-70b", "fitted"))
    assert "measured servers of this kind were simulated" in text and "not known" not in text
    assert {row[0] for row in table.rows} == {"llama-3.1-70b on h100-sxm, vllm"}


def test_where_nothing_was_validated_it_says_so_and_shows_the_nearest() -> None:
    text, (table,) = said(Subject("h100-sxm", "sglang", "llama-3.1-70b", "fitted"))
    assert "Nothing was validated for llama-3.1-70b on h100-sxm, engine sglang" in text
    assert "the same model and GPU" in table.caption
    text, (table,) = said(Subject("h100-sxm", None, "opt-13b", "fitted"))
    assert "no engine preset" in text and "the same GPU" in table.caption
    text, (table,) = said(Subject("t4", "vllm", "llama-3.1-8b", "fitted"))
    assert "the same model on other GPUs" in table.caption
    text, tables = said(Subject("t4", "vllm", "opt-13b", "fitted"))
    assert "on this GPU or with this model either" in text and not tables


def test_estimates_are_not_covered_by_errors_of_measured_or_fitted_times() -> None:
    text, _ = said(Subject("h100-sxm", "vllm", "llama-3.1-70b", "roofline"))
    assert "step times are of kind 'roofline', which no measured server was compared with" in text


def test_every_pool_is_a_subject_once() -> None:
    pool = {"accelerator": "h200", "engine": {"name": "vllm"}, "cost": {"kind": "fitted"}}
    scenario = {
        "model": "llama-3.1-8b",
        "cluster": {"pools": [{**pool, "role": "prefill"}, {**pool, "role": "decode"}, {**pool, "model": "phi-4"}]},
    }
    assert subjects_of(scenario) == [
        Subject("h200", "vllm", "llama-3.1-8b", "fitted", disaggregated=True),
        Subject("h200", "vllm", "phi-4", "fitted"),
    ]


def test_errors_are_medians_of_groups_and_single_runs() -> None:
    point = "silicon", "h200_sxm/vllm/Llama-3.1-70B"
    frame = pd.DataFrame(
        [
            (point[0], f"{point[1]}/a", "tpot_mean", 1, 1.1, 0.1, None, "fitted to x"),
            (point[0], f"{point[1]}/b", "tpot_mean", 1, 0.7, -0.3, None, "fitted to x"),
            (point[0], f"{point[1]}/c", "tpot_mean", 1, 1.2, 0.2, None, "fitted to x"),
            (point[0], f"{point[1]}/d", "tpot_mean", 1, 1.5, 0.5, None, "measured: y"),
            (point[0], f"{point[1]}/e", "not_run", None, None, None, None, "too large"),
            ("vllm_runs", "rtxpro6000_qwen3-32b_tp2", "ttft_p99", 1, 1.01, 0.01, 0.02, "measured: z"),
            ("vllm_runs", "rtxpro6000_qwen3-32b_tp2", "ttft_p50", 1, 1.01, 0.01, 0.02, "measured: z"),
        ],
        columns=["dataset", "case", "metric", "measured", "simulated", "error", "peer_error", "costs"],
    )
    few = "too few measurements to judge by"
    server = ("h200", "vllm", "llama-3.1-70b")
    found = known_errors(frame)
    assert found == [
        KnownError(*server, "fitted", "tpot_mean", 3, 0.2, 0.1, f"serving points {point[1]}", few),
        KnownError(*server, "measured", "tpot_mean", 1, 0.5, 0.5, f"serving points {point[1]}", few),
        KnownError(
            "rtx-pro-6000", "vllm", "qwen3-32b", "measured", "ttft_p99", 1, 0.01, 0.01,
            "vLLM run rtxpro6000_qwen3-32b_tp2",
        ),
    ]  # fmt: skip
    assert merged([found, found]) == found


def test_the_page_of_validation_and_the_package_say_the_same() -> None:
    page = (Path(__file__).parents[2] / "docs" / "validation.md").read_text(encoding="utf-8")
    found = {(each.source, each.costs, each.metric): each for each in packaged()[1]}
    rows = re.findall(r"^\| (\w+/\w+/\S+) \| (\d+) \| (.*) \|$", page, re.MULTILINE)
    assert len(rows) > 20
    for group, points, cells in rows:
        said = []
        for metric in ("tpot_mean", "ttft_mean"):
            for costs in ("measured", "fitted"):
                each = found[f"serving points {group}", costs, metric]
                signed = f"{100 * each.median_signed:+.0f}"
                signed = "0" if signed in ("+0", "-0") else signed
                said.append(f"{100 * each.median_absolute:.0f} ({signed})")
        assert (cells, points) == (" | ".join(said), str(each.points)), group
