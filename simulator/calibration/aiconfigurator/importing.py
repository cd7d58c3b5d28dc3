"""The import itself: which tables, which version of each, and their rows in the measurement schema."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from simulator.calibration.aiconfigurator.package import HARDWARE, Package, open_package
from simulator.calibration.aiconfigurator.tables import FAMILIES, NO_PLACE, TABLES, Table
from simulator.calibration.aiconfigurator.versions import newest, version_key
from simulator.calibration.schema import COLUMNS, OPERATORS
from simulator.errors import InputError, did_you_mean

_OPTIONAL = ("window_size", "power")
"""Columns that some tables have."""

_VALUES = ("time_s", "power_w")
"""Columns that were measured; the others say what."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A table that was imported.

    Attributes
    ----------
    family, table
        Where it lies in the package.
    software, version
        What was measured.
    rows
        Measurements that it gave, after all that follows.
    impossible
        Measurements that were dropped: a time that is not above 0, or a shape that is not complete.
    merged
        Measurements that repeated the shape of another; each shape has the median.
    date
        Day of the measurement, YYYY-MM-DD.
    dated
        False where the package doesn't record the day; the date is then the newest that it names at all.
    power
        True where it has power.
    """

    family: str
    table: str
    software: str
    version: str
    rows: int
    impossible: int
    merged: int
    date: str
    dated: bool
    power: bool


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Something that the package has, or might have had, and that was not imported.

    Attributes
    ----------
    what
        Family, or family and table.
    why
        The reason.
    rows
        Rows of a table that was otherwise imported; None for whole tables.
    """

    what: str
    why: str
    rows: int | None = None


@dataclass(frozen=True)
class Import:
    """Measurements, and what they are made of.

    Attributes
    ----------
    table
        Of the measurement schema.
    taken, left_out
        What they come from, and what they don't hold.
    """

    table: pd.DataFrame
    taken: Sequence[Taken]
    left_out: Sequence[LeftOut]


def import_tables(
    system: str,
    backend: str,
    *,
    version: str | None = None,
    families: Collection[str] | None = None,
    root: Path | None = None,
) -> pd.DataFrame:
    """Read the kernel tables of a system and an engine into the measurement schema.

    Parameters
    ----------
    system
        As the package names it, ``"h200_sxm"``.
    backend
        Engine: ``"vllm"``, ``"sglang"`` or ``"trtllm"``.
    version
        Of the engine. Each table is taken from one version, the newest that is not newer than this. None: than the
        one that the package calls current, as newer ones hold additions for single models; where there is none up to
        it, the newest. Libraries (NCCL): always the newest.
    families
        Those wanted; None: all.
    root
        Directory of the package; None: the installed one.

    Returns
    -------
    pandas.DataFrame
        In seconds, bytes and tokens; see ``docs/measurements.md``. One row a shape and kernel: repeated measurements
        are their median, impossible ones are dropped.

    Raises
    ------
    InputError
        If the package is not installed, or lacks the system, the engine, the family or any such version.
    """
    return import_report(system, backend, version=version, families=families, root=root).table


def import_report(
    system: str,
    backend: str,
    *,
    version: str | None = None,
    families: Collection[str] | None = None,
    root: Path | None = None,
) -> Import:
    """Do the same as `import_tables`, and say what was taken from where and what was left out.

    Raises
    ------
    InputError
        As `import_tables`.
    """
    package = open_package(root)
    package.check_system(system)
    package.check_backend(system, backend)
    for family in families or ():
        if family not in FAMILIES:
            raise InputError(f"unknown family of tables {family!r}{did_you_mean(family, FAMILIES)}")
    if version is not None and version_key(version) is None:
        raise InputError(f"version {version!r} of {backend} is no version; it should be such as 0.24.0 or 1.3.0rc20")
    run = _Run(package, system, backend, version)
    for table in TABLES:
        if families is None or table.family in families:
            run.take(table)
    of_the_engine = any(each.software == backend for each in run.taken)
    if not run.taken or (version is not None and not of_the_engine):
        raise InputError(_nothing(run, families))
    if families is None:
        run.list_without_place()
    return Import(_assemble(run.parts), run.taken, run.left_out)


