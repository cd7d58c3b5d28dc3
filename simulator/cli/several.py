"""What commands that run several scenarios have in common: options, named variants, seeds, how far they are."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from simulator.errors import InputError
from simulator.flags import FLAGS

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

VARIANT = "--variant"
SEEDS = "Replications: how many, or which (3,7,11)"
RESAMPLE = typer.Option(
    "--resample/--no-resample",
    help="Draw a replayed trace anew for each seed, or not; left out: where it can be.",
    show_default=False,
)

RUNNING: tuple[tuple[str, Any, Any, Any], ...] = (
    ("workers", int | None, typer.Option("--workers", metavar="N", help="Processes (default: one a processor)."), None),
    (
        "store",
        str | None,
        typer.Option("--store", metavar="DIR", help="Where results are kept (default: in the user's cache)."),
        None,
    ),
    ("no_store", bool, typer.Option("--no-store", help="Keep nothing, and use nothing that was kept."), False),
)
"""Options of how a study is run, as `register_with` takes them; `store_of` reads the last two."""

_LINE_S = 10.0
"""Time between two lines on how far a study is, where standard error is no terminal, seconds."""

_WIDTH = 130
"""Columns of what studies print where standard output is no terminal."""

Progress = Callable[[int, int, str], None]
"""Told how many simulations have ended, of how many, and the last one's name."""


def writing(study: str, files: str) -> tuple[tuple[str, Any, Any, Any], ...]:
    """Return the options of what a study prints and writes, as `register_with` takes them."""
    return (
        ("out", str | None, typer.Option("--out", metavar="DIR", help=f"Write {files} there."), None),
        ("overwrite", bool, typer.Option("--overwrite", help=f"Replace an earlier {study} in DIR."), False),
        ("quiet", bool, typer.Option("--quiet", "-q", help="Print nothing but errors."), False),
        (
            "no_progress",
            bool,
            typer.Option("--no-progress", help="No progress bar (without a terminal: lines)."),
            False,
        ),
    )


def store_of(values: Mapping[str, Any]) -> str | bool:
    """Return what --store and --no-store say, as studies take it: a directory, the user's (True), or none (False).

    Raises
    ------
    InputError
        If both are given.
    """
    if values["store"] is not None and values["no_store"]:
        raise InputError("give --store or --no-store, not both")
    return not values["no_store"] if values["store"] is None else str(values["store"])


def key_of(text: str) -> str:
    """Return the scenario key that a text means: the key, or the name of a flag for it (``gpu``, ``max-num-seqs``)."""
    name = text.strip()
    by_flag = {flag.name.lstrip("-"): flag.key for flag in FLAGS if flag.when_on}
    return by_flag.get(name.lstrip("-").replace("_", "-"), name)


def gather_variants(args: Sequence[str]) -> list[str]:
    """Return the arguments with each ``--variant NAME KEY=V KEY=V`` made one option with one value.

    The parser of options takes one word a value; whatever has an equals sign and no dash in front belongs to the name
    before it.
    """
    found: list[str] = []
    left = list(args)
    while left:
        word = left.pop(0)
        if word != VARIANT or not left:
            found.append(word)
            continue
        words = [left.pop(0)]
        while left and "=" in left[0] and not left[0].startswith("-"):
            words.append(left.pop(0))
        # one word may hold all of it, in quotes
        found.append(f"{VARIANT}={words[0] if len(words) == 1 else shlex.join(words)}")
    return found


def variants_of(texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the keys that variants set, by the variant's name.

    Parameters
    ----------
    texts
        ``NAME KEY=VALUE KEY=VALUE``, as `gather_variants` leaves them; values are YAML.

    Raises
    ------
    InputError
        If one isn't written so, or two have a name.
    """
    from simulator.scenario_yaml import value

    found: dict[str, dict[str, Any]] = {}
    for text in texts:
        try:
            name, *pairs = shlex.split(text)
        except ValueError:
            raise InputError(f"{VARIANT} {text}: write a name and keys, as in {VARIANT} big max-num-seqs=512") from None
        if "=" in name or not pairs:
            raise InputError(f"{VARIANT} {text}: write a name and keys, as in {VARIANT} big max-num-seqs=512")
        if name in found:
            raise InputError(f"two variants are called {name!r}; give each a name of its own")
        found[name] = {}
        for pair in pairs:
            key, equals, given = pair.partition("=")
            if not equals or not key.strip():
                raise InputError(f"{VARIANT} {name}: takes key=value, got {pair!r}")
            key = key_of(key)
            if key in found[name]:
                raise InputError(f"{VARIANT} {name}: sets {key} twice")
            try:
                found[name][key] = value(given)
            except ValueError as error:
                raise InputError(f"{VARIANT} {name} {key}: {error}") from None
    return found


def seeds_of(text: str) -> int | list[int]:
    """Return a number of seeds (``5``), or the seeds themselves (``3,7,11``).

    Raises
    ------
    InputError
        If it is neither.
    """
    pieces = [piece.strip() for piece in text.split(",")]
    if not all(piece.isdecimal() for piece in pieces) or (len(pieces) == 1 and int(pieces[0]) < 1):
        raise InputError(f"--seeds {text}: write how many (--seeds 5) or which ones (--seeds 3,7,11)")
    numbers = [int(piece) for piece in pieces]
    return numbers[0] if len(numbers) == 1 else numbers


def console_of_study() -> Console:
    """Return where a study prints its result: as wide as the terminal, or wide enough for its tables."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH)


def labelled(lines: Iterable[tuple[str, str]]) -> Table:
    """Return what stands below a table, label and text; a label that comes again is said once."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    last = ""
    for label, text in lines:
        grid.add_row(Text("" if label == last else label, style="bold"), Text(text))
        last = label
    return grid


@contextmanager
def counting(wanted: bool) -> Iterator[Progress]:
    """Yield what shows on standard error how far a study is: a bar, or a line now and then where it is no terminal."""
    if not wanted:
        yield lambda done, total, name: None
        return
    if not sys.stderr.isatty():
        say = now_and_then()
        yield lambda done, total, name: say(f"{done:,} of {total:,} simulations")
        return
    from simulator.cli.progress import counting_bar

    with counting_bar() as progress:
        yield progress


def now_and_then() -> Callable[[str], None]:
    """Return what prints a text on standard error with the time since now, once in ten seconds at most."""
    begun_s = last_s = time.monotonic()

    def say(text: str) -> None:
        nonlocal last_s
        now_s = time.monotonic()
        if now_s - last_s >= _LINE_S:
            last_s = now_s
            print(f"{text} after {now_s - begun_s:.0f} s", file=sys.stderr, flush=True)

    return say
