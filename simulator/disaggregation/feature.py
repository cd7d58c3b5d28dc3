"""Disaggregation as a feature of a cluster: who prefills, who decodes, and what became of it.

The prompt of a request is computed on one replica, its KV sent to another over the cluster's links, and its tokens
generated there. Memory is asked for at the replica that decodes; while it is full the KV stays where it was computed,
and that replica takes fewer prompts: back-pressure. Replicas of role ``mixed`` (connector) do both and send nothing.

Not modelled: what the transfer takes from the GPUs (Splitwise, section 6.1, found less than 7 % of the prompt's time),
time on proxies, KV that a decode replica sends back, several messages a layer (one message is paid for each rank's
share).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from policies.protocols import RoutingPolicy
from simulator.disaggregation.handover import ACROSS_NS, Handover
from simulator.engine.clock import NS_PER_S, to_ns, to_s
from simulator.engine.control import Control, Scope
from simulator.engine.recorder import Outcome
from simulator.engine.sequence import Sequence as Request
from simulator.scenario_disaggregation import Disaggregation

PREFILL, DECODE, MIXED = "prefill", "decode", "mixed"


class Chooser(Protocol):
    """Chooses the replicas of a request; see `Routers` and `simulator.disaggregation.splitwise`."""

    def prefill(self, sequence: Request) -> int | None:
        """Return the replica that computes the prompt; None while none can."""
        ...

    def decode(self, sequence: Request) -> int | None:
        """Return the replica that generates tokens, the same as `prefill` where it stays; None while none can."""
        ...

    def stays(self, sequence: Request) -> bool:
        """Tell whether a request whose prompt is computed decodes where it is."""
        ...

    def prefilled(self, sequence: Request) -> None:
        """Hear that a prompt was computed."""
        ...

    def ended(self, sequence: Request) -> None:
        """Hear that a request ended for good."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return what it adds to the summary."""
        ...


class DecodeScope(Scope):
    """Replicas that decode, as their router sees them: requests on their way there count as theirs."""

    def __init__(
        self, control: Control, router: RoutingPolicy, replica_ids: Sequence[int], rng: np.random.Generator
    ) -> None:
        number = len(control.cluster.replicas)
        self.coming_requests = np.zeros(number, np.int64)
        self.coming_tokens = np.zeros(number, np.int64)
        super().__init__(control, router, replica_ids, rng)

    @property
    def outstanding_requests(self) -> npt.NDArray[np.int64]:
        """Requests there and on their way there."""
        return super().outstanding_requests + self.coming_requests[self._at]

    @property
    def outstanding_tokens(self) -> npt.NDArray[np.int64]:
        """Their tokens, as `Scope` counts them."""
        return super().outstanding_tokens + self.coming_tokens[self._at]


class Routers:
    """Two routing policies: one for prompts, over all replicas that prefill, one for decodes."""

    def __init__(self, prefill: Scope, decode: DecodeScope, mixed: Sequence[int]) -> None:
        self._prefill, self._decode, self._mixed = prefill, decode, frozenset(mixed)

    def prefill(self, sequence: Request) -> int | None:
        """Ask the router of prompts."""
        return self._prefill.choose(sequence)

    def decode(self, sequence: Request) -> int | None:
        """Ask the router of decodes."""
        return self._decode.choose(sequence)

    def stays(self, sequence: Request) -> bool:
        """Tell whether a request is on a replica of role ``mixed``."""
        return sequence.replica in self._mixed

    def prefilled(self, sequence: Request) -> None:
        """Need not know."""

    def ended(self, sequence: Request) -> None:
        """Need not know."""

    def describe(self) -> dict[str, Any]:
        """Return nothing more."""
        return {}