def _nothing(run: _Run, families: Collection[str] | None) -> str:
    """Say why no table was taken."""
    of = f" of the families {', '.join(sorted(families))}" if families else ""
    limit = f" up to version {run.version}" if run.version else ""
    wanted = [table for table in TABLES if families is None or table.family in families]
    data = run.package.data / run.system
    files = (path for table in wanted for path in (data / table.family / run.backend).glob(f"*/{table.file}"))
    there = sorted({path.parent.name for path in files}, key=lambda name: (version_key(name) or ((), 0, 0), name))
    return (
        f"{run.package.label}: {run.system} has no tables{of} of {run.backend}{limit}; "
        f"there are versions {', '.join(there) or 'none'}"
    )


class _Run:
    """One import in the making."""

    def __init__(self, package: Package, system: str, backend: str, version: str | None) -> None:
        self.package = package
        self.system = system
        self.backend = backend
        self.version = version
        self.parts: list[pd.DataFrame] = []
        self.taken: list[Taken] = []
        self.left_out: list[LeftOut] = []
        self._current = package.current_version(system, backend)
        self._gpus_per_node = package.gpus_per_node(system)
        self._newest_day: str | None = None

    def take(self, table: Table) -> None:
        """Import one table, or note why not."""
        what = f"{table.family}/{table.name}"
        software = table.library or self.backend
        folder = self.package.data / self.system / table.family / software
        versions = [path.parent.name for path in folder.glob(f"*/{table.file}")]
        if not versions:
            if table.library is None and self.backend in (table.engines or (self.backend,)):
                self.left_out.append(LeftOut(what, f"not measured with {self.backend}"))
            return
        chosen = self._choose(table, versions)
        if chosen is None:
            oldest = min(versions, key=lambda name: version_key(name) or ((), 0, 0))
            self.left_out.append(LeftOut(what, f"none up to version {self.version}; the oldest is {oldest}"))
            return
        if table.gpus_per_node is not None and self._gpus_per_node != table.gpus_per_node:
            said = f"says nodes and no ranks, and is known for nodes of {table.gpus_per_node} GPUs only"
            self.left_out.append(LeftOut(what, said))
            return
        self._read(table, software, folder / chosen)

    def _choose(self, table: Table, versions: Sequence[str]) -> str | None:
        if table.library is not None:
            return newest(versions)
        if self.version is not None:
            return newest(versions, self.version)
        return newest(versions, self._current) or newest(versions)

    def _read(self, table: Table, software: str, folder: Path) -> None:
        path = folder / table.file
        what = f"{table.family}/{table.name}"
        raw = _read_table(path, table.columns)
        if table.joined is not None:
            other = path.with_name(f"{table.joined}_perf.parquet")
            if not other.is_file():
                self.left_out.append(LeftOut(what, f"is a difference to {table.joined}, which is not there"))
                return
            added = _read_table(other, (*table.on, "latency"))[[*table.on, "latency"]]
            added = added.groupby(list(table.on), as_index=False).median()
            raw = raw.merge(added, on=list(table.on), how="left", suffixes=("", f"_{table.joined}"))
        raw = self._accept(raw, table, what)
        rows = table.convert(raw)
        possible = _possible(rows)
        impossible = int((~possible).sum())
        rows, merged = _median(rows[possible])
        if rows.empty:
            self.left_out.append(LeftOut(what, "no row is possible and known", rows=len(raw)))
            return
        day = self.package.collected(folder, f"{table.name}_perf")
        where = f"{self.package.label} {path.relative_to(self.package.root).as_posix()}"
        date = day or self._undated()
        has_power = "power_w" in rows and bool(rows["power_w"].notna().any())
        self.parts.append(
            rows.assign(
                hardware=HARDWARE.get(self.system, self.system),
                software=software,
                software_version=folder.name,
                date=date,
                source=where,
            )
        )
        self.taken.append(
            Taken(
                table.family,
                table.name,
                software,
                folder.name,
                len(rows),
                impossible,
                merged,
                date,
                day is not None,
                has_power,
            )
        )

    def _accept(self, raw: pd.DataFrame, table: Table, what: str) -> pd.DataFrame:
        """Return the rows whose values are known; note the others."""
        for column, values in table.accepted.items():
            known = raw[column].isin(list(values))
            if known.all():
                continue
            for value, count in raw.loc[~known, column].value_counts(dropna=False).items():
                self.left_out.append(LeftOut(what, f"{column} {value}: not known, or no operator of ours", int(count)))
            raw = raw[known]
        return raw.reset_index(drop=True)

    def _undated(self) -> str:
        """Return a day for tables whose own is not recorded."""
        if self._newest_day is None:
            self._newest_day = self.package.newest_day()
        if self._newest_day is None:
            raise InputError(f"{self.package.root}: names no day of collection (collected_at) in any of its files")
        return self._newest_day

    def list_without_place(self) -> None:
        """Note tables of this engine that have no place in the schema."""
        known = {(table.family, table.file) for table in TABLES}
        found: dict[str, str] = {}
        for path in sorted((self.package.data / self.system).glob(f"*/{self.backend}/*/*.parquet")):
            family, name = path.parts[-4], path.name.removesuffix("_perf.parquet").removesuffix(".parquet")
            if (family, path.name) in known:
                continue
            if family in NO_PLACE:
                found[family] = NO_PLACE[family]
            else:
                found[f"{family}/{name}"] = NO_PLACE.get(name, "a table that this simulator doesn't know")
        self.left_out.extend(LeftOut(what, why) for what, why in found.items())


