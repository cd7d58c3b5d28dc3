"""What all readers share: the head of a file, a table of raw columns, the rules for bad rows, and the assembly."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from workloads.streams import UInt64s, mix, text_key
from workloads.trace import MAX_TOKENS, Categorical, Floats, Ints, Ragged, Trace, TraceError

if TYPE_CHECKING:
    from collections.abc import Iterator

OnBadRow = Literal["fail", "skip", "stop"]
SpreadTies = Literal["keep", "uniform"]

NO_STAMP = np.iinfo(np.int64).min
_HEAD_BYTES = 1 << 20
_LISTED = 5


@dataclass(frozen=True)
class Head:
    """The beginning of a file, from which a reader knows its own format.

    Attributes
    ----------
    path
        The file.
    columns
        Names in the header of a CSV file, stripped; empty for other files.
    first_row
        Texts of the first row under that header.
    record
        First record of a JSON Lines file, else None.
    parquet
        True for a Parquet file.
    """

    path: Path
    columns: tuple[str, ...] = ()
    first_row: tuple[str, ...] = ()
    record: Mapping[str, Any] | None = None
    parquet: bool = False


@dataclass(frozen=True)
class Options:
    """How to read: see :func:`workloads.read_trace`."""

    on_bad_row: OnBadRow = "fail"
    sort: bool = False
    spread_ties: SpreadTies | None = None
    keep_failed: bool = False


@dataclass(frozen=True)
class Reader:
    """One file format.

    Attributes
    ----------
    name
        As users write it (``--format``).
    about
        One line: whose format it is, and where it is described.
    matches
        Header test: True if the file is of this format.
    parse
        Reads the whole file.
    columns
        Columns or keys that the format needs, for messages.
    layout
        ``"csv"`` or ``"jsonl"``.
    """

    name: str
    about: str
    matches: Callable[[Head], bool]
    parse: Callable[[Head, Options], Trace]
    columns: tuple[str, ...]
    layout: Literal["csv", "jsonl"] = "csv"


@dataclass
class Table:
    """Raw columns of a file, by header name, before any row is judged.

    ``stamps`` are nanoseconds since 1970 (``NO_STAMP`` where unreadable); numbers are NaN where missing or unreadable.
    ``bad`` holds the reasons found while parsing; ``lines`` the line (or row) of every row in the file.
    """

    path: Path
    n: int
    numbers: dict[str, Floats] = field(default_factory=dict)
    stamps: dict[str, Ints] = field(default_factory=dict)
    texts: dict[str, Categorical] = field(default_factory=dict)
    lists: dict[str, Ragged] = field(default_factory=dict)
    lines: Ints | None = None
    bad: dict[int, str] = field(default_factory=dict)
    unit: str = "line"
    first_line: int = 2
    last_column: str = ""
    original: Ints | None = None
    notes: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def line(self, row: int) -> int:
        """Return where a row stands in the file."""
        if self.lines is not None:
            return int(self.lines[row])
        return self.first_line + (row if self.original is None else int(self.original[row]))

    def where(self, row: int) -> str:
        """Return ``file:line`` of a row."""
        return f"{self.path}:{self.line(row)}" if self.unit == "line" else f"{self.path}, row {self.line(row)}"

    def take(self, index: npt.NDArray[Any]) -> Table:
        """Return the rows of a mask or an index."""
        rows = np.flatnonzero(index) if index.dtype == np.bool_ else index
        original = rows if self.original is None else self.original[rows]
        return replace(
            self,
            n=len(rows),
            numbers={name: column[rows] for name, column in self.numbers.items()},
            stamps={name: column[rows] for name, column in self.stamps.items()},
            texts={name: column.take(rows) for name, column in self.texts.items()},
            lists={name: column.take(rows) for name, column in self.lists.items()},
            lines=None if self.lines is None else self.lines[rows],
            bad={},
            original=original,
        )


# ------------------------------------------------------------------------------------------------ opening files


def is_gzip(path: Path) -> bool:
    """Return True if the file is compressed with gzip, by its content."""
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what the system says of an unreadable file into one line."""
    try:
        yield
    except FileNotFoundError:
        raise TraceError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise TraceError(f"{path}: is a directory, not a trace file") from None
    except UnicodeDecodeError as e:
        raise TraceError(f"{path}: is not UTF-8 text ({e.reason} at byte {e.start}); convert it to UTF-8") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as e:
        raise TraceError(f"{path}: damaged gzip file ({e}); download it again") from None
    except OSError as e:
        raise TraceError(f"{path}: can't be read ({e.strerror or e})") from None


