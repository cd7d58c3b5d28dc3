"""The report of a comparison: which side is better in what, how sure that is, and what else differs."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simulator import figures
from simulator.figures.labels import shortened
from simulator.reports import common, known
from simulator.reports.document import Block, Bullets, Cell, Document, Facts, Plot, Section, Table, Text
from simulator.studies.compare_files import SCHEMA_VERSION
from simulator.studies.compare_metrics import METRICS
from simulator.studies.compare_words import SHOWN, change, judged, own, sentence, unit_of, verdict_notes
from simulator.terminal import number, percent, plural

_MOST_TOLD = 2
"""Sides that the answer speaks of; the table has all."""
_ANSWERED = ("ttft_p99", "itl_p99", "e2e_mean", "goodput", "throughput", "cost")
"""Metrics that it speaks of, after the one that sides are ordered by."""
_FAR = 3.0
"""Ratios above this are left to the table: they would press all others together."""
_SHARES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)

Study = Mapping[str, Any]


def document(directory: Path) -> Document:
    """Return the report of what ``simulate compare --out`` wrote.

    Raises
    ------
    InputError
        If this version doesn't read it.
    """
    study = common.read_study(directory / "compare.json", "comparison", SCHEMA_VERSION, "compare again")
    names = [side["name"] for side in study["sides"]]
    baseline = next((side for side in study["sides"] if side["name"] == study["baseline"]), study["sides"][0])
    sources = dict.fromkeys(source for side in study["sides"] for source in side["cost_sources"])
    subjects = dict.fromkeys(each for side in study["sides"] for each in known.subjects_of(side["scenario"]))
    return Document(
        title=f"Comparison of {_listed(names)}",
        answer=" ".join(_answer(study)),
        sections=[
            Section("Figures", list(_figures(study))),
            Section("Differences", list(_differences(study))),
            *_requests(study),
            _differs(study),
            common.assumptions(study["notes"]),
            common.cost_sources(list(sources)),
            known.section(subjects),
            common.again(_command(study), baseline["scenario"], where=_where(study)),
            common.made_by(
                study["took_s"],
                ("Simulations", f"{study['simulated']:,}, and {study['kept']:,} kept from earlier"),
                version=study["version"],
            ),
        ],
    )


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _answer(study: Study) -> Iterator[str]:
    if study["interrupted"]:
        yield "INTERRUPTED: figures are of the simulations that were done."
    others = [side for side in study["sides"] if side["runs"] and side["name"] != study["baseline"]]
    for side in others[:_MOST_TOLD]:
        yield sentence(study["comparisons"], side["name"], len(study["seeds"]), study["by"], _ANSWERED)
    if len(others) > _MOST_TOLD:
        yield f"The table has {plural(len(others) - _MOST_TOLD, 'more side')}."
    for side in study["sides"]:
        if side["failure"]:
            yield f"{side['name']} failed: {side['failure'].rstrip('.')}."


def _by_metric(study: Study) -> Iterator[tuple[str, list[Mapping[str, Any]]]]:
    for name in METRICS:
        rows = [row for row in study["comparisons"] if row["metric"] == name]
        if rows:
            yield name, rows


def _figures(study: Study) -> Iterator[Block]:
    for caption, shown in (("The figures that mostly decide", True), ("The other figures", False)):
        rows: list[list[Cell]] = []
        for name, mine in _by_metric(study):
            if (name in SHOWN or name == study["by"]) != shown:
                continue
            unit, scale = unit_of(mine)
            for row in mine:
                is_baseline = row["side"] == study["baseline"]
                against = "baseline" if is_baseline else change(row) or None
                label = f"{METRICS[name].label} ({unit})"
                rows.append([label, row["side"], own(row, scale), judged(row) or None, against])
        if rows:
            marked = frozenset(place for place, row in enumerate(rows) if row[3] == "better")
            columns = ("metric", "side", "mean ± 95 %", "verdict", f"against {study['baseline']}")
            yield Table(f"{caption}: means over seeds, and changes with their 95 % intervals.", columns, rows, marked)
    facts = [("Seeds", study["seeds_text"])]
    if study["trace_sha256"]:
        facts.append(("Requests of the first seed", f"the same for all sides, SHA-256 {study['trace_sha256']}"))
    yield Facts(facts)
    yield Bullets(verdict_notes(study["comparisons"])) if verdict_notes(study["comparisons"]) else Text("")


def _differences(study: Study) -> Iterator[Block]:
    """Yield a figure a side: its changes against the baseline."""
    import pandas as pd

    for side in study["sides"]:
        rows: list[dict[str, Any]] = []
        far: list[str] = []
        for name, mine in _by_metric(study):
            row = next((each for each in mine if each["side"] == side["name"]), None)
            if row is None or row["ratio"] is None or (name not in SHOWN and name != study["by"]):
                continue
            metric = METRICS[name]
            if row["ratio"] > _FAR:
                far.append(f"{metric.label} {change(row)}")
                continue
            estimate, low, high = (
                None if row[each] is None else 100 * (row[each] - 1) for each in ("ratio", "ratio_low", "ratio_high")
            )
            better = "higher" if metric.higher_is_better else "lower"
            rows.append({"name": f"{metric.label} ({better})", "estimate": estimate, "low": low, "high": high})
        if not rows:
            continue
        frame = pd.DataFrame(rows).astype({"estimate": float, "low": float, "high": float})
        listed = ", ".join(f"{row['name'].partition(' (')[0]} {row['estimate']:+.1f} %" for row in rows)
        beyond = f" Off the scale: {', '.join(far)}." if far else ""
        cells: list[list[Cell]] = [
            [row["name"], *(None if row[each] is None else f"{row[each]:+.1f}" for each in ("estimate", "low", "high"))]
            for row in rows
        ]
        yield Plot(
            figures.forest(frame, unit="%"),
            f"{side['name']} against {study['baseline']}: changes in % with their 95 % intervals; in brackets which "
            f"way is better. Filled: the interval leaves zero out.{beyond}",
            f"Changes of {side['name']} against {study['baseline']}: {listed}.",
            Table("Changes in %.", ("metric (which way is better)", "change", "low", "high"), cells),
        )


def _requests(study: Study) -> Iterator[Section]:
    """Yield the section on single requests, if they were compared."""
    if not study["requests"]:
        return
    rows: list[list[Cell]] = [
        [
            f"{each['side']}: {each['metric'].upper()}",
            each["n"],
            percent(each["sooner"]),
            percent(each["later"]),
            *(_signed(value * 1e3) for value in each["difference_s"]),
        ]
        for each in study["requests"]
    ]
    columns = ("side and latency", "requests", "sooner", "later", "10th percentile", "median", "90th percentile")
    caption = (
        f"Each request of seed {study['seeds'][0]} with itself under {study['baseline']}: for how many the latency is "
        "more than 1 % lower or higher, and percentiles of the differences (ms)."
    )
    yield Section("Request by request", [Table(caption, columns, rows), *_distributions(study)])


def _signed(value: float) -> str:
    return "0" if value == 0 else f"{'−' if value < 0 else '+'}{number(abs(value))}"


def _distributions(study: Study) -> Iterator[Plot]:
    limits = next(iter(study["sides"]))["scenario"].get("objectives") or {}
    for name in ("ttft", "tpot", "e2e"):
        series = {
            side["name"]: np.array(side["latency_distribution_s"][name])
            for side in study["sides"]
            if name in side["latency_distribution_s"]
        }
        if not series:
            continue
        limit = limits.get(f"{name}_s")
        rows: list[list[Cell]] = [
            [side, *(number(1e3 * float(np.quantile(values, share))) for share in _SHARES)]
            for side, values in series.items()
        ]
        medians = ", ".join(f"{side} {number(1e3 * float(np.median(values)))}" for side, values in series.items())
        yield Plot(
            figures.cdf(series, f"{name}_s", limits=[] if limit is None else [limit]),
            f"{name.upper()} of the requests of seed {study['seeds'][0]}: the share that had at most so much.",
            f"Distributions of {name.upper()} over requests; medians in ms: {medians}.",
            Table(
                f"{name.upper()} (ms) that so many requests had at most.",
                ("side", *(percent(share) for share in _SHARES)),
                rows,
            ),
        )


def _differs(study: Study) -> Section:
    rows: list[list[Cell]] = [
        [each["key"], side["name"], _value(each["baseline"]), _value(each["other"])]
        for side in study["sides"]
        for each in side["differs"]
    ]
    if not rows:
        return Section("What else differs", [Text("Nothing but what the sides are named for.")])
    caption = "Keys of the scenario, with everything decided, in which a side differs beyond what it is named for."
    return Section("What else differs", [Table(caption, ("key", "side", study["baseline"], "there"), rows)])


def _value(value: Any) -> str:
    return "not set" if value is None else shortened(str(value), 60)


def _command(study: Study) -> str:
    files = [side["scenario_file"] for side in study["sides"] if side["runs"]]
    seeds = ",".join(str(run["seed"]) for run in max((side["runs"] for side in study["sides"]), key=len))
    which = ["--seeds", seeds] if "," in seeds else ["--seed", seeds, "--seeds", "1"]
    return shlex.join(["simulate", "compare", *files, *which])


def _where(study: Study) -> str:
    return (
        "The scenario of each side lies beside compare.json; simulate run --scenario FILE --seed S runs one of them "
        f"again, and runs.csv has the digest of each run. Below: the scenario of {study['baseline']}."
    )
