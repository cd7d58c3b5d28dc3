"""Finding studies, running one, and its table."""

from __future__ import annotations

import csv
import importlib
import io
import json
import pkgutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from simulator.errors import InputError, did_you_mean
from simulator.reproduce import studies as _studies
from simulator.reproduce.runs import FOLDER, unique
from simulator.reproduce.study import Options, Row, Study

TABLE = "figures.csv"
DETAILS = "study.json"


@dataclass(frozen=True)
class Reproduction:
    """A study that was run.

    Attributes
    ----------
    took_s
        Wall time of the run, seconds.
    """

    study: Study
    quick: bool
    trace: str | None
    rows: tuple[Row, ...]
    took_s: float

    def table(self) -> list[dict[str, Any]]:
        """Return a row a figure: ``what, paper, simulated, unit, source, remark, runs``; null where there is none.

        ``runs`` names the files of the scenarios that it was made of, with spaces between.
        """
        found = []
        for row in self.rows:
            stated = None if row.paper is None else self.study.figures[row.paper]
            found.append(
                {
                    "what": row.what,
                    "paper": None if stated is None else stated.value,
                    "simulated": row.simulated,
                    "unit": row.unit,
                    "source": "" if stated is None else stated.source,
                    "remark": row.remark,
                    "runs": " ".join(run.file for run in unique(row.runs)),
                }
            )
        return found


def study_names() -> list[str]:
    """Return the names of all studies, sorted."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(_studies.__path__))


def load_study(name: str) -> Study:
    """Return a study by its name.

    Raises
    ------
    InputError
        If there is none of that name.
    """
    if name not in (known := study_names()):
        raise InputError(f"unknown study {name!r}{did_you_mean(name, known)}")
    study = importlib.import_module(f"{_studies.__name__}.{name.replace('-', '_')}").STUDY
    assert isinstance(study, Study) and study.name == name
    return study


def reproduce(
    name: str,
    *,
    quick: bool = False,
    trace: str | None = None,
    out: str | Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> Reproduction:
    """Run a study.

    Parameters
    ----------
    name
        One of `study_names`.
    quick, trace
        See `Options`.
    out
        Directory to write ``figures.csv``, ``study.json`` and the scenarios of the figures (``runs/*.yaml``) to; None:
        nothing is written.
    progress
        Called with a line at each part that ends.

    Raises
    ------
    InputError
        If there is no such study, it takes no trace, or ``out`` can't be written.
    """
    study = load_study(name)
    if trace is not None and not study.takes_trace:
        raise InputError(f"study {name!r} takes no trace: its requests are part of what is reproduced")
    place = None if out is None else _directory(Path(out))
    begun = time.perf_counter()
    rows = tuple(study.run(Options(quick, trace, progress or (lambda line: None))))
    done = Reproduction(study, quick, trace, rows, time.perf_counter() - begun)
    if place is not None:
        _write(done, place)
    return done


def _directory(place: Path) -> Path:
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to {place}: {error.strerror}; choose another directory") from error
    return place


def _write(done: Reproduction, place: Path) -> None:
    rows = done.table()
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else ["what"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    (place / TABLE).write_text(text.getvalue(), encoding="utf-8")
    study = done.study
    details = {
        "name": study.name,
        "paper": study.paper,
        "claim": study.claim,
        "setup": study.setup,
        "differences": study.differences,
        "without_runs": study.without_runs,
        "quick": done.quick,
        "trace": done.trace,
        "figures": {key: asdict(figure) for key, figure in study.figures.items()},
        "rows": rows,
        "took_s": done.took_s,
    }
    runs = unique(run for row in done.rows for run in row.runs)
    if runs:
        _directory(place / FOLDER)
    for run in runs:
        run.write(place / FOLDER, f"simulate reproduce {study.name}", (study.paper, f"Set-up: {study.setup}"))
    (place / DETAILS).write_text(json.dumps(details, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
