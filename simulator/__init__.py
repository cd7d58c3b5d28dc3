"""A discrete-event simulator of GPU clusters that serve large language models.

``from simulator import Scenario, run`` is the whole of a run. Names are loaded when they are first used, so that
``import simulator`` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simulator.errors import InputError
    from simulator.planning.planner import plan
    from simulator.reports import report
    from simulator.result import RunResult
    from simulator.runner import run
    from simulator.scenario import Scenario
    from simulator.studies.compare import compare
    from simulator.studies.highest_load import highest_load
    from simulator.studies.intervals import intervals
    from simulator.studies.search import search
    from simulator.studies.sweep import sweep
    from simulator.write import load_result

    __version__: str

_HOMES = {
    "InputError": "simulator.errors",
    "RunResult": "simulator.result",
    "Scenario": "simulator.scenario",
    "compare": "simulator.studies.compare",
    "highest_load": "simulator.studies.highest_load",
    "intervals": "simulator.studies.intervals",
    "load_result": "simulator.write",
    "plan": "simulator.planning.planner",
    "report": "simulator.reports",
    "run": "simulator.runner",
    "search": "simulator.studies.search",
    "sweep": "simulator.studies.sweep",
}

__all__ = [
    "InputError",
    "RunResult",
    "Scenario",
    "__version__",
    "compare",
    "highest_load",
    "intervals",
    "load_result",
    "plan",
    "report",
    "run",
    "search",
    "sweep",
]


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used (PEP 562)."""
    import importlib

    if name == "__version__":
        value: Any = _version()
    elif name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("llm-cluster-simulator")
    except PackageNotFoundError:
        return "unknown"
