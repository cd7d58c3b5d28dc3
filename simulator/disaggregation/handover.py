"""One request on its way from the replica that computes its prompt to the one that generates its tokens."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from simulator.engine.place import Place, release_at_source
from simulator.engine.sequence import MOVING, Sequence

if TYPE_CHECKING:
    from simulator.disaggregation.feature import DisaggregationFeature
    from simulator.network.flows import FlowGroup

ACROSS_NS = 1
"""What one replica's step causes on another happens 1 ns later: which of them was simulated first in one instant then
never matters."""


class Handover:
    """See the module; to `Control` it is a `simulator.engine.control.Transit`.

    Attributes
    ----------
    source, target
        Replicas that prefill and decode; -1: not yet, or no more.
    prefilled_ns, granted_ns, arrived_ns
        When the prompt was computed, the memory kept at the target, and all KV there; -1: not yet.
    """

    def __init__(self, feature: DisaggregationFeature, sequence: Sequence) -> None:
        self.sequence = sequence
        self.source = self.target = -1
        self.prefilled_ns = self.granted_ns = self.arrived_ns = -1
        self.sent_bytes = 0
        self._feature = feature
        self._control = feature.control
        self._place: Place | None = None
        self._early: FlowGroup | None = None  # all layers but the last, beside the prefill
        self._rest: FlowGroup | None = None
        self._sent = False  # whether all that is to go is on its way
        self._computing = False  # whether the KV of the first layer is there
        self._turn = 0  # counts beginnings anew, so that what was under way before is not taken for the present
        self._control.transits[sequence.request_id] = self

    @property
    def replicas(self) -> tuple[int, ...]:
        """Those that hold or keep KV for it."""
        return tuple(index for index in (self.source, self.target) if index >= 0)

    @property
    def is_granted(self) -> bool:
        """Whether memory is kept at the target."""
        return self._place is not None and self._place.is_granted

    @property
    def cached_tokens(self) -> int:
        """Tokens whose KV was at the target before, in its prefix cache."""
        return 0 if self._place is None else self._place.cached_tokens

    def later(self, delay_ns: int, act: Callable[[], None]) -> None:
        """Do something later, unless this was begun anew or given up meanwhile."""
        self._control.at(delay_ns, partial(self._if_turn, self._turn, act))

    def _if_turn(self, turn: int, act: Callable[[], None]) -> None:
        if turn == self._turn:
            act()

    # ------------------------------------------------------------------------------------------------- its way

    def ask(self, target: int) -> None:
        """Ask the replica that is to decode for memory."""
        self.target = target
        self._feature.queue_at(self)
        sequence = self.sequence
        tokens = sequence.context_tokens if self.prefilled_ns >= 0 else sequence.prefill_target
        self._place = Place(
            self._control,
            sequence,
            target,
            tokens,
            self._granted,
            keep_free_blocks=partial(self._feature.keep_free_blocks, self),
        )

    def _granted(self, now: int) -> None:
        """Do what waited for the memory."""
        self.granted_ns = now
        if self.prefilled_ns >= 0:
            self._send()
        elif self.source < 0:
            self.prefill()
        elif self._computing:
            self._send_early()

    def prefill(self) -> None:
        """Send the request to the replica that computes its prompt, chosen now; where there is none, wait for one."""
        control, sequence = self._control, self.sequence
        index = self._feature.choose_prefill(self)
        if index is None:
            return
        self.source = index
        control.send(sequence, index, control.now_ns)

    def begins_prefill(self) -> None:
        """Hear that the step that computes the prompt, or its first part, is being composed."""
        if not self._computing and self._feature.layer_wise(self.sequence.prefill_target):
            self.later(ACROSS_NS, self._first_step)

    def _first_step(self) -> None:
        """Look how long the step takes that has begun: one layer of it, and the first KV can go."""
        replica = self._control.cluster.replicas[self.source]
        lane = next((lane for lane in replica.lanes if self.sequence in lane.sequences), None)
        if lane is None or not lane.steps or lane.plan.awaited:  # how long its swaps take is not known
            return
        first_layer_ns = (int(lane.ends[0]) - lane.start_ns) // self._feature.num_layers
        self.later(max(0, first_layer_ns - ACROSS_NS), self._first_layer)

    def _first_layer(self) -> None:
        if self.prefilled_ns < 0 and self.sequence.on_replica and not self._computing:
            self._computing = True
            if self.is_granted:
                self._send_early()

    def _send_early(self) -> None:
        """Send all layers but the last: they go as they are computed, and no quicker than the links carry them."""
        assert self._place is not None
        layers = self._feature.num_layers
        early = self._bytes() * (layers - 1) // layers
        if early:
            self._early = self._transfer(early, range(layers - 1))

    def prefilled(self) -> None:
        """Go on after the prefill, 1 ns later: ask for memory, or send what is left to send."""
        if self.target < 0:
            target = self._feature.choose_decode(self)
            if target is not None:
                self.ask(target)
        elif self.is_granted:
            self._send()

    def _bytes(self) -> int:
        assert self._place is not None
        sequence = self.sequence
        tokens = sequence.context_tokens if self.prefilled_ns >= 0 else sequence.prefill_target
        return (tokens - self._place.cached_tokens) * self._feature.kv_bytes_per_token

    def _send(self) -> None:
        """Send what hasn't been sent before."""
        early = 0 if self._early is None else self._early.num_bytes
        layers = self._feature.num_layers
        rest = self._bytes()
        if self._early is not None:
            rest -= rest * (layers - 1) // layers
        self.sent_bytes, self._sent = early + rest, True
        if rest:
            self._rest = self._transfer(rest, None if self._early is None else range(layers - 1, layers))
        else:
            self._one_arrived(self._turn, self._control.now_ns)

    def _transfer(self, num_bytes: int, layers: range | None) -> FlowGroup:
        return self._control.network.gpu_to_gpu(
            self.source, self.target, num_bytes, partial(self._one_arrived, self._turn), layers=layers, label="kv"
        )

    def _one_arrived(self, turn: int, now: int) -> None:
        if turn != self._turn or self.prefilled_ns < 0:
            return
        for flow in (self._early, self._rest):
            if flow is not None and not flow.ended:
                return
        if self.arrived_ns >= 0 or not self._sent:
            return
        self.arrived_ns = now
        sequence = self.sequence
        release_at_source(self._control, sequence)
        self._control.cluster.left(sequence)
        self.source = -1
        self.later(self._feature.sync_ns, self._settle)

    def _settle(self) -> None:
        assert self._place is not None
        self._place.settle(self.sequence, entering=self._entering)

    def _entering(self, coming: Sequence, now: int) -> None:
        """Set who made its first token, and when; it joins the running requests now."""
        self._feature.settled(self, now)
        way = self._feature.first_token
        if coming.base_generated:  # streamed, or it carries on what it did before a fault
            return
        if way == "recomputed":
            coming.computed_tokens -= 1  # the last token of the prompt is computed again
        elif way == "forwarded":
            coming.base_generated = 1
            coming.last_token_ns = now
            self._control.cluster.recorder.first_token[coming.request_id] = now

    # ----------------------------------------------------------------------------------------------- interrupted

    def abort(self, now_ns: int) -> Sequence:
        """Stop it and give back the memory that is kept for it."""
        self._turn += 1
        if self._place is not None:
            self._place.give_up()
        for flow in (self._early, self._rest):
            if flow is not None and not flow.ended:
                flow.cancel()
        self._feature.leave(self)
        self._place = self._early = self._rest = None
        self._sent = False
        self.target = self.granted_ns = -1
        return self.sequence

    def destination_lost(self, now_ns: int) -> None:
        """Choose another replica to decode, or have it all computed again if the KV was there already."""
        control, sequence = self._control, self.sequence
        row = sequence.request_id
        if control.live.get(row) is not sequence or control.is_stranded(row):
            return
        if not sequence.on_replica:
            if self.arrived_ns >= 0:
                control.carry_on(sequence, now_ns)
            else:
                control.route(sequence, now_ns)
            return
        control.transits[row] = self
        if sequence.state is MOVING or self._feature.reserves_early:
            target = self._feature.choose_decode(self)
            if target is not None:
                self.ask(target)


__all__ = ["ACROSS_NS", "Handover"]
