"""Workloads of measured vLLM runs: JSON Lines with the hashes of 16-token blocks of prompt and output.

Keys: ``arrival_s`` (seconds from the start of the run, kept as they are), ``prompt_tokens``, ``output_tokens``, and
``block_hashes``, chained hashes as hexadecimal texts over the full blocks of prompt and output together.
"""

from __future__ import annotations

from dataclasses import replace

from workloads.readers._base import Head, Options, Reader, Roles, assemble
from workloads.readers._jsonl import read_jsonl, require_keys
from workloads.trace import Trace

BLOCK_SIZE_TOKENS = 16
_NEEDED = ("arrival_s", "prompt_tokens", "output_tokens")
_ROLES = Roles(
    time="arrival_s",
    relative=False,
    prompt="prompt_tokens",
    output="output_tokens",
    blocks="block_hashes",
    block_size=BLOCK_SIZE_TOKENS,
)


def _matches(head: Head) -> bool:
    return head.record is not None and set(_NEEDED) <= set(head.record)


def _parse(head: Head, options: Options) -> Trace:
    require_keys(head, _NEEDED)
    lists = ["block_hashes"] if head.record and "block_hashes" in head.record else []
    table, sha = read_jsonl(head, _NEEDED, lists, hexadecimal=True)
    return replace(assemble(table, _ROLES, options), sha256=sha)


READER = Reader(
    "vllm-workload",
    "workload.jsonl of a measured vLLM run: arrival_s, prompt_tokens, output_tokens, block_hashes (hexadecimal)",
    _matches,
    _parse,
    _NEEDED,
    layout="jsonl",
)
