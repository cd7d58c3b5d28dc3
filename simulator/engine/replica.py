"""One replica: an engine with its KV memory, its waiting queue and a batch in flight for each pipeline stage."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from policies.protocols import BalancingPolicy, BatchingPolicy, KVEvictionPolicy, PolicyError, QueueingPolicy
from simulator.cost.shape import BatchShape, CostModel
from simulator.engine.clock import Environment
from simulator.engine.decode_group import DecodeGroup
from simulator.engine.gap_log import GapLog
from simulator.engine.kv import KVManager, PrefixKVManager
from simulator.engine.lane import Between, Lane
from simulator.engine.links import Link
from simulator.engine.queue import FCFSQueue, KeyedQueue, WaitingQueue
from simulator.engine.recorder import Outcome, Recorder, ReplicaCounters, Timeline
from simulator.engine.sequence import ENDED, MOVING, SWAPPED, WAITING, Sequence
from simulator.engine.swap import NO_CALLS, SwapConfig, SwapSpace
from simulator.power.step_energy import NO_ENERGY, EnergyCounters, StepEnergy

if TYPE_CHECKING:
    from policies.budget import KVBudget
    from simulator.engine.tenants import TenantQueue

_FEW_SAMPLES = 16  # more than these are taken with arrays


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """Limits of one replica's engine, as policies see them."""

    max_num_seqs: int
    max_num_batched_tokens: int
    max_model_len: int


@dataclass(frozen=True)
class ReplicaConfig:
    """What a replica is made of.

    Attributes
    ----------
    batching, queueing, kv_eviction
        Makers of the policies: each replica has its own instances, since policies may keep state.
    num_kv_blocks, block_size
        KV memory: blocks, and tokens a block.
    prefix_unit_blocks
        Engine blocks in one block of the trace's prefix identities; 0 switches prefix caching off.
    kv_tiers
        Prefixes may be loaded from tiers behind the prefix cache, see `simulator.engine.tiered_kv`; ``"evictions"``:
        these are told of evictions too.
    num_stages
        Pipeline stages.
    async_scheduling
        Each step is composed while the one before it runs, see `simulator.engine.lane`; one stage only.
    window
        Sliding window of the model, tokens; None without one.
    kv_budget
        What is kept and read of each sequence; None: everything.
    ranks
        Attention data parallel ranks that step together: so many configurations in a row are those of one such group,
        and their ``cost`` is a `simulator.cost.lockstep.LockstepCost`; 1: steps alone.
    prefill_balance
        Timeout and batching wait, steps, of `simulator.engine.prefill_balance`; None: prompts begin as they come.
    balancing
        Maker of the policy that chooses one of them for a request; needed where they are several.
    swap_blocks, kv_block_bytes, host_link
        Host memory for swapping in KV blocks, bytes of one block on one rank, and the link there.
    swap
        How blocks are copied there and back.
    shared_prefix_attention
        Decodes attend to cached prefixes that they share together, see `simulator.engine.shared_prefix`.
    energy
        Energy of its steps; by default none is counted.
    """

    limits: EngineLimits
    batching: Callable[[], BatchingPolicy]
    queueing: Callable[[], QueueingPolicy]
    kv_eviction: Callable[[], KVEvictionPolicy]
    cost: CostModel
    num_kv_blocks: int
    block_size: int = 16
    prefix_unit_blocks: int = 0
    kv_tiers: Literal["evictions"] | bool = False
    num_stages: int = 1
    async_scheduling: bool = False
    window: int | None = None
    kv_budget: KVBudget | None = None
    ranks: int = 1
    balancing: Callable[[], BalancingPolicy] | None = None
    prefill_balance: tuple[int, int] | None = None
    swap_blocks: int = 0
    kv_block_bytes: int = 0
    host_link: Link | None = None
    swap: SwapConfig = NO_CALLS
    shared_prefix_attention: bool = False
    energy: StepEnergy = NO_ENERGY


