"""Attention data parallel ranks of one replica, which start every step together.

Each rank is a `simulator.engine.replica.Replica` with a scheduler, a queue and KV memory of its own. At a boundary all
ranks apply what they did; then each that has something to do composes its next step; one joint cost gives its duration,
the same for all. A rank without work computes a dummy step while any other has work, and is asked to compose again when
a request wakes it. A run of steps is as long as the shortest that a rank's plan stands for, and an arrival on any rank
that may change its plan cuts it for all.

Swaps over the host link: the step of all waits for the rank that waits longest.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence as SequenceOf
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt
from simpy.events import Event

from simulator.cost.shape import BatchShape
from simulator.cost.together import JointCost, LockstepTimes
from simulator.engine.clock import Boundary, Callbacks, step_priority
from simulator.engine.histogram import Durations
from simulator.engine.lane import Lane
from simulator.engine.prefill_balance import Closed, Decision, PrefillBalance, RankState

if TYPE_CHECKING:
    from simulator.engine.replica import Replica, ReplicaConfig


_UNLIMITED = 1 << 62


class Untimed:
    """Stands for a rank's cost while it composes: what a step takes is known when all ranks have."""

    sources: tuple[str, ...] = ()

    def step_ns(self, shape: BatchShape) -> int:
        """Return no time."""
        return 0

    def few_ns(self, shape: BatchShape, k: int) -> list[int]:
        """Return no time for each step."""
        return [0] * k

    def run_ns(self, shape: BatchShape, k: int) -> npt.NDArray[np.int64]:
        """Return no time for each step."""
        return np.zeros(k, dtype=np.int64)

    def stage_ns(self, shape: BatchShape) -> list[int]:
        """Return no time for the one stage."""
        return [0]


class RankLane(Lane):
    """The lane of one rank: composes and applies as any other, and is told by its `Lockstep` when."""

    __slots__ = ("_lockstep",)

    def __init__(self, replica: Replica, lockstep: Lockstep) -> None:
        super().__init__(replica, 0)
        self._lockstep = lockstep
        self._cost = Untimed()

    def wake(self) -> bool:
        """Let an idle rank compose at the next boundary of all, or now; False if it isn't idle."""
        if not self._idle:
            return False
        self._idle = False
        self._lockstep.wake()
        return True

    def cut(self, now: int, later: int = 0) -> None:
        """End the run of all at its first boundary from now on, or one later."""
        self._lockstep.cut(now, later)

    def step_end_ns(self, now_ns: int) -> int:
        """Return when the step in flight of all ends."""
        return self._lockstep.step_end_ns(now_ns)

    def compose_at(self, now: int, hold: bool) -> bool:
        """Compose the next step, or the beginning of a run; False if there is nothing to do. Times come later.

        Parameters
        ----------
        hold
            Nobody may be admitted.
        """
        if self._idle:
            return False
        if not self.ran:
            self._known_until_ns = now
        if not hold:
            return self._start_next(now)
        queue, self.waiting = self.waiting, Closed(self.waiting)
        try:
            started = self._start_next(now)
        finally:
            self.waiting = queue
        if not started and queue:
            self._idle = False  # what it decoded was taken away: it begins with those who wait
        return started

    def state(self, now: int) -> RankState:
        """Return what the balance of prefills looks at."""
        replica = self.replica
        if replica.arriving:
            replica.queue_arrived(self._known_until_ns if self.ran else now)
        place = replica.num_running < self.limits.max_num_seqs
        prompt = bool(self.prefilling) or (place and len(self.waiting) > 0)
        return RankState(prompt, self.group.size > 0, self.group.size < self.limits.max_num_seqs)

    @property
    def ran(self) -> bool:
        """Whether it had work in the run that ended last."""
        return self._lockstep.ran[self.replica.index - self._lockstep.first]

    def set_times(self, steps: int, durations: Durations, ends: Durations) -> None:
        """Let the steps that were composed take so long."""
        self.steps, self.durations, self.ends = steps, durations, ends

    def shorten(self, steps: int) -> None:
        """Let the run in flight have fewer steps."""
        self.steps = steps

    def apply_at(self, end_ns: int) -> None:
        """Apply the steps done."""
        self._apply(end_ns)

    def lose(self, now: int) -> None:
        """Stop dead; the other ranks' step goes on to its end."""
        self._lockstep.leave(self, now)
        super().lose(now)

    @property
    def is_changing(self) -> bool:
        """Whether composing changes its `state` besides admissions: places given back, what is done between steps."""
        return bool(self._pending or self._ended)

    @property
    def awake(self) -> bool:
        """Whether it is to compose at the next boundary."""
        return not self._idle


