"""How much faster several workers make a sweep, and what is left of one that is killed.

    python -m benchmarks.sweep                # 64 points of at least 2 s each: about five minutes on two cores
    python -m benchmarks.sweep --quick        # 8 points of at least 0.5 s

Each measurement is a command as users type it, from the start of the interpreter to its end. Where the extra ``dask``
is installed, a scheduler and as many workers are started too. Exit code 1 if two tables differ or a finished point
was repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from benchmarks.measuring import ROOT, measure

PROBE_REQUESTS = 4_000
MARGIN = 1.25
"""How much longer than asked for points are made, since machines aren't equally fast all the time: a choice."""


def workload(requests: int) -> dict[str, object]:
    params = {
        "rate": 8,
        "requests": requests,
        "prompt": "lognormal:median=500,sigma=0.8",
        "output": "lognormal:median=150,sigma=0.8",
    }
    return {"workload": {"generator": {"kind": "poisson", "params": params}}, "model": "llama-3.1-8b"}


def requests_for(seconds: float) -> int:
    """Return how many requests a point needs to take that long in one process."""
    probe = measure(workload(PROBE_REQUESTS), write=False)
    return round(PROBE_REQUESTS * MARGIN * seconds / probe.loop_cpu_s)


def command(scenario: Path, points: int, out: Path, *more: str) -> list[str]:
    axes = ["--vary", f"max-num-seqs=65..{64 + points}:{points}"]
    start = [sys.executable, "-m", "simulator", "sweep", "--scenario", str(scenario), *axes]
    return [*start, "--quiet", "--out", str(out), "--overwrite", *more]


def timed(arguments: list[str]) -> tuple[float, float]:
    """Run a command; return its wall time and the processor time of all of its processes, seconds.

    Wall times say little where something else keeps the machine busy. Processor time that several workers don't add to
    is what they can divide among idle cores.
    """
    begun, used = time.perf_counter(), _processor_s()
    subprocess.run(arguments, cwd=ROOT, check=True, stderr=subprocess.DEVNULL)
    return time.perf_counter() - begun, _processor_s() - used


def _processor_s() -> float:
    found = resource.getrusage(resource.RUSAGE_CHILDREN)
    return found.ru_utime + found.ru_stime


def killed_at_half(arguments: list[str], store: Path, points: int) -> int:
    """Start a sweep, kill it when half of its results are there, and return how many are."""
    with subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        while len(list(store.rglob("*.json"))) < points // 2 and process.poll() is None:
            time.sleep(0.05)
        process.kill()
    return len(list(store.rglob("*.json")))


@contextmanager
def dask_cluster(workers: int, folder: Path) -> Iterator[str]:
    """Start a scheduler and workers by Dask's own commands; yield the address."""
    dask, log = str(Path(sys.executable).parent / "dask"), folder / "scheduler.log"
    with log.open("w") as file:
        scheduler = [dask, "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
        processes = [subprocess.Popen(scheduler, stdout=file, stderr=file, start_new_session=True)]
    try:
        while (found := re.search(r"Scheduler at: +(tcp://\S+)", log.read_text())) is None:
            time.sleep(0.1)
        worker = [dask, "worker", found[1], "--nworkers", str(workers), "--nthreads", "1", "--no-dashboard"]
        quiet = subprocess.DEVNULL
        processes.append(subprocess.Popen(worker, stdout=quiet, stderr=quiet, start_new_session=True))
        time.sleep(5)  # all workers, so that none joins late
        yield found[1]
    finally:
        for process in processes:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def main() -> int:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.sweep", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--points", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=2.0, help="that a point takes at least (default: 2)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="8 points of 0.5 s")
    options = parser.parse_args()
    points, seconds = (8, 0.5) if options.quick else (options.points, options.seconds)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        requests = requests_for(seconds)
        scenario = folder / "scenario.yaml"
        scenario.write_text(json.dumps(workload(requests)), encoding="utf-8")
        kept = folder / "kept"

        one, one_cpu = timed(command(scenario, points, folder / "one", "--no-store", "--workers", "1"))
        table = (folder / "one" / "sweep.csv").read_bytes()
        print(
            f"{points} points of {requests:,} requests, {one_cpu / points:.2f} s of processor time each: "
            f"one worker {one:.1f} s, {one_cpu:.1f} s of processor time",
            flush=True,
        )
        workers = ["--workers", str(options.workers)]
        several, several_cpu = timed(command(scenario, points, folder / "several", "--no-store", *workers))
        same = [(folder / "several" / "sweep.csv").read_bytes() == table]
        print(
            f"{options.workers} workers: {several:.1f} s, {one / several:.2f} times as fast, {several_cpu:.1f} s of "
            f"processor time; same table: {same[-1]}",
            flush=True,
        )

        keeping = command(scenario, points, folder / "resumed", "--store", str(kept), *workers)
        finished = killed_at_half(keeping, kept, points)
        rest, _ = timed(keeping)
        told = json.loads((folder / "resumed" / "sweep.json").read_text())
        same.append((folder / "resumed" / "sweep.csv").read_bytes() == table)
        same.append((told["kept"], told["simulated"]) == (finished, points - finished))
        print(
            f"killed with {finished} of {points} done, started again: {told['simulated']} simulated, {told['kept']} "
            f"kept, {rest:.1f} s; same table: {same[-2]}",
            flush=True,
        )
        again, again_cpu = timed(keeping)
        same.append((folder / "resumed" / "sweep.csv").read_bytes() == table)
        print(f"repeated: {again:.1f} s, {again_cpu:.1f} s of processor time; same table: {same[-1]}", flush=True)

        if find_spec("distributed") is None:
            print("Dask: not measured, the extra 'dask' isn't installed")
        else:
            with dask_cluster(options.workers, folder) as address:
                cluster, _ = timed(command(scenario, points, folder / "dask", "--no-store", "--cluster", address))
            same.append((folder / "dask" / "sweep.csv").read_bytes() == table)
            print(
                f"Dask with {options.workers} workers: {cluster:.1f} s, {one / cluster:.2f} times as fast; "
                f"same table: {same[-1]}"
            )
    return 0 if all(same) else 1


if __name__ == "__main__":
    sys.exit(main())