def _kv_manager(config: ReplicaConfig) -> KVManager:
    """Return the KV memory of a replica."""
    blocks, size, unit, budget = config.num_kv_blocks, config.block_size, config.prefix_unit_blocks, config.kv_budget
    if budget is not None and budget.capped:
        from simulator.engine.budget import BudgetKVManager

        return BudgetKVManager(blocks, size, budget)
    if not unit:
        return KVManager(blocks, size)
    if config.kv_tiers:
        from simulator.engine.tiered_kv import TieredKVManager

        tells = config.kv_tiers == "evictions"
        return TieredKVManager(blocks, size, unit, config.kv_eviction(), tells_evictions=tells)
    return PrefixKVManager(blocks, size, unit, config.kv_eviction())


class Replica:
    """See the module. The cluster hands it requests and hears of each one's end through ``on_end``.

    Parameters
    ----------
    on_end
        Called with the sequence, the time in ns and the outcome when a request ends here.
    fast_forward
        False makes every step an event of its own; results are the same.

    Attributes
    ----------
    stretch
        By how much its steps take longer than the cost model says; changed between steps only.
    prefilled
        Asked at the end of a prefill, with the sequence and the time in ns; True: it took the sequence off the lane.
    admitted
        Told of each sequence that is about to be prefilled, before its step is complete.
    enqueued
        Told of each sequence that is about to queue here.
    losses
        How often everything here was lost: who holds blocks here from before has none any more.
    """

    def __init__(
        self,
        env: Environment,
        index: int,
        config: ReplicaConfig,
        recorder: Recorder,
        on_end: Callable[[Sequence, int, Outcome], None],
        *,
        fast_forward: bool = True,
    ) -> None:
        self.env = env
        self.index = index
        self.recorder = recorder
        self.limits = config.limits
        self.policy = config.batching()
        self.cost = config.cost
        self.window = config.window
        self.num_stages = config.num_stages
        self.fast_forward = fast_forward and config.num_stages == 1
        self.async_scheduling = config.async_scheduling
        self.shared_prefix_attention = config.shared_prefix_attention
        self.kv = _kv_manager(config)
        self._kv_budget = config.kv_budget
        queueing = config.queueing()
        self.tenants: TenantQueue | None = None
        self.waiting: WaitingQueue
        if queueing.by_tenant:
            from simulator.engine.tenants import TenantQueue

            self.waiting = self.tenants = TenantQueue(queueing)
        else:
            self.waiting = FCFSQueue() if queueing.in_arrival_order else KeyedQueue(queueing)
        self.waiting.wanted.block_size = config.block_size
        self.arriving: deque[tuple[int, Sequence]] = deque()
        self.swapped: deque[Sequence] = deque()
        self.swap_space = SwapSpace(config.swap_blocks, config.kv_block_bytes, config.host_link, config.swap)
        self._keeps_copies = config.swap.keep_copies
        # Swaps that go on while others compute: when each is done, its number, whether it comes in, and of whom.
        self.copies: list[tuple[int, int, bool, Sequence]] = []
        self.num_running = 0
        self.counters = ReplicaCounters(least_free_kv_blocks=config.num_kv_blocks)
        self.energy = config.energy
        self.energy_counters = EnergyCounters()
        self.first_stage_free_ns = 0
        self.stretch = 1.0  # by how much its steps are longer than the cost model's: a straggler, a capped clock
        self.prefilled: Callable[[Sequence, int], bool] | None = None
        self.admitted: Callable[[Sequence], None] | None = None
        self.enqueued: Callable[[Sequence], None] | None = None
        self.losses = 0
        self._stage_free_ns = [0] * config.num_stages
        self._on_end = on_end
        self._active_lanes = 0
        self._busy_since_ns = 0
        self._admits_in_order = self.policy.admits_in_order
        self._waits_for_places = self.policy.admits_in_order and not self.policy.preempts_for_waiting
        self._first_come_first_served = self.policy.admits_in_order and queueing.in_arrival_order
        self._longest_prompt = min(self.limits.max_model_len - 1, config.num_kv_blocks * config.block_size)
        self.next_sample_ns = recorder.sample_interval_ns
        if type(self.policy).profile is not BatchingPolicy.profile:
            if config.kv_budget is not None:
                raise PolicyError(
                    f"batching policy {self.policy.name!r} profiles its engine, which isn't modelled with a kv_budget; "
                    "leave one of them out"
                )
            from simulator.cost.timing import step_timer

            kv_tokens = config.num_kv_blocks * config.block_size
            self.policy.profile(step_timer(config.cost), config.limits, kv_tokens)
        self.lanes = [Lane(self, i) for i in range(config.num_stages)]
        if self.tenants is not None:
            self.tenants.lanes = self.lanes

    def new_decode_group(self) -> DecodeGroup:
        """Return what a lane keeps its decodes in."""
        size, gaps, budget = self.kv.block_size, GapLog(self.recorder.itl), self._kv_budget
        group: DecodeGroup
        if budget is not None:
            from simulator.engine.budget import DecodeReads
            from simulator.engine.budget_group import BudgetDecodeGroup

            group = BudgetDecodeGroup(size, self.window, gaps, DecodeReads(budget) if budget.tracked else None)
        elif self.shared_prefix_attention:
            from simulator.engine.shared_prefix import SharingDecodeGroup

            group = SharingDecodeGroup(size, self.window, gaps)
        else:
            group = DecodeGroup(size, self.window, gaps)
        group.first_tokens = self.recorder.first_token
        return group

    # ------------------------------------------------------------------------------------------------ arrivals

    def enqueue(self, sequence: Sequence, now: int) -> None:
        """Take in a request that the router sent here, or refuse it as the server would."""
        if now >= self.next_sample_ns:
            self.sample_until(now)
        lane = self.lanes[0]
        reason = self.policy.refuses(sequence, lane)
        if reason or sequence.prompt_tokens > self._longest_prompt:
            self.end(sequence, now, Outcome.REJECTED, self._too_long(sequence) or reason)
            return
        if self.enqueued is not None:
            self.enqueued(sequence)
        one_stage = self.num_stages == 1
        self.recorder.queued[sequence.request_id] = lane.step_end_ns(now) if one_stage else now
        if self.async_scheduling and not lane.is_idle:
            self.arriving.append((now, sequence))
            if self.fast_forward and self.may_admit_arriving():
                lane.cut(now, later=1)
            return
        first_now = self.waiting.push(sequence)
        if lane.wake() or (not one_stage and any(other.wake() for other in self.lanes)):
            return
        if not self.fast_forward:
            return
        if (self._admits_in_order and not first_now) or (
            self._waits_for_places and self.num_running >= self.limits.max_num_seqs
        ):
            return  # it can't start before somebody ends, so the run in flight stays what it is
        lane.cut(now)

    # ------------------------------------------------------------------------ what happens between two steps

    def between_steps(self, act: Between) -> None:
        """Do something when no step is in flight: now, after all arrivals of this instant, or at the next boundary.

        With pipeline stages it is a boundary of the first lane. ``act`` is given the time; where it returns False it
        is asked again before the next step. Everything that changes the replica's requests or KV from outside must
        come this way, so that a fast-forwarded run and a stepwise one see it at the same instant.
        """
        self.lanes[0].between_steps(act, self.env.now)

    def withdraw(self, sequence: Sequence) -> None:
        """Take a request that has not ended out of this replica, wherever it stands, and free its KV; between steps.

        Its progress is written back to it. With pipeline stages the batch that it is in must not be in flight.
        """
        self.swap_space.forget(sequence)
        state = sequence.state
        if state is WAITING:
            for entry in self.arriving:
                if entry[1] is sequence:
                    self.arriving.remove(entry)
                    return
            self.waiting.remove(sequence)
            self.kv.forget(sequence)
            return
        if state is SWAPPED:
            if not self.lanes[0].drop_copy(sequence):
                self.swapped.remove(sequence)
        else:
            self.detach(sequence)
            self.kv.release(sequence)

    def detach(self, sequence: Sequence) -> None:
        """Take a running request off its lane between two steps; it keeps its KV (`Sequence.state` is MOVING)."""
        self.swap_space.forget(sequence)
        if sequence.state is not MOVING:
            self.lane_of(sequence).detach(sequence)

    def lane_of(self, sequence: Sequence) -> Lane:
        """Return the lane that a running request is on."""
        return next(lane for lane in self.lanes if sequence in lane.sequences)

    def has_place(self) -> bool:
        """Tell whether one more request may run."""
        return self.num_running < self.limits.max_num_seqs

    def take_over(self, sequence: Sequence) -> None:
        """Let a request run on whose KV is here, in its own blocks; between steps, where `has_place`.

        With pipeline stages it joins the lane with the fewest requests.
        """
        min(self.lanes, key=lambda lane: len(lane.sequences)).take_over(sequence)

    def note_blocks(self) -> None:
        """Note the fewest free blocks of the steps that ended before now, while what they held is still held."""
        for lane in self.lanes:
            done = lane.steps_done(self.env.now) if lane.steps else 0
            if done:
                free = self.kv.free_blocks - lane.blocks_after_first(done)
                self.counters.least_free_kv_blocks = min(self.counters.least_free_kv_blocks, free)

    def lose_everything(self) -> list[Sequence]:
        """Stop dead at this instant; return the requests that were here, in the order of their arrival.

        Steps that ended before now are done, those in flight are lost, and so is all KV, cached or not.
        """
        now = self.env.now
        if now >= self.next_sample_ns:
            self.sample_until(now)
        for lane in self.lanes:
            if lane.steps:
                self.energy_counters.own_pj += lane.begun_pj(lane.steps_done(now), now)
            lane.lose(now)
        if self._active_lanes:
            self.counters.busy_ns += now - self._busy_since_ns
            self._active_lanes = 0
        self.first_stage_free_ns = 0
        self._stage_free_ns = [0] * self.num_stages
        lost = [*self.waiting, *self.swapped, *self._coming_in(), *(sequence for _, sequence in self.arriving)]
        for lane in self.lanes:
            lost += lane.sequences
        for sequence in lost:
            self.withdraw(sequence)
        self.kv.clear()
        self.losses += 1
        return sorted(lost, key=lambda sequence: sequence.arrival_order)

    def used_blocks_at(self, now_ns: int) -> int:
        """Return the KV blocks in use, those of the step in flight included."""
        return self.kv.used_blocks + sum(
            lane.blocks_after_first(lane.steps_done(now_ns) + 1) for lane in self.lanes if lane.steps
        )

    def context_at(self, sequence: Sequence, now_ns: int) -> int:
        """Return the tokens of a request of this replica that are in KV, of the steps that ended before now."""
        context = sequence.context_tokens
        if sequence.group is not None:
            lane = next(lane for lane in self.lanes if lane.group is sequence.group)
            return context + lane.steps_done(now_ns) if lane.shape.decodes else context
        if sequence.planned:
            for lane in self.lanes:
                for planned, tokens, _ in lane.plan.chunks:
                    if planned is sequence:
                        return context + tokens * lane.steps_done(now_ns)
        return context

    def may_admit_arriving(self) -> bool:
        """Tell whether a request that is not in the queue yet may start before a running one ends."""
        if not self.arriving:
            return False
        if self.tenants is not None:
            return True  # what an arrival changes depends on when it is queued
        if self._waits_for_places and self.num_running >= self.limits.max_num_seqs:
            return False
        return not (self._first_come_first_served and self.waiting)

    def queue_arrived(self, until_ns: int) -> None:
        """Put the requests that arrived until an instant into the waiting queue."""
        arriving = self.arriving
        while arriving and arriving[0][0] <= until_ns:
            self.waiting.push(arriving.popleft()[1])

    def _too_long(self, sequence: Sequence) -> str:
        """Return why a prompt never fits this engine; empty if it does."""
        longest = self.limits.max_model_len
        if sequence.prompt_tokens >= longest:
            return (
                f"prompt of {sequence.prompt_tokens} tokens leaves no room for an answer within "
                f"max_model_len = {longest} tokens"
            )
        capacity = self.kv.total_blocks * self.kv.block_size
        if sequence.prompt_tokens > capacity:
            return f"prompt of {sequence.prompt_tokens} tokens exceeds the replica's KV memory of {capacity} tokens"
        return ""

    def end(self, sequence: Sequence, end_ns: int, outcome: Outcome, reason: str = "") -> None:
        """Write down how a request ended, and tell the cluster."""
        sequence.state = ENDED
        self.recorder.end(sequence, end_ns, outcome, reason)
        if self._keeps_copies:
            self.swap_space.forget(sequence)
        self._on_end(sequence, end_ns, outcome)

    # ---------------------------------------------------------------------------------------- steps and stages

    def pass_stages(self, start_ns: int, shape: BatchShape) -> int:
        """Send a batch through the pipeline; return when it leaves the last stage.

        A stage takes one batch at a time, in order: each begins when both the batch and the stage are ready.
        """
        end_ns = start_ns
        free = self._stage_free_ns
        for stage, duration_ns in enumerate(self.cost.stage_ns(shape)):
            if self.stretch != 1.0:
                duration_ns = round(duration_ns * self.stretch)
            end_ns = max(end_ns, free[stage]) + duration_ns
            free[stage] = end_ns
        self.first_stage_free_ns = free[0]
        return end_ns

    def lane_started(self, now_ns: int) -> None:
        """Note that one of several lanes has a batch in flight."""
        if not self._active_lanes:
            self._busy_since_ns = now_ns
        self._active_lanes += 1
        self._wake_idle()

    def lane_ended(self, now_ns: int) -> None:
        """Note that one of several lanes has none in flight any more."""
        self._active_lanes -= 1
        if not self._active_lanes:
            self.counters.busy_ns += now_ns - self._busy_since_ns
        self._wake_idle()

    def _wake_idle(self) -> None:
        """Let the idle lanes that have something to do look again: a batch that left or returned changed memory."""
        for lane in self.lanes:
            if lane.sequences or self.waiting:
                lane.wake()

    def _busy_ns(self, at_ns: int) -> int:
        """Return how long there has been a batch in flight until now."""
        if self.num_stages == 1:
            lane = self.lanes[0]
            return self.counters.busy_ns + (at_ns - lane.start_ns if lane.steps else 0)
        return self.counters.busy_ns + (at_ns - self._busy_since_ns if self._active_lanes else 0)

    def _computed_pj(self) -> int:
        """Return what computing drew in the steps that are done, above idle and what a batch in flight draws anyway."""
        counters = self.counters
        return self.energy.total_pj(
            counters.steps,
            counters.decode_tokens,
            counters.padding_tokens,
            sum([lane.group.attended() for lane in self.lanes]),
            sum([lane.group.window_attended() for lane in self.lanes]) if self.window is not None else 0,
            self.energy_counters.own_pj,
        )

    def energy_nj(self, at_ns: int) -> int:
        """Return what the accelerators have drawn above idle until now, nanojoules.

        A step in flight counts in proportion to its time.
        """
        drawn = self._computed_pj() + self.energy.busy_mw * self._busy_ns(at_ns)
        for lane in self.lanes:
            if lane.steps:
                drawn += lane.drawn_pj(lane.steps_done(at_ns), at_ns, lane.energy_line())
        return drawn // 1000

    def stop(self, now_ns: int) -> None:
        """Bring everything up to now: the run is over, and what is left stays unfinished."""
        self.sample_until(now_ns)
        self.energy_counters.total_nj = self.energy_nj(now_ns)
        for lane in self.lanes:
            lane.stop()
        self.counters.busy_ns = self._busy_ns(now_ns)
        for lane in self.lanes:
            for sequence in list(lane.sequences):
                if sequence.group is not None:
                    lane.leave_group(sequence)
                self.recorder.write_progress(sequence)
        for sequence in [
            *self.waiting,
            *self.swapped,
            *self._coming_in(),
            *(sequence for _, sequence in self.arriving),
        ]:
            self.recorder.write_progress(sequence)
        for lane in self.lanes:
            lane.group.gaps.close(self.recorder.itl_max)
        swap, counters = self.swap_space, self.counters
        counters.peak_kv_blocks = self.kv.total_blocks - counters.least_free_kv_blocks
        counters.swaps_out, counters.swaps_in = swap.swaps_out, swap.swaps_in
        counters.swaps_refused, counters.swapped_bytes = swap.refused, swap.bytes_moved
        counters.swap_blocks_kept = swap.blocks_kept

    def _coming_in(self) -> list[Sequence]:
        """Return the swapped-out requests whose copy is on its way back."""
        return [sequence for _, _, comes_in, sequence in self.copies if comes_in]

    # ------------------------------------------------------------------------------------------------- samples

    def sample_until(self, now_ns: int) -> None:
        """Take the samples that are due, as the replica stood just before each one's instant."""
        interval, first = self.recorder.sample_interval_ns, self.next_sample_ns
        count = (now_ns - first) // interval + 1
        self.recorder.timeline.expect(count, now_ns, interval)
        self.next_sample_ns = end = first + count * interval
        plan = self.lanes[0].plan
        few = end - first <= _FEW_SAMPLES * interval
        if not few and self.num_stages == 1 and not plan.chunks and not plan.awaited:
            self._sample_decodes(np.arange(first, end, interval))
            return
        counters, append = self.counters, self.recorder.timeline.append
        running, waiting = self.num_running, len(self.waiting) + len(self.arriving)
        kv_now, busy_mw, before_pj = self.kv.used_blocks, self.energy.busy_mw, self._computed_pj()
        in_flight = [(lane, lane.energy_line()) for lane in self.lanes if lane.steps]
        busy_ns = self._busy_ns(first)
        for at in range(first, end, interval):
            kv, prefill, decode, steps = kv_now, counters.prefill_tokens, counters.decode_tokens, counters.steps
            drawn_pj = before_pj
            if in_flight:
                busy_ns = self._busy_ns(at)
            for lane, line in in_flight:
                done = lane.steps_done(at)
                if done:
                    prefill += done * lane.shape.prefill_tokens
                    decode += done * lane.shape.decodes
                    steps += done
                    kv += lane.blocks_after_first(done + 1)  # and those of the step in flight
                drawn_pj += lane.drawn_pj(done, at, line)
            energy_nj = (drawn_pj + busy_mw * busy_ns) // 1000
            append((at, self.index, running, waiting, kv, prefill, decode, busy_ns, steps, energy_nj))

    def _sample_decodes(self, at_ns: npt.NDArray[np.int64]) -> None:
        """Take many samples at once, shape (n,), of one lane that is idle or in a run of decodes."""
        lane, counters = self.lanes[0], self.counters
        done = np.searchsorted(lane.ends, at_ns) if lane.steps else np.zeros_like(at_ns)
        samples = np.empty((len(at_ns), len(Timeline.FIELDS)), dtype=np.int64)
        samples[:, 0] = at_ns
        samples[:, 1:4] = self.index, self.num_running, len(self.waiting) + len(self.arriving)
        samples[:, 4] = self.kv.used_blocks + lane.group.blocks_needed_each(done)
        samples[:, 5] = counters.prefill_tokens
        samples[:, 6] = counters.decode_tokens + done * lane.shape.decodes
        samples[:, 7] = counters.busy_ns + (at_ns - lane.start_ns if lane.steps else 0)
        samples[:, 8] = counters.steps + done
        samples[:, 9] = self._energy_each_nj(at_ns, done)
        self.recorder.timeline.append_many(samples)

    def _energy_each_nj(self, at_ns: npt.NDArray[np.int64], done: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return `energy_nj` at many instants of one lane that is idle or in a run of decodes, shape (n,)."""
        energy, lane = self.energy, self.lanes[0]
        before_pj = self._computed_pj() + energy.busy_mw * self.counters.busy_ns
        if not lane.steps:
            return np.full_like(at_ns, before_pj // 1000)
        starts = np.concatenate(([lane.start_ns], lane.ends))[done]
        return energy.decode_run_nj(lane.shape, lane.durations, done, at_ns - starts, at_ns - lane.start_ns, before_pj)
