"""Results on disk: written whole or not at all, and read back.

Everything goes to a temporary directory beside the one asked for, which takes its name at the end.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from simulator.errors import InputError
from simulator.result import RunResult, StoredResult
from simulator.result_tables import schema, to_frame
from simulator.summary import SCHEMA_VERSION

if TYPE_CHECKING:
    import pyarrow as pa

Format = Literal["parquet", "csv"]
FORMATS: tuple[Format, ...] = ("parquet", "csv")
TABLES = ("requests", "timeseries")
SUMMARY = "summary.json"
SCENARIO = "scenario.yaml"
PERFETTO = "trace.perfetto.json.gz"
REPORT = "report.html"
OWN_FILES = frozenset(
    {SUMMARY, SCENARIO, PERFETTO, REPORT, *(f"{table}.{form}" for table in TABLES for form in FORMATS)}
)
"""What a directory of results may hold; `write_result` replaces no directory that holds anything else."""


def write_result(
    result: RunResult,
    out_dir: str | os.PathLike[str],
    *,
    format: Format = "parquet",  # noqa: A002  # the option's name in the CLI
    perfetto: bool = False,
    overwrite: bool = False,
) -> Path:
    """Write a result to a directory.

    Parameters
    ----------
    out_dir
        The directory to make, parents included; an empty one is fine.
    format
        Of the two tables, ``"parquet"`` or ``"csv"``.
    perfetto
        Write ``trace.perfetto.json.gz`` too.
    overwrite
        Replace an earlier result. A directory with anything else in it is never replaced.

    Returns
    -------
    pathlib.Path
        The directory, absolute.

    Raises
    ------
    InputError
        Where the directory can't be written or must not be replaced; nothing is left behind then.
    """
    if format not in FORMATS:
        raise InputError(f"unknown format {format!r}; known: {', '.join(FORMATS)}")
    target = check_out_dir(out_dir, overwrite=overwrite)
    begun = time.perf_counter()
    with _said_plainly(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
        try:
            staging.chmod(0o777 & ~_umask())
            _write_scenario(staging / SCENARIO, result.scenario)
            _write_table(result.requests_table, staging / f"requests.{format}")
            _write_table(result.timeseries_table, staging / f"timeseries.{format}")
            if perfetto:
                from simulator.perfetto import write_perfetto

                write_perfetto(result, staging / PERFETTO)
            result.summary["simulator"]["write_s"] = time.perf_counter() - begun
            text = json.dumps(result.summary, indent=2, allow_nan=False, ensure_ascii=False)
            (staging / SUMMARY).write_text(text + "\n", encoding="utf-8")
            _put_in_place(staging, target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return target


def check_out_dir(out_dir: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Return the directory as an absolute path if a result may be written there; for a check before a long run.

    Raises
    ------
    InputError
        If it is a file, holds an earlier result (without ``overwrite``) or anything else.
    """
    target = Path(out_dir).expanduser()
    with _said_plainly(target):
        target = target.resolve()
        for place in (target, *target.parents):
            if place.exists() and not place.is_dir():
                raise InputError(f"cannot write results to {target}: {place} is a file; choose another directory")
        existing = next(place for place in (target, *target.parents) if place.exists())
        if not os.access(existing, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "no permission", str(existing))
        if existing != target:
            return target
        names = sorted(entry.name for entry in target.iterdir())
    if not names:
        return target
    others = [name for name in names if name not in OWN_FILES]
    if others or SUMMARY not in names:
        what = ", ".join((others or names)[:3]) + (", ..." if len(others or names) > 3 else "")
        raise InputError(
            f"cannot write results to {target}: it holds files that are no result ({what}); choose another directory"
        )
    if not overwrite:
        raise InputError(
            f"cannot write results to {target}: it holds an earlier result; choose another directory or overwrite it "
            "(--overwrite)"
        )
    return target