def _read_table(path: Path, columns: Iterable[str]) -> pd.DataFrame:
    """Read those columns of a table, and the optional ones that it has."""
    try:
        there = set(pq.read_schema(path).names)
        for column in columns:
            if column not in there:
                raise InputError(
                    f"{path}: has no column {column!r}; this is not a table of the kind that its name says"
                )
        wanted = [*columns, *(column for column in _OPTIONAL if column in there)]
        table: pd.DataFrame = pq.read_table(path, columns=wanted).to_pandas()
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: can't be read as Parquet ({' '.join(str(error).split())})") from None
    return table


def _possible(rows: pd.DataFrame) -> pd.Series[bool]:
    """Tell which rows have a time above 0 and all of their operator's shape."""
    possible: pd.Series[bool] = (rows["time_s"] > 0) & (rows["time_s"] < np.inf)
    for operator, group in rows.groupby("operator", sort=False):
        complete = group[list(OPERATORS[str(operator)])].notna().all(axis=1)
        possible &= complete.reindex(rows.index, fill_value=True)
    return possible


def _median(rows: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Return rows with one measurement a shape, its median, and how many were merged into another."""
    shape = [column for column in rows.columns if column not in _VALUES]
    repeated = rows.duplicated(shape, keep=False)
    if not repeated.any():
        return rows, 0
    values = [column for column in _VALUES if column in rows.columns]
    merged = rows[repeated].groupby(shape, dropna=False, sort=False, as_index=False)[values].median()
    kept = [rows[~repeated], merged[rows.columns]]
    columns = {name: np.concatenate([part[name].to_numpy() for part in kept]) for name in rows.columns}
    result = pd.DataFrame(columns)
    return result, len(rows) - len(result)


def _assemble(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return one table of the schema: an array a column, into which each part writes its rows."""
    ends = np.cumsum([len(part) for part in parts]).tolist()
    spans = [(part, slice(end - len(part), end)) for part, end in zip(parts, ends, strict=True)]
    return pd.DataFrame({name: _column(spans, name, column.kind) for name, column in COLUMNS.items()})


def _column(spans: Sequence[tuple[pd.DataFrame, slice]], name: str, kind: str) -> Any:
    rows = spans[-1][1].stop
    given = [(part[name], where) for part, where in spans if name in part]
    if kind == "text":
        texts = np.full(rows, None, dtype=object)
        for values, where in given:
            texts[where] = values.astype(object).where(values.notna(), None).to_numpy()
        return pd.Series(texts, dtype="object")
    numbers = np.full(rows, np.nan)
    for values, where in given:
        numbers[where] = values.to_numpy(dtype=np.float64, na_value=np.nan)
    if kind == "number":
        return numbers
    missing = np.isnan(numbers)
    return pd.arrays.IntegerArray(np.where(missing, 0, numbers).astype(np.int64), missing)