class LockstepCounters:
    """What the ranks of one group did together, in ns and steps.

    Attributes
    ----------
    steps, busy_ns
        Steps of all ranks together, and their time.
    exchange_ns, experts_ns
        Of it: dispatch and combine; routed experts.
    held_steps
        Steps in which prompts were held back until all ranks would have one.
    dummy_steps
        Of each rank: steps that it computed a dummy in, having no work.
    dummy_ns
        Time of these.
    waiting_ns
        Of each rank: time of its other steps that it waited for a slower one.
    """

    def __init__(self, ranks: int) -> None:
        self.steps = self.busy_ns = self.exchange_ns = self.experts_ns = self.held_steps = 0
        self.dummy_steps = [0] * ranks
        self.dummy_ns = [0] * ranks
        self.waiting_ns = [0] * ranks


class Lockstep:
    """See the module.

    Parameters
    ----------
    ranks
        Replicas of one group, consecutive ones; each has one stage.
    cost
        Joint cost of their steps.
    balance
        Holds prompts back until all ranks have one; None: nothing does.

    Attributes
    ----------
    steps, ends
        The run in flight, as in `simulator.engine.lane.Lane`.
    ran
        By rank: whether it has work in the run in flight, or had in the one before.
    """

    def __init__(self, ranks: SequenceOf[Replica], cost: JointCost, balance: PrefillBalance | None = None) -> None:
        self._balance = balance
        self._decision: Decision | None = None
        self.ranks = tuple(ranks)
        self.first = ranks[0].index
        self.env = ranks[0].env
        self._cost = cost
        self.lanes = [RankLane(replica, self) for replica in ranks]
        for replica, lane in zip(ranks, self.lanes, strict=True):
            replica.lanes = [lane]
        self.ran = [False] * len(ranks)
        self._fast = ranks[0].fast_forward
        self._idle = True
        self.steps = 0
        self.start_ns = self._end_ns = 0
        self.ends: Durations = []
        self.durations: Durations = []
        self._times: LockstepTimes | None = None
        self._active: list[tuple[int, RankLane]] = []
        self._lost: set[RankLane] = set()
        self._composing = False
        self._most_steps = 0
        self._priority = step_priority(self.first, 0)
        self._boundary = Boundary(self.env)
        self._when_woken: Callbacks = [self._woken]
        self._when_passed: Callbacks = [self._passed]
        self.counters = LockstepCounters(len(ranks))

    def wake(self) -> None:
        """Look at a rank that was idle: now where all were, else at the end of the step in flight."""
        if self._idle:
            self._idle = False
            self._boundary.schedule(0, self._priority, self._when_woken)
        else:
            self.cut(self.env.now)

    def _woken(self, _: Event) -> None:
        now = self.env.now
        for lane in self.lanes:  # as `Lane._woken`
            if now >= lane.replica.next_sample_ns:
                lane.replica.sample_until(now)
        self._go_on(now)

    def _passed(self, _: Event) -> None:
        self._apply()
        self._go_on(self._end_ns)

    def _go_on(self, now: int) -> None:
        """Start steps, each when the one before it ended, until something else is to happen first."""
        while self._start_next(now):
            end = self._end_ns
            if not (self._fast and self.env.skip_to(end)):
                self._boundary.schedule(end - now, self._priority, self._when_passed)
                return
            self._apply()
            now = end

    def _start_next(self, now: int) -> bool:
        """Let every rank compose, and start what they have composed; False if no rank has work."""
        # What is done between steps of one rank may wake another, or give it a request, after that one has composed.
        self._composing, self._most_steps = True, _UNLIMITED
        active: list[tuple[int, RankLane]] = []
        while not active and any(lane.awake for lane in self.lanes):
            hold = False
            if self._balance is not None:
                self._decision = decision = self._balance.decide([lane.state(now) for lane in self.lanes])
                hold, self._most_steps = decision.hold, min(self._most_steps, decision.most_steps)
                if any(lane.is_changing for lane in self.lanes):
                    self._most_steps = 1
            active = [(rank, lane) for rank, lane in enumerate(self.lanes) if lane.compose_at(now, hold)]
            self.ran = [False] * len(self.lanes)
        self._composing = False
        self._active = active
        self._lost.clear()
        if not active:
            self._idle = True
            return False
        steps = min(self._most_steps, min(lane.steps for _, lane in active))
        times = self._times = self._timed([lane for _, lane in active], steps)
        stall = max(lane.plan.stalls_ns for _, lane in active)
        durations = times.steps
        if steps == 1:
            first = int(durations[0]) + stall
            self.durations, self.ends, end = [first], [now + first], now + first
        else:
            self.durations = durations
            self.ends = durations.cumsum() + now
            end = int(self.ends[-1])
        for rank, lane in active:
            self.ran[rank] = True
            lane.set_times(steps, self.durations, self.ends)
        self.start_ns, self._end_ns, self.steps = now, end, steps
        return True

    def _timed(self, active: SequenceOf[RankLane], steps: int) -> LockstepTimes:
        """Return the times of steps; the parts of a slow rank are longer, and all experts wait for the slowest."""
        times = self._cost.together([lane.shape for lane in active], steps)
        slowest = max(replica.stretch for replica in self.ranks)
        if slowest == 1.0:
            return times
        factors = np.array([[lane.replica.stretch] for lane in active])
        own = np.rint(times.own * factors).astype(np.int64)
        return LockstepTimes(own, times.exchange, round(times.experts * max(1.0, slowest)))

    def _apply(self) -> None:
        """Apply the run in flight on every rank that had work in it."""
        end = self._end_ns
        self._count(self.steps, end)
        self.steps = 0
        for _, lane in self._active:
            if lane not in self._lost:
                lane.apply_at(end)

    def leave(self, lane: RankLane, now: int) -> None:
        """Let a rank that stops dead have no part in the rest of the step in flight, nor in steps after it."""
        self._lost.add(lane)
        self.cut(now)

    def _count(self, steps: int, end: int) -> None:
        """Add the steps done of the run in flight to the counters."""
        counters, times = self.counters, self._times
        assert times is not None
        if self._balance is not None and self._decision is not None:
            self._balance.done(self._decision, steps)
            if self._decision.hold:
                counters.held_steps += steps
        counters.steps += steps
        counters.busy_ns += end - self.start_ns
        counters.exchange_ns += steps * times.exchange
        counters.experts_ns += steps * times.experts
        own = times.own[:, :steps]
        waits = (own.max(axis=0) - own).sum(axis=1).tolist()
        for (rank, _), wait in zip(self._active, waits, strict=True):
            counters.waiting_ns[rank] += wait
        for rank, ran in enumerate(self.ran):
            if not ran:
                counters.dummy_steps[rank] += steps
                counters.dummy_ns[rank] += end - self.start_ns

    def cut(self, now: int, later: int = 0) -> None:
        """End the run in flight at its first boundary from now on (one at this instant counts), or one later."""
        if self._composing:
            self._most_steps = min(self._most_steps, 1 + later)
            return
        if self.steps <= 1:
            return
        steps = bisect_left(self.ends, now) + 1 + later
        if steps >= self.steps:
            return
        self.steps = steps
        for _, lane in self._active:
            if lane not in self._lost:
                lane.shorten(steps)
        self._end_ns = int(self.ends[steps - 1])
        self._boundary = self._boundary.sooner(self._end_ns - now, self._priority)

    def step_end_ns(self, now_ns: int) -> int:
        """Return when the step in flight ends; now, if there is none."""
        return int(self.ends[bisect_left(self.ends, now_ns)]) if self.steps else now_ns

    def stop(self) -> None:
        """Count the steps of the run in flight that ended before now, as ranks apply them; the last is lost."""
        done = bisect_left(self.ends, self.env.now) if self.steps else 0
        if done:
            self._count(done, int(self.ends[done - 1]))
        self.steps = 0


def _balance(config: ReplicaConfig) -> PrefillBalance | None:
    return None if config.prefill_balance is None else PrefillBalance(*config.prefill_balance)


def lockstep_groups(configs: SequenceOf[ReplicaConfig], replicas: SequenceOf[Replica]) -> list[Lockstep]:
    """Make the groups of replicas that step together, by their configurations."""
    groups, first = [], 0
    while first < len(configs):
        config = configs[first]
        if config.ranks > 1:
            groups.append(
                Lockstep(replicas[first : first + config.ranks], cast(JointCost, config.cost), _balance(config))
            )
        first += config.ranks
    return groups
