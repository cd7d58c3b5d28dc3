"""The simulations that figures are made of, as data: run by a study, written so that ``simulate run`` repeats them."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simulator.result import RunResult
    from workloads import Trace

FOLDER = "runs"
"""Folder of a reproduction's directory that holds scenario files."""


COMMENT_WIDTH = 110
"""Characters of a line of comment in a scenario file: a choice."""


@dataclass(frozen=True)
class Run:
    """One simulation: what `simulator.run` needs for it.

    Attributes
    ----------
    name
        What it is, in a few words; names its file. Two runs of a study that differ have different names.
    scenario
        Keys of the scenario, as a user would write them.
    trace
        Requests that no generator of a scenario makes; None: the scenario says them.
    model
        Hugging Face ``config.json`` of a model that the catalogue hasn't; None: the scenario names one.
    """

    name: str
    scenario: Mapping[str, Any]
    trace: Trace | None = None
    model: Mapping[str, Any] | None = None

    @property
    def slug(self) -> str:
        """Return the name as a file's: lower case letters, digits, dots and hyphens."""
        return re.sub(r"[^a-z0-9.]+", "-", self.name.lower()).strip("-.")

    @property
    def file(self) -> str:
        """Return the path of its scenario in a reproduction's directory."""
        return f"{FOLDER}/{self.slug}.yaml"

    def simulate(self, *, keep_steps: bool = False) -> RunResult:
        """Run it.

        Parameters
        ----------
        keep_steps
            Record every step of every replica, for figures of single tokens (`simulator.reproduce.tokens`).
        """
        from simulator.runner import run

        if self.model is None:
            return run(self.scenario, trace=self.trace, perfetto=keep_steps, stepwise=keep_steps)
        with TemporaryDirectory() as folder:
            path = Path(folder) / "config.json"
            path.write_text(json.dumps(self.model), encoding="utf-8")
            scenario = {**self.scenario, "model": str(path)}
            return run(scenario, trace=self.trace, perfetto=keep_steps, stepwise=keep_steps)

    def write(self, folder: Path, about: str, notes: Sequence[str] = ()) -> None:
        """Write the scenario, and its requests and model where it doesn't say them, as files that refer to each other.

        Parameters
        ----------
        folder
            Where to.
        about
            Whose run it is: a comment at the top.
        notes
            Paragraphs of comment below it.
        """
        from simulator import scenario_yaml
        from workloads import write_trace

        scenario = dict(self.scenario)
        if self.model is not None:
            scenario["model"] = f"{self.slug}.config.json"
            (folder / scenario["model"]).write_text(json.dumps(self.model, indent=2) + "\n", encoding="utf-8")
        if self.trace is not None:
            name = f"{self.slug}.parquet"
            write_trace(self.trace, folder / name)
            scenario["workload"] = {**scenario.get("workload", {}), "trace": name}
        said = [line for each in (f"{about}: {self.name}", *notes) for line in textwrap.wrap(each, COMMENT_WIDTH)]
        text = "".join(f"# {line}\n" for line in said) + scenario_yaml.dump(_plain(scenario))
        (folder / f"{self.slug}.yaml").write_text(text, encoding="utf-8")


def generated(kind: str, **params: Any) -> dict[str, Any]:
    """Return the ``workload`` of a scenario whose requests a generator makes."""
    return {"generator": {"kind": kind, "params": params}}


def unique(runs: Iterable[Run]) -> list[Run]:
    """Return each run once, in the order in which they come first.

    Raises
    ------
    ValueError
        If two runs that differ would have the same file: a defect of the study.
    """
    found: dict[str, Run] = {}
    for run in runs:
        known = found.setdefault(run.slug, run)
        if known is not run and (known.scenario, known.model) != (run.scenario, run.model):
            raise ValueError(f"two different runs of a study are called {run.name!r}")
    return list(found.values())


def _plain(value: Any) -> Any:
    """Return what a YAML file can hold: mappings as dicts, sequences as lists."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value


__all__ = ["FOLDER", "Run", "generated", "unique"]
