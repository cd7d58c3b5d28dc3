"""How far off the simulator is known to be, by accelerator, engine and model: what `simulate validate` found, kept.

``known_errors.json`` comes with the package, so that a report can say what applies to it without any measured data. It
is written from tables of `validate`, and only so:

    python -m simulator.validation.known_errors with_tables/validation.csv with_fits/validation.csv

of which the first was made with kernel tables (the package ``aiconfigurator-core`` installed), the second without, as
most users run. ``simulate validate --out`` writes its own findings under the same name beside its table.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import simulator
from simulator.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

NAME = "known_errors.json"
SCHEMA_VERSION = 1

_OF_RUNS = ("ttft_mean", "ttft_p99", "tpot_mean", "tpot_p99", "e2e_mean", "e2e_p99")
_OF_POINTS = ("ttft_mean", "tpot_mean")


@dataclass(frozen=True)
class KnownError:
    """How far off one figure was for one accelerator, engine, model and kind of costs.

    Attributes
    ----------
    accelerator, model
        Names of the catalogues.
    engine
        ``vllm``, ``sglang`` or ``trtllm``; with `` disagg``: prefill and decode apart.
    costs
        Kind of the step times: ``measured``, ``fitted`` ...
    metric
        ``ttft_mean``, ``tpot_p99`` ...
    points
        How many measurements the error is the median of.
    median_absolute, median_signed
        Fractions; signed: simulated over measured, less one.
    source
        Dataset and group or run, as in ``docs/validation.md``.
    remark
        What else there is to know.
    """

    accelerator: str
    engine: str
    model: str
    costs: str
    metric: str
    points: int
    median_absolute: float
    median_signed: float
    source: str
    remark: str = ""


def known_errors(frame: pd.DataFrame) -> list[KnownError]:
    """Return what the table of a validation says of serving points and vLLM runs; sorted."""
    return sorted({*_of_points(frame), *_of_runs(frame)}, key=astuple_of)


def astuple_of(error: KnownError) -> tuple[Any, ...]:
    """Return the values of an error in the order of its fields."""
    return tuple(getattr(error, field.name) for field in fields(error))


def _of_points(frame: pd.DataFrame) -> Iterator[KnownError]:
    from simulator.validation.judging import LEAST_ROWS, cost_kind, group_of
    from simulator.validation.subjects import accelerator_for

    rows = frame[(frame["dataset"] == "silicon") & frame["metric"].isin(_OF_POINTS) & frame["error"].notna()]
    groups = rows.assign(group=rows["case"].map(group_of), kind=rows["costs"].map(cost_kind))
    for (group, kind, metric), part in groups.groupby(["group", "kind", "metric"], sort=True):
        system, engine, checkpoint = str(group).split("/")
        yield KnownError(
            accelerator=accelerator_for(system).name,
            engine=engine,
            model=_model(checkpoint),
            costs=str(kind),
            metric=str(metric),
            points=len(part),
            median_absolute=round(float(part["error"].abs().median()), 4),
            median_signed=round(float(part["error"].median()), 4),
            source=f"serving points {group}",
            remark="" if len(part) >= LEAST_ROWS else "too few measurements to judge by",
        )


def _of_runs(frame: pd.DataFrame) -> Iterator[KnownError]:
    from simulator.validation.judging import cost_kind, run_verdicts
    from simulator.validation.subjects import accelerator_for

    calibrated = {each.subject for each in run_verdicts(frame) if each.word == "not judged"}
    rows = frame[(frame["dataset"] == "vllm_runs") & frame["metric"].isin(_OF_RUNS) & frame["error"].notna()]
    for case, metric, error, costs in rows[["case", "metric", "error", "costs"]].itertuples(index=False, name=None):
        machine, checkpoint = case.split("_")[:2]
        yield KnownError(
            accelerator=accelerator_for(machine).name,
            engine="vllm",
            model=_model(checkpoint),
            costs=cost_kind(costs),
            metric=metric,
            points=1,
            median_absolute=round(abs(error), 4),
            median_signed=round(error, 4),
            source=f"vLLM run {case}",
            remark="a constant of the costs was calibrated on this run" if case in calibrated else "",
        )


def _model(checkpoint: str) -> str:
    """Return the catalogue's name of a checkpoint, else the checkpoint's."""
    from simulator.models import list_models
    from simulator.models.loading import load_entry
    from simulator.validation.subjects import model_for

    plain = checkpoint.lower()
    for name in list_models():
        entry = load_entry(name)
        if plain in {name, *(other.rsplit("/", 1)[-1].lower() for other in (entry.hf_id, *entry.aliases))}:
            return name
    try:
        return model_for(checkpoint).name
    except InputError:
        return checkpoint


def merged(found: Iterable[Sequence[KnownError]]) -> list[KnownError]:
    """Return the errors of several validations; of two of the same the first."""
    kept: dict[tuple[str, ...], KnownError] = {}
    for errors in found:
        for each in errors:
            kept.setdefault((each.source, each.costs, each.metric), each)
    return sorted(kept.values(), key=astuple_of)


def described(errors: Sequence[KnownError]) -> dict[str, Any]:
    """Return what the file holds."""
    return {
        "schema_version": SCHEMA_VERSION,
        "of": datetime.now(UTC).date().isoformat(),
        "simulator": simulator.__version__,
        "errors": [asdict(each) for each in errors],
    }


def write_known_errors(frame: pd.DataFrame, path: Path) -> None:
    """Write what a validation found.

    Raises
    ------
    InputError
        If the file can't be written.
    """
    _write(known_errors(frame), path)


def _write(errors: Sequence[KnownError], path: Path) -> None:
    try:
        path.write_text(json.dumps(described(errors), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: can't be written ({error.strerror}); choose another --out") from None


@cache
def packaged() -> tuple[str, tuple[KnownError, ...]]:
    """Return the day of the errors that come with the package, and the errors."""
    said = json.loads((Path(__file__).parent / NAME).read_text(encoding="utf-8"))
    return said["of"], tuple(KnownError(**each) for each in said["errors"])


def main(paths: Sequence[str]) -> None:
    """Write the package's file from tables of `validate`."""
    import pandas as pd

    _write(merged(known_errors(pd.read_csv(path)) for path in paths), Path(__file__).parent / NAME)


if __name__ == "__main__":
    main(sys.argv[1:])
