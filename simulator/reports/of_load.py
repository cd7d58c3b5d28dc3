"""The report of a search for the highest load: the bracket, and every load that was tried."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulator import figures
from simulator.reports import common, known
from simulator.reports.document import Block, Cell, Code, Document, Plot, Section, Table, Text
from simulator.studies.load_files import LOAD, SCHEMA_VERSION
from simulator.terminal import number, percent

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS: tuple[tuple[str, str, float], ...] = (
    ("goodput (requests/s)", "goodput_requests_per_s", 1.0),
    ("output tokens/s", "output_tokens_per_s", 1.0),
    ("TTFT p99 (s)", "ttft_s_p99", 1.0),
    ("TPOT p99 (ms)", "tpot_s_p99", 1e3),
    ("ITL p99 (ms)", "itl_s_p99", 1e3),
    ("E2E p99 (s)", "e2e_s_p99", 1.0),
)
"""Heading, figure, and what the figure is multiplied by."""


_AXES = ["goodput_requests_per_s", "offered_requests_per_s"]


def document(directory: Path) -> Document:
    """Return the report of what ``simulate search --by load --out`` wrote."""
    found = common.read_study(directory / LOAD, "search", SCHEMA_VERSION, "search again")
    scenario = found["scenario"]
    interrupted = "INTERRUPTED: of the loads that were tried until then. " if found["interrupted"] else ""
    return Document(
        title=f"Highest load of {found['model']} within its objectives",
        answer=interrupted + found["answer"],
        sections=[
            Section("Loads", [_table(found), Text(_how(found))]),
            Section("Plots", list(_plots(found)) or [Text("Nothing to draw: no load was tried to its end.")]),
            common.assumptions([f"Seeds: {found['replicated']}", *found["notes"]]),
            *([known.section(known.subjects_of(scenario))] if scenario else []),
            _again(found),
            common.made_by(found["took_s"]),
        ],
    )


def _is_closed(found: Mapping[str, Any]) -> bool:
    return bool(found["key"].endswith("clients"))


def _how(found: Mapping[str, Any]) -> str:
    return (
        "A load is sustained, or missed, where the 95 % interval of the share within the objectives, over "
        f"replications, lies above, or below, {percent(found['share'])}; else it is undecided. Runs that missed twice "
        "what is allowed were given up, and the share is then an upper bound; other figures are means over "
        "replications, none given up."
    )


def _table(found: Mapping[str, Any]) -> Table:
    closed = _is_closed(found)
    remarks = any(row["overloaded"] for row in found["loads"])
    rows: list[list[Cell]] = [
        [
            row["load"],
            *([] if closed else [row["offered_requests_per_s"]]),
            row["answer"],
            _share(row),
            f"{row['runs']}, {row['given_up']} given up" if row["given_up"] else str(row["runs"]),
            *(None if row[name] is None else float(row[name] * scale) for _, name, scale in _COLUMNS),
            *(["overloaded" if row["overloaded"] else ""] if remarks else []),
        ]
        for row in found["loads"]
    ]
    first = ("clients",) if closed else ("rate x", "requests/s")
    figure_headings = (heading for heading, _, _ in _COLUMNS)
    headings = (*first, "answer", "within (95 % interval)", "runs", *figure_headings, *(["remark"] if remarks else []))
    ends = (found["sustained"], found["missed"])
    marked = {place for place, row in enumerate(found["loads"]) if row["load"] in ends}
    caption = "Loads that were tried; the highest that is sustained and the lowest that is missed are marked."
    return Table(caption, headings, rows, frozenset(marked))


def _share(row: Mapping[str, Any]) -> str:
    if row["given_up"]:
        return f"at most {percent(row['attainment_high'])}"
    interval = f"{100 * row['attainment_low']:.1f} to {100 * row['attainment_high']:.1f}"
    return f"{percent(row['attainment'])} ({interval})"


def _plots(found: Mapping[str, Any]) -> Iterator[Plot]:
    import pandas as pd

    if not found["loads"]:
        return
    frame = pd.DataFrame(found["loads"])
    x = "load" if _is_closed(found) else "offered_requests_per_s"
    if frame[x].notna().any():
        yield Plot(
            figures.load_attainment(frame, x, share=found["share"]),
            "Requests within the objectives against the load, with 95 % intervals.",
            f"{found['answer']} {len(frame)} loads were tried.",
        )
    yield from _goodput(frame)


def _goodput(frame: pd.DataFrame) -> Iterator[Plot]:
    both = frame.dropna(subset=_AXES)
    if len(both) > 1:
        goodput, offered = (both[name].to_numpy(dtype="float64") for name in both[_AXES])
        most = int(goodput.argmax())
        renamed = both.rename(columns={"offered_requests_per_s": "offered", "goodput_requests_per_s": "goodput"})
        yield Plot(
            figures.load_goodput(renamed),
            "Goodput against the load, where no run was given up.",
            f"The highest goodput of these loads is {number(goodput[most])} requests/s, at {number(offered[most])} "
            "requests/s offered.",
        )


def _again(found: Mapping[str, Any]) -> Section:
    if found["scenario"] is None:
        return Section("Run it again", [Text("No load is sustained, so there is no scenario at the highest.")])
    row = next(each for each in found["loads"] if each["load"] == found["sustained"])
    words = ["simulate", "run", "--scenario", "best.yaml"]
    if row["resample"]:
        for name, value in row["resample"].items():
            words += ["--set", f"workload.resample.{name}={value!r}"]
    runs = [shlex.join([*words, "--seed", str(seed)]) for seed in row["seeds"]]
    search = shlex.join(
        ["simulate", "search", "--scenario", "best.yaml", "--by", "load", "--attain", str(found["share"])]
    )
    where = "In the directory of the result, which holds best.yaml: the scenario at the highest load that is sustained."
    section = common.again(f"simulate run --scenario best.yaml\n{search}", found["scenario"], where=where)
    blocks: list[Block] = [
        *section.blocks,
        Code(
            "The replications of that load; of another one, set its load and how its trace is drawn (load.json)",
            "\n".join(runs),
        ),
    ]
    return Section(section.title, blocks)


__all__ = ["document"]
