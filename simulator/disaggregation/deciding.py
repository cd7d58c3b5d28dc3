"""What a scenario's disaggregation leaves open, and what can't be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from policies import registry
from policies.protocols import BatchingPolicy
from simulator.errors import InputError
from simulator.scenario_disaggregation import Disaggregation

if TYPE_CHECKING:
    from simulator.resolve import ResolvedPool

SERIAL_BELOW_TOKENS = 512
"""Splitwise (ISCA 2024), section 6.1: smaller prompts are sent when they are computed (H100)."""


class _Way(TypedDict):
    """How a system hands requests over; keys as in the scenario."""

    reserve: str
    first_token: str
    transfer: str
    reserved_decode_tokens: int


_VLLM = _Way(reserve="after-prefill", first_token="recomputed", transfer="after-prefill", reserved_decode_tokens=0)
"""vLLM, NixlConnector and its proxies (tests/v1/kv_connector/nixl_integration/toy_proxy_server.py): the prompt is sent
to a prefill server with ``max_tokens = 1``, whose answer is read and dropped; then to a decode server, which allocates
blocks, reads the KV, computes the last token of the prompt again and streams all tokens."""

_SGLANG = _Way(reserve="before-prefill", first_token="forwarded", transfer="after-prefill", reserved_decode_tokens=512)
"""SGLang, python/sglang/srt/disaggregation/decode.py: a pair of servers is chosen at arrival; the decode server
allocates KV first (``DecodePreallocQueue``, ``num_reserved_decode_tokens`` = 512), the prefill server begins when it
has the addresses; its token comes with the KV and is sent to the client when the request joins the running batch."""

_SPLITWISE = _Way(reserve="beside-prefill", first_token="streamed", transfer="layer-wise", reserved_decode_tokens=0)
"""Splitwise, sections 4.1 and 4.3."""

_WAYS = {"vllm": _VLLM, "sglang": _SGLANG}


def decide(given: Disaggregation | None, pools: Sequence[ResolvedPool]) -> Disaggregation | None:
    """Return the scenario's disaggregation with everything decided; None where no pool has a role.

    Raises
    ------
    InputError
        If the pools can't work together so.
    """
    if given is None and all(each.pool.role == "mixed" for each in pools):
        return None
    part = Disaggregation() if given is None else given
    _check_roles(pools)
    way = _SPLITWISE if part.kind == "splitwise" else _WAYS.get(_engine_of_decode(pools), _VLLM)
    decided: dict[str, Any] = {key: value for key, value in way.items() if getattr(part, key) is None}
    if part.serial_below_tokens is None:
        decided["serial_below_tokens"] = SERIAL_BELOW_TOKENS
    part = part.model_copy(update=decided)
    if part.kind == "splitwise" and part.reserve != "beside-prefill":
        raise InputError(
            f"disaggregation.reserve: splitwise assigns both machines at arrival, got {part.reserve!r}; leave it out"
        )
    if part.transfer == "layer-wise" and part.reserve == "after-prefill":
        raise InputError(
            "disaggregation.transfer: 'layer-wise' sends KV while the prompt is computed, so the replica that decodes "
            "must be known by then; set 'reserve' to beside-prefill or before-prefill, or 'transfer' to after-prefill"
        )
    _check_alike(part, pools)
    return part


def notes_on(part: Disaggregation | None, pools: Sequence[ResolvedPool], predictor: str) -> tuple[str, ...]:
    """Return sentences on what was taken for granted, for the result.

    Parameters
    ----------
    predictor
        Kind of the scenario's, decided.
    """
    if part is None:
        return ()
    notes = []
    engine = _engine_of_decode(pools)
    if part.kind == "connector" and engine and engine not in _WAYS:
        notes.append(
            f"disaggregation: how {engine} hands requests over is not known here; what is left open is as in vLLM"
        )
    if part.kind == "splitwise" and predictor == "none":
        notes.append("splitwise: without a predictor the memory spoken for on a token machine is that of prompts alone")
    longest = {
        role: min((each.pool.engine.max_model_len or 0 for each in pools if each.pool.role == role), default=0)
        for role in ("prefill", "decode")
    }
    if longest["prefill"] < longest["decode"]:
        notes.append(
            f"max_model_len is {longest['prefill']} where prompts are computed and {longest['decode']} where tokens "
            "are: requests are cut to the shorter"
        )
    return tuple(notes)


def _engine_of_decode(pools: Sequence[ResolvedPool]) -> str:
    each = next(each for each in pools if each.pool.role == "decode")
    return "" if each.engine is None else each.engine.name


def _check_roles(pools: Sequence[ResolvedPool]) -> None:
    roles = {each.pool.role for each in pools}
    for role, other in (("prefill", "decode"), ("decode", "prefill")):
        if role not in roles:
            have = f"there is a pool of role {other!r}" if other in roles else "all pools are 'mixed'"
            raise InputError(
                f"disaggregation needs pools that prefill and pools that decode, but {have} and none of role {role!r}; "
                "set 'role' in cluster.pools"
            )


def _check_alike(part: Disaggregation, pools: Sequence[ResolvedPool]) -> None:
    """Refuse pools whose KV the others can't take over as it is."""
    first = None
    for index, each in enumerate(pools):
        pool, where = each.pool, f"cluster.pools.{index}"
        if pool.role == "mixed" and part.kind == "connector":
            continue
        assert pool.batching is not None
        policy = registry.resolve("batching", pool.batching.name)
        assert issubclass(policy, BatchingPolicy)
        if not policy.takes_over and (pool.role == "decode" or part.kind == "splitwise"):
            raise InputError(
                f"{where}.batching: {pool.batching.name!r} plans a request's memory or batch from its admission on, so "
                "it can't take over requests whose KV comes from another replica; choose another policy for this pool"
            )
        if pool.kv_budget is not None:
            raise InputError(f"{where}.kv_budget: not modelled with disaggregation; leave it out")
        if each.plan.dp > 1 and part.kind == "splitwise":
            raise InputError(
                f"{where}.parallel: attention data parallel ranks are not modelled with splitwise; use dp=1"
            )
        kind = pool.engine.block_size, pool.dtypes.kv
        if first is None:
            first = pool.name, kind
        for at, key, what in ((0, "engine.block_size", "tokens a KV block"), (1, "dtypes.kv", "KV datatype")):
            if kind[at] != first[1][at]:
                raise InputError(
                    f"{where}.{key}: KV moves between pools {first[0]!r} and {pool.name!r}, which differ in their "
                    f"{what}: {first[1][at]} and {kind[at]}; make them equal"
                )


__all__ = ["decide", "notes_on"]
