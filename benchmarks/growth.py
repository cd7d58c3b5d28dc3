"""How cost grows with requests, replicas, batch size and output length: measured, as JSON and as pictures.

python -m benchmarks.growth                 # measure, and write docs/performance/growth.json and *.svg
python -m benchmarks.growth --plot-only     # the pictures again, of the figures in growth.json
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.cases import POLICIES, SARATHI, decoding_pool, generated, like_azure, scenario
from benchmarks.measuring import ROOT, Measurement, measure, median, repeated
from benchmarks.report import environment
from simulator.figures.style import marker_style

OUT = ROOT / "docs" / "performance"
BUDGET_S = 30.0
"""No further run of one point after so many seconds."""


@dataclass(frozen=True)
class Study:
    """One picture: what grows, along which sizes, and which cost is shown.

    Attributes
    ----------
    cost
        ``"request"`` or ``"iteration"``: what the loop's processor time is divided by.
    """

    title: str
    xlabel: str
    sizes: Sequence[int]
    cost: str = "request"


STUDIES: Mapping[str, Study] = {
    "requests": Study(
        "One replica, 5.53 requests/s", "requests in the trace", (1000, 3000, 10_000, 30_000, 100_000, 300_000)
    ),
    "queue": Study("All requests at once, one replica", "requests waiting at the start", (100, 1000, 10_000, 100_000)),
    "replicas": Study("4.9 requests/s and at least 100 requests a replica", "replicas", (1, 4, 16, 64, 256, 1024)),
    "batch": Study("Decoding only, 16,384 tokens each", "requests in the batch", (1, 4, 16, 64, 256, 512), "iteration"),
    "output": Study("64 requests at once", "output tokens of each", (64, 256, 1024, 4096, 16_384, 32_768)),
}


def series(study: str, size: int) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Yield the lines of a picture at one size: name, scenario, and whether it runs step by step."""
    if study in ("requests", "queue"):
        workload = like_azure(size) if study == "requests" else like_azure(size, rate=1e6)
        for name, policy in POLICIES.items():
            yield name, scenario(workload, policy), False
    elif study == "replicas":
        workload = like_azure(max(20_000, 100 * size), rate=4.9 * size)
        pool = {**SARATHI, "replicas": size}
        for router in ("round-robin", "least-outstanding", "power-of-two"):
            yield router, scenario(workload, pool, router=router), False
    else:
        batch, output = (size, 16_384) if study == "batch" else (64, size)
        workload = generated("closed-loop", requests=batch, prompt=64, output=output)
        for name, stepwise in (("fast-forward", False), ("stepwise", True)):
            yield name, scenario(workload, decoding_pool(batch)), stepwise


def measured(study: str, sizes: Sequence[int], runs: int) -> dict[str, list[dict[str, float]]]:
    """Measure a picture: for each line its points, the medians of ``runs``."""
    lines: dict[str, list[dict[str, float]]] = {}
    for size in sizes:
        for name, given, stepwise in series(study, size):
            print(f"... {study} {size:,}: {name}", file=sys.stderr, flush=True)
            each = partial(measure, given, stepwise=stepwise, write=False)
            lines.setdefault(name, []).append(_point(size, median(repeated(each, runs, BUDGET_S))))
    return lines


def _point(size: int, point: Measurement) -> dict[str, float]:
    return {
        "size": size,
        "requests": point.requests,
        "iterations": point.iterations,
        "events": point.events,
        "loop_cpu_s": round(point.loop_cpu_s, 6),
    }


def draw(study: Study, lines: Mapping[str, Sequence[Mapping[str, float]]], path: Path) -> None:
    """Draw the cost over the size, both logarithmic; the same figures give the same file."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": study.title, "font.size": 10}):
        figure = Figure(figsize=(5.6, 3.8), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        lowest, highest = [], []
        for index, (name, points) in enumerate(lines.items()):
            sizes = [point["size"] for point in points]
            costs = [1e6 * point["loop_cpu_s"] / point[f"{study.cost}s"] for point in points]
            axes.plot(sizes, costs, markersize=5, label=name, **marker_style(index))
            lowest.append(min(costs))
            highest.append(max(costs))
        axes.set(xscale="log", yscale="log", title=study.title, xlabel=study.xlabel)
        # At least a factor of thirty high, so that what is level looks level.
        low, high = min(lowest), max(highest)
        margin = max(1.3, (30 * low / high) ** 0.5)
        axes.set_ylim(low / margin, high * margin)
        axes.set_ylabel(f"processor time, µs per {study.cost}")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.7g}"))
            axis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.legend(frameon=False)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


def main(arguments: list[str] | None = None) -> None:
    """Measure, write the figures, draw them."""
    parser = argparse.ArgumentParser("python -m benchmarks.growth", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("studies", nargs="*", metavar="STUDY", help=f"{', '.join(STUDIES)} (default: all)")
    parser.add_argument("--runs", type=int, default=3, help="runs of which medians are taken (default: 3)")
    parser.add_argument("--out", type=Path, default=OUT, help="folder (default: docs/performance)")
    parser.add_argument("--plot-only", action="store_true", help="draw what growth.json has, measure nothing")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.studies if name not in STUDIES]
    if unknown:
        parser.error(f"unknown study {unknown[0]!r}; known: {', '.join(STUDIES)}")
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "growth.json"
    data: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    chosen = options.studies or list(STUDIES)
    if not options.plot_only:
        for name in chosen:
            lines = measured(name, STUDIES[name].sizes, options.runs)
            data[name] = {"environment": environment(), "lines": lines}
        file.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    for name in chosen:
        if name in data:
            draw(STUDIES[name], data[name]["lines"], options.out / f"{name}.svg")


if __name__ == "__main__":
    main()
