"""The report of a study: a paper's figures beside the simulator's."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from simulator.reports import common
from simulator.reports.document import Block, Cell, Code, Document, Plot, Section, Table, Text
from simulator.terminal import number


def document(directory: Path) -> Document:
    """Return the report of what ``simulate reproduce --out`` wrote."""
    study = common.read_json(directory / "study.json")
    rows = study["rows"]
    command = ["simulate", "reproduce", study["name"], *(["--quick"] if study["quick"] else [])]
    command += ["--trace", study["trace"]] if study["trace"] else []
    quick = " These are the quick figures, of fewer requests and cases." if study["quick"] else ""
    return Document(
        title=f"Study {study['name']}: published and simulated",
        answer=f"{study['claim'].rstrip('.')}. {_beside(rows)}{quick}",
        sections=[
            Section("Figures", [_table(rows), *_plot(rows)]),
            Section("The paper", [Text(study["paper"])]),
            Section("Set-up", [Text(study["setup"])]),
            Section("Why they differ", [Text(study["differences"])]),
            _again(shlex.join(command), study),
            common.made_by(study["took_s"]),
        ],
    )


def _again(command: str, study: dict[str, Any]) -> Section:
    """Return how to run the study again, and of each figure the runs that it is made of."""
    named = [(row["what"], row.get("runs", "").split()) for row in study["rows"]]
    section = common.again(command, None)
    files = list(dict.fromkeys(file for _, runs in named for file in runs))
    more: list[Block] = []
    if files:
        example = shlex.join(["simulate", "run", "--scenario", files[0]])
        rows: list[list[Cell]] = [[what, "; ".join(runs) or None] for what, runs in named]
        more += [
            Code("One run of a figure, in the directory of the result", example),
            Table("The runs that each figure is made of.", ("figure", "scenario files"), rows),
        ]
    if study.get("without_runs"):
        more.append(Text(study["without_runs"]))
    return Section(section.title, [*section.blocks, *more])


def _beside(rows: list[dict[str, Any]]) -> str:
    """Say how many figures stand beside the paper's, and the one that differs the most."""
    both = [row for row in rows if row["paper"] and row["simulated"] is not None]
    if not both:
        return "No figure of the paper's stands beside a simulated one here."
    far = max(both, key=lambda row: abs(row["simulated"] / row["paper"] - 1))
    first = "Here" if len(both) == 1 else f"Of {len(both)} figures that the simulator gives beside it, the furthest off"
    simulated, published = (_with_unit(far[key], far["unit"]) for key in ("simulated", "paper"))
    return f"{first}: {simulated}, where the paper has {published} ({far['what']})."


def _with_unit(value: float, unit: str) -> str:
    return f"{number(value)} {unit}" if unit != "x" else f"{number(value)} times"


def _plot(rows: list[dict[str, Any]]) -> list[Plot]:
    """Draw what was simulated over what was published; nothing where no figure has both."""
    both = [row for row in rows if row["paper"] and row["simulated"] and row["simulated"] / row["paper"] > 0]
    if not both:
        return []
    import pandas as pd

    from simulator import figures

    frame = pd.DataFrame(both)[["what", "paper", "simulated"]]
    frame.columns = pd.Index(["name", "published", "simulated"])
    ratios = [row["simulated"] / row["paper"] for row in both]
    caption = "What was simulated over what was published, a row a figure: 1 is the same. The table has the figures."
    alt = f"{len(both)} figures: simulated over published from {number(min(ratios))} to {number(max(ratios))}."
    return [Plot(figures.published(frame), caption, alt)]


def _table(rows: list[dict[str, Any]]) -> Table:
    shown: list[list[Cell]] = [
        [
            row["what"],
            row["paper"],
            row["simulated"],
            row["simulated"] / row["paper"] if row["paper"] and row["simulated"] is not None else None,
            row["unit"],
            "; ".join(text for text in (row["source"], row["remark"]) if text),
        ]
        for row in rows
    ]
    columns = ("what", "paper", "simulated", "simulated / paper", "unit", "where the paper has it, remarks")
    return Table("What the paper states and what the simulator gives; x: a ratio.", columns, shown)
