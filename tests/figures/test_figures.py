"""Figures show what the result or the table says: points, fronts, intervals, objectives, checked by hand."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from simulator import InputError, figures
from simulator.figures import style
from simulator.figures.labels import quantity, shortened
from simulator.figures.over_time import binned


@dataclass
class Stored:
    """A result of three requests: TTFT 1, 2 and 4 s, one of them outside the window."""

    summary: dict[str, Any] = field(
        default_factory=lambda: {
            "window": {"warmup_s": 1.0, "until_s": 10.0},
            "objectives": {"given": {"ttft_s": {"limit": 2.0}, "tpot_s": {"limit": [0.1, 0.5]}}},
            "replicas": [
                {"replica": 0, "pool": "a", "utilization": 0.25},
                {"replica": 1, "pool": "b", "utilization": 1},
            ],
            "links": {"links": [], "reason": "no part of this run moves data over links"},
        }
    )
    requests: pd.DataFrame = field(
        default_factory=lambda: pd.DataFrame(
            {
                "arrival_s": [0.0, 1.0, 2.0, 3.0],
                "scheduled_s": [0.5, 1.5, 2.0, np.nan],
                "first_token_s": [9.0, 2.0, 4.0, np.nan],
                "last_token_s": [9.0, 4.0, 4.0, np.nan],
                "output_tokens": [1, 5, 1, 0],
                "itl_max_s": [np.nan, 1.25, np.nan, np.nan],
                "outcome": ["finished", "finished", "finished", "rejected"],
                "class": ["x", "x", "y", "y"],
            }
        )
    )
    timeseries: pd.DataFrame = field(
        default_factory=lambda: pd.DataFrame(
            {
                "t_s": np.repeat(np.arange(1.0, 5.0), 2),
                "replica": [0, 1] * 4,
                "waiting": [0, 2, 0, 4, 0, 6, 0, 8],
                "running": 1,
                "kv_utilization": 0.5,
                "utilization": 1.0,
                "power_w": np.nan,
                "decode_tokens_per_s": 0.0,
                "prefill_tokens_per_s": 0.0,
            }
        )
    )


def lines(figure: Figure) -> dict[str, list[tuple[float, float]]]:
    found = {}
    for axes in figure.axes:
        for line in axes.lines:
            found[str(line.get_label())] = [(float(x), float(y)) for x, y in zip(*line.get_data(), strict=True)]
    return found


def texts(figure: Figure) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", figures.to_svg(figure, label="l", prefix="p"))


def test_latencies_are_those_of_the_summarys_definitions_within_the_window() -> None:
    stored = Stored()
    expected = {"ttft_s": [1, 2], "tpot_s": [0.5], "itl_s": [1.25], "e2e_s": [3, 2], "queue_s": [0.5, 0]}
    for name, values in expected.items():
        assert figures.latencies(stored, name).tolist() == values
    with pytest.raises(InputError, match="unknown latency 'ttft'; did you mean 'ttft_s'"):
        figures.latencies(stored, "ttft")


def test_a_distribution_passes_through_its_points() -> None:
    x, share = figures.cdf_points(np.array([3.0, 1.0, 2.0, 2.0]))
    assert x.tolist() == [1, 2, 2, 3]
    assert share.tolist() == [0.25, 0.5, 0.75, 1]


@given(st.integers(401, 5000), st.integers(0, 2**32 - 1))
def test_a_distribution_of_many_is_drawn_at_few_points_that_all_lie_on_it(count: int, seed: int) -> None:
    values = np.random.default_rng(seed).lognormal(size=count)
    x, share = figures.cdf_points(values)
    assert len(x) <= 400 and share[-1] == 1 and x[-1] == values.max()
    assert all((values <= at).mean() == part for at, part in zip(x[::37], share[::37], strict=True))
    assert np.diff(share).max() < 0.01


def test_the_line_of_a_latency_and_its_objectives() -> None:
    figure = figures.latency_cdf(Stored(), "ttft_s", by_class=True)
    found = lines(figure)
    assert found["all requests"] == [(1, 0.5), (2, 1)]
    assert found["x"] == [(1, 1)] and found["y"] == [(2, 1)]
    assert "objective 2 s" in texts(figure) and "TTFT (s)" in texts(figure)


def test_latencies_below_a_second_are_in_ms_and_an_objective_far_off_is_named_at_the_edge() -> None:
    stored = Stored()
    stored.requests["first_token_s"] = stored.requests["arrival_s"] + 0.05
    figure = figures.latency_cdf(stored, "ttft_s")
    assert "TTFT (ms)" in texts(figure) and "objective 2 s →" in texts(figure)
    assert figure.axes[0].get_xlim()[1] < 100


def test_several_results_are_told_apart() -> None:
    found = lines(figures.latency_cdf({"one": Stored(), "other": Stored()}, "e2e_s"))
    assert found["one"] == found["other"] == [(2, 0.5), (3, 1)]


def test_what_cannot_be_drawn_is_said() -> None:
    stored = Stored()
    with pytest.raises(InputError, match="no part of this run moves data over links: nothing to draw"):
        figures.link_utilization(stored)
    with pytest.raises(InputError, match="no power"):
        figures.over_time(stored, "power_w")
    with pytest.raises(InputError, match="unknown column 'queue'"):
        figures.over_time(stored, "queue")
    with pytest.raises(InputError, match="no column 'goodput'"):
        figures.load_goodput(pd.DataFrame({"offered": [1]}))
    with pytest.raises(InputError, match="no row has a and b"):
        figures.pareto(pd.DataFrame({"a": [1.0], "b": [np.nan]}), "a", "b")


def test_samples_are_averaged_over_spans_and_the_band_has_the_least_and_most_of_each() -> None:
    means, band = binned(Stored().timeseries, "waiting", most=2)
    assert means.index.tolist() == [1, 3]
    assert means[1].tolist() == [3, 7]
    assert band[["low", "high", "mean"]].to_numpy().tolist() == [[0, 4, 1.5], [0, 8, 3.5]]


def test_the_timeline_has_a_line_a_replica_and_no_panel_of_what_is_not_known() -> None:
    figure = figures.timeline(Stored())
    assert [axes.get_ylabel() for axes in figure.axes] == ["queue\n(requests)", "batch\n(requests)", "KV memory used"]
    assert [line.get_ydata().tolist() for line in figure.axes[0].lines] == [[0, 0, 0, 0], [2, 4, 6, 8]]


def test_many_replicas_are_a_mean_and_a_band() -> None:
    stored = Stored()
    few = stored.timeseries
    stored.timeseries = pd.concat([few, few.assign(replica=few["replica"] + 2)])
    figure = figures.over_time(stored, "waiting")
    assert lines(figure)["mean"] == [(1, 1), (2, 2), (3, 3), (4, 4)]
    assert len(figure.axes[0].collections) == 1


def test_bars_of_gpus_and_links() -> None:
    stored = Stored()
    figure = figures.gpu_utilization(stored)
    assert [bar.get_width() for bar in figure.axes[0].patches] == [0.25, 1]
    assert {"replica 0 (a)", "replica 1 (b)"} <= {*texts(figure)}
    stored.summary["replicas"] *= 10
    assert lines(figures.gpu_utilization(stored))["a (10)"] == [(float(place), 0.25) for place in range(1, 11)]
    stored.summary["links"]["links"] = [{"name": "nic 0", "utilization": 0.5, "busy": 0.75}]
    figure = figures.link_utilization(stored)
    assert lines(figure)["of the time in use"] == [(0.75, 0)]
    assert [bar.get_width() for bar in figure.axes[0].patches] == [0.5]


def test_a_front_worked_out_by_hand() -> None:
    x = [1, 2, 3, 2, 4, np.nan, 1]
    y = [5, 3, 4, 3, 1, 0, 6]
    assert figures.pareto_front(x, y).tolist() == [True, True, False, True, True, False, False]
    assert figures.pareto_front(x, y, lower_x=False).tolist() == [False, False, False, False, True, False, False]
    assert figures.pareto_front([], []).tolist() == []


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=20), st.booleans(), st.booleans())
def test_a_front_holds_exactly_what_nothing_dominates(
    points: list[tuple[int, int]], lower_x: bool, lower_y: bool
) -> None:
    a, b = 1 if lower_x else -1, 1 if lower_y else -1

    def dominated(x: int, y: int) -> bool:
        return any(a * u <= a * x and b * v <= b * y and (u, v) != (x, y) for u, v in points)

    front = figures.pareto_front([x for x, _ in points], [y for _, y in points], lower_x=lower_x, lower_y=lower_y)
    assert front.tolist() == [not dominated(x, y) for x, y in points]


def test_points_of_the_front_are_joined_and_named() -> None:
    frame = pd.DataFrame({"ttft_s_p99": [2.0, 1.0, 3.0], "price": [1.0, 2.0, 3.0], "plan": ["two", "one", "off"]})
    figure = figures.pareto(frame, "ttft_s_p99", "price", "plan")
    assert lines(figure)["Pareto front"] == [(1, 2), (2, 1)]
    assert lines(figure)["others"] == [(3, 3)]
    assert {"1: one", "2: two", "TTFT p99 (s), less is better"} <= {*texts(figure)}


def test_load_and_goodput_with_its_interval() -> None:
    frame = pd.DataFrame({"offered": [2.0, 1.0], "goodput": [1.5, 1.0], "low": [1.0, 0.9], "high": [2.0, 1.1]})
    figure = figures.load_goodput(frame)
    assert lines(figure)["goodput"] == [(1, 1), (2, 1.5)]
    assert lines(figure)["all that is offered"] == [(0, 0), (2, 2)]
    assert len(figure.axes[0].collections) == 1


def test_a_difference_is_filled_where_its_interval_leaves_zero_out() -> None:
    frame = pd.DataFrame({"name": ["a", "b"], "estimate": [1.0, 1.0], "low": [0.5, -0.5], "high": [1.5, 2.5]})
    figure = figures.forest(frame, unit="%")
    fills = [line.get_markerfacecolor() for line in figure.axes[0].lines if line.get_marker() == "s"]
    assert fills == [style.SERIES[0][0], "white"]
    spans = [list(line.get_xdata()) for line in figure.axes[0].lines if line.get_marker() != "s"][1:]
    assert spans == [[0.5, 1.5], [-0.5, 2.5]]


def test_lines_of_a_sweep_follow_numbers_or_the_order_of_names() -> None:
    frame = pd.DataFrame({"n": [4, 1, 2], "name": ["c", "a", "b"], "ttft_s_mean": [4.0, 1.0, 2.0]})
    assert lines(figures.sweep_line(frame, "n", "ttft_s_mean"))["_child0"] == [(1, 1), (2, 2), (4, 4)]
    figure = figures.sweep_line(frame, "name", "ttft_s_mean")
    assert lines(figure)["_child0"] == [(0, 4), (1, 1), (2, 2)]
    assert {"c", "a", "b", "TTFT mean (s)"} <= {*texts(figure)}


def test_cells_of_a_heatmap_are_means_and_gaps_stay_gaps() -> None:
    frame = pd.DataFrame({"x": [1, 1, 2], "y": ["a", "a", "b"], "v": [1.0, 3.0, 5.0]})
    figure = figures.sweep_heatmap(frame, "x", "y", "v")
    assert sorted(text.get_text() for text in figure.axes[0].texts) == ["2.00", "5.00", "–", "–"]


def test_every_figure_is_the_same_svg_each_time_and_leaves_matplotlib_as_it_was() -> None:
    before = dict(mpl.rcParams)
    first, second = (figures.to_svg(figures.timeline(Stored()), label="a <b>", prefix="p") for _ in range(2))
    assert first == second
    assert 'aria-label="a &lt;b&gt;"' in first and "#0072b2" not in re.sub(r"var\([^)]*\)", "", first)
    assert dict(mpl.rcParams) == before


def test_a_figure_draws_on_given_axes_and_shows_itself_in_notebooks() -> None:
    with style.context():
        axes = style.axes_of(None)
    assert figures.latency_cdf(Stored(), "ttft_s", ax=axes) is axes.figure
    assert figures.latency_cdf(Stored(), "ttft_s")._repr_svg_().rstrip().endswith("</svg>")


def test_words_of_quantities() -> None:
    said = {
        "ttft_s_p99": "TTFT p99 (s)",
        "goodput_requests_per_s": "goodput (requests/s)",
        "energy_j_per_output_token": "energy (J per output token)",
        "cost_per_million_output_tokens": "cost per million output tokens",
        "simulated_s": "simulated (s)",
        "cluster.pools.0.replicas": "cluster.pools.0.replicas",
    }
    assert {name: quantity(name) for name in said} == said
    assert shortened("a" * 30 + "b" * 30, 11) == "aaaaa…bbbbb"
    assert json.dumps(shortened("line\nbreak")) == '"line break"'