def open_text(path: Path) -> IO[str]:
    """Open a file, or what a gzip file holds, as UTF-8 text; a byte order mark is dropped."""
    if is_gzip(path):
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open("r", encoding="utf-8-sig", newline="")


def digest(path: Path) -> tuple[str, bool]:
    """Return the SHA-256 of a file, and whether its last byte ends a line."""
    sha, last = hashlib.sha256(), b""
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            sha.update(block)
            last = block[-1:]
    return sha.hexdigest(), last in (b"\n", b"\r", b"")


def head_of(path: Path) -> Head:
    """Read the beginning of a file."""
    with readable(path):
        if path.is_dir():
            raise IsADirectoryError
        with path.open("rb") as file:
            if file.read(4) == b"PAR1":
                return Head(path, parquet=True)
        if path.stat().st_size == 0:
            raise TraceError(f"{path}: is empty; a trace needs a header and at least one request")
        with open_text(path) as text:
            first = text.readline(_HEAD_BYTES)
            while first and not first.strip():
                first = text.readline(_HEAD_BYTES)
            second = text.readline(_HEAD_BYTES)
    if first.lstrip().startswith("{"):
        try:
            record = json.loads(first)
        except ValueError:
            record = {}
        return Head(path, record=record if isinstance(record, dict) else {})
    return Head(path, columns=_fields(first), first_row=_fields(second))


def _fields(line: str) -> tuple[str, ...]:
    import csv

    try:
        row = next(csv.reader([line]), [])
    except csv.Error:
        row = []
    return tuple(name.strip() for name in row)


# ------------------------------------------------------------------------------------------------- judging rows


@dataclass(frozen=True)
class Rule:
    """What a numeric column must hold."""

    integral: bool = False
    low: float | None = None
    high: float | None = None
    optional: bool = False

    def broken(self, values: Floats) -> npt.NDArray[np.bool_]:
        """Return which values break the rule."""
        with np.errstate(invalid="ignore"):
            wrong = ~np.isfinite(values)
            if self.integral:
                wrong |= values != np.floor(values)
            if self.low is not None:
                wrong |= values < self.low
            if self.high is not None:
                wrong |= values > self.high
        if self.optional:
            wrong &= ~np.isnan(values)
        return wrong

    def reason(self, name: str, value: float) -> str:
        """Say how a value breaks the rule."""
        if np.isnan(value):
            return f"{name} is missing or not a number"
        shown = str(int(value)) if np.isfinite(value) and value == np.floor(value) else repr(float(value))
        if not np.isfinite(value):
            return f"{name} is {shown}, must be finite"
        if self.low is not None and value < self.low:
            return f"{name} is {shown}, must be at least {self.low:g}"
        if self.high is not None and value > self.high:
            return f"{name} is {shown}, must be at most {self.high:.0f}"
        return f"{name} is {shown}, must be a whole number"


TIME = Rule(low=0)
PROMPT = Rule(integral=True, low=1, high=MAX_TOKENS)
OUTPUT = Rule(integral=True, low=1, high=MAX_TOKENS)
OUTPUT_OR_FAILED = Rule(integral=True, low=0, high=MAX_TOKENS)
DURATION = Rule(low=0, optional=True)
INTEGER = Rule(integral=True, optional=True, low=-(2.0**53), high=2.0**53)


