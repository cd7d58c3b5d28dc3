"""How far off the simulator is known to be for what was simulated: the package's validation, as far as it applies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simulator.reports.document import Block, Section, Table, Text
from simulator.validation.known_errors import KnownError, packaged

_TITLE = "Known errors, from validation"
_MOST_NEAR = 12
_NOT_VALIDATED = ("roofline", "constant")
"""Kinds of costs that no measured server was compared with; their names in a scenario."""


@dataclass(frozen=True)
class Subject:
    """What was simulated.

    Attributes
    ----------
    engine
        Name of the engine preset; None: none was chosen.
    costs
        ``cost.kind`` of the scenario.
    disaggregated
        Whether prefill and decode were apart.
    """

    accelerator: str
    engine: str | None
    model: str
    costs: str
    disaggregated: bool = False

    @property
    def text(self) -> str:
        """It in words."""
        engine = f"engine {self.engine}" if self.engine else "no engine preset"
        apart = ", prefill and decode apart" if self.disaggregated else ""
        return f"{self.model} on {self.accelerator}, {engine}{apart}"


def subjects_of(scenario: Mapping[str, Any]) -> list[Subject]:
    """Return what a scenario simulates, once each: of every pool its accelerator, engine, model and costs."""
    found: dict[Subject, None] = {}
    pools: Sequence[Mapping[str, Any]] = scenario.get("cluster", {}).get("pools", [])
    for pool in pools:
        model = pool.get("model") or scenario.get("model")
        subject = Subject(
            accelerator=str(pool.get("accelerator", "")),
            engine=(pool.get("engine") or {}).get("name"),
            model=str(model if isinstance(model, str) else (model or {}).get("name", "a model of your own")),
            costs=str((pool.get("cost") or {}).get("kind", "")),
            disaggregated=pool.get("role", "mixed") in ("prefill", "decode"),
        )
        found.setdefault(subject)
    return list(found)


def section(subjects: Iterable[Subject]) -> Section:
    """Return what was found where measured servers like the subjects were simulated, or that there are none."""
    day, errors = packaged()
    blocks: list[Block] = []
    for subject in subjects:
        blocks += _of(subject, errors)
    blocks.append(
        Text(
            f"From the validation of {day} that comes with the package (docs/validation.md). Errors are simulated over "
            "measured, less one: +5 % is too slow. The simulator was developed beside these measurements, so errors on "
            "machines that nobody has looked at may be larger."
        )
    )
    return Section(_TITLE, blocks)


def _of(subject: Subject, errors: Sequence[KnownError]) -> list[Block]:
    wanted = f"{subject.engine} disagg" if subject.disaggregated else subject.engine
    same = [each for each in errors if (each.accelerator, each.model) == (subject.accelerator, subject.model)]
    exact = [each for each in same if each.engine == wanted]
    blocks: list[Block] = []
    if subject.costs in _NOT_VALIDATED:
        blocks.append(
            Text(
                f"{subject.text}: step times are of kind '{subject.costs}', which no measured server was compared "
                "with. How far off they are is not known."
            )
        )
    if exact:
        blocks.append(Text(f"{subject.text}: measured servers of this kind were simulated, and differed so:"))
        kinds = {each.costs for each in exact}
        if subject.costs not in (*_NOT_VALIDATED, *kinds):
            blocks.append(
                Text(
                    f"Their step times were {' or '.join(sorted(kinds))}, those of this scenario are {subject.costs}: "
                    "errors of the latter may be larger."
                )
            )
        return [*blocks, _table("Measured servers like this one, and how far off their simulation was.", exact)]
    near = same or [each for each in errors if each.accelerator == subject.accelerator]
    near = near or [each for each in errors if each.model == subject.model]
    said = f"Nothing was validated for {subject.text}: how far off these figures are is not known."
    if not near:
        return [*blocks, Text(f"{said} Nothing was validated on this GPU or with this model either.")]
    what = "the same model and GPU" if same else "the same GPU" if near[0].accelerator == subject.accelerator else ""
    caption = f"Nearest validated: {what or 'the same model on other GPUs'}."
    return [*blocks, Text(f"{said} The nearest that was, for comparison only:"), _table(caption, near)]


def _table(caption: str, errors: Sequence[KnownError]) -> Table:
    """Return a row a server and kind of costs, with its figures in columns; those with the most measurements first."""
    rows: dict[tuple[str, ...], dict[str, KnownError]] = {}
    for each in errors:
        rows.setdefault((each.accelerator, each.engine, each.model, each.costs, each.source), {})[each.metric] = each
    order = sorted(rows, key=lambda key: (-max(each.points for each in rows[key].values()), key))[:_MOST_NEAR]
    shown = []
    for key in order:
        figures = rows[key]
        first = next(iter(figures.values()))
        shown.append(
            [
                f"{first.model} on {first.accelerator}, {first.engine}",
                first.costs,
                first.points,
                *(_both(figures.get(metric)) for metric in ("ttft_mean", "tpot_mean")),
                "; ".join(part for part in (first.source, first.remark) if part),
            ]
        )
    more = f" ({len(rows) - len(order)} more in docs/validation.md)" if len(rows) > len(order) else ""
    columns = ("server", "step times", "measurements", "mean TTFT", "mean TPOT", "which")
    return Table(f"{caption} Errors: median of the signed ones (of the absolute ones).{more}", columns, shown)


def _both(error: KnownError | None) -> str | None:
    if error is None:
        return None
    signed = f"{100 * error.median_signed:+.1f} %".replace("-", "−")
    return signed if error.points == 1 else f"{signed} ({100 * error.median_absolute:.1f} %)"
