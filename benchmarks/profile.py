"""Where the loop's time goes: ``python -m benchmarks.profile CASE`` profiles a case's first run and sums by module.

Profiling makes calls dear and so exaggerates small functions; the shares say where to look, not how long it takes.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from benchmarks.cases import CASES, Setting, Skipped
from benchmarks.measuring import ROOT
from simulator.runner import Watch, run


class _Profiler(Watch):
    """Profiles the loop and nothing else."""

    def __init__(self) -> None:
        self.profile = cProfile.Profile()

    def __enter__(self) -> Self:
        self.profile.enable()
        return self

    def __exit__(self, *_: object) -> None:
        self.profile.disable()


def by_module(stats: Mapping[Any, Any]) -> Counter[str]:
    """Sum own time (of `pstats.Stats.stats`) by module; that of C functions counts for the modules that call them."""
    seconds: Counter[str] = Counter()
    for (file, _, _), (_, _, own_s, _, callers) in stats.items():
        if file != "~":
            seconds[_module(file)] += own_s
        else:
            for (caller, _, _), (_, _, caller_s, _) in callers.items():
                seconds[_module(caller)] += caller_s
    return seconds


def _module(file: str) -> str:
    path = Path(file)
    if path.is_relative_to(ROOT):
        return path.relative_to(ROOT).with_suffix("").as_posix()
    return next((name for name in ("simpy", "numpy") if name in path.parts), "others")


def main() -> None:
    """Profile and print."""
    parser = argparse.ArgumentParser("python -m benchmarks.profile", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("case", choices=list(CASES))
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="folder of the traces (default: ../shared/data/traces)"
    )
    parser.add_argument("--stepwise", action="store_true", help="every engine step an event")
    parser.add_argument("--functions", type=int, default=0, metavar="N", help="the N dearest functions, too")
    options = parser.parse_args()
    setting = Setting(options.data) if options.data else Setting()
    try:
        first = next(CASES[options.case](setting))
    except Skipped as reason:
        sys.exit(f"error: {reason}")
    profiler = _Profiler()
    run(first.scenario, stepwise=options.stepwise, progress=profiler)
    stats = pstats.Stats(profiler.profile)
    seconds = by_module(stats.stats)  # type: ignore[attr-defined]
    print(f"{options.case}: {first.name}, {seconds.total():.1f} s under the profiler")
    for module, own_s in seconds.most_common(20):
        print(f"{own_s / seconds.total():7.1%}  {module}")
    if options.functions:
        stats.sort_stats("tottime").print_stats(options.functions)


if __name__ == "__main__":
    main()
