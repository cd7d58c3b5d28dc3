"""The studies of Llumnix and Dodoor run, and show their mechanisms."""

from __future__ import annotations

from simulator.reproduce.studies import dodoor, llumnix
from simulator.reproduce.study import Options
from workloads import generate


def test_lengths_have_the_mean_that_the_paper_names() -> None:
    requests = llumnix._requests(256, 512, 10.0, Options())["generator"]
    trace = generate(requests["kind"], **requests["params"])
    assert abs(trace.prompt_tokens.mean() / 256 - 1) < 0.15
    assert abs(trace.output_tokens.mean() / 512 - 1) < 0.15
    assert trace.prompt_tokens.max() <= llumnix.LONGEST


def test_cached_loads_need_fewer_messages() -> None:
    rows = dodoor.run(Options(quick=True))
    by_name = {row.what.split(": ")[1]: row for row in rows}
    saved = by_name["messages fewer than with probes"].simulated
    assert saved is not None and saved > 50
