"""Waiting times of the simulator against M/D/1 and M/M/c, to batch-means intervals of 3 %.

    python -m benchmarks.queueing_theory                  # every load, about 30 minutes on one core
    python -m benchmarks.queueing_theory --requests 200000

Steps take a constant time of 1/1000 of the mean service (M/D/1) or 1/10000 (M/M/c: an admission waits for the step
in flight, which would otherwise show at low load). A queue converges slowly at high load: the relative interval of the
mean wait falls with the square root of the requests, and at 95 % it takes millions.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from policies.batching.vllm_v1 import VllmV1
from policies.kv_eviction.lru import Lru
from policies.queueing.fcfs import Fcfs
from policies.routing.round_robin import RoundRobin
from simulator.cost.constant import ConstantCost
from simulator.engine.cluster import Cluster, Workload
from simulator.engine.replica import EngineLimits, ReplicaConfig

SERVICE_NS = 1_000_000_000
BATCHES = 30


@dataclass(frozen=True)
class Queue:
    """A simulated queue: arrivals, services and starts in ns, one entry a request in the order of arrival."""

    arrivals_ns: npt.NDArray[np.int64]
    services_ns: npt.NDArray[np.int64]
    starts_ns: npt.NDArray[np.int64]
    step_s: float

    @property
    def waits_s(self) -> npt.NDArray[np.float64]:
        """Time in the queue, seconds."""
        return (self.starts_ns - self.arrivals_ns) / 1e9


class _Arrivals:
    def __init__(self, at_ns: npt.NDArray[np.int64]) -> None:
        self._at_ns = at_ns

    def first(self):  # type: ignore[no-untyped-def]
        return zip(self._at_ns.tolist(), range(len(self._at_ns)), strict=True)

    def ended(self, row: int, end_ns: int) -> tuple[()]:
        return ()


def simulate_queue(load: float, *, servers: int, service: str, requests: int, seed: int) -> Queue:
    """Simulate Poisson arrivals with a mean service of 1 s and ``deterministic`` or ``exponential`` lengths."""
    rng = np.random.default_rng(seed)
    steps = 1000 if servers == 1 else 10_000
    step_ns = SERVICE_NS // steps
    if service == "deterministic":
        outputs = np.full(requests, steps, dtype=np.int64)
    else:
        outputs = np.maximum(1, np.rint(rng.exponential(steps, requests))).astype(np.int64)
    gaps = rng.exponential(SERVICE_NS / (load * servers), requests)
    arrivals = np.rint(np.cumsum(gaps)).astype(np.int64)
    nothing = np.zeros(requests, dtype=np.int64)
    workload = Workload(
        source=_Arrivals(arrivals),  # type: ignore[arg-type]
        prompt_tokens=np.ones(requests, dtype=np.int64),
        output_tokens=outputs,
        predicted_output_tokens=np.full(requests, np.nan),
        class_codes=nothing,
        num_classes=1,
        priorities=nothing,
        session_ids=nothing - 1,
    )
    config = ReplicaConfig(
        limits=EngineLimits(max_num_seqs=servers, max_num_batched_tokens=1 << 20, max_model_len=1 << 40),
        batching=VllmV1,
        queueing=Fcfs,
        kv_eviction=Lru,
        cost=ConstantCost(step_ns=step_ns),
        num_kv_blocks=1 << 40,
    )
    cluster = Cluster(
        [config], RoundRobin(), workload, rng=np.random.default_rng(seed), sample_interval_ns=int(arrivals[-1]) + 1
    )
    cluster.run()
    cluster.stop()
    starts = np.asarray(cluster.recorder.columns["scheduled_ns"], dtype=np.int64)
    return Queue(arrivals, outputs * step_ns, starts, step_ns / 1e9)


def md1_wait_s(load: float) -> float:
    """Mean time in queue of M/D/1 with service of 1 s (Pollaczek-Khinchine)."""
    return load / (2 * (1 - load))


def erlang_c_wait_s(load: float, servers: int) -> float:
    """Mean time in queue of M/M/c with mean service of 1 s (Erlang C)."""
    offered = load * servers
    empty = sum(offered**k / math.factorial(k) for k in range(servers))
    busy = offered**servers / math.factorial(servers) / (1 - load)
    return busy / (empty + busy) / (servers * (1 - load))


def steady_interval(waits_s: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return the mean and the half width of its 95 % interval by batch means, the first tenth left out."""
    steady = waits_s[len(waits_s) // 10 :]
    batches = steady[: len(steady) // BATCHES * BATCHES].reshape(BATCHES, -1).mean(axis=1)
    half_width = stats.t.ppf(0.975, BATCHES - 1) * batches.std(ddof=1) / math.sqrt(BATCHES)
    return float(steady.mean()), float(half_width)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--requests", type=int, help="requests a case (default: enough for 3 %%)")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    # Requests for a half width of 3 %, from the variance that shorter runs showed.
    enough = {
        (1, 0.3): 80_000,
        (1, 0.5): 100_000,
        (1, 0.7): 200_000,
        (1, 0.9): 2_000_000,
        (1, 0.95): 4_500_000,
        (4, 0.3): 1_300_000,
        (4, 0.5): 900_000,
        (4, 0.7): 700_000,
        (4, 0.9): 2_500_000,
        (4, 0.95): 9_500_000,
    }
    print("queue   load  theory s  simulated s     error  95 % interval  requests/s")
    for (servers, load), needed in enough.items():
        requests = arguments.requests or needed
        service = "deterministic" if servers == 1 else "exponential"
        theory = md1_wait_s(load) if servers == 1 else erlang_c_wait_s(load, servers)
        began = time.perf_counter()
        queue = simulate_queue(load, servers=servers, service=service, requests=requests, seed=arguments.seed)
        rate = requests / (time.perf_counter() - began)
        mean, half_width = steady_interval(queue.waits_s)
        name = "M/D/1" if servers == 1 else f"M/M/{servers}"
        print(
            f"{name}  {load:6.0%}  {theory:8.4f}  {mean:11.4f}  {mean / theory - 1:+8.2%}"
            f"  ±{half_width / mean:11.2%}  {rate:10,.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
