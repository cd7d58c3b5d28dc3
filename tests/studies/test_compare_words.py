"""A comparison in words."""

from __future__ import annotations

from typing import Any

from simulator.studies.compare_words import change, judged, own, sentence, unit_of, verdict_notes


def row(metric: str, side: str = "b", **more: Any) -> dict[str, Any]:
    empty = dict.fromkeys(
        (
            "mean",
            "low",
            "high",
            "difference",
            "difference_low",
            "difference_high",
            "ratio",
            "ratio_low",
            "ratio_high",
            "p_value",
            "p_holm",
            "verdict",
        )
    )
    return {**empty, "metric": metric, "side": side, "baseline": "a", "pairs": 5, "n": 5, **more}


LOWER = row("ttft_p99", ratio=0.649, ratio_low=0.611, ratio_high=0.688, verdict="better", p_value=0.001)
HIGHER = row("itl_p99", ratio=3.5, ratio_low=3.1, ratio_high=4.0, verdict="worse", p_value=0.001)
POINTS = row(
    "attainment", difference=-0.012, difference_low=-0.019, difference_high=-0.005, verdict="worse", p_value=0.01
)
UNCLEAR = row("throughput", ratio=1.02, ratio_low=0.95, ratio_high=1.1, verdict="unclear", p_value=0.4)
SAME = row("e2e_mean", ratio=1.0001, ratio_low=0.9998, ratio_high=1.0004, verdict="same", p_value=0.5)


def test_changes_have_their_interval_in_the_units_that_people_read() -> None:
    assert change(LOWER) == "-35.1 % (-38.9 to -31.2)"
    assert change(HIGHER) == "x 3.50 (3.10 to 4.00)"
    assert change(POINTS) == "-1.2 points (-1.9 to -0.50)"
    assert change(SAME) == "0.0 % (0.0 to 0.0)"
    assert change(row("ttft_p99", ratio=1.5)) == "+50.0 %"  # of one seed
    assert change(row("ttft_p99", pairs=0)) == ""
    assert change(row("goodput", difference=-0.4, difference_low=-0.5, difference_high=-0.3)) == (
        "-0.4 requests/s (-0.5 to -0.3)"
    )


def test_means_stand_with_as_many_digits_as_their_intervals() -> None:
    assert own(row("ttft_p99", mean=0.0703, low=0.06967, high=0.07093), 1e3) == "70.3 ± 0.6"
    assert own(row("ttft_p99", mean=12.5, low=12.47, high=12.53), 1.0) == "12.5 ± 0.03"
    assert own(row("attainment", mean=0.9996, low=0.9993, high=0.9999), 100.0) == "99.96 ± 0.03"
    assert own(row("ttft_p99", mean=2.0), 1.0) == "2.00"
    assert own(row("ttft_p99"), 1.0) == "-"


def test_times_are_in_ms_below_a_second() -> None:
    assert unit_of([row("ttft_p99", mean=0.2), row("ttft_p99", mean=0.99)]) == ("ms", 1e3)
    assert unit_of([row("ttft_p99", mean=0.2), row("ttft_p99", mean=None), row("ttft_p99", mean=3.0)]) == ("s", 1.0)
    assert unit_of([row("attainment", mean=0.2)]) == ("%", 100.0)


def test_the_sentence_begins_with_the_metric_that_decides() -> None:
    rows = [LOWER, HIGHER, POINTS, UNCLEAR, SAME]
    assert sentence(rows, "b", 5, "ttft_p99") == (
        "b against a: better in TTFT p99 (35.1 % lower, 31.2 to 38.9); worse in ITL p99 (x 3.50, 3.10 to 4.00) and "
        "attainment (-1.2 points, -1.9 to -0.50); the same in E2E mean; no difference that 5 seeds show in throughput."
    )
    assert sentence(rows, "b", 5, "throughput", ["ttft_p99"]) == (
        "b against a: no difference that 5 seeds show in throughput; better in TTFT p99 (35.1 % lower, 31.2 to 38.9)."
    )
    alone = row("ttft_p99", ratio=1.5)
    said = sentence([alone, SAME], "b", 5, "e2e_p99")
    assert said == "b against a: of one pair of runs TTFT p99 (+50.0 %); the same in E2E mean."
    assert sentence(rows, "c", 5, "ttft_p99") == "c: there is nothing to compare."


def test_one_replication_is_said_to_be_one() -> None:
    said = sentence([row("ttft_p99", ratio=1.5)], "b", 1, "ttft_p99")
    assert said == "b against a: TTFT p99 +50.0 %; of one replication, so no more than that run's differences."


def test_what_a_correction_took_away_stands_in_brackets() -> None:
    taken = {**LOWER, "verdict": "unclear", "p_value": 0.04, "p_holm": 0.08}
    assert [judged(each) for each in (LOWER, taken, UNCLEAR, SAME)] == ["better", "(better)", "not shown", "same"]
    assert judged({**taken, "metric": "throughput"}) == "(worse)"
    assert any(text.startswith("(better), (worse)") for text in verdict_notes([taken, row("ttft_p99", "a")]))
    assert verdict_notes([row("ttft_p99", ratio=1.5)]) == []
