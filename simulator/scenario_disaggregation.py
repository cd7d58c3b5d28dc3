"""The scenario's disaggregation: prompts computed on some pools, tokens generated on others."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from simulator.scenario_base import AUTO, Part, PolicyRef, Seconds

Role = Literal["mixed", "prefill", "decode"]
"""What the replicas of a pool do: everything, prompts, or tokens after the first (Splitwise: mixed, prompt, token)."""

Tokens = Annotated[int, Field(ge=0, le=2**31)]


class DecodeRouterRef(PolicyRef):
    """The policy that chooses the replica that decodes."""

    kind: ClassVar[str] = "routing"


class Disaggregation(Part):
    """How requests go from the replicas that compute their prompts to those that generate their tokens."""

    kind: Literal["connector", "splitwise"] = "connector"
    """``connector``: pools keep their roles, and routers choose within them, as around vLLM's, SGLang's and Mooncake's
    connectors. ``splitwise``: one scheduler assigns both machines when a request arrives, and machines of either pool
    serve both phases while queues are long."""
    reserve: Annotated[Literal["after-prefill", "beside-prefill", "before-prefill"] | None, AUTO] = None
    """When the replica that decodes is chosen and asked for memory. ``after-prefill``: when the prompt is computed
    (vLLM). ``beside-prefill``: when the request arrives, while the prompt is computed (Splitwise, Mooncake).
    ``before-prefill``: when it arrives, and the prompt waits for the memory (SGLang). ``auto``: as the engine of the
    decode pool does, or vLLM."""
    first_token: Annotated[Literal["recomputed", "forwarded", "streamed"] | None, AUTO] = None
    """Who gives the client its first token. ``recomputed``: the decode replica in its first step; the prefill
    replica's is thrown away (vLLM's proxies). ``forwarded``: the prefill replica's, delivered by the decode replica
    when the KV has come (SGLang). ``streamed``: the prefill replica, at once (Splitwise). ``auto``: as the engine of
    the decode pool does, or vLLM."""
    transfer: Annotated[Literal["after-prefill", "layer-wise"] | None, AUTO] = None
    """``after-prefill``: all KV when the prompt is computed. ``layer-wise``: each layer's when it is computed, beside
    the next. ``auto``: after-prefill; splitwise: layer-wise."""
    serial_below_tokens: Annotated[Tokens | None, AUTO] = None
    """Prompts of fewer tokens are sent after the prefill although ``transfer`` is layer-wise; ``auto``: 512, as
    Splitwise on H100 (section 6.1)."""
    sync_s: Seconds = 0.0
    """Time after the last byte until the decode replica knows of it, seconds: semaphores, polling."""
    reserved_decode_tokens: Annotated[Tokens | None, AUTO] = None
    """Tokens of room that must be left for each request on the decode replica when another's KV is let in; ``auto``:
    512 as SGLang (``num_reserved_decode_tokens``), otherwise 0."""
    decode_router: DecodeRouterRef = Field(default_factory=lambda: DecodeRouterRef(name="round-robin"))
    """Chooses the replica that decodes (``connector``); ``router`` chooses the one that computes the prompt."""
    max_pending_prompt_tokens: Annotated[int, Field(ge=1, le=2**31)] = 8192
    """``splitwise``: a machine whose queued prompts would have more tokens gets no other while there is one elsewhere;
    SplitwiseSim's ``prompt_max_pending_batch_tokens``."""


__all__ = ["DecodeRouterRef", "Disaggregation", "Role"]
