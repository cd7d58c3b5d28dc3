"""Measures one thing at a time, each in a fresh process, so that its peak memory and its caches are its own.

Run as a module it is that process: a request in JSON on standard input, what was measured in JSON on standard output.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

ROOT = Path(__file__).resolve().parents[1]
"""The project's folder, where the processes run."""

Result = TypeVar("Result")


class MeasuringError(Exception):
    """A process failed; the message is what it said."""


@dataclass(frozen=True)
class Measurement:
    """One run of the simulator, or the medians of several.

    Attributes
    ----------
    simulated_s
        From the first arrival to the last end, in simulated seconds.
    iterations
        Engine steps simulated, however few events they took.
    loop_cpu_s
        Processor time of the loop; well below ``loop_s`` where something else kept the machine busy.
    digest
        Hash of what the run recorded of every request, to the last bit.
    """

    requests: int
    simulated_s: float
    iterations: int
    events: int
    load_s: float
    loop_s: float
    loop_cpu_s: float
    write_s: float | None
    peak_memory_bytes: int | None
    digest: str

    @property
    def requests_per_s(self) -> float:
        """Requests simulated in a second of loop time."""
        return self.requests / self.loop_s

    @property
    def iterations_per_s(self) -> float:
        """Engine steps simulated in a second of loop time."""
        return self.iterations / self.loop_s

    @property
    def written_s(self) -> float:
        """Time to write the result, 0 where none was written."""
        return self.write_s or 0.0

    @property
    def s_per_request(self) -> float:
        """Loop time of a request, seconds."""
        return self.loop_s / self.requests


def measure(scenario: Mapping[str, Any], *, stepwise: bool = False, write: bool = True) -> Measurement:
    """Run a scenario in a process of its own."""
    return Measurement(**_asked({"scenario": scenario, "stepwise": stepwise, "write": write}))


def timeouts_per_s(count: int) -> float:
    """Return the rate of bare SimPy timeouts: one process that waits ``count`` times."""
    return float(_asked({"timeouts": count})["per_s"])


def command_s(*arguments: str) -> float:
    """Return the wall time of ``simulate ARGUMENTS``, from the start of the interpreter to its end, seconds."""
    begun = time.perf_counter()
    _output([sys.executable, "-m", "simulator", *arguments])
    return time.perf_counter() - begun


def first_event_s(*arguments: str) -> float:
    """Return the wall time of ``simulate ARGUMENTS`` from the start of the interpreter to the first event, seconds."""
    begun = time.time()
    output = _output([sys.executable, "-m", "benchmarks.first_event", *arguments])
    return float(output.split()[-1]) - begun


def repeated(measured: Callable[[], Result], runs: int, budget_s: float) -> list[Result]:
    """Measure up to ``runs`` times, at least once, and no more after ``budget_s`` seconds."""
    begun = time.perf_counter()
    results = [measured()]
    while len(results) < runs and time.perf_counter() - begun < budget_s:
        results.append(measured())
    return results


def median(measurements: list[Measurement]) -> Measurement:
    """Return the median of every figure; they must be of one scenario, and have recorded the same."""
    first = measurements[0]
    if any(each.digest != first.digest for each in measurements):
        raise MeasuringError("two runs of one scenario recorded different results")
    timed = ("load_s", "loop_s", "loop_cpu_s", "write_s", "peak_memory_bytes")
    values = {name: [getattr(each, name) for each in measurements] for name in timed}
    medians = {name: None if None in every else statistics.median(every) for name, every in values.items()}
    return Measurement(**{**asdict(first), **medians})


def _asked(request: Mapping[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(_output([sys.executable, "-m", "benchmarks.measuring"], json.dumps(request)))
    return answer


def _output(command: list[str], given: str = "") -> str:
    done = subprocess.run(command, cwd=ROOT, input=given, capture_output=True, text=True, encoding="utf-8", check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        plain = [line for line in said if line.startswith("error:")]  # as the command line says it, first
        raise MeasuringError((plain or said[-1:] or [f"the process ended with exit code {done.returncode}"])[0])
    return done.stdout


# ------------------------------------------------------------------------------------------- in the new process


def _run(scenario: Mapping[str, Any], *, stepwise: bool, write: bool) -> Measurement:
    from simulator.runner import Watch, run
    from simulator.summary import peak_memory_bytes

    class LoopClock(Watch):
        """Takes the processor time of the loop."""

        def __enter__(self) -> Self:
            self.begun = time.process_time()
            return self

        def __exit__(self, *_: object) -> None:
            self.cpu_s = time.process_time() - self.begun

    clock = LoopClock()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result" if write else None
        result = run(scenario, out=out, stepwise=stepwise, progress=clock)
    digest = hashlib.sha256()
    for name, column in result.data.cluster.recorder.columns.items():
        digest.update(name.encode())
        digest.update(column.tobytes())
    took = result.summary["simulator"]
    return Measurement(
        requests=result.summary["requests"]["arrived"],
        simulated_s=result.summary["simulated_s"],
        iterations=took["iterations"],
        events=took["events"],
        load_s=took["load_s"],
        loop_s=took["loop_s"],
        loop_cpu_s=clock.cpu_s,
        write_s=took["write_s"],
        peak_memory_bytes=peak_memory_bytes(),
        digest=digest.hexdigest()[:16],
    )


def _timeouts(count: int) -> dict[str, float]:
    import simpy

    env = simpy.Environment()

    def waits() -> Any:
        for _ in range(count):
            yield env.timeout(1)

    env.process(waits())
    begun = time.perf_counter()
    env.run()
    return {"per_s": count / (time.perf_counter() - begun)}


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    if "timeouts" in request:
        return _timeouts(request["timeouts"])
    scenario = request.pop("scenario")
    return asdict(_run(scenario, **request))


if __name__ == "__main__":
    print(json.dumps(_answer(json.load(sys.stdin))))
