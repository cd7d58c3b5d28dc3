"""`validate`: every comparison that there is data for, as one table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from fnmatch import fnmatchcase
from os import PathLike, cpu_count
from pathlib import Path

import pandas as pd

from simulator.errors import InputError, did_you_mean
from simulator.validation import kernels, server, silicon, vllm_runs
from simulator.validation.cases import Case, run_cases
from simulator.validation.rows import to_frame

DATASETS = (vllm_runs.DATASET, silicon.DATASET, kernels.DATASET)
"""What ``only`` may name."""

DEFAULT_DATA = Path("../shared/data")

_FEW = 8
"""Up to so many cases run in this process: starting others would take longer."""

Progress = Callable[[int, int, str], None]
"""Told how many cases have ended, of how many, and the last one's name."""


def validate(
    data: str | PathLike[str] | None = None,
    *,
    only: str | None = None,
    match: str | None = None,
    measured: str | PathLike[str] | None = None,
    scenario: str | PathLike[str] | None = None,
    kernel_tables: str | PathLike[str] | None = None,
    assumptions: silicon.Assumptions | None = None,
    out: str | PathLike[str] | None = None,
    executor: Executor | None = None,
    workers: int | None = None,
    progress: Progress = lambda done, total, name: None,
) -> pd.DataFrame:
    """Compare measured servers and kernels with what the simulator says of them.

    Parameters
    ----------
    data
        Folder laid out like ``../shared/data``; left out: that one, unless ``measured`` is given.
    only
        One dataset: ``vllm_runs``, ``silicon`` or ``kernels``.
    match
        Pattern of the cases' names, ``*`` standing for anything: ``h200_sxm/*/DeepSeek-*``; None: all.
    measured
        Result of ``vllm bench serve --save-result``, compared with ``scenario``.
    scenario
        Scenario file with the model and cluster that ``measured`` was run on.
    kernel_tables
        Folder with ``<system>_<backend>.parquet``, kernel tables for serving points and for runs without a layer
        profile; what it lacks comes from the package ``aiconfigurator-core``, if that is installed.
    assumptions
        What the load generator of the serving points is taken to have done.
    out
        Folder for ``validation.csv``, ``validation.html`` and ``known_errors.json``.
    executor
        Where cases run; left out: in ``workers`` processes of this machine.
    workers
        Processes; None: one a processor; 1: this process.
    progress
        Told of each case that ended.

    Returns
    -------
    pandas.DataFrame
        Columns `simulator.validation.rows.COLUMNS`: a row a metric of a case.

    Raises
    ------
    InputError
        If there is nothing to compare, or a file of the caller's is wrong. A case that can't be simulated is a row.
    """
    folder = None if out is None else _check_out(Path(out))
    cases = find_cases(data, only, measured, scenario, kernel_tables, assumptions)
    if match is not None:
        cases = [case for case in cases if fnmatchcase(case.name, match)]
        if not cases:
            raise InputError(f"no case's name matches {match!r}; names are as in the table's column 'case'")
    ended = 0

    def done(case: Case) -> None:
        nonlocal ended
        ended += 1
        progress(ended, len(cases), f"{case.dataset}: {case.name}")

    with _executor(executor, workers, len(cases)) as pool:
        frame = to_frame(run_cases(cases, pool, done))
    if folder is not None:
        from simulator.validation.known_errors import NAME, write_known_errors
        from simulator.validation.page import write_page

        frame.to_csv(folder / "validation.csv", index=False)
        write_page(frame, folder / "validation.html")
        write_known_errors(frame, folder / NAME)
    return frame


def find_cases(
    data: str | PathLike[str] | None,
    only: str | None,
    measured: str | PathLike[str] | None,
    scenario: str | PathLike[str] | None,
    kernel_tables: str | PathLike[str] | None,
    assumptions: silicon.Assumptions | None,
) -> list[Case]:
    """Return everything that there is to compare; parameters and errors as `validate`."""
    if only is not None and only not in DATASETS:
        raise InputError(f"unknown dataset {only!r}{did_you_mean(only, DATASETS)}")
    if (measured is None) != (scenario is None):
        raise InputError("--measured and --scenario go together: the measured file, and the cluster that it was run on")
    cases: list[Case] = []
    if measured is not None and scenario is not None:
        cases += server.cases(Path(measured), Path(scenario))
    if data is None and measured is not None and only is None:
        return cases
    folder = _data(data)
    tables = None if kernel_tables is None else _folder(Path(kernel_tables), "kernel tables")
    makers: dict[str, Callable[[], list[Case]]] = {
        vllm_runs.DATASET: lambda: vllm_runs.cases(folder, tables),
        silicon.DATASET: lambda: silicon.cases(folder, tables, assumptions),
        kernels.DATASET: lambda: kernels.cases(folder, tables),
    }
    for name in DATASETS if only is None else (only,):
        found = makers[name]()
        if only is not None and not found:
            raise InputError(f"{folder}: has no data for {only!r}; see docs/validation.md for the layout")
        cases += found
    return cases


def _data(data: str | PathLike[str] | None) -> Path:
    if data is None and not DEFAULT_DATA.is_dir():
        raise InputError(
            f"no measured data at {DEFAULT_DATA}: give --data DIR, a folder laid out as docs/validation.md says"
        )
    return _folder(DEFAULT_DATA if data is None else Path(data), "measured data")


def _folder(path: Path, what: str) -> Path:
    if not path.is_dir():
        raise InputError(f"{path}: no such folder; give one that holds {what}")
    return path


def _check_out(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: can't be written to ({error.strerror}); choose another --out") from None
    return folder


@contextmanager
def _executor(given: Executor | None, workers: int | None, cases: int) -> Iterator[Executor | None]:
    """Yield where cases run; None: here."""
    if workers is not None and workers < 1:
        raise InputError(f"workers must be at least 1, got {workers}")
    count = min(workers or cpu_count() or 1, cases)
    if given is not None:
        yield given
    elif count < 2 or cases <= _FEW:
        yield None
    else:
        with ProcessPoolExecutor(count) as pool:
            yield pool