def judge(table: Table, rules: Mapping[str, Rule], options: Options) -> Table:
    """Apply the rules to every row, and do with bad rows what the user asked for."""
    bad = dict(table.bad)
    for name, stamps in table.stamps.items():
        for row in np.flatnonzero(stamps == NO_STAMP).tolist():
            bad.setdefault(row, f"{name} is missing or not a time")
    for name, rule in rules.items():
        values = table.numbers[name]
        for row in np.flatnonzero(rule.broken(values)).tolist():
            bad.setdefault(row, rule.reason(name, values[row]))
    if not bad:
        return table
    rows = sorted(bad)
    first = rows[0]
    if options.on_bad_row == "fail":
        more = f" (and {len(rows) - 1} more bad rows)" if len(rows) > 1 else ""
        raise TraceError(
            f"{table.where(first)}: {bad[first]}{more}; "
            "--on-bad-row skip leaves bad rows out, stop ends before the first"
        )
    if options.on_bad_row == "stop":
        kept = table.take(np.arange(first))
        kept.notes.append(f"stopped before {table.unit} {table.line(first)}: {bad[first]}; {first} rows were used")
        kept.counts["stopped_at_line"] = table.line(first)
        return kept
    mask = np.ones(table.n, np.bool_)
    mask[rows] = False
    kept = table.take(mask)
    listed = "; ".join(f"{table.unit} {table.line(row)}: {bad[row]}" for row in rows[:_LISTED])
    rest = f"; and {len(rows) - _LISTED} more" if len(rows) > _LISTED else ""
    kept.notes.append(f"skipped {len(rows)} bad row{'s' * (len(rows) > 1)} ({listed}{rest})")
    kept.counts["bad_rows_skipped"] = len(rows)
    return kept


# ----------------------------------------------------------------------------------------------------- assembly


@dataclass(frozen=True)
class Roles:
    """Which column of a table plays which part, and what the format's defaults are.

    Attributes
    ----------
    time
        Column of arrivals, a number or a stamp.
    time_unit_s
        Seconds a unit of a numeric time column.
    relative
        True: the first arrival becomes 0. False: the file's own zero is kept.
    zero_output_failed
        True: an output of 0 tokens marks a failed request; False: it is a bad row.
    session, elapsed
        Conversation (text) and duration of the request (seconds): parents and think times follow from them.
    spread_ties
        What is done with equal arrivals if the user doesn't say.
    """

    time: str
    prompt: str
    output: str
    time_unit_s: float = 1.0
    relative: bool = True
    zero_output_failed: bool = True
    session: str | None = None
    elapsed: str | None = None
    model: str | None = None
    request_class: str | None = None
    adapter: str | None = None
    tenant: str | None = None
    blocks: str | None = None
    block_size: int = 0
    spread_ties: SpreadTies = "keep"

    def rules(self) -> dict[str, Rule]:
        """Return the rules of the columns that every format has."""
        return {self.prompt: PROMPT, self.output: OUTPUT_OR_FAILED if self.zero_output_failed else OUTPUT}


def assemble(table: Table, roles: Roles, options: Options, extra: Mapping[str, Rule] | None = None) -> Trace:
    """Judge the rows of a table, put them in order and make the trace; see :func:`arrange`."""
    return arrange(table, roles, options, extra)[1]


