"""Flags that are shorthand for keys of a scenario: one table, nothing else to keep in step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

EVERY_POOL = "cluster.pools.*."
"""A flag for a pool's key holds for every pool."""


@dataclass(frozen=True)
class KeyFlag:
    """One flag.

    Attributes
    ----------
    declaration
        As users write it; ``--x/--no-x`` for a switch of both ways.
    key
        Dotted key of the scenario.
    type
        ``bool`` for a switch.
    help
        One line; the key is added to it.
    when_on
        What a switch without a counterpart sets.
    """

    declaration: str
    key: str
    type: type
    help: str
    metavar: str = ""
    when_on: bool = True

    @property
    def name(self) -> str:
        """The flag, the positive one of a pair."""
        return self.declaration.split("/")[0]

    @property
    def parameter(self) -> str:
        """Name of the value among the command's arguments."""
        return self.name.lstrip("-").replace("-", "_") + "_flag"

    @property
    def short_key(self) -> str:
        """The key as help shows it."""
        return self.key.replace(EVERY_POOL, "pool: ")


def _pool(declaration: str, key: str, kind: type, text: str, metavar: str = "") -> KeyFlag:
    return KeyFlag(declaration, EVERY_POOL + key, kind, text, metavar)


FLAGS: tuple[KeyFlag, ...] = (
    KeyFlag("--model", "model", str, "Model: a name of 'simulate models', or a Hugging Face config.json."),
    _pool("--gpu", "accelerator", str, "GPU: a name of 'simulate profiles', or a YAML file."),
    _pool("--node", "node", str, "Server type, which says how GPUs are joined."),
    _pool("--tp", "parallel.tp", int, "Tensor parallel ranks of a replica."),
    _pool("--pp", "parallel.pp", int, "Pipeline stages of a replica."),
    _pool("--replicas", "replicas", int, "Replicas."),
    _pool("--policy", "batching", str, "Batching policy: a name of 'simulate policies', or path/to/file.py:Class."),
    _pool("--queueing", "queueing", str, "Order of the waiting queue."),
    _pool("--kv-eviction", "kv_eviction", str, "Which cached KV blocks go first."),
    _pool("--kv-budget", "kv_budget", str, "What is kept of each request's keys and values."),
    KeyFlag("--router", "router", str, "Which replica serves a request."),
    KeyFlag("--rescheduler", "cluster.rescheduler", str, "Which running requests go on at another replica."),
    KeyFlag("--scaler", "cluster.scaler", str, "How many replicas pools have; needs --max-replicas."),
    _pool("--min-replicas", "min_replicas", int, "Fewest replicas that the scaler may leave."),
    _pool("--max-replicas", "max_replicas", int, "Most replicas that the scaler may ask for."),
    KeyFlag("--admission", "admission", str, "Who is let in, before requests are routed."),
    KeyFlag("--predictor", "predictor", str, "What policies are told of output lengths: auto, none or oracle."),
    _pool("--max-num-seqs", "engine.max_num_seqs", int, "Most requests that run at a time on a replica."),
    _pool("--max-num-batched-tokens", "engine.max_num_batched_tokens", int, "Most tokens of one step."),
    _pool("--num-kv-blocks", "engine.num_kv_blocks", int, "KV blocks of a replica, in place of the memory plan's."),
    _pool("--prefix-caching/--no-prefix-caching", "engine.prefix_caching", bool, "Share KV of equal prefixes."),
    _pool("--price", "price_per_gpu_hour", float, "Price of one GPU for an hour."),
    KeyFlag("--format-in", "workload.format", str, "Format of the trace; left out: known by its header."),
    KeyFlag("--on-bad-row", "workload.on_bad_row", str, "A bad row: fail, skip it, or stop before it."),
    KeyFlag("--sort", "workload.sort", bool, "Sort an unsorted trace by arrival."),
    KeyFlag("--spread-ties", "workload.ties", str, "Equal arrivals: keep, or uniform over their second."),
    KeyFlag("--keep-failed", "workload.keep_failed", bool, "Keep failed requests, with one output token."),
    KeyFlag("--start", "workload.start_s", float, "Leave out what arrives before; it becomes time 0.", "SECONDS"),
    KeyFlag("--end", "workload.end_s", float, "Leave out what arrives at or after.", "SECONDS"),
    KeyFlag("--limit", "workload.limit", int, "Keep the first N requests.", "N"),
    KeyFlag("--class", "workload.class", str, "Keep requests of this class of the trace."),
    KeyFlag("--sample", "workload.sample", float, "Keep this share of the requests, chosen by the seed."),
    KeyFlag("--rate-scale", "workload.rate_scale", float, "Arrivals come this many times as fast."),
    KeyFlag("--time-scale", "workload.time_scale", float, "Arrivals and think times last this many times as long."),
    KeyFlag("--loop", "workload.loop", str, "When requests are sent: open, closed or sessions."),
    KeyFlag("--clients", "workload.loop.clients", int, "Requests in flight; means the loop 'closed'."),
    KeyFlag("--think-time", "workload.loop.think_time_s", float, "Closed loop: pause of a client.", "SECONDS"),
    KeyFlag("--seed", "seed", int, "Seed of every random stream."),
    KeyFlag("--warmup", "measure.warmup_s", float, "Figures leave out what arrives before.", "SECONDS"),
    KeyFlag("--until", "measure.until_s", float, "Figures leave out what arrives at or after.", "SECONDS"),
    KeyFlag("--no-drain", "measure.drain", bool, "Stop at --until, or the last arrival.", when_on=False),
    KeyFlag("--ttft", "objectives.ttft_s", float, "Objective: time to first token.", "SECONDS"),
    KeyFlag("--tpot", "objectives.tpot_s", float, "Objective: mean time of an output token.", "SECONDS"),
    KeyFlag("--itl", "objectives.itl_s", float, "Objective: largest gap between tokens.", "SECONDS"),
    KeyFlag("--e2e", "objectives.e2e_s", float, "Objective: time to the last token.", "SECONDS"),
)

Change = tuple[str, Any, str]
"""Dotted key, value, and what the user wrote it as."""


def changes_of(values: Mapping[str, Any]) -> Iterator[Change]:
    """Yield the keys that the given flags set.

    Parameters
    ----------
    values
        By the parameter's name; None where a flag wasn't given.
    """
    given = {flag: values[flag.parameter] for flag in FLAGS if values.get(flag.parameter) is not None}
    for flag, value in given.items():
        if flag.name == "--loop":
            yield from _loop(value, flag.key)
            continue
        if flag.name == "--clients" and not any(other.name == "--loop" for other in given):
            yield "workload.loop.kind", "closed", flag.name
        if flag.type is bool and "/" not in flag.declaration:
            value = flag.when_on
        yield flag.key, value, _written(flag, value)


def _loop(kind: str, key: str) -> Iterator[Change]:
    """Yield the change for another loop: the file's clients don't go with it."""
    yield (f"{key}.kind", kind, "--loop") if kind == "closed" else (key, {"kind": kind}, "--loop")


def _written(flag: KeyFlag, value: Any) -> str:
    return flag.declaration.split("/")[1] if "/" in flag.declaration and value is False else flag.name
