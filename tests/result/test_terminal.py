"""The terminal summary, read as a user would."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from simulator.run_data import Objectives
from simulator.terminal import duration, number, percent, print_summary, span
from tests.result.support import MS, SECOND, TWO, Request, pool, result


def printed(run: Any, width: int = 80, **options: Any) -> str:
    out = io.StringIO()
    print_summary(run.summary, Console(file=out, width=width, no_color=True), **options)
    return out.getvalue()


def test_the_answer_comes_first() -> None:
    lines = printed(result(TWO)).splitlines()
    assert lines[0].startswith("2 of 2 requests finished in 0.0400 s of simulated time")
    assert "".join(lines[1:3]).startswith("Overload can't be told: the second half has 1 of the 50 arrivals")


def test_an_overloaded_run_says_so() -> None:
    rng = np.random.default_rng(3)
    arrivals = np.cumsum(rng.exponential(SECOND / 40, 1000)).astype(np.int64).tolist()
    text = printed(result([Request(t, 10, 10) for t in arrivals], seqs=2), width=200)
    assert text.splitlines()[1].startswith("OVERLOADED: the queue grew by about")


def test_everything_that_matters_is_there_in_80_columns_of_ascii() -> None:
    requests = [*TWO, Request(20 * MS, 5000, 2), Request(21 * MS, 990, 20, code=1), Request(None, 1, 1)]
    run = result(
        requests,
        class_names=["chat [beta]", "code"],
        objectives=[Objectives(ttft_s=0.012), Objectives(e2e_s=2.0)],
        pools=[pool(price_per_gpu_hour=2.5, cost_sources=["roofline from the data sheet"])],
        notes=["18 requests [of the trace] were dropped"],
        interrupted=True,
    )
    text = printed(run, out_dir=Path("/data/out"))
    assert text.isascii()
    assert "\x1b" not in text
    assert max(len(line) for line in text.splitlines()) <= 80
    for words in (
        "INTERRUPTED",
        "(1 rejected)",
        "TTFT (ms)",
        "queue (ms)",
        "Throughput",
        "1 x toy in 1 replica",
        "preemptions",
        "TTFT <= 12 ms",
        "E2E <= 2 s",
        "chat [beta]",
        "per million output tokens",
        "1 rejected: prompt of 5000 tokens",
        "1 outputs at the engine's max_model_len",
        "ESTIMATE, not measured: roofline",
        "18 requests [of the trace] were dropped",
        "never sent",
        "simulated requests/s",
        "/data/out",
    ):
        assert words in " ".join(text.split()), words


def test_a_run_without_requests_prints() -> None:
    assert printed(result([])).startswith("0 of 0 requests finished")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.01234, "0.0123"),
        (0.9996, "1.00"),
        (9.999, "10.0"),
        (99.96, "100"),
        (1234567.8, "1,234,568"),
        (12.34, "12.3"),
        (-2.5, "-2.50"),
        (1e-15, "0.000000000"),
    ],
)
def test_numbers(value: float, text: str) -> None:
    assert number(value) == text


def test_times_and_shares() -> None:
    assert duration(0.0123) == "12.3 ms"
    assert duration(0.99999) == "1,000 ms"
    assert [span(s) for s in (0, 5, 90, 300, 10_000, 1e6)] == [
        "0 s",
        "5.00 s",
        "90.0 s",
        "5.00 min",
        "2.78 h",
        "11.6 days",
    ]
    assert [percent(p) for p in (0, 1e-6, 0.5, 0.99999, 1)] == ["0.0 %", "<0.1 %", "50.0 %", "99.9+ %", "100.0 %"]
