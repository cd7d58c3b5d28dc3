"""The scenario's KV budget of a pool."""

from typing import ClassVar

from simulator.scenario_base import PolicyRef


class KVBudgetRef(PolicyRef):
    """The policy that says what is kept of each request's keys and values."""

    kind: ClassVar[str] = "kv_budget"