def arrange(
    table: Table, roles: Roles, options: Options, extra: Mapping[str, Rule] | None = None
) -> tuple[Table, Trace]:
    """Return the rows that are used, in their order, as a table and as a trace.

    Parameters
    ----------
    table
        Raw columns.
    roles
        Which is which.
    options
        What the user asked for.
    extra
        Rules of further numeric columns.
    """
    rules = dict(extra or {}) | roles.rules()
    if roles.time in table.numbers:
        rules = {roles.time: TIME, **rules}
    table = judge(table, rules, options)
    table = _in_order(table, roles, options)
    table, failed = _without_failed(table, roles, options)
    if not table.n:
        _raise_empty(table, failed)
    key = row_keys(table, roles)
    arrival, origin = _arrivals(table, roles, options)
    output = np.maximum(table.numbers[roles.output], 1).astype(np.int64)
    parts: dict[str, Any] = {}
    for name in ("model", "request_class", "adapter", "tenant"):
        if (column := getattr(roles, name)) in table.texts:
            parts[name] = table.texts[column]
    if roles.session in table.texts:
        parts |= conversation(table, roles, arrival, table.texts[roles.session])
    if roles.blocks in table.lists:
        parts |= {"block_hashes": table.lists[roles.blocks], "block_size_tokens": roles.block_size}
    trace = Trace(
        arrival_s=arrival,
        prompt_tokens=table.numbers[roles.prompt].astype(np.int64),
        output_tokens=output,
        source=str(table.path),
        time_origin=origin,
        row_key=key,
        **parts,
    )
    return table, trace.with_notes(*table.notes, **table.counts)


def _raise_empty(table: Table, failed: int) -> None:
    if failed:
        raise TraceError(f"{table.path}: all {failed} requests failed (no output tokens); --keep-failed keeps them")
    if skipped := table.counts.get("bad_rows_skipped"):
        raise TraceError(f"{table.path}: no good row is left, {skipped} were bad; is this the right format?")
    if at := table.counts.get("stopped_at_line"):
        raise TraceError(f"{table.path}: the first row ({table.unit} {at}) is bad already: {table.notes[-1]}")
    raise TraceError(f"{table.path}: holds no requests, only a header; a trace needs at least one")


def _times(table: Table, roles: Roles) -> npt.NDArray[Any]:
    return table.stamps[roles.time] if roles.time in table.stamps else table.numbers[roles.time]


def _in_order(table: Table, roles: Roles, options: Options) -> Table:
    times = _times(table, roles)
    falls = np.flatnonzero(times[1:] < times[:-1])
    if not falls.size:
        return table
    if not options.sort:
        raise TraceError(
            f"{table.where(int(falls[0]) + 1)}: arrives before the row above it; the trace isn't sorted by arrival "
            f"({falls.size} such rows); --sort sorts it"
        )
    table.notes.append(f"sorted by arrival: {falls.size} rows came before the one above them")
    table.counts["out_of_order"] = int(falls.size)
    return table.take(np.argsort(times, kind="stable"))


def _without_failed(table: Table, roles: Roles, options: Options) -> tuple[Table, int]:
    failed = table.numbers[roles.output] == 0
    count = int(failed.sum())
    if not count:
        return table, 0
    table.counts["failed"] = count
    share = f"{count} failed request{'s' * (count > 1)} (0 output tokens, {count / table.n:.1%} of the rows)"
    if options.keep_failed:
        table.notes.append(f"kept {share} with 1 output token in place of 0")
        return table, 0
    table.notes.append(f"dropped {share}; --keep-failed keeps them")
    return table.take(~failed), count


def _arrivals(table: Table, roles: Roles, options: Options) -> tuple[Floats, str]:
    times = _times(table, roles)
    zero = times[0] if roles.relative else times.dtype.type(0)
    if roles.time in table.stamps:
        arrival = (times - zero) / 1e9
        origin = f"{np.datetime64(int(zero), 'ns')} UTC"
    else:
        arrival = (times - zero) * roles.time_unit_s
        origin = f"{float(zero) * roles.time_unit_s:.10g} s on the file's clock" if roles.relative else ""
    mode = options.spread_ties or roles.spread_ties
    tied = int(np.count_nonzero(arrival[1:] == arrival[:-1]))
    if tied:
        groups = int(np.count_nonzero(np.diff(np.flatnonzero(np.diff(arrival, prepend=-1.0, append=np.inf))) > 1))
        table.counts["tied_arrivals"] = tied + groups
        what = f"{tied + groups} rows share their arrival time with another row ({groups} times)"
        if mode == "uniform":
            arrival = spread(arrival)
            table.notes.append(
                f"{what}: each group was spread evenly, in file order, over the second that begins at its time, "
                "or up to the next distinct time if that is sooner"
            )
        else:
            table.notes.append(f"{what} and were kept so; --spread-ties uniform spreads them over the second")
    return arrival, origin


