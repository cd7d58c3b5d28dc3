"""Energy of steps in whole picojoules: exact sums, the same however steps are put together to runs.

What a step draws above idle is linear in what it computes (see `simulator.power.constants`), so most of it follows from
totals that the engine keeps anyway: tokens, steps, time with a batch in flight, and the tokens that decodes attended to
(`DecodeGroup.attended`, closed forms). Added to them, in steps with prompt chunks, are the chunks; subtracted, step by
step, is what would lie above the board's limit. The latter is looked at in steps with chunks and in those of more than
``watch_above`` decodes: fewer can't reach the limit (see `simulator.power.model`). All of it is integer arithmetic.

1 mW x 1 ns = 1 pJ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from simulator.cost.attention import window_pairs

if TYPE_CHECKING:
    from simulator.cost.shape import BatchShape
    from simulator.engine.histogram import Durations

Ints = npt.NDArray[np.int64]

_NO_LIMIT_MW = 1 << 62


@dataclass(slots=True)
class EnergyCounters:
    """What one replica's energy has beyond the totals that the engine keeps; picojoules and ns.

    Attributes
    ----------
    own_pj
        Of chunks and of experts' weights, less what would have lain above the limit.
    prompt_steps_pj
        Energy above idle of the steps that had prompt chunks, their decodes included.
    limited_ns
        Duration of the steps that were looked at and would have drawn more than the limit.
    total_nj
        All above idle, nanojoules, a step that was cut short in proportion; 0 before the run has ended.
    """

    own_pj: int = 0
    prompt_steps_pj: int = 0
    limited_ns: int = 0
    total_nj: int = 0


@dataclass(frozen=True)
class StepEnergy:
    """Picojoules of what a step of one replica computes, and the limits of its power; see the module.

    Attributes
    ----------
    busy_mw
        Drawn by all of the replica's accelerators while a batch is in flight, above idle, mW.
    limit_mw
        What computing may add at most, mW: the limit less idle and ``busy_mw``, of the accelerators that one batch has
        at a time (those of one pipeline stage); None: nothing is limited.
    step_pj
        A step's read of the weights, routed experts left out.
    token_pj, row_pj
        A token through the layers; a row of logits.
    attended_pj, window_pj
        A token that a decode attends to, over all full and all sliding layers.
    pair_pj, window_pair_pj
        A pair of tokens in the attention of a chunk.
    context_pj, window_context_pj
        A token whose KV a chunk reads.
    experts_pj
        Read of routed experts' weights, by tokens of the step (beyond its end: the last). Empty without experts.
    watch_above
        Steps of decodes alone are looked at only if they have more than so many.
    window
        Sliding window, tokens; None without one.
    stages
        Pipeline stages.
    """

    busy_mw: int
    limit_mw: int | None = None
    step_pj: int = 0
    token_pj: int = 0
    row_pj: int = 0
    attended_pj: int = 0
    window_pj: int = 0
    pair_pj: int = 0
    window_pair_pj: int = 0
    context_pj: int = 0
    window_context_pj: int = 0
    experts_pj: Sequence[int] = ()
    watch_above: int = 0
    window: int | None = None
    stages: int = 1

    @property
    def looks_above(self) -> int:
        """Steps of decodes alone go to `add` if they have more than so many: all of them where there are experts."""
        return -1 if self.experts_pj else self.watch_above

    def total_pj(
        self, steps: int, decode_tokens: int, padding_tokens: int, attended: int, in_window: int, own_pj: int
    ) -> int:
        """Return what computing drew above idle and ``busy_mw``, from a replica's totals."""
        return (
            steps * self.step_pj
            + decode_tokens * (self.token_pj + self.row_pj)
            + padding_tokens * self.token_pj
            + attended * self.attended_pj
            + in_window * self.window_pj
            + own_pj
        )

    def chunks_pj(self, shape: BatchShape, step: int) -> int:
        """Return the part of the prompt chunks in the ``step``-th step of a run, from 0."""
        energy = shape.prefill_tokens * self.token_pj + len(shape.chunks) * self.row_pj
        for new, cached in shape.chunks:
            cached += step * new
            energy += (new * cached + new * (new + 1) // 2) * self.pair_pj + (cached + new) * self.context_pj
            if self.window is not None:
                pairs, context = window_pairs(new, cached, self.window)
                energy += pairs * self.window_pair_pj + context * self.window_context_pj
        return energy

    def decodes_pj(self, shape: BatchShape, step: int) -> int:
        """Return the part of decodes, padding and weights, experts left out, in the ``step``-th step of a run."""
        decodes = shape.decodes
        energy = self.step_pj + decodes * (self.token_pj + self.row_pj) + shape.padding_tokens * self.token_pj
        if decodes:
            energy += (shape.decode_kv + step * decodes) * self.attended_pj
            if self.window is not None:
                energy += (shape.decode_window_kv + step * shape.decode_window_growth) * self.window_pj
        return energy

    def experts(self, shape: BatchShape) -> int:
        """Return the read of routed experts' weights of each step of a run."""
        table = self.experts_pj
        return table[min(shape.tokens, len(table) - 1)] if table else 0

    def linear_pj(self, shape: BatchShape, step: int) -> int:
        """Return what computing would draw in the ``step``-th step of a run if nothing limited it."""
        energy = self.decodes_pj(shape, step) + self.experts(shape)
        return energy + self.chunks_pj(shape, step) if shape.chunks else energy

    def step_dynamic_pj(self, shape: BatchShape, step: int, duration_ns: int) -> int:
        """Return what computing draws in the ``step``-th step of a run, the limit minded where it is looked at."""
        energy = self.decodes_pj(shape, step)
        if self.experts_pj:
            energy += self.experts(shape)
        if shape.chunks:
            energy += self.chunks_pj(shape, step)
        elif shape.decodes <= self.watch_above:
            return energy
        return energy if self.limit_mw is None else min(energy, self.limit_mw * duration_ns)

    def add(self, counters: EnergyCounters, shape: BatchShape, durations: Durations, steps: int) -> None:
        """Add the first ``steps`` steps of a run: one with chunks, with many decodes, or of a mixture of experts."""
        experts, limit = self.experts(shape), self.limit_mw
        if not shape.chunks:
            counters.own_pj += steps * experts
            if shape.decodes > self.watch_above and limit is not None:
                self._cut_decodes(counters, shape, durations[:steps], limit)
            return
        for i in range(steps):
            taken_ns, linear = int(durations[i]), self.decodes_pj(shape, i)
            drawn = linear + experts + self.chunks_pj(shape, i)
            if limit is not None and drawn > limit * taken_ns:
                drawn = limit * taken_ns
                counters.limited_ns += taken_ns
            counters.own_pj += drawn - linear
            counters.prompt_steps_pj += drawn + self.busy_mw * taken_ns

    def _cut_decodes(self, counters: EnergyCounters, shape: BatchShape, durations: Durations, limit_mw: int) -> None:
        """Take off what a run of decodes alone draws above the limit: of no step, of all, or of some of them."""
        steps = len(durations)
        first, more = self.decodes_line_pj(shape)
        if first + (steps - 1) * more <= limit_mw * int(min(durations)):
            return
        if first > limit_mw * int(max(durations)):
            taken_ns = int(sum(durations))
            counters.own_pj -= steps * first + steps * (steps - 1) // 2 * more - limit_mw * taken_ns
            counters.limited_ns += taken_ns
            return
        for i, taken_ns in enumerate(durations if isinstance(durations, list) else durations.tolist()):
            excess = first + i * more - limit_mw * taken_ns
            if excess > 0:
                counters.own_pj -= excess
                counters.limited_ns += taken_ns

    def decodes_line_pj(self, shape: BatchShape) -> tuple[int, int]:
        """Return what the first step of a run of decodes alone draws, no limit minded, and each later one more."""
        more = shape.decodes * self.attended_pj
        if self.window is not None:
            more += shape.decode_window_growth * self.window_pj
        return self.decodes_pj(shape, 0) + self.experts(shape), more

    def run_line(self, shape: BatchShape, durations: Durations) -> tuple[int, int, int] | None:
        """Return what each step of a run draws, where one line says it: of all steps, or the limit in all of them.

        Returns
        -------
        tuple
            Picojoules of the first step, how many more each later one draws, and the milliwatts drawn all the time
            beside that; None where only some steps would lie above the limit, or a chunk's window isn't linear.
        """
        first, more = self.decodes_line_pj(shape)
        if shape.chunks:
            if self.window is not None:
                return None
            first += self.chunks_pj(shape, 0)
            for new, _ in shape.chunks:
                more += new * (self.context_pj + new * self.pair_pj)
        elif shape.decodes <= self.watch_above:
            return first, more, 0
        limit_mw = self.limit_mw
        if limit_mw is None:
            return first, more, 0
        least, most = (
            (min(durations), max(durations))
            if isinstance(durations, list)
            else (int(durations.min()), int(durations.max()))
        )
        if first + (len(durations) - 1) * more <= limit_mw * least:
            return first, more, 0
        return (0, 0, limit_mw) if first > limit_mw * most else None

    def adder(self, counters: EnergyCounters) -> Callable[[BatchShape, Durations, int], None]:
        """Return `add` for one replica's counters, quick for a few steps with chunks of a plain model.

        A busy replica has one such run after the other, so what they need is at hand and nothing is looked up.
        """
        limit_mw, busy_mw, token_pj, row_pj = self.limit_mw, self.busy_mw, self.token_pj, self.row_pj
        step_pj, attended_pj, context_pj, pair_pj = self.step_pj, self.attended_pj, self.context_pj, self.pair_pj
        decode_pj, prompt_pj, half_pair_pj = token_pj + row_pj, token_pj + context_pj, pair_pj // 2
        add = self.add
        if limit_mw is None:
            limit_mw = _NO_LIMIT_MW
        if self.window is not None or self.experts_pj or pair_pj % 2:
            return lambda shape, durations, steps: add(counters, shape, durations, steps)

        def add_step(shape: BatchShape, durations: Durations, steps: int) -> None:
            chunks, decodes = shape.chunks, shape.decodes
            if steps == 1 and len(chunks) == 1 and not shape.padding_tokens:  # the most frequent by far
                new, cached = chunks[0]
                own = new * (prompt_pj + (cached + cached + new + 1) * half_pair_pj) + cached * context_pj + row_pj
                decodes_pj = step_pj + shape.decodes * decode_pj + shape.decode_kv * attended_pj
                taken_ns = int(durations[0])
                excess = own + decodes_pj - limit_mw * taken_ns
                if excess > 0:
                    own -= excess
                    counters.limited_ns += taken_ns
                counters.own_pj += own
                counters.prompt_steps_pj += own + decodes_pj + busy_mw * taken_ns
                return
            if not chunks or shape.padding_tokens or not isinstance(durations, list):
                add(counters, shape, durations, steps)
                return
            own = more = 0
            for new, cached in chunks:
                own += new * (prompt_pj + (cached + cached + new + 1) * half_pair_pj) + cached * context_pj + row_pj
            drawn = own + step_pj
            if decodes:
                drawn += decodes * decode_pj + shape.decode_kv * attended_pj
            if steps == 1:
                taken_ns = durations[0]
                excess = drawn - limit_mw * taken_ns
                if excess > 0:
                    own -= excess
                    drawn -= excess
                    counters.limited_ns += taken_ns
                counters.own_pj += own
                counters.prompt_steps_pj += drawn + busy_mw * taken_ns
                return
            few = durations[:steps]
            for new, _ in chunks:
                more += new * (context_pj + new * pair_pj)
            pairs = steps * (steps - 1) // 2
            excess, taken_ns = 0, sum(few)
            both = more + decodes * attended_pj
            all_drawn = steps * drawn + pairs * both
            if drawn > limit_mw * max(few):
                excess = all_drawn - limit_mw * taken_ns
                counters.limited_ns += taken_ns
            elif drawn + (steps - 1) * both > limit_mw * min(few):
                for ns in few:
                    over = drawn - limit_mw * ns
                    if over > 0:
                        excess += over
                        counters.limited_ns += ns
                    drawn += both
            counters.own_pj += steps * own + pairs * more - excess
            counters.prompt_steps_pj += all_drawn - excess + busy_mw * taken_ns

        return add_step

    def run_meter(self) -> Callable[[BatchShape, Durations, int], int]:
        """Return what tells, for one lane, what computing drew in the first steps of a run, picojoules."""
        run = EnergyCounters()
        add, busy_mw = self.adder(run), self.busy_mw

        def run_pj(shape: BatchShape, durations: Durations, steps: int) -> int:
            if shape.chunks:
                run.prompt_steps_pj = 0
                add(shape, durations, steps)
                return run.prompt_steps_pj - busy_mw * int(sum(durations[:steps]))
            if shape.decodes > self.watch_above and self.limit_mw is not None:
                room = np.asarray(durations[:steps], dtype=np.int64) * self.limit_mw
                return sum(np.minimum(self._decodes_each_pj(shape, steps), room).tolist())
            first, more = self.decodes_line_pj(shape)
            return steps * first + steps * (steps - 1) // 2 * more

        return run_pj

    def _decodes_each_pj(self, shape: BatchShape, steps: int) -> Ints:
        """Return what each step of a run of decodes alone draws, no limit minded, shape (steps,)."""
        first, more = self.decodes_line_pj(shape)
        return np.arange(steps, dtype=np.int64) * more + first

    def decode_run_nj(
        self, shape: BatchShape, durations: Durations, done: Ints, elapsed_ns: Ints, running_ns: Ints, before_pj: int
    ) -> Ints:
        """Return what was drawn above idle until some instants of a run of decodes alone, nanojoules, shape (n,).

        Parameters
        ----------
        done
            Steps that had ended by then, shape (n,).
        elapsed_ns
            How long the next one had been running, shape (n,): its energy is spread evenly over it.
        running_ns
            How long the run had been running, shape (n,).
        before_pj
            What was drawn before the run.
        """
        steps = int(done.max()) + 1
        taken = np.asarray(durations[:steps], dtype=np.int64)
        each = self._decodes_each_pj(shape, steps)
        if self.limit_mw is not None and shape.decodes > self.watch_above:
            each = np.minimum(each, taken * self.limit_mw)
        begun = spread(each[done], taken[done], elapsed_ns)
        whole, rest = np.divmod(each, 1000)  # a run's picojoules may not fit into 64 bits
        none = np.zeros(1, dtype=np.int64)
        whole, rest = np.concatenate((none, np.cumsum(whole)))[done], np.concatenate((none, np.cumsum(rest)))[done]
        before_nj, before_rest = divmod(before_pj, 1000)
        busy_w, busy_rest = divmod(self.busy_mw, 1000)  # 1 W x 1 ns = 1 nJ
        rest = rest + begun + busy_rest * running_ns + before_rest
        result: Ints = before_nj + whole + busy_w * running_ns + rest // 1000
        return result


NO_ENERGY = StepEnergy(busy_mw=0)
"""Nothing is counted."""


def spread(energy_pj: Ints, duration_ns: Ints, elapsed_ns: Ints) -> Ints:
    """Return floor(energy x elapsed / duration) of steps, exactly, where the product would not fit into 64 bits."""
    power, rest = np.divmod(energy_pj, duration_ns)
    result: Ints = power * elapsed_ns + rest * elapsed_ns // duration_ns
    return result