class DisaggregationFeature:
    """See the module.

    Parameters
    ----------
    part
        The scenario's, everything decided.
    roles
        Of each replica.
    decode_router
        Chooses the replica that decodes.
    rng
        Its stream.
    kv_bytes_per_token, num_layers
        Of the model, all heads of all layers.
    make_chooser
        In place of routers: makes what chooses from the control and the roles.
    """

    name = "disaggregation"

    def __init__(
        self,
        part: Disaggregation,
        roles: Sequence[str],
        *,
        decode_router: RoutingPolicy,
        rng: np.random.Generator,
        kv_bytes_per_token: int,
        num_layers: int,
        make_chooser: Callable[[Control, Sequence[str]], Chooser] | None = None,
    ) -> None:
        assert part.first_token is not None and part.reserve is not None
        self._part = part
        self._roles = tuple(roles)
        self._decode_router = decode_router
        self._rng = rng
        self._make_chooser = make_chooser
        self.kv_bytes_per_token = kv_bytes_per_token
        self.num_layers = num_layers
        self.first_token: str = part.first_token
        self.reserves_early = part.reserve != "after-prefill"
        self.sync_ns = to_ns(part.sync_s)
        self._reserved_tokens = part.reserved_decode_tokens or 0
        self._log = _Log()

    # ------------------------------------------------------------------------------------------------- attaching

    def attach(self, control: Control) -> None:
        """Route prompts and decodes apart, and hear of prompts that were computed."""
        self.control = control
        cluster = control.cluster
        by_role = {role: [i for i, own in enumerate(self._roles) if own == role] for role in (PREFILL, DECODE, MIXED)}
        self._decoding = by_role[DECODE]
        self.decode_scope = DecodeScope(control, self._decode_router, by_role[DECODE], self._rng)
        control.scopes.append(self.decode_scope)
        if self._make_chooser is not None:
            self.chooser: Chooser = self._make_chooser(control, self._roles)
            prefilling: Sequence[int] = range(len(self._roles))
        else:
            control.arrivals = control.scope(cluster.router, sorted(by_role[PREFILL] + by_role[MIXED]), cluster.rng)
            self.chooser = Routers(control.arrivals, self.decode_scope, by_role[MIXED])
            prefilling = by_role[PREFILL]
        decoding = self._decoding if self._make_chooser is None else range(len(self._roles))
        self._mixed = frozenset(by_role[MIXED])
        self._longest = min(cluster.replicas[index].limits.max_model_len for index in decoding)
        self._at: list[dict[Handover, None]] = [{} for _ in cluster.replicas]  # on their way there
        self._queues: list[deque[Handover]] = [deque() for _ in cluster.replicas]  # of them, those without memory
        for index in prefilling:
            cluster.replicas[index].prefilled = self._prefilled
            if self._part.transfer == "layer-wise":
                cluster.replicas[index].admitted = self._admitted
        control.before_routing.append(self._arrives)
        control.on_end.append(self._ended)
        control.on_members.append(self._look_again)

    # ------------------------------------------------------------------------------------------------- requests

    def _arrives(self, sequence: Request, now: int) -> bool:
        """Refuse what can't be decoded; send the request its way if the decode replica is chosen beforehand."""
        control = self.control
        control.cluster.recorder.prefill_replica[sequence.request_id] = -1
        if sequence.prompt_tokens + sequence._output_tokens > self._longest:
            if self._mixed and not self.reserves_early:
                return self._arrives_long(sequence, now)
            if not self._fit(sequence, now):
                return True
        if not self.reserves_early:
            return False
        handover = Handover(self, sequence)
        if self._part.reserve == "beside-prefill":
            self._begin_beside(handover)
        else:
            target = self.choose_decode(handover)
            if target is not None:
                handover.ask(target)
        return True

    def _arrives_long(self, sequence: Request, now: int) -> bool:
        """Send a request that is too long for replicas of role ``decode``, which may not come to one."""
        source = self.chooser.prefill(sequence)
        if source is None:
            self.control.on_no_replica(sequence, now)
        elif source in self._mixed or self._fit(sequence, now):
            self.control.send(sequence, source, now)
        return True

    def _fit(self, sequence: Request, now: int) -> bool:
        """Cut a request to what can be decoded; one whose prompt is too long is refused: return False."""
        room = self._longest - sequence.prompt_tokens
        if room <= 0:
            reason = (
                f"prompt of {sequence.prompt_tokens} tokens leaves no room for an answer within max_model_len = "
                f"{self._longest} tokens where it would decode"
            )
            self.control.conclude(sequence, now, Outcome.REJECTED, reason)
            return False
        sequence._output_tokens = room
        self.control.cluster.num_truncated += 1
        return True

    def _begin_beside(self, handover: Handover) -> None:
        """Send a request to be prefilled, and ask the replica that is to decode for memory, at once."""
        sequence = handover.sequence
        source = self.chooser.prefill(sequence)
        target = None if source is None else self.chooser.decode(sequence)
        if source is None or target is None:
            return  # until there are replicas
        if source == target:
            del self.control.transits[sequence.request_id]
            self._log.stayed += 1
        else:
            handover.ask(target)
            handover.source = source
        self.control.send(sequence, source, self.control.now_ns)

    def choose_prefill(self, handover: Handover) -> int | None:
        """Return where a prompt is computed; None while no replica takes any."""
        return self.chooser.prefill(handover.sequence)

    def choose_decode(self, handover: Handover) -> int | None:
        """Return where a request decodes; None while no replica takes any."""
        return self.chooser.decode(handover.sequence)

    def _look_again(self, _: int) -> None:
        """Let requests that found no replica look again, now that there may be others."""
        for transit in list(self.control.transits.values()):
            if not isinstance(transit, Handover):
                continue
            if transit.target < 0 and transit.source < 0 and self._part.reserve == "beside-prefill":
                self._begin_beside(transit)
            elif transit.target < 0 and (transit.prefilled_ns >= 0 or self.reserves_early):
                target = self.choose_decode(transit)
                if target is not None:
                    transit.ask(target)
            elif transit.source < 0 and transit.prefilled_ns < 0 and transit.is_granted:
                transit.prefill()

    def _admitted(self, sequence: Request) -> None:
        transit = self.control.transits.get(sequence.request_id)
        if isinstance(transit, Handover):
            transit.begins_prefill()

    def _prefilled(self, sequence: Request, now: int) -> bool:
        """Take a request whose prompt is computed off its lane, unless it stays; its KV stays for now."""
        control = self.control
        known = control.transits.get(sequence.request_id)
        self.chooser.prefilled(sequence)
        if not isinstance(known, Handover) and self.chooser.stays(sequence):
            return False
        transit = known if isinstance(known, Handover) else Handover(self, sequence)
        control.replica_of(sequence).detach(sequence)
        transit.source = control.cluster.recorder.prefill_replica[sequence.request_id] = sequence.replica
        transit.prefilled_ns = now
        if self.first_token != "streamed" and sequence.base_generated == 1:
            # The client hasn't seen it: it comes from the replica that decodes.
            sequence.base_generated = 0
            sequence.last_token_ns = control.cluster.recorder.first_token[sequence.request_id] = -1
        transit.later(ACROSS_NS, transit.prefilled)
        return True

    def settled(self, handover: Handover, now: int) -> None:
        """Note that a request runs on where it decodes."""
        self.leave(handover)
        self._log.note(handover, now)

    def _ended(self, sequence: Request, now: int, outcome: Outcome) -> None:
        """Let go what is kept for a request that ended before it was handed over."""
        self.chooser.ended(sequence)
        transit = self.control.transits.get(sequence.request_id)
        if isinstance(transit, Handover):
            del self.control.transits[sequence.request_id]
            transit.abort(now)
        if sequence._output_tokens == 1 and outcome is Outcome.FINISHED and self._roles[sequence.replica] == PREFILL:
            self._log.ended_at_prefill += 1

    # ---------------------------------------------------------------------------------------- memory at the target

    def queue_at(self, handover: Handover) -> None:
        """Let a request stand in the queue for memory at its target; it stays there until it runs there."""
        self._at[handover.target][handover] = None
        self._queues[handover.target].append(handover)
        self._count(handover, 1)

    def leave(self, handover: Handover) -> None:
        """Forget a request at its target, if it is there."""
        target = handover.target
        if target >= 0 and handover in self._at[target]:
            del self._at[target][handover]
            if handover in self._queues[target]:
                self._queues[target].remove(handover)
            self._count(handover, -1)

    def _count(self, handover: Handover, sign: int) -> None:
        sequence, scope = handover.sequence, self.decode_scope
        predicted = sequence.predicted_output_tokens
        weight = sequence.prompt_tokens + (0 if math.isnan(predicted) else round(predicted))
        scope.coming_requests[handover.target] += sign
        scope.coming_tokens[handover.target] += sign * weight

    def keep_free_blocks(self, handover: Handover) -> int:
        """Return the blocks that must be left free when it is let in: first come, first served.

        Requests that were preempted there come first, as in vLLM (front of the queue) and SGLang (retracted requests).
        Room is left for each request there, unless there is none.
        """
        target = handover.target
        replica = self.control.cluster.replicas[target]
        queue = self._queues[target]
        while queue[0].is_granted:
            queue.popleft()
        waiting = replica.waiting
        if queue[0] is not handover or replica.swapped or (len(waiting) and waiting.first.preemptions):
            return replica.kv.total_blocks + 1  # not yet
        there = replica.num_running + len(self._at[target]) - len(queue)
        if not there:
            return 0
        return -(-self._reserved_tokens * (there + 1) // replica.kv.block_size)

    def layer_wise(self, prompt_tokens: int) -> bool:
        """Tell whether the KV of a prompt goes layer by layer."""
        return self._part.transfer == "layer-wise" and prompt_tokens >= (self._part.serial_below_tokens or 0)

    # ---------------------------------------------------------------------------------------------------- result

    def describe(self) -> dict[str, Any]:
        """Return the section of the summary; see docs/disaggregation.md."""
        part = self._part
        return {
            "kind": part.kind,
            "reserve": part.reserve,
            "first_token": part.first_token,
            "transfer": part.transfer,
            "replicas": {role: self._roles.count(role) for role in (PREFILL, DECODE, MIXED)},
            **self._log.describe(),
            **self.chooser.describe(),
        }


class _Log:
    """What handovers did."""

    def __init__(self) -> None:
        self.handovers = self.num_bytes = self.cached_tokens = self.stayed = self.ended_at_prefill = 0
        self._waits: list[int] = []
        self._transfers: list[int] = []
        self._entries: list[int] = []

    def note(self, handover: Handover, now: int) -> None:
        self.handovers += 1
        self.num_bytes += handover.sent_bytes
        self.cached_tokens += handover.cached_tokens
        since = max(handover.prefilled_ns, handover.granted_ns)
        self._waits.append(since - handover.prefilled_ns)
        self._transfers.append(handover.arrived_ns - since)
        self._entries.append(now - handover.arrived_ns)

    def describe(self) -> dict[str, Any]:
        return {
            "handovers": self.handovers,
            "bytes": self.num_bytes,
            "cached_tokens": self.cached_tokens,
            "ended_at_prefill": self.ended_at_prefill,
            "stayed": self.stayed,
            "memory_wait_s": _figures(self._waits),
            "transfer_s": _figures(self._transfers),
            "entry_s": _figures(self._entries),
        }


def _figures(times_ns: list[int]) -> dict[str, float | None]:
    """Return mean, median, 99th percentile and maximum of times, s; None without any."""
    if not times_ns:
        return {"mean": None, "p50": None, "p99": None, "max": None}
    times = np.array(times_ns, dtype=np.int64)
    p50, p99 = (float(value) / NS_PER_S for value in np.percentile(times, (50, 99)))
    return {"mean": float(times.sum()) / len(times) / NS_PER_S, "p50": p50, "p99": p99, "max": to_s(int(times.max()))}


__all__ = ["Chooser", "DecodeScope", "DisaggregationFeature", "Routers"]