def load_result(directory: str | os.PathLike[str]) -> StoredResult:
    """Read back what `write_result` wrote.

    Raises
    ------
    InputError
        If the directory holds no result, or one that this version can't read.
    """
    import yaml

    path = Path(directory).expanduser().resolve()
    if not (path / SUMMARY).is_file():
        raise InputError(f"no result in {path}: there is no {SUMMARY}; a result is what 'simulate run --out' writes")
    try:
        summary = json.loads((path / SUMMARY).read_text(encoding="utf-8"))
        found = summary.get("schema_version") if isinstance(summary, dict) else None
        if found != SCHEMA_VERSION:
            raise InputError(
                f"cannot read the result in {path}: its schema_version is {found}, this version reads "
                f"{SCHEMA_VERSION}; run its scenario.yaml again"
            )
        requests, timeseries = (to_frame(_read_table(path, table)) for table in TABLES)
        scenario = yaml.safe_load((path / SCENARIO).read_text(encoding="utf-8"))
    except InputError:
        raise
    except (OSError, ValueError, KeyError, yaml.YAMLError) as error:
        detail = " ".join(str(error).split())
        raise InputError(f"cannot read the result in {path}: {detail}") from error
    return StoredResult(path, requests, timeseries, summary, scenario)


# ---------------------------------------------------------------------------------------------------------- files


def _write_table(table: pa.Table, path: Path) -> None:
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        pq.write_table(table, path, compression="zstd")
    else:
        import pyarrow as pa
        from pyarrow import csv

        plain = pa.schema([_csv_field(field) for field in table.schema])
        csv.write_csv(table.cast(plain), path)


def _csv_field(field: pa.Field) -> pa.Field:
    import pyarrow as pa

    return field.with_type(pa.string()) if pa.types.is_dictionary(field.type) else field


def _read_table(path: Path, which: str) -> pa.Table:
    import pyarrow as pa

    wanted = schema(which)
    parquet, text = path / f"{which}.parquet", path / f"{which}.csv"
    if parquet.is_file():
        import pyarrow.parquet as pq

        table = pq.read_table(parquet, partitioning=None)
    elif text.is_file():
        from pyarrow import csv

        options = csv.ConvertOptions(
            column_types=pa.schema([_csv_field(field) for field in wanted]),
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        )
        table = csv.read_csv(text, convert_options=options)
    else:
        raise InputError(f"cannot read the result in {path}: there is no {which}.parquet or {which}.csv")
    if table.column_names != wanted.names:
        raise InputError(
            f"cannot read the result in {path}: {which} has columns {', '.join(table.column_names)}; "
            f"wanted: {', '.join(wanted.names)}"
        )
    arrays = [
        table.column(field.name).dictionary_encode() if pa.types.is_dictionary(field.type) else table.column(field.name)
        for field in wanted
    ]
    return pa.table(arrays, names=wanted.names).cast(wanted)


def _write_scenario(path: Path, scenario: Mapping[str, Any]) -> None:
    import yaml

    text = yaml.safe_dump(plain(scenario), sort_keys=False, allow_unicode=True, width=120)
    path.write_text(text, encoding="utf-8")


def plain(value: Any) -> Any:
    """Return a value made of dicts, lists, strings, numbers, booleans and None only, as YAML and JSON hold."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, str):
        return str(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):  # NumPy's arrays and numbers
        return plain(value.tolist())
    if isinstance(value, (Sequence, set, frozenset)):
        return [plain(item) for item in (sorted(value) if isinstance(value, (set, frozenset)) else value)]
    raise TypeError(f"{type(value).__name__} can't be written to a scenario file: {value!r}")


# ------------------------------------------------------------------------------------------------------ directory


def _put_in_place(staging: Path, target: Path) -> None:
    """Give the finished directory its name; an earlier one moves aside first and comes back if that fails."""
    if not target.exists():
        staging.rename(target)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".earlier", dir=target.parent))
    earlier = aside / target.name
    try:
        target.rename(earlier)
        try:
            staging.rename(target)
        except BaseException:
            earlier.rename(target)
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


_REMEDIES = {
    errno.EACCES: "choose a directory that you may write to",
    errno.EPERM: "choose a directory that you may write to",
    errno.EROFS: "choose a directory that you may write to",
    errno.ENOSPC: "free some space or choose another disk",
    errno.EDQUOT: "free some space or choose another disk",
    errno.EBUSY: "choose a directory below it: a mount point can't be replaced",
}


@contextmanager
def _said_plainly(target: Path) -> Iterator[None]:
    """Turn what the operating system refuses into one line with a remedy."""
    try:
        yield
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else " ".join(str(error).split())
        remedy = _REMEDIES.get(error.errno or 0, "choose another directory")
        raise InputError(f"cannot write results to {target}: {why}; {remedy}") from error
