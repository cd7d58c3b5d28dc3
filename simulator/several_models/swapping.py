"""Models that take turns on the same GPUs: a machine drains, loads another model's weights, and serves that.

A machine is the same GPUs for one replica of each pool that takes part. Exactly one of them is loaded or being loaded,
the others are down: they hold no memory, are not paid for and draw nothing. Requests whose model is loaded nowhere wait
for a machine: the one that has been idle for longest, else, once the loaded model has gone on for `max_wait_s`, the one
with the fewest outstanding tokens. That takes no more requests, ends those that it has, and changes. Those that have
waited for longest come first. Weights are copied over the cluster's links, from the shared storage or host memory.

As llama-swap (a proxy that waits for requests in flight, then starts another server), vLLM's Sleep Mode (weights kept
in host memory, the process alive) and, in its loading from tiers, ServerlessLLM (OSDI 2024) do. Not modelled: switching
between tokens with KV moved out (Aegaeon, SOSP 2025), moving requests in flight to empty a machine (ServerlessLLM),
flash as a tier of weights, loading beside computing, several models on one GPU at a time, host memory that is full,
kernels that are slower just after a change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any

import numpy as np

from simulator.engine.clock import NS_PER_S, Boundary, to_ns
from simulator.engine.control import Control
from simulator.engine.recorder import Outcome
from simulator.engine.sequence import Sequence as Request
from simulator.metrics import describe
from simulator.scenario_model_swap import ModelSwap
from simulator.scenario_start import EngineStart
from simulator.starting import EngineStarts


class State(Enum):
    """What a machine does."""

    SERVING = "serving"
    DRAINING = "draining"
    LOADING = "loading"


@dataclass(frozen=True)
class SwappedPool:
    """A pool whose GPUs are others' too.

    Attributes
    ----------
    replicas
        Its replica of each machine.
    weight_bytes
        Read when one is loaded.
    max_num_seqs
        Requests that one runs at a time.
    """

    name: str
    model: str
    replicas: Sequence[int]
    weight_bytes: int
    max_num_seqs: int


@dataclass
class Machine:
    """GPUs that pools share.

    Attributes
    ----------
    loaded
        Index of the pool whose model it has, or is loading.
    target
        That which it is to have; ``loaded`` unless it drains.
    since_ns, idle_ns, asked_ns
        When it began to serve, when it last became idle, when it was last told to change.
    """

    index: int
    loaded: int
    target: int
    state: State = State.SERVING
    since_ns: int = 0
    idle_ns: int = 0
    asked_ns: int = 0


class ModelSwapFeature:
    """See the module.

    Parameters
    ----------
    part
        The scenario's.
    codes
        Of each row of the trace: the index of its pool, -1 where its model is none of theirs.

    Attributes
    ----------
    changes
        (time in ns, machine, state, pool that is loaded or being loaded), of every change.
    """

    name = "model_swap"

    def __init__(self, part: ModelSwap, pools: Sequence[SwappedPool], codes: Sequence[int]) -> None:
        self.pools = tuple(pools)
        self.changes: list[tuple[int, int, State, int]] = []
        self.load_ns: list[int] = []
        self._part = part
        self._codes = codes
        self._max_wait_ns = to_ns(part.max_wait_s)
        number = len(self.pools[0].replicas)
        self.machines = [Machine(i, i % len(pools), i % len(pools)) for i in range(number)]
        self._machine_of = {index: self.machines[i] for pool in self.pools for i, index in enumerate(pool.replicas)}
        self._waiting: list[dict[int, tuple[Request, int]]] = [{} for _ in self.pools]
        self._waited: set[int] = set()
        self._wait_ns: list[int] = []
        self._swap_ns: list[int] = []
        self._drain_ns: list[int] = []
        self._bytes = {"storage": 0, "host": 0}
        self._loads = [0] * len(self.pools)
        self._timer: Boundary | None = None
        self._control: Control

    def attach(self, control: Control) -> None:
        """Close all replicas but those whose model is loaded."""
        self._control = control
        sizes = [0] * len(control.cluster.replicas)
        for pool in self.pools:
            for index in pool.replicas:
                sizes[index] = pool.weight_bytes
        start = EngineStart(weights=self._part.weights, init_s=self._part.init_s)
        self._starts = EngineStarts(control, start, sizes)
        for machine in self.machines:
            for number, pool in enumerate(self.pools):
                index = pool.replicas[machine.index]
                if number == machine.loaded:
                    continue
                control.without_host_weights.add(index)
                control.close(index, by=self.name)
                control.lose(index, by=self.name)
                control.goes_down(index)
            self._note(machine)
        self._let_wait = control.on_no_replica
        control.on_no_replica = self._no_replica
        if self._part.idle_s is not None:
            control.before_routing.append(self._arrives)
        control.on_end.append(self._ended)
        control.on_left.append(self._left)

    def _note(self, machine: Machine) -> None:
        self.changes.append((self._control.now_ns, machine.index, machine.state, machine.loaded))

    def _outstanding(self, machine: Machine) -> int:
        index = self.pools[machine.loaded].replicas[machine.index]
        return int(self._control.cluster.outstanding_requests[index])

    def _tokens(self, machine: Machine) -> int:
        index = self.pools[machine.loaded].replicas[machine.index]
        return int(self._control.cluster.outstanding_tokens[index])

    # ------------------------------------------------------------------------------------------------- who waits

    def _no_replica(self, sequence: Request, now: int) -> None:
        """Let a request wait, and a machine be looked for if its model takes part."""
        self._let_wait(sequence, now)
        row = sequence.request_id
        pool = self._codes[row]
        if pool < 0:
            return
        self._waited.add(row)
        waiting = self._waiting[pool]
        if row not in waiting or waiting[row][0] is not sequence:
            waiting.pop(row, None)
            waiting[row] = sequence, now
            self._control.soon(self._look)

    def _waits(self, sequence: Request) -> bool:
        return self._control.live.get(sequence.request_id) is sequence and not sequence.on_replica

    def _oldest(self, pool: int) -> int | None:
        """Return since when the first of a pool's requests waits, ns; None where none does."""
        waiting = self._waiting[pool]
        while waiting:
            row, (sequence, since) = next(iter(waiting.items()))
            if self._waits(sequence):
                return since
            del waiting[row]
        return None

    def _look(self) -> None:
        """Find machines for the models that requests wait for."""
        since = [(at, pool) for pool in range(len(self.pools)) if (at := self._oldest(pool)) is not None]
        later = []
        for at, pool in sorted(since):
            if all(machine.target != pool for machine in self.machines):
                later += self._give(pool, at)
        if self._timer is not None:
            self._control.cancel(self._timer)
        self._timer = self._control.at(min(later) - self._control.now_ns, self._look) if later else None

    def _give(self, pool: int, since: int) -> list[int]:
        """Let a machine load a pool's model; return when to look again, if one must be waited for."""
        serving = [machine for machine in self.machines if machine.state is State.SERVING]
        idle = [machine for machine in serving if not self._outstanding(machine)]
        if idle:
            self._change(min(idle, key=lambda machine: (machine.idle_ns, machine.index)), pool)
            return []
        due = {machine.index: max(since, machine.since_ns) + self._max_wait_ns for machine in serving}
        now = self._control.now_ns
        ready = [machine for machine in serving if due[machine.index] <= now]
        if ready:
            self._change(min(ready, key=lambda machine: (self._tokens(machine), machine.index)), pool)
            return []
        return [min(due.values())] if due else []

    def _arrives(self, sequence: Request, _: int) -> bool:
        pool = self._codes[sequence.request_id]
        if pool >= 0:
            self._control.soon(partial(self._consider_more, pool))
        return False

    def _consider_more(self, pool: int) -> None:
        """Give a model whose machines are all full one that has long been idle."""
        assert self._part.idle_s is not None
        mine = [machine for machine in self.machines if machine.target == pool]
        full = self.pools[pool].max_num_seqs
        if not mine or any(each.state is not State.SERVING or self._outstanding(each) < full for each in mine):
            return
        latest = self._control.now_ns - to_ns(self._part.idle_s)
        idle = [
            machine
            for machine in self.machines
            if machine.state is State.SERVING and not self._outstanding(machine) and machine.idle_ns <= latest
        ]
        if idle:
            self._change(min(idle, key=lambda machine: (machine.idle_ns, machine.index)), pool)

    # -------------------------------------------------------------------------------------------------- swapping

    def _change(self, machine: Machine, pool: int) -> None:
        control = self._control
        machine.state, machine.target, machine.asked_ns = State.DRAINING, pool, control.now_ns
        self._note(machine)
        control.close(self.pools[machine.loaded].replicas[machine.index], by=self.name)
        self._load_if_empty(machine)

    def _ended(self, sequence: Request, _: int, __: Outcome) -> None:
        self._left(sequence.replica)

    def _left(self, index: int) -> None:
        machine = self._machine_of.get(index)
        if machine is not None:
            self._control.soon(partial(self._fewer, machine))

    def _fewer(self, machine: Machine) -> None:
        """See whether a machine that a request has left is idle now."""
        if machine.state is State.LOADING or self._outstanding(machine):
            return
        machine.idle_ns = self._control.now_ns
        self._load_if_empty(machine)
        self._look()

    def _load_if_empty(self, machine: Machine) -> None:
        if machine.state is not State.DRAINING or self._outstanding(machine):
            return
        control, pool = self._control, self.pools[machine.target]
        index = self.pools[machine.loaded].replicas[machine.index]
        self._drain_ns.append(control.now_ns - machine.asked_ns)
        control.lose(index, by=self.name)
        control.goes_down(index)
        machine.loaded, machine.state = machine.target, State.LOADING
        self._note(machine)
        index = pool.replicas[machine.index]
        control.goes_up(index)
        weights = self._part.weights
        new = index in control.without_host_weights
        source = weights if weights != "auto" else "storage" if new else "host"
        self._starts.start((index,), partial(self._ready, machine), partial(self._weights_are_there, machine, source))

    def _weights_are_there(self, machine: Machine, source: str, took_ns: int) -> None:
        self.load_ns.append(took_ns)
        self._bytes[source] += self.pools[machine.loaded].weight_bytes

    def _ready(self, machine: Machine) -> None:
        control, now = self._control, self._control.now_ns
        machine.state, machine.since_ns, machine.idle_ns = State.SERVING, now, now
        self._note(machine)
        self._loads[machine.loaded] += 1
        self._swap_ns.append(now - machine.asked_ns)
        waiting, self._waiting[machine.loaded] = self._waiting[machine.loaded], {}
        self._wait_ns += [now - since for sequence, since in waiting.values() if self._waits(sequence)]
        index = self.pools[machine.loaded].replicas[machine.index]
        control.without_host_weights.discard(index)
        control.restore(index, by=self.name)
        control.open(index, by=self.name)
        control.soon(self._look)

    # ---------------------------------------------------------------------------------------------------- result

    def describe(self) -> dict[str, Any]:
        """Return the section of the summary; see docs/models.md."""
        end_ns = self._control.cluster.end_ns
        up_ns = [sum(self._control.up_ns(index, 0, end_ns) for index in pool.replicas) for pool in self.pools]
        return {
            "machines": len(self.machines),
            "swaps": sum(self._loads),
            "bytes": dict(self._bytes),
            "weight_load_s": describe(np.array(self.load_ns, dtype=np.int64)),
            "drain_s": describe(np.array(self._drain_ns, dtype=np.int64)),
            "swap_s": describe(np.array(self._swap_ns, dtype=np.int64)),
            "requests_that_waited": len(self._waited),
            "wait_s": describe(np.array(self._wait_ns, dtype=np.int64)),
            "pools": {
                pool.name: {"model": pool.model, "loaded": loads, "machine_s": ns / NS_PER_S}
                for pool, loads, ns in zip(self.pools, self._loads, up_ns, strict=True)
            },
        }


__all__ = ["Machine", "ModelSwapFeature", "State", "SwappedPool"]
