"""Splitwise's cluster-level scheduler: prompt, token and mixed machines, and machines that change between them.

Patel et al., Splitwise: Efficient Generative LLM Inference Using Phase Splitting, ISCA 2024, section 4.1, and where the
paper leaves it open, from its simulator (SplitwiseSim, ``scheduler.py: MixedPoolScheduler``):

- Each request gets a prompt and a token machine when it arrives: the prompt machine with the fewest pending prompt
  tokens, the token machine with the least memory spoken for.
- A prompt machine with something pending whose queue would pass a bound is too busy, a token machine whose memory would
  not hold the request is full. Then the mixed pool is looked through by the same rule, then the least loaded machine of
  the opposite pool is moved to the mixed pool. If there is none, the least loaded of all machines serves it alone.
- A machine goes back to its own pool when no work of the opposite kind is left on it.

The scheduler knows at once what machines have done; the paper's hears of it now and then. Memory spoken for is that of
the prompt and of the predicted output (nothing without a predictor; SplitwiseSim uses the true length). Re-purposing
machines for good is not modelled.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from simulator.engine.control import Control
from simulator.engine.sequence import Sequence as Request


@dataclass
class _Machine:
    """What the scheduler knows of a machine.

    Attributes
    ----------
    is_prompt
        Whether it is of the prompt pool when it isn't mixed; a machine of role ``mixed`` always is mixed.
    pending_tokens
        Of prompts that were assigned to it and are not computed.
    prompts, decodes
        Requests assigned to it for either phase that the phase isn't over of.
    memory_tokens
        Tokens of KV spoken for.
    """

    index: int
    is_prompt: bool
    stays_mixed: bool
    capacity_tokens: int
    is_mixed: bool = False
    pending_tokens: int = 0
    prompts: int = 0
    decodes: int = 0
    memory_tokens: int = 0


@dataclass
class _Assignment:
    """What a request was assigned."""

    prompt: _Machine
    token: _Machine
    prompt_tokens: int
    memory_tokens: int
    is_prefilled: bool = False


class ClusterScheduler:
    """See the module; it is the `simulator.disaggregation.feature.Chooser` of the kind ``splitwise``."""

    def __init__(self, control: Control, roles: Sequence[str], *, max_pending_prompt_tokens: int) -> None:
        self._control = control
        self._bound = max_pending_prompt_tokens
        self._machines = [
            _Machine(
                index,
                role != "decode",
                role == "mixed",
                replica.kv.total_blocks * replica.kv.block_size,
                is_mixed=role == "mixed",
            )
            for index, (role, replica) in enumerate(zip(roles, control.cluster.replicas, strict=True))
        ]
        self._assigned: dict[int, _Assignment] = {}
        self._moves = self._alone = 0

    # ------------------------------------------------------------------------------------------------- choosing

    def prefill(self, sequence: Request) -> int | None:
        """Assign both machines; return the one that computes the prompt."""
        row = sequence.request_id
        self._forget(row)  # of an attempt before
        open_machines = [machine for machine in self._machines if self._control.takes_requests(machine.index)]
        if not open_machines:
            return None
        predicted = sequence.predicted_output_tokens
        tokens = sequence.prefill_target
        memory = sequence.prompt_tokens + (0 if math.isnan(predicted) else math.ceil(predicted))
        prompt, token = self._choose(open_machines, tokens, memory)
        self._assigned[row] = _Assignment(prompt, token, tokens, memory)
        prompt.pending_tokens += tokens
        prompt.prompts += 1
        prompt.memory_tokens += 0 if prompt is token else sequence.prompt_tokens
        token.decodes += 1
        token.memory_tokens += memory
        return prompt.index

    def decode(self, sequence: Request) -> int | None:
        """Return the machine that was assigned for tokens, or another if that one is gone."""
        assigned = self._assigned.get(sequence.request_id)
        if assigned is None:
            return None
        if self._control.is_alive(assigned.token.index):
            return assigned.token.index
        others = [machine for machine in self._machines if self._control.takes_requests(machine.index)]
        others = [machine for machine in others if machine.index != sequence.replica] or others
        if not others:
            return None
        token = min(others, key=lambda machine: machine.memory_tokens)
        self._release_token(assigned)
        assigned.token = token
        token.decodes += 1
        token.memory_tokens += assigned.memory_tokens
        return token.index

    def _choose(self, machines: Iterable[_Machine], tokens: int, memory: int) -> tuple[_Machine, _Machine]:
        machines = list(machines)
        mixed = [machine for machine in machines if machine.is_mixed]
        prompts = [machine for machine in machines if machine.is_prompt and not machine.is_mixed]
        decodes = [machine for machine in machines if not machine.is_prompt and not machine.is_mixed]
        prompt = self._shortest(prompts, tokens) or self._shortest(mixed, tokens)
        token = self._emptiest(decodes, memory) or self._emptiest(mixed, memory)
        if prompt is None and decodes:
            prompt = min(decodes, key=lambda machine: machine.pending_tokens)
            self._mix(prompt)
        if token is None and prompts:
            token = min(prompts, key=lambda machine: machine.memory_tokens)
            self._mix(token)
        if prompt is None or token is None:
            prompt = token = min(machines, key=lambda machine: machine.pending_tokens)
            self._alone += 1
        return prompt, token

    def _shortest(self, machines: Sequence[_Machine], tokens: int) -> _Machine | None:
        found = min(machines, key=lambda machine: machine.pending_tokens, default=None)
        if found is None or (found.pending_tokens and found.pending_tokens + tokens > self._bound):
            return None
        return found

    def _emptiest(self, machines: Sequence[_Machine], memory: int) -> _Machine | None:
        found = min(machines, key=lambda machine: machine.memory_tokens, default=None)
        if found is None or found.memory_tokens + memory >= found.capacity_tokens:
            return None
        return found

    def _mix(self, machine: _Machine) -> None:
        machine.is_mixed = True
        self._moves += 1

    # ---------------------------------------------------------------------------------------------- work that is done

    def stays(self, sequence: Request) -> bool:
        """Tell whether a request decodes where its prompt was computed."""
        assigned = self._assigned.get(sequence.request_id)
        return assigned is None or assigned.token.index == sequence.replica

    def prefilled(self, sequence: Request) -> None:
        """Count a prompt as computed."""
        assigned = self._assigned.get(sequence.request_id)
        if assigned is not None and not assigned.is_prefilled:
            self._release_prompt(assigned)

    def ended(self, sequence: Request) -> None:
        """Count a request as gone."""
        self._forget(sequence.request_id)

    def _forget(self, row: int) -> None:
        assigned = self._assigned.pop(row, None)
        if assigned is None:
            return
        if not assigned.is_prefilled:
            self._release_prompt(assigned)
        self._release_token(assigned)

    def _release_prompt(self, assigned: _Assignment) -> None:
        assigned.is_prefilled = True
        machine = assigned.prompt
        machine.pending_tokens -= assigned.prompt_tokens
        machine.prompts -= 1
        machine.memory_tokens -= 0 if machine is assigned.token else assigned.prompt_tokens
        self._go_home(machine)

    def _release_token(self, assigned: _Assignment) -> None:
        machine = assigned.token
        machine.decodes -= 1
        machine.memory_tokens -= assigned.memory_tokens
        self._go_home(machine)

    def _go_home(self, machine: _Machine) -> None:
        """Let a mixed machine be of its own pool again when nothing of the opposite kind is left on it."""
        if (
            machine.is_mixed
            and not machine.stays_mixed
            and not (machine.decodes if machine.is_prompt else machine.prompts)
        ):
            machine.is_mixed = False

    def describe(self) -> dict[str, Any]:
        """Return how often machines became mixed, and how many requests one machine served alone."""
        return {"moves_to_mixed": self._moves, "served_alone": self._alone}


__all__ = ["ClusterScheduler"]
