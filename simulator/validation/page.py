"""``validation.html``: one page that needs nothing else, the answer first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from simulator.errors import InputError
from simulator.validation.judging import (
    Verdict,
    headline,
    kernel_verdicts,
    left_out,
    metric_words,
    run_verdicts,
    serving_verdicts,
)
from simulator.validation.plots import by_series, parity
from simulator.validation.rows import NOT_JUDGED, NOT_RUN

_TITLES = {
    "vllm_runs": "vLLM servers, request by request",
    "silicon": "Serving points",
    "kernels": "Kernel tables",
    "measured": "Your server",
}
_SECONDS = {"ttft": "TTFT", "tpot": "TPOT", "e2e": "E2E"}


@dataclass(frozen=True)
class Section:
    """One dataset of the page.

    Attributes
    ----------
    verdicts
        Bars, the worst first; None: none apply.
    rows
        Rows shown in full.
    costs
        Distinct texts of the costs by case, where there are few.
    plots
        Pictures, as markup.
    """

    title: str
    verdicts: list[Verdict]
    rows: list[dict[str, object]]
    costs: list[tuple[str, str]]
    plots: list[Markup]
    left_out: list[dict[str, object]]


def write_page(frame: pd.DataFrame, path: Path) -> None:
    """Write the page of a validation.

    Raises
    ------
    InputError
        If the file can't be written.
    """
    try:
        path.write_text(page(frame), encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: can't be written ({error.strerror}); choose another --out") from None


def page(frame: pd.DataFrame) -> str:
    """Return the page of a validation."""
    environment = Environment(
        loader=PackageLoader("simulator.validation", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(signed=_signed, value=_value, words=metric_words)
    template = environment.get_template("page.html")
    return template.render(headline=headline(frame), sections=sections(frame))


def sections(frame: pd.DataFrame) -> list[Section]:
    """Return what the page shows of each dataset that there is."""
    omitted = left_out(frame)
    makers = {"vllm_runs": run_verdicts, "silicon": serving_verdicts, "kernels": kernel_verdicts}
    found = []
    for name, title in _TITLES.items():
        part = frame[frame["dataset"] == name]
        if not len(part):
            continue
        shown = part[~part["metric"].isin([NOT_RUN, NOT_JUDGED])]
        whole = name in ("vllm_runs", "measured")
        costs = shown.drop_duplicates("case") if whole else shown.head(0)
        found.append(
            Section(
                title=title,
                verdicts=makers[name](part) if name in makers else [],
                rows=_records(shown if whole else shown.head(0)),
                costs=list(zip(costs["case"], costs["costs"], strict=True)),
                plots=_plots(name, shown),
                left_out=_records(omitted[omitted["dataset"] == name]),
            )
        )
    return found


def _plots(dataset: str, rows: pd.DataFrame) -> list[Markup]:
    """Return parity plots of a dataset's latencies, a series a backend (of serving points) or a run."""
    found = []
    if dataset == "kernels":
        return []
    for name, label in _SECONDS.items():
        part = rows[rows["metric"].str.startswith(f"{name}_") & rows["measured"].notna() & rows["simulated"].notna()]
        if not len(part):
            continue
        names = part["case"].str.split("/").str[1] if dataset == "silicon" else part["case"]
        what = "mean" if dataset == "silicon" else "mean and percentiles"
        pair = (part[column].to_numpy(dtype="float64") for column in ("measured", "simulated"))
        series = by_series(names.tolist(), *pair)
        picture = parity(series, f"{label}, {what}", "s", name=f"{dataset}-{name}")
        found.append(Markup(picture))  # our own SVG; labels in it were escaped by Matplotlib
    return found


def _records(rows: pd.DataFrame) -> list[dict[str, object]]:
    return [{str(key): value for key, value in record.items()} for record in rows.to_dict("records")]


def _signed(value: float | None) -> str:
    """Return a fraction in percent with its sign; a dash for what is not known."""
    return "–" if value is None or pd.isna(value) else f"{value:+.1%}".replace("-", "−")


def _value(value: float | None) -> str:
    return "–" if value is None or pd.isna(value) else f"{value:.4g}"
