"""What a study of a published result is: the paper's figures with their places, and a run that gives ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from simulator.reproduce.runs import Run


@dataclass(frozen=True)
class PaperFigure:
    """A figure that a paper states.

    Attributes
    ----------
    value
        The figure; "up to" figures are the largest of the paper's cases.
    unit
        Its unit, ``"x"`` for a ratio.
    source
        Where the paper has it: abstract, section, table or figure.
    """

    value: float
    unit: str
    source: str


@dataclass(frozen=True)
class Row:
    """One figure of ours.

    Attributes
    ----------
    what
        What it is, in words: case, metric, against what.
    simulated
        The figure; None where it can't be given, ``remark`` then says why.
    unit
        Its unit, ``"x"`` for a ratio.
    paper
        Key of the paper's figure that it stands beside; None: the paper states none.
    remark
        What else there is to know.
    runs
        The simulations that it is made of; empty where there are none (`Study.without_runs` says why).
    """

    what: str
    simulated: float | None
    unit: str
    paper: str | None = None
    remark: str = ""
    runs: Sequence[Run] = ()


@dataclass(frozen=True)
class Options:
    """What a user may choose of a study.

    Attributes
    ----------
    quick
        Fewer requests and cases: direction and mechanism, in seconds.
    trace
        Trace file in place of the study's generated requests, where the study says that it takes one.
    progress
        Called with a line at each part that ends.
    """

    quick: bool = False
    trace: str | None = None
    progress: Callable[[str], None] = field(default=lambda line: None)


@dataclass(frozen=True)
class Study:
    """A published result, and how the simulator repeats it.

    Attributes
    ----------
    name
        As users write it; the module is called so, with ``_`` for ``-``.
    paper
        Authors, title, venue or arXiv number.
    claim
        What the paper says, in a sentence.
    figures
        The paper's figures by key.
    setup
        What is simulated here: model, hardware, requests, baseline, definition of the metric.
    differences
        Why ours differ from the paper's, as far as it is known.
    run
        From options to rows, the same each time.
    takes_trace
        What ``Options.trace`` means to it; empty: it takes none.
    without_runs
        Which figures no scenario repeats, and why; empty: there are none.
    """

    name: str
    paper: str
    claim: str
    figures: Mapping[str, PaperFigure]
    setup: str
    differences: str
    run: Callable[[Options], Sequence[Row]]
    takes_trace: str = ""
    without_runs: str = ""
