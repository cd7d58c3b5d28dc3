"""A picture of a trace: rate over time, burstiness over time, lengths."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from workloads.stats import dispersion, interarrival_cv, window_counts, window_s
from workloads.trace import Floats, Ints, Trace, TraceError
from workloads.writers import whole_file

SUFFIXES = (".png", ".svg", ".pdf")
# Okabe and Ito's colours, told apart by people with any kind of colour vision.
_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "#666666"
_UNITS = (
    (86400.0 * 2, 86400.0, "days"),
    (7200.0 * 2, 3600.0, "hours"),
    (600.0, 60.0, "minutes"),
    (0.0, 1.0, "seconds"),
)


def plot_trace(trace: Trace, path: str | Path) -> None:
    """Draw a trace to a PNG, SVG or PDF file.

    Four panels: requests a second; burstiness, as CV of the gaps within windows and as index of dispersion of their
    counts in tenths of windows (1 is Poisson, both); histogram of prompt and output lengths; their cumulative shares.

    Raises
    ------
    TraceError
        If the suffix is another one, the trace is empty, or the file can't be written.
    """
    if Path(path).suffix.lower() not in SUFFIXES:
        raise TraceError(f"{path}: unknown suffix for a picture; write to {', '.join(SUFFIXES)}")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    end = float(trace.arrival_s[-1]) if len(trace) else 0.0
    width = window_s(end)
    divisor, unit = next((d, u) for least, d, u in _UNITS if end >= least)
    figure = Figure(figsize=(11, 7.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2)
    figure.suptitle(f"{_name(trace)}: {len(trace):,} requests in {end / divisor:.4g} {unit}", fontsize=13)

    rate = axes[0, 0]
    counts = window_counts(trace.arrival_s, width)
    edges = np.arange(len(counts) + 1) * width / divisor
    rate.stairs(counts / width, edges, color=_BLUE, fill=True, alpha=0.35)
    rate.stairs(counts / width, edges, color=_BLUE)
    mean = len(trace) / end if end > 0 else 0.0
    rate.axhline(mean, color=_GREY, linestyle="--", linewidth=1, label=f"mean {mean:.3g}")
    rate.set(title=f"Rate in windows of {_duration(width)}", ylabel="requests per second")
    rate.set_ylim(0, max(counts.max() / width, mean) * 1.18)
    rate.legend(frameon=False, loc="upper right")

    burst = axes[0, 1]
    wide = window_s(end, 40)
    at, cv, index = _burstiness(trace.arrival_s, wide)
    burst.plot(at / divisor, cv, color=_BLUE, marker="o", markersize=3.5, label="CV of gaps")
    burst.plot(
        at / divisor, index, color=_ORANGE, marker="s", markersize=3.5, linestyle="-.", label="index of dispersion"
    )
    burst.axhline(1, color=_GREY, linestyle="--", linewidth=1, label="Poisson")
    known = np.concatenate((cv, index))
    known = known[np.isfinite(known) & (known > 0)]
    top = max(float(known.max(initial=1.0)), 1.0)
    if top > 8:
        burst.set_yscale("log")
        burst.yaxis.set_major_formatter(FuncFormatter(_plain))
        burst.set_ylim(min(0.5, float(known.min(initial=1.0)) / 1.3), top * 4)
    else:
        burst.set_ylim(0, top * 1.35)
    burst.set(title=f"Burstiness in windows of {_duration(wide)}", ylabel="ratio")
    burst.legend(frameon=False, loc="upper right")
    for panel in axes[0]:
        panel.set(xlabel=f"time in {unit}", xlim=(0, max(end / divisor, 1e-9)))

    histogram, share = axes[1]
    highest = 0.0
    most = max(int(trace.prompt_tokens.max()), int(trace.output_tokens.max()), 2)
    bins = np.unique(np.rint(np.geomspace(1, most + 1, 45))) - 0.5
    for tokens, colour, line, label in (
        (trace.prompt_tokens, _BLUE, "-", "prompt"),
        (trace.output_tokens, _ORANGE, "-.", "output"),
    ):
        text = f"{label} (median {np.median(tokens):.0f}, mean {tokens.mean():.0f})"
        shares = np.histogram(tokens, bins)[0] / len(tokens)
        highest = max(highest, float(shares.max()) * 100)
        histogram.stairs(shares * 100, bins, color=colour, linestyle=line, linewidth=1.6, label=text)
        values, cumulative = _cumulative(tokens)
        share.step(values, cumulative * 100, where="post", color=colour, linestyle=line, linewidth=1.6, label=label)
    histogram.set(title="Lengths", ylabel="% of requests per bin", ylim=(0, highest * 1.25))
    histogram.legend(frameon=False, loc="upper left")
    share.set(title="Lengths, cumulative", ylabel="% of requests", ylim=(0, 101))
    share.legend(frameon=False, loc="upper left")
    for panel in axes[1]:
        panel.set(xscale="log", xlabel="tokens", xlim=(0.9, most * 1.1))
        panel.xaxis.set_major_formatter(FuncFormatter(_plain))
    for panel in axes.flat:
        panel.grid(True, color="#dddddd", linewidth=0.6)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=130, metadata={"Date": None} if Path(path).suffix.lower() == ".svg" else None)


def _plain(value: float, _: object) -> str:
    return f"{value:,.10g}"


def _name(trace: Trace) -> str:
    name = trace.source if trace.source.startswith("generate(") else Path(trace.source).name
    return name if len(name) <= 70 else name[:67] + "..."


def _duration(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


def _burstiness(arrival_s: Floats, width: float) -> tuple[Floats, Floats, Floats]:
    """Return middles of windows, the CV of gaps within each, and the dispersion of counts in its tenths."""
    windows = max(1, int(arrival_s[-1] // width))
    at = (np.arange(windows) + 0.5) * width
    cv, index = np.full(windows, np.nan), np.full(windows, np.nan)
    edges = np.searchsorted(arrival_s, np.arange(windows + 1) * width)
    for window in range(windows):
        inside = arrival_s[edges[window] : edges[window + 1]]
        if len(inside) >= 10:
            cv[window] = interarrival_cv(inside)
            tenths = np.bincount(((inside - window * width) / width * 10).astype(np.int64).clip(0, 9), minlength=10)
            index[window] = dispersion(tenths.astype(np.int64))
    return np.asarray(at, np.float64), cv, index


def _cumulative(tokens: Ints) -> tuple[Ints, Floats]:
    values, counts = np.unique(tokens, return_counts=True)
    return values, np.cumsum(counts) / len(tokens)
