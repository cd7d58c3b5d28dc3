"""``simulate trace``: look at traces, make them, convert them, and fit distributions to them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, ParamSpec

import typer

from workloads import Trace, TraceError, filter_trace, read_trace, readers, write_trace
from workloads.trace import did_you_mean

app = typer.Typer(
    name="trace",
    help="Inspect, generate, convert and fit request traces.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)

_P = ParamSpec("_P")


class OnBadRow(StrEnum):
    """What is done with a row that can't be a request."""

    FAIL = "fail"
    SKIP = "skip"
    STOP = "stop"


class SpreadTies(StrEnum):
    """What is done with requests of equal arrival."""

    KEEP = "keep"
    UNIFORM = "uniform"


def _friendly(command: Callable[_P, None]) -> Callable[_P, None]:
    """Print what a user can mend as one line to stderr, and exit with code 2."""

    @functools.wraps(command)
    def wrapped(*args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except TraceError as e:
            typer.echo(f"error: {' '.join(str(e).split())}", err=True)
            raise typer.Exit(2) from None

    return wrapped


_File = Annotated[str, typer.Argument(metavar="FILE", help="Trace file, or bundled:NAME.", show_default=False)]
_Format = Annotated[str | None, typer.Option("--format", help="Format of the file; by default known by its header.")]
_OnBadRow = Annotated[OnBadRow, typer.Option("--on-bad-row", help="Fail at a bad row, skip it, or stop before it.")]
_Sort = Annotated[bool, typer.Option("--sort", help="Sort an unsorted trace by arrival.")]
_Ties = Annotated[
    SpreadTies | None,
    typer.Option("--spread-ties", help="Keep equal arrivals, or spread them over their second (BurstGPT: uniform)."),
]
_KeepFailed = Annotated[bool, typer.Option("--keep-failed", help="Keep failed requests, with one output token.")]
_Start = Annotated[float | None, typer.Option("--start", help="Leave out what arrives before, s; it becomes time 0.")]
_End = Annotated[float | None, typer.Option("--end", help="Leave out what arrives at or after, s.")]
_Limit = Annotated[int | None, typer.Option("--limit", help="Keep the first N requests.")]
_Model = Annotated[list[str] | None, typer.Option("--model", help="Keep requests for this model (repeatable).")]
_Class = Annotated[
    list[str] | None,
    typer.Option("--class", "--log-type", help="Keep requests of this class or BurstGPT log type (repeatable)."),
]
_Sample = Annotated[float, typer.Option("--sample", help="Keep this fraction, chosen by seed and request.")]
_RateScale = Annotated[float, typer.Option("--rate-scale", help="Arrivals come this many times as fast.")]
_TimeScale = Annotated[
    float, typer.Option("--time-scale", help="Arrivals and think times last this many times as long.")
]
_Seed = Annotated[int, typer.Option("--seed", help="Seed of random choices.")]


@app.command()
@_friendly
def inspect(
    file: _File,
    format: _Format = None,  # noqa: A002
    on_bad_row: _OnBadRow = OnBadRow.FAIL,
    sort: _Sort = False,
    spread_ties: _Ties = None,
    keep_failed: _KeepFailed = False,
    start: _Start = None,
    end: _End = None,
    limit: _Limit = None,
    model: _Model = None,
    request_class: _Class = None,
    sample: _Sample = 1.0,
    rate_scale: _RateScale = 1.0,
    time_scale: _TimeScale = 1.0,
    seed: _Seed = 0,
    plot: Annotated[Path | None, typer.Option("--plot", help="Draw rate, burstiness and lengths (.png, .svg).")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Show what a trace holds: counts, rate, burstiness, lengths, sessions, prefix sharing, and what was left out."""
    trace = _read(file, format, on_bad_row, sort, spread_ties, keep_failed)
    trace = _filter(trace, start, end, limit, model, request_class, sample, rate_scale, time_scale, seed)
    if plot is not None:
        from workloads.plotting import plot_trace

        plot_trace(trace, plot)
    if json_output:
        import json

        typer.echo(json.dumps(_finite(trace.describe()), indent=2, ensure_ascii=False))
        return
    _print_table(trace.describe())
    if plot is not None:
        typer.echo(f"drew {plot}")


@app.command()
@_friendly
def convert(
    file: _File,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Native .csv, .csv.gz or .parquet.", show_default=False)],
    format: _Format = None,  # noqa: A002
    on_bad_row: _OnBadRow = OnBadRow.FAIL,
    sort: _Sort = False,
    spread_ties: _Ties = None,
    keep_failed: _KeepFailed = False,
    start: _Start = None,
    end: _End = None,
    limit: _Limit = None,
    model: _Model = None,
    request_class: _Class = None,
    sample: _Sample = 1.0,
    rate_scale: _RateScale = 1.0,
    time_scale: _TimeScale = 1.0,
    seed: _Seed = 0,
) -> None:
    """Write a trace, or the part of it that the filters keep, in the native format."""
    trace = _read(file, format, on_bad_row, sort, spread_ties, keep_failed)
    trace = _filter(trace, start, end, limit, model, request_class, sample, rate_scale, time_scale, seed)
    write_trace(trace, out)
    _report(trace, out)


@app.command()
@_friendly
def generate(
    kind: Annotated[str | None, typer.Argument(metavar="KIND", help="Generator; --list shows all.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Native .csv, .csv.gz or .parquet to write.")] = None,
    requests: Annotated[int | None, typer.Option("--requests", help="Number of requests.")] = None,
    duration: Annotated[float | None, typer.Option("--duration", help="Length of the trace, s.")] = None,
    rate: Annotated[float | None, typer.Option("--rate", help="Mean requests a second.")] = None,
    burstiness: Annotated[float | None, typer.Option("--burstiness", help="Shape of the gaps; 1 is Poisson.")] = None,
    prompt: Annotated[
        str | None, typer.Option("--prompt", help="Prompt lengths, e.g. lognormal:median=512,sigma=1.")
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", help="Output lengths, e.g. gamma:mean=265,shape=1.4.")
    ] = None,
    fit: Annotated[str | None, typer.Option("--fit", help="File of 'simulate trace fit' to take figures from.")] = None,
    param: Annotated[
        list[str] | None, typer.Option("--param", metavar="K=V", help="Any parameter (repeatable).")
    ] = None,
    seed: _Seed = 0,
    list_kinds: Annotated[bool, typer.Option("--list", help="List generators, or the parameters of KIND.")] = False,
) -> None:
    """Make a trace by a generator and write it in the native format."""
    from workloads.generators import generate as make
    from workloads.generators import generators

    if kind is not None and kind not in generators():
        raise TraceError(f"unknown generator {kind!r}{did_you_mean(kind, generators())}")
    if list_kinds or kind is None:
        if not list_kinds:
            raise TraceError(f"which kind of trace? known: {', '.join(generators())} (--list says more)")
        _print_generators(kind)
        return
    if out is None:
        raise TraceError("where to? name a file with --out")
    values = _parameters(param or [])
    short = {
        "requests": requests,
        "duration_s": duration,
        "rate": rate,
        "burstiness": burstiness,
        "prompt": prompt,
        "output": output,
        "fit": fit,
    }
    for name, value in short.items():
        if value is not None:
            if name in values:
                raise TraceError(f"{name!r} is given twice, as an option and by --param; give it once")
            values[name] = value
    values.setdefault("seed", seed)
    trace = make(kind, **values)
    write_trace(trace, out)
    _report(trace, out)


@app.command()
@_friendly
def fit(
    file: _File,
    out: Annotated[Path, typer.Option("--out", help="YAML file to write.")],
    format: _Format = None,  # noqa: A002
    on_bad_row: _OnBadRow = OnBadRow.FAIL,
    sort: _Sort = False,
    spread_ties: _Ties = None,
    keep_failed: _KeepFailed = False,
    start: _Start = None,
    end: _End = None,
    limit: _Limit = None,
    model: _Model = None,
    request_class: _Class = None,
) -> None:
    """Fit length distributions and burstiness of a trace; 'generate --fit' takes the file."""
    from workloads.fit import fit_trace, write_fit

    trace = _read(file, format, on_bad_row, sort, spread_ties, keep_failed)
    trace = _filter(trace, start, end, limit, model, request_class, 1.0, 1.0, 1.0, 0)
    result = fit_trace(trace)
    write_fit(result, out)
    for name in ("prompt_tokens", "output_tokens"):
        chosen = result[name]["chosen"]
        shown = ", ".join(f"{key} {value:.5g}" for key, value in chosen.items() if isinstance(value, int | float))
        typer.echo(f"{name}: {chosen['kind']} {shown} ({result[name]['why']})")
    arrivals = result["arrivals"]
    if arrivals["rate"] is not None:
        typer.echo(f"arrivals: {arrivals['rate']:.5g} requests/s, CV of gaps {_number(arrivals['cv'])}")
    typer.echo(f"wrote {out}")


# ------------------------------------------------------------------------------------------------------ helpers


def _read(
    file: str, format_: str | None, on_bad_row: OnBadRow, sort: bool, ties: SpreadTies | None, keep_failed: bool
) -> Trace:
    if format_ is not None and format_ not in readers():
        raise TraceError(f"unknown trace format {format_!r}{did_you_mean(format_, readers())}")
    return read_trace(
        file,
        format=format_,
        on_bad_row=on_bad_row.value,
        sort=sort,
        spread_ties=None if ties is None else ties.value,
        keep_failed=keep_failed,
    )


def _filter(
    trace: Trace,
    start: float | None,
    end: float | None,
    limit: int | None,
    model: list[str] | None,
    request_class: list[str] | None,
    sample: float,
    rate_scale: float,
    time_scale: float,
    seed: int,
) -> Trace:
    if (start, end, limit, sample, rate_scale, time_scale) == (None, None, None, 1, 1, 1) and not (
        model or request_class
    ):
        return trace
    return filter_trace(
        trace,
        start_s=start,
        end_s=end,
        limit=limit,
        model=model or None,
        request_class=request_class or None,
        sample=sample,
        rate_scale=rate_scale,
        time_scale=time_scale,
        seed=seed,
    )


def _parameters(pairs: list[str]) -> dict[str, Any]:
    """Parse ``K=V`` pairs; a value is read as YAML, so that 2 is a number and [1, 2] a list."""
    import yaml

    values: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise TraceError(f"--param takes name=value, got {pair!r}")
        if name in values:
            raise TraceError(f"--param {name} is given twice; give it once")
        try:
            value = yaml.safe_load(text) if text[:1] in "[{" or ":" not in text else text
        except yaml.YAMLError:
            value = text
        values[name] = _as_number(value)
    return values


def _as_number(value: Any) -> Any:
    """Read ``1e-3``, which YAML takes for a text, as the number that its writer meant."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _report(trace: Trace, out: Path) -> None:
    typer.echo(f"wrote {len(trace):,} requests to {out}")
    for note in trace.notes:
        typer.echo(f"note: {note}")


def _finite(value: Any) -> Any:
    """Return plain data with null for numbers that JSON doesn't have."""
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _number(value: float | None, unit: str = "") -> str:
    if value is None or not math.isfinite(value):
        return "unknown"
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return text + unit


def _span(seconds: float) -> str:
    for size, unit in ((2 * 86400, "d"), (2 * 3600, "h"), (120, "min")):
        if seconds >= size:
            base = {"d": 86400, "h": 3600, "min": 60}[unit]
            return f"{seconds / base:.4g} {unit} ({seconds:,.0f} s)"
    return f"{seconds:.4g} s"


def _print_table(found: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    window = _span(found["window_s"]).split(" (")[0]
    facts = Table(show_header=False, box=None, padding=(0, 2, 0, 0), title=None)
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold")
    rows = [
        ("trace", found["source"]),
        ("requests", f"{found['requests']:,}"),
        ("span", _span(found["span_s"])),
        ("time 0", found["time_origin"]),
        (
            "rate",
            f"{_number(found['rate_mean'])} requests/s on average; {_number(found['rate_min'])} to "
            f"{_number(found['rate_peak'])} in windows of {window}",
        ),
        (
            "burstiness",
            f"CV of gaps {_number(found['interarrival_cv'])}, index of dispersion {_number(found['dispersion'])} "
            f"in windows of {window} (Poisson: 1, 1)",
        ),
    ]
    for name, label in (("model", "model"), ("request_class", "class"), ("adapter", "adapter"), ("tenant", "tenant")):
        if name in found:
            rows.append((label, _most_common(found[name], found["requests"])))
    if "sessions" in found:
        s = found["sessions"]
        rows.append(
            (
                "sessions",
                f"{s['count']:,}, with {s['turns_mean']:.3g} turns on average, {s['turns_p50']:g} in the median, "
                f"{s['turns_max']} at most; {s['requests_outside']:,} requests outside",
            )
        )
    if "prefix" in found:
        p = found["prefix"]
        rows.append(
            (
                "prefix sharing",
                f"at most {p['hit_share_most']:.1%} of prompt tokens ({p['hit_tokens_most']:,}) hit, in "
                f"{p['requests_with_hit']:,} requests (infinite cache, full blocks of {p['block_size_tokens']})",
            )
        )
    totals = f"{found['prompt_tokens']['total']:,} prompt, {found['output_tokens']['total']:,} output"
    rows += [("tokens in all", totals), ("sha256", found["sha256"][:16] + "…")]
    for label, text in rows:
        if text:
            facts.add_row(label, text)
    console.print(facts)
    lengths = Table(box=None, padding=(0, 2, 0, 0))
    names = ("mean", "min", "p1", "p10", "p50", "p90", "p99", "max")
    lengths.add_column("tokens", style="bold", no_wrap=True)
    for name in names:
        lengths.add_column(name, justify="right")
    for key, label in (("prompt_tokens", "prompt"), ("output_tokens", "output")):
        lengths.add_row(label, *(f"{found[key][n]:,.1f}" if n == "mean" else f"{found[key][n]:,}" for n in names))
    console.print()
    console.print(lengths)
    for note in found["notes"]:
        console.print(f"note: {note}", markup=False)


def _most_common(counts: Mapping[str, int], total: int) -> str:
    ranked = sorted(counts.items(), key=lambda item: -item[1])
    shown = ", ".join(f"{name} {count:,} ({count / total:.1%})" for name, count in ranked[:4])
    return shown + (f", and {len(ranked) - 4} more" if len(ranked) > 4 else "")


def _print_generators(kind: str | None) -> None:
    from rich.console import Console
    from rich.table import Table

    from workloads.generators import generators

    console = Console(highlight=False)
    if kind is None:
        table = Table("generator", "what it makes", box=None, padding=(0, 2, 0, 0))
        for generator in generators().values():
            table.add_row(generator.name, generator.about)
    else:
        console.print(f"{kind}: {generators()[kind].about}", markup=False)
        table = Table("parameter", "default", "unit", "what it is", box=None, padding=(0, 2, 0, 0))
        for param in generators()[kind].params:
            table.add_row(param.name, param.default_text(), param.unit, param.about)
    console.print(table)
