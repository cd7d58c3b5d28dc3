"""Mooncake: JSON Lines with prefix identity.

Format: ``FAST25-release`` of https://github.com/kvcache-ai/Mooncake: ``timestamp`` in milliseconds, ``input_length``,
``output_length``, and ``hash_ids``, one for each block of 512 tokens of the prompt (the last one may be partly
filled); equal ids mean equal tokens up to and including that block.
"""

from __future__ import annotations

from dataclasses import replace

from workloads.readers._base import Head, Options, Reader, Roles, assemble
from workloads.readers._jsonl import read_jsonl, require_keys
from workloads.trace import Trace

BLOCK_SIZE_TOKENS = 512
_NUMBERS = ("timestamp", "input_length", "output_length")
_NEEDED = (*_NUMBERS, "hash_ids")
_ROLES = Roles(
    time="timestamp",
    time_unit_s=1e-3,
    prompt="input_length",
    output="output_length",
    blocks="hash_ids",
    block_size=BLOCK_SIZE_TOKENS,
)


def _matches(head: Head) -> bool:
    return head.record is not None and set(_NEEDED) <= set(head.record)


def _parse(head: Head, options: Options) -> Trace:
    require_keys(head, _NEEDED)
    table, sha = read_jsonl(head, _NUMBERS, ["hash_ids"], hexadecimal=False)
    return replace(assemble(table, _ROLES, options), sha256=sha)


READER = Reader(
    "mooncake",
    "Mooncake JSON Lines with hash_ids of 512-token blocks (https://github.com/kvcache-ai/Mooncake)",
    _matches,
    _parse,
    _NEEDED,
    layout="jsonl",
)
