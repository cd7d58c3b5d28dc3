"""One batch in flight on a replica: composes a step, lets it take its time, applies what it did, and again.

A replica has as many lanes as pipeline stages. A request stays in the lane that admitted it: a batch returns with the
requests it left with, and the next batch is composed of just those and of waiting ones, which is how engines that keep
one batch a stage in flight behave (vLLM, Sarathi-Serve).

SimPy calls a lane back at the boundary that its run of steps ends at (a generator to resume would cost more than the
event), and it applies the run, composes and starts the next. Where nothing else is scheduled before that boundary it
goes on at once.

With asynchronous scheduling (vLLM's ``async_scheduling``, SGLang's and TensorRT-LLM's overlap schedulers) step k + 1 is
composed at the start of step k, while its results are not known: it sees the requests that had arrived by then, and
those that end in step k still hold their place and their KV. Here a step is composed when it starts, of what was known
one step before. A batch that would be empty so is composed again of what is known now, as the engine waits for results
then. Requests end after a known number of tokens, so none is computed beyond its end (vLLM skips such steps for
``max_tokens``; for a stop token it computes one step too many, and SGLang always does: not modelled).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush
from itertools import accumulate
from operator import attrgetter
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from simpy.events import Event

from policies.protocols import PolicyError
from simulator.engine.clock import ARRIVALS, NS_PER_S, Boundary, Callbacks, step_priority
from simulator.engine.histogram import Durations
from simulator.engine.plan import Plan
from simulator.engine.recorder import FINISHED, Outcome
from simulator.engine.sequence import MOVING, PREFILLING, SWAPPED, Sequence
from simulator.engine.swap import UNKNOWN_NS

if TYPE_CHECKING:
    from simulator.engine.replica import Replica

Between: TypeAlias = Callable[[int], bool | None]
"""Something to be done between two steps, given the time; False: not yet possible, ask again before the next step."""

_SHORTEST_RUN_LIMIT = 16
_LONGEST_RUN_LIMIT = 8192
_FEW_STEPS = 40  # a run of more is kept in arrays, which then cost less than lists of numbers


class Lane:
    """See the module; to a batching policy it is the `policies.protocols.ReplicaView`.

    Attributes
    ----------
    sequences
        Running sequences of this lane in the order of admission; a dict as an ordered set.
    group
        Those of them that decode.
    steps, start_ns, durations, ends
        The run of steps in flight: how many (0: none), since when, how long each takes, when each ends; there may be
        more of the latter two than steps, of a run that was cut.
    looks_above
        As of `simulator.power.step_energy.StepEnergy`.
    """

    __slots__ = (
        "_add_energy",
        "_async",
        "_batches",
        "_boundary",
        "_compose",
        "_cost",
        "_counters",
        "_end_ns",
        "_ended",
        "_idle",
        "_known_until_ns",
        "_num_copies",
        "_pending",
        "_policy",
        "_priority",
        "_run_limit",
        "_run_pj",
        "_tenants",
        "_when_copied",
        "_when_free",
        "_when_passed",
        "_when_woken",
        "durations",
        "ends",
        "env",
        "group",
        "index",
        "kv",
        "limits",
        "looks_above",
        "plan",
        "policy_name",
        "prefilling",
        "replica",
        "sequences",
        "shape",
        "start_ns",
        "steps",
        "swapped",
        "waiting",
    )

    def __init__(self, replica: Replica, index: int) -> None:
        self.replica = replica
        self.index = index
        self.policy_name = f"batching policy {replica.policy.name!r}"
        self.limits = replica.limits
        self.kv = replica.kv
        self.waiting = replica.waiting
        self.swapped = replica.swapped
        self.group = replica.new_decode_group()
        self.prefilling: list[Sequence] = []
        self.sequences: dict[Sequence, None] = {}
        self.plan = Plan(self)
        self.shape = self.plan.shape
        self.env = replica.env
        self._tenants = replica.tenants
        if self._tenants is not None:
            from simulator.engine.tenants import TenantMembers

            self.group.tenants = TenantMembers()
        self._policy = replica.policy
        self._compose = replica.policy.compose
        self._cost = replica.cost
        self._priority = step_priority(replica.index, index)
        self._idle = True
        self._pending: list[Between] = []
        # What is called when, as SimPy wants it: a list for each, made once.
        self._when_woken: Callbacks = [self._woken]
        self._when_copied: Callbacks = [self._copied]
        self._num_copies = 0
        self._when_free: Callbacks = [self._free]
        self._when_passed: Callbacks = [self._passed]
        self._async = replica.async_scheduling
        self._ended: list[Sequence] = []
        self._known_until_ns = 0
        self.steps = 0
        self.start_ns = 0
        self.ends: Durations = []
        self.durations: Durations = []
        self._end_ns = 0
        self._boundary = Boundary(self.env)
        self._batches = replica.recorder.batches
        self._counters = replica.counters
        self._add_energy = replica.energy.adder(replica.energy_counters)
        self._run_pj = replica.energy.run_meter()
        self.looks_above = replica.energy.looks_above
        # Runs no longer than this: a run cut by an arrival was computed in vain beyond the cut. Doubled when a run
        # used it up, brought down to what a cut run used; no result depends on it.
        self._run_limit = _SHORTEST_RUN_LIMIT

    # ---------------------------------------------------------------------------------------------------- view

    @property
    def now_s(self) -> float:
        return self.env.now / NS_PER_S

    num_running: int = property(attrgetter("replica.num_running"))  # type: ignore[assignment]
    num_steps: int = property(attrgetter("replica.counters.steps"))  # type: ignore[assignment]
    num_decoding: int = property(attrgetter("group.size"))  # type: ignore[assignment]

    @property
    def num_schedulable(self) -> int:
        return len(self.sequences)

    @property
    def running(self) -> Iterator[Sequence]:
        return iter(self.sequences)

    @property
    def youngest(self) -> Sequence:
        return next(reversed(self.sequences))

    # ------------------------------------------------------------------------------------------------- process

    @property
    def is_idle(self) -> bool:
        """Whether it waits for something to do."""
        return self._idle

    def wake(self) -> bool:
        """Let an idle lane compose at this instant, after all arrivals of it; False if it isn't idle."""
        if not self._idle:
            return False
        self._idle = False
        self._boundary.schedule(0, self._priority, self._when_woken)
        return True

    def _woken(self, _: Event) -> None:
        now, replica = self.env.now, self.replica
        if (
            now >= replica.next_sample_ns
        ):  # what is done between steps may begin one, or take memory, without an arrival
            replica.sample_until(now)
        self._known_until_ns = now
        self._go_on(now)

    def _free(self, _: Event) -> None:
        """Go on when the first stage can take a batch."""
        self._go_on(self.env.now)

    def _passed(self, _: Event) -> None:
        """Apply the steps that ended at this boundary, and go on."""
        self._apply(self._end_ns)
        self._go_on(self._end_ns)

    def _go_on(self, now: int) -> None:
        """Start steps, each when the one before it ended, until something else is to happen first."""
        while self._start_next(now):
            end = self._end_ns
            if not (self.replica.fast_forward and self.env.skip_to(end)):
                self._boundary.schedule(end - now, self._priority, self._when_passed)
                return
            self._apply(end)
            now = end

    def _start_next(self, now: int) -> bool:
        """Compose the next step and start it, or a run; False without an end to wait for.

        The lane is idle then, waits for a stage, or for copies over links, whose ends let the step begin to compute.
        """
        plan, shape, replica, compose = self.plan, self.shape, self.replica, self._compose
        if self._pending:
            self._do_pending(now)
        if replica.first_stage_free_ns > now:
            self._boundary.schedule(replica.first_stage_free_ns - now, self._priority, self._when_free)
            return False
        if not (self.sequences or self.waiting or self.swapped or replica.arriving or self._ended):
            self._idle = True
            return False
        while True:
            if replica.arriving:
                replica.queue_arrived(self._known_until_ns)
            plan.reset()
            compose(self, plan)
            if shape.decodes or plan.chunks or plan.stalls_ns or plan.awaited:
                break
            if plan.num_preempted:
                continue  # blocks are free now that weren't when the policy looked for some: ask it again
            if not self._ended and not replica.arriving:
                self._idle = True
                return False
            self._release_ended()
            self._known_until_ns = now
            if self._pending:
                self._do_pending(now)  # a place was given back, and nobody may come to wake this lane for it
        repeatable = plan.repeatable and replica.fast_forward and not self._pending
        if self._ended:
            self._release_ended()
            if self.waiting or self.prefilling or self.swapped or replica.arriving:
                repeatable = False  # somebody looks at what was given back
        if repeatable and replica.arriving and replica.may_admit_arriving():
            repeatable = False
        if not shape.decodes and shape.decode_kv:
            shape.clear_decodes()
        steps = self._run_length() if repeatable else 1
        if steps == 1:
            end = now + plan.stalls_ns
            if replica.num_stages > 1:
                end = replica.pass_stages(end, shape)
            elif shape.decodes or shape.chunks:
                end += self._cost.step_ns(shape)
            self.durations, self.ends = [end - now], [end]
        elif steps <= _FEW_STEPS:
            self.durations = few = self._cost.few_ns(shape, steps)
            self.ends = ends = list(accumulate(few, initial=now))
            del ends[0]
            end = ends[-1]
        else:
            self.durations = many = self._cost.run_ns(shape, steps)
            self.ends = many.cumsum()
            self.ends += now
            end = int(self.ends[-1])
        if replica.stretch != 1.0 and replica.num_stages == 1:
            end = self._stretched(now)
        self.start_ns, self._end_ns, self.steps = now, end, steps
        if replica.num_stages > 1:
            replica.lane_started(now)
        if plan.awaited:
            self.ends = [UNKNOWN_NS]
            return False
        return True

    def _stretched(self, now: int) -> int:
        """Make the steps about to start longer by the replica's factor, each rounded; return when they end."""
        slow = np.rint(np.asarray(self.durations) * self.replica.stretch).astype(np.int64)
        ends = now + slow.cumsum()
        if isinstance(self.durations, list):
            self.durations, self.ends = slow.tolist(), ends.tolist()
        else:
            self.durations, self.ends = slow, ends
        return int(ends[-1])

    def _run_length(self) -> int:
        """Return for how many steps the plan stays what it is: the policy, milestones and free blocks agree."""
        plan, group, kv = self.plan, self.group, self.kv
        limit = self._run_limit
        for sequence, tokens, _ in plan.chunks:
            whole = (sequence.prefill_target - sequence.computed_tokens) // tokens
            if whole < limit:
                if whole <= 1:
                    return 1
                limit = whole
        if self.shape.decodes:
            until = group.milestones[0][0] - group.step
            if until < limit:
                limit = until
        if limit <= 1:
            return 1
        stable = self._policy.stable_steps(self, plan)
        if stable < limit:
            limit = stable
        if self._tenants is not None and self.waiting and self.replica.num_running < self.limits.max_num_seqs:
            limit = min(limit, self._tenants.stable_steps())
        if limit <= 1:
            return 1
        free = kv.quiet_blocks if kv.tells_evictions else kv.free_blocks
        if not plan.chunks:
            return 1 + group.steps_within(free, 1, limit - 1)
        return limit if self.blocks_after_first(limit) + plan.keep_free_blocks <= free else 1

    def blocks_after_first(self, steps: int) -> int:
        """Return the blocks that ``steps`` steps of this plan take beyond those taken when it was made."""
        plan, kv = self.plan, self.kv
        need = self.group.blocks_needed(1, steps - 1) if self.shape.decodes else 0
        for sequence, tokens, reserve in plan.chunks:
            end = max(sequence.computed_tokens + steps * tokens, reserve)
            need += max(0, kv.blocks_of(sequence, end) - kv.held_by(sequence))
        return need

    def _take_blocks_after_first(self, steps: int) -> None:
        """Take the blocks that the second to the last step of a run needed.

        With a prefix cache and chunks the steps are gone through one by one: each takes blocks, which may evict what an
        earlier one cached, and then caches its own.
        """
        plan, kv, group = self.plan, self.kv, self.group
        if not plan.chunks:
            kv.take(group.blocks_needed(1, steps - 1))
            return
        rounds = [(i, i + 1) for i in range(1, steps)] if kv.caches_prefixes else [(1, steps)]
        for first, after in rounds:
            if self.shape.decodes:
                kv.take(group.blocks_needed(first, after - first))
            for sequence, tokens, reserve in plan.chunks:
                computed = sequence.computed_tokens + after * tokens
                need = max(0, kv.blocks_of(sequence, max(computed, reserve)) - kv.held_by(sequence))
                kv.take(need)
                sequence.private_blocks += need
                kv.computed(sequence, computed)

    def cut(self, now: int, later: int = 0) -> None:
        """End the run in flight at its first step boundary from now on (one at this instant counts), or one later."""
        if self.steps <= 1:
            return
        steps = bisect_left(self.ends, now) + 1 + later
        if steps >= self.steps:
            return
        self._run_limit = max(_SHORTEST_RUN_LIMIT, 2 * steps)
        self.steps = steps
        self._end_ns = int(self.ends[steps - 1])
        self._boundary = self._boundary.sooner(self._end_ns - now, self._priority)

    def between_steps(self, act: Between, now: int) -> None:
        """Do something when no step is in flight: at the end of the one that is, or at this instant, after arrivals.

        ``act`` is given the time; if it returns False it is asked again before the next step.
        """
        self._pending.append(act)
        if not self.wake():
            self.cut(now)

    def _do_pending(self, now: int) -> None:
        left: list[Between] = []
        while self._pending:  # what is done may ask for more
            pending, self._pending = self._pending, []
            left += [act for act in pending if act(now) is False]
        self._pending = left

    def steps_done(self, now_ns: int) -> int:
        """Return how many steps of the run in flight ended before now."""
        return bisect_left(self.ends, now_ns) if self.steps else 0

    def step_end_ns(self, now_ns: int) -> int:
        """Return when the step in flight ends: when the engine looks at its input again. Now, if it is idle."""
        return int(self.ends[bisect_left(self.ends, now_ns)]) if self.steps else now_ns

    # -------------------------------------------------------------------------------------------------- energy

    def energy_line(self) -> tuple[int, int, int] | None:
        """Return what the run in flight draws, see `StepEnergy.run_line`; None if it waits for copies, too."""
        return None if self.plan.awaited else self.replica.energy.run_line(self.shape, self.durations)

    def drawn_pj(self, done: int, at_ns: int, line: tuple[int, int, int] | None) -> int:
        """Return what the run in flight has drawn until now, ``done`` of its steps being over; see `energy_line`."""
        if line is not None:
            begun_ns = int(self.ends[done - 1]) if done else self.start_ns
            first, more, steady_mw = line
            step = first + done * more
            whole = done * first + done * (done - 1) // 2 * more + steady_mw * (at_ns - self.start_ns)
            return whole + step * (at_ns - begun_ns) // int(self.durations[done])
        before = self._run_pj(self.shape, self.durations, done) if done else 0
        return before + self.begun_pj(done, at_ns)

    def begun_pj(self, done: int, at_ns: int) -> int:
        """Return what the step in flight drew until now, after ``done`` of its run, in proportion to its time.

        One that waits for copies over links has drawn nothing yet: how long it takes is not known.
        """
        if self.plan.awaited:
            return 0
        begun_ns = int(self.ends[done - 1]) if done else self.start_ns
        taken_ns = int(self.durations[done])
        return self.replica.energy.step_dynamic_pj(self.shape, done, taken_ns) * (at_ns - begun_ns) // taken_ns

    # ----------------------------------------------------------------------------------------------------- end

    def stop(self) -> None:
        """Apply the steps of the run in flight that ended before now; the step in flight is lost."""
        if self.plan.awaited:
            self._end_wait(self.env.now)
        self._release_ended()
        done = self.steps_done(self.env.now)
        if done:
            self.steps = done
            end_ns = int(self.ends[done - 1])
            self._apply(end_ns)
            self.start_ns, self.steps = end_ns, 1  # the step that is lost is in flight
            if self.replica.num_stages > 1:
                self.replica.lane_started(end_ns)

    def lose(self, now: int) -> None:
        """Stop dead: steps that ended before now are done, the one in flight is not.

        What was to be done between steps still is: who asked for it looks whether it still makes sense.
        """
        if self.plan.awaited:
            self._end_wait(now)
        start, in_flight = self.start_ns, self.steps
        self._release_ended()
        self.steps = self.steps_done(now)
        if self.steps:
            start = int(self.ends[self.steps - 1])
            self._apply(start)
        self.steps = 0
        if in_flight and self.replica.num_stages == 1:
            self._counters.busy_ns += now - start
        self._boundary.callbacks = []  # SimPy can't take it out of its schedule
        self._boundary = Boundary(self.env)
        self._idle = True
        for sequence in self.sequences:
            sequence.planned = False
        self.plan.changed = True
        self.plan.reset()
        self.shape.clear_decodes()
        if self._pending:
            self.wake()

    def _apply(self, end_ns: int) -> None:
        """Apply the steps done: tokens, KV, requests that end, prefills that complete."""
        plan, shape, replica, steps = self.plan, self.shape, self.replica, self.steps
        if end_ns >= replica.next_sample_ns:
            replica.sample_until(end_ns)
        self.steps = 0
        if self._async:
            self._known_until_ns = int(self.ends[steps - 2]) if steps > 1 else self.start_ns
        if steps > 1:
            self._take_blocks_after_first(steps)
            if steps == self._run_limit and steps < _LONGEST_RUN_LIMIT:
                self._run_limit *= 2
        counters = self._counters
        counters.steps += steps
        free = self.kv.free_blocks
        if free < counters.least_free_kv_blocks:
            counters.least_free_kv_blocks = free
        if replica.num_stages > 1:
            replica.lane_ended(end_ns)
        else:
            counters.busy_ns += end_ns - self.start_ns
        if plan.chunks or shape.decodes > self.looks_above:
            self._add_energy(shape, self.durations, steps)
        if self._batches is not None:
            batch = (replica.index, self.index, self.start_ns, end_ns, steps, shape.decodes, shape.prefill_tokens)
            self._batches.append(batch)
        if shape.decodes:
            counters.decode_tokens += steps * shape.decodes
            durations = self.durations
            if len(durations) > steps:
                durations = durations[:steps]
            for sequence in self.group.advance(self.start_ns, end_ns, durations):
                self._finish(sequence, end_ns)
        if plan.changed:
            for sequence in plan.parked:
                self._join_group(sequence)
            counters.padding_tokens += steps * shape.padding_tokens
        if plan.chunks:
            counters.prefill_tokens += steps * shape.prefill_tokens
            self._apply_chunks(end_ns, steps)

    def _apply_chunks(self, end_ns: int, steps: int) -> None:
        recorder = self.replica.recorder
        for sequence, tokens, _ in self.plan.chunks:
            sequence.planned = False
            sequence.computed_tokens = computed = sequence.computed_tokens + steps * tokens
            if computed < sequence.prefill_target:
                continue
            self.prefilling.remove(sequence)
            sequence.base_generated += 1
            if self._tenants is not None:
                self._tenants.generated(sequence.tenant, 1)
            if sequence.last_token_ns < 0:
                recorder.first_token[sequence.request_id] = end_ns
            else:
                gap = end_ns - sequence.last_token_ns  # since before it was preempted
                recorder.itl[sequence.class_code].add(gap, 1)
                sequence.itl_max_ns = max(sequence.itl_max_ns, gap)
            sequence.last_token_ns = end_ns
            if sequence.base_generated == sequence._output_tokens:
                self._finish(sequence, end_ns)
                continue
            if self.kv.drops_tokens:
                self.kv.prefilled(sequence)
            if self.replica.prefilled is None or not self.replica.prefilled(sequence, end_ns):
                self._join_group(sequence)

    # ----------------------------------------------------------------------------------- sequences in and out

    def admitted(self, sequence: Sequence, cached_tokens: int) -> None:
        """Move a waiting sequence, whose KV is allocated, to the running ones."""
        replica, recorder = self.replica, self.replica.recorder
        self.waiting.remove(sequence)
        sequence.state = PREFILLING
        sequence.computed_tokens = cached_tokens
        self.sequences[sequence] = None
        self.prefilling.append(sequence)
        replica.num_running += 1
        row = sequence.request_id
        if recorder.pauses is not None:
            recorder.pause(row, replica.index, self.env.now, "")
        if recorder.scheduled[row] < 0:
            recorder.scheduled[row] = self.env.now
            recorder.cached_tokens[row] = cached_tokens
            if self._tenants is not None:
                self._tenants.admitted(sequence)
        if replica.admitted is not None:
            replica.admitted(sequence)

    def _join_group(self, sequence: Sequence) -> None:
        remaining = sequence._output_tokens - sequence.base_generated
        self.group.join(sequence, sequence.computed_tokens, remaining, self.kv.held_by(sequence))

    def leave_group(self, sequence: Sequence) -> None:
        """Take a sequence out of the decode group, its progress and blocks written back to it."""
        held = self.kv.held_by(sequence)
        if self._tenants is not None:
            self._tenants.generated(sequence.tenant, self.group.step - sequence.join_step)
        sequence.private_blocks += self.group.leave(sequence, held) - held

    def _finish(self, sequence: Sequence, end_ns: int) -> None:
        if sequence.group is not None:
            self.leave_group(sequence)
        if self.kv.caches_prefixes:
            self.kv.computed(sequence, sequence.computed_tokens)
        if self._async:
            del self.sequences[sequence]
            self._ended.append(sequence)
        else:
            self.remove(sequence)
        self.replica.end(sequence, end_ns, FINISHED)

    def _release_ended(self) -> None:
        """Give back the place and the KV of requests whose end is known now."""
        for sequence in self._ended:
            self.kv.release(sequence)
            self.replica.num_running -= 1
        self._ended.clear()

    def remove(self, sequence: Sequence) -> None:
        """Take a running sequence, out of its group, off this lane and free its KV."""
        self.kv.release(sequence)
        del self.sequences[sequence]
        self.replica.num_running -= 1

    def _pause(self, sequence: Sequence, why: str) -> None:
        self.replica.recorder.pause(sequence.request_id, self.replica.index, self.env.now, why)

    def take_over(self, sequence: Sequence) -> None:
        """Let a request run on whose KV is here, computed or copied, in its own blocks."""
        self._pause(sequence, "")
        self.sequences[sequence] = None
        self.replica.num_running += 1
        if self.kv.drops_tokens:
            self.kv.prefilled(sequence)
        self._join_group(sequence)
        if self.kv.caches_prefixes:
            self.kv.computed(sequence, sequence.computed_tokens)

    def detach(self, sequence: Sequence) -> None:
        """Take a running request off this lane between two steps; it keeps its KV."""
        self._pause(sequence, "transfer")
        if sequence.group is not None:
            self.leave_group(sequence)
        elif sequence in self.prefilling:
            self.prefilling.remove(sequence)
        if self.kv.caches_prefixes:
            self.kv.computed(sequence, sequence.computed_tokens)
        del self.sequences[sequence]
        self.replica.num_running -= 1
        sequence.state = MOVING

    def preempt(self, sequence: Sequence, swap: bool, wait: bool) -> int:
        """Take a running sequence out; return the ns that the step waits for its swap."""
        replica, now = self.replica, self.env.now + self.plan.stalls_ns
        if sequence.group is not None:
            self.leave_group(sequence)
        else:
            self.prefilling.remove(sequence)
        sequence.preemptions += 1
        replica.counters.preemptions += 1
        self._pause(sequence, "preempted")
        context = sequence.computed_tokens
        if swap and context:
            blocks = self.kv.blocks_of(sequence, context)
            done_ns = replica.swap_space.put(sequence, blocks, now, waited_for=wait)
            if done_ns is not None:
                sequence.state = SWAPPED
                self.swapped.append(sequence)
                if wait:
                    self.remove(sequence)
                    return self._wait_until(done_ns, now)
                del self.sequences[sequence]  # its blocks are free when the copy is done
                replica.num_running -= 1
                self._copy_until(done_ns, sequence, comes_in=False)
                return 0
        self.kv.computed(sequence, context)
        self.remove(sequence)
        sequence.recompute()
        reason = self._policy.refuses(sequence, self)
        if reason:
            replica.end(sequence, self.env.now, Outcome.FAILED, reason)
        else:
            self.waiting.push_front(sequence)
        return 0

    def swap_in(self, sequence: Sequence, keep_free_blocks: int, wait: bool) -> int | None:
        """Bring a swapped-out sequence back; return the ns that the step waits for it, None if blocks lack.

        None, too, for one whose copy out isn't done.
        """
        replica, kv, now = self.replica, self.kv, self.env.now + self.plan.stalls_ns
        if replica.num_running >= self.limits.max_num_seqs:
            raise PolicyError(f"{self.policy_name}: swaps in beyond max_num_seqs = {self.limits.max_num_seqs}")
        need = kv.blocks_of(sequence, sequence.computed_tokens)
        if need + keep_free_blocks > kv.free_blocks or self._is_copied(sequence):
            return None
        kv.take(need)
        sequence.private_blocks = need
        self.swapped.remove(sequence)
        replica.num_running += 1
        full_blocks = sequence.computed_tokens // kv.block_size
        done_ns = replica.swap_space.take(sequence, full_blocks, now, waited_for=wait)
        if not wait:
            self._copy_until(done_ns, sequence, comes_in=True)
            return 0
        self._is_back(sequence)
        return self._wait_until(done_ns, now)

    def _wait_until(self, done_ns: int, now: int) -> int:
        """Let the step wait for a copy; return the ns that it waits, where they are known."""
        if done_ns == UNKNOWN_NS:
            self.plan.awaited += 1
            return 0
        self._counters.swap_stall_ns += done_ns - now
        return done_ns - now

    def _is_copied(self, sequence: Sequence) -> bool:
        return any(entry[3] is sequence for entry in self.replica.copies)

    def _is_back(self, sequence: Sequence) -> None:
        self._pause(sequence, "")
        self.sequences[sequence] = None
        if sequence.computed_tokens < sequence.prefill_target:
            sequence.state = PREFILLING
            self.prefilling.append(sequence)
        else:
            self._join_group(sequence)

    def _copy_until(self, done_ns: int, sequence: Sequence, *, comes_in: bool) -> None:
        """Let a copy go on while others compute: at its end the lane looks again."""
        if self.replica.num_stages > 1:
            raise PolicyError(f"{self.policy_name}: swaps that go on while others compute aren't modelled with stages")
        self._num_copies += 1
        heappush(self.replica.copies, (done_ns, self._num_copies, comes_in, sequence))
        if done_ns != UNKNOWN_NS:
            Boundary(self.env).schedule(done_ns - self.env.now, ARRIVALS, self._when_copied)

    def _copied(self, _: Event) -> None:
        self.between_steps(self._finish_copies, self.env.now)

    def _finish_copies(self, now: int) -> None:
        """Free what was copied out until now, and let those join that were copied in."""
        copies = self.replica.copies
        while copies and copies[0][0] <= now:
            _, _, comes_in, sequence = heappop(copies)
            if comes_in:
                self._is_back(sequence)
            else:
                self.kv.release(sequence)

    def copied(self, sequence: Sequence, waited_for: bool) -> None:
        """Hear that a copy over links that others use too is done: before all steps of this instant."""
        now, replica = self.env.now, self.replica
        if waited_for:
            if now >= replica.next_sample_ns:
                replica.sample_until(now)
            self.plan.awaited -= 1
            if not self.plan.awaited:
                self._end_wait(now)
                self._boundary.schedule(self._end_ns - now, self._priority, self._when_passed)
            return
        copies = replica.copies
        at = next(i for i, entry in enumerate(copies) if entry[3] is sequence)
        copies[at] = (now, *copies[at][1:])
        heapify(copies)
        self.between_steps(self._finish_copies, now)

    def _end_wait(self, now: int) -> None:
        """Let the step in flight compute from now on: its copies are done, or nobody waits for them any more."""
        self.plan.awaited = 0
        self._counters.swap_stall_ns += now - self.start_ns
        self._end_ns = end = now + int(self.durations[0])
        self.durations, self.ends = [end - self.start_ns], [end]
        replica = self.replica
        queued = replica.recorder.queued
        for sequence in (*replica.waiting, *(each for _, each in replica.arriving)):
            if queued[sequence.request_id] == UNKNOWN_NS:  # it arrived while the step waited
                queued[sequence.request_id] = end

    def drop_copy(self, sequence: Sequence) -> bool:
        """Give up the copy of a swapped-out request that is on its way, and its blocks; True if it came in."""
        copies = self.replica.copies
        for entry in copies:
            if entry[3] is sequence:
                copies.remove(entry)
                heapify(copies)
                self.kv.release(sequence)
                self.replica.num_running -= entry[2]
                return entry[2]
        return False
