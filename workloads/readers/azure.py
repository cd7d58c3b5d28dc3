"""Azure LLM inference traces of 2023 and 2024: CSV with a wall-clock ``TIMESTAMP``.

Format: https://github.com/Azure/AzurePublicDataset, AzureLLMInferenceDataset2023.md and ...2024.md. The 2023 files
write ``2023-11-16 18:17:03.9799600`` (digits of 100 ns), those of 2024 ``2024-05-10 00:00:00.009930+00:00`` (zone,
fraction left out where zero). Both are read, also mixed in one file.
"""

from __future__ import annotations

from dataclasses import replace

from workloads.readers._base import Head, Options, Reader, Roles, assemble
from workloads.readers._csv import Column, read_csv
from workloads.trace import Trace

_NEEDED = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
_ROLES = Roles(time="TIMESTAMP", prompt="ContextTokens", output="GeneratedTokens")


def _matches(head: Head) -> bool:
    return set(_NEEDED) <= set(head.columns)


def _parse(head: Head, options: Options) -> Trace:
    table, sha = read_csv(head, [Column("TIMESTAMP", "stamp"), Column("ContextTokens"), Column("GeneratedTokens")])
    return replace(assemble(table, _ROLES, options), sha256=sha)


READER = Reader(
    "azure",
    "Azure LLM inference traces 2023 and 2024, CSV (https://github.com/Azure/AzurePublicDataset)",
    _matches,
    _parse,
    _NEEDED,
)