def spread(arrival: Floats, width_s: float = 1.0) -> Floats:
    """Spread equal arrivals evenly: the j-th of k at time t moves to t + w j / k.

    Parameters
    ----------
    arrival
        Times that never fall, seconds.
    width_s
        Most that a group is spread over, seconds; w is this or the time to the next distinct arrival.
    """
    starts = np.flatnonzero(np.diff(arrival, prepend=-np.inf) > 0)
    counts = np.diff(starts, append=len(arrival))
    times = arrival[starts]
    width = np.minimum(np.diff(times, append=np.inf), width_s)
    within = np.arange(len(arrival)) - np.repeat(starts, counts)
    return np.asarray(arrival + np.repeat(width / counts, counts) * within)


def conversation(table: Table, roles: Roles, arrival: Floats, session: Categorical) -> dict[str, Any]:
    """Return session, parent and think time of rows whose conversation is known.

    The think time is the time between the end of the previous turn (its arrival plus its ``elapsed``) and this turn's
    arrival, at least 0; NaN where the file doesn't say how long the previous turn took.
    """
    ids = session.codes.astype(np.int64)
    parent = previous_turn(ids)
    parts: dict[str, Any] = {"session_id": ids, "parent_id": parent}
    if roles.elapsed in table.numbers:
        think = np.full(table.n, np.nan)
        later = np.flatnonzero(parent >= 0)
        times = _times(table, roles)
        gap = (times[later] - times[parent[later]]) * roles.time_unit_s
        think[later] = gap - table.numbers[roles.elapsed][parent[later]]
        if early := int(np.count_nonzero(think < 0)):
            table.notes.append(f"{early} turns began before the previous turn had ended; their think time is 0")
            table.counts["overlapping_turns"] = early
        parts["think_time_s"] = np.maximum(think, 0)
    return parts


def previous_turn(session_id: Ints) -> Ints:
    """Return for each row the last earlier row of the same session, -1 for none."""
    parent = np.full(len(session_id), -1, np.int64)
    order = np.argsort(session_id, kind="stable")
    same = (session_id[order][1:] == session_id[order][:-1]) & (session_id[order][1:] >= 0)
    parent[order[1:][same]] = order[:-1][same]
    return parent


def row_keys(table: Table, roles: Roles) -> UInt64s:
    """Return an identity for each row that depends on its own content only (and on its session's name)."""
    times = _times(table, roles)
    instant = times if roles.time in table.stamps else np.rint(times * roles.time_unit_s * 1e6).astype(np.int64)
    lengths = (table.numbers[roles.prompt].astype(np.int64), table.numbers[roles.output].astype(np.int64))
    keys = content_keys((instant, *lengths))
    if roles.session in table.texts:
        session = table.texts[roles.session]
        named = np.array([*(text_key(name) for name in session.names), 0], np.uint64)
        keys = np.where(session.codes >= 0, named[session.codes], keys)
    return keys


def content_keys(columns: Iterable[Ints]) -> UInt64s:
    """Hash integer columns row by row; equal rows are told apart by their order among themselves."""
    keys: UInt64s | None = None
    for column in columns:
        keys = mix(column if keys is None else keys ^ mix(column))
    if keys is None:
        raise TraceError("a row needs at least one column to be known by")
    order = np.argsort(keys, kind="stable")
    same = np.flatnonzero(keys[order][1:] == keys[order][:-1]) + 1
    if same.size:
        starts = np.concatenate(([0], np.flatnonzero(np.diff(keys[order])) + 1))
        ordinal = np.arange(len(keys)) - np.repeat(starts, np.diff(starts, append=len(keys)))
        keys[order] = keys[order] + mix(ordinal) * (ordinal > 0).astype(np.uint64)
    return keys
