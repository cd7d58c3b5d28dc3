"""Sections of the summary on what most runs are without: then a null and the reason, and nothing of it is imported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simulator.engine.cluster import Cluster
    from simulator.metrics import Rows
    from simulator.run_data import RunData

WITHOUT_LINKS = "no part of this run moves data over links"


def tenants(data: RunData, rows: Rows, start_ns: int, end_ns: int) -> dict[str, Any]:
    """Return the section ``tenants``, see `simulator.tenants.describe_tenants`."""
    if data.trace.tenant is None:
        return {"by_tenant": None, "jain_index": None, "backlogged": None, "reason": "the trace names no tenants"}
    from simulator.tenants import describe_tenants

    return describe_tenants(rows, data.trace.tenant, start_ns, end_ns)


def shared_prefix_attention(cluster: Cluster) -> dict[str, Any]:
    """Return the section ``shared_prefix_attention``, see `simulator.shared_prefix.describe_shared_prefixes`."""
    if not any(replica.shared_prefix_attention for replica in cluster.replicas):
        return {"attended_tokens": None, "reason": "no pool has engine.shared_prefix_attention"}
    from simulator.shared_prefix import describe_shared_prefixes

    return describe_shared_prefixes(cluster)


def attention_data_parallel(data: RunData) -> dict[str, Any]:
    """Return the section ``attention_data_parallel``, see `simulator.lockstep_result.describe_lockstep`."""
    if not data.cluster.lockstep:
        return {"reason": "no pool has attention data parallel ranks (parallel.dp above 1)", "replicas": []}
    from simulator.lockstep_result import describe_lockstep

    return describe_lockstep(data)


def links(cluster: Cluster) -> dict[str, Any]:
    """Return the section ``links``, see `simulator.network.result.describe_links`."""
    if cluster.network is None:
        return {"links": [], "idle_links": None, "reason": WITHOUT_LINKS}
    from simulator.network.result import describe_links

    return describe_links(cluster.network, cluster.end_ns)


def kv_budget(data: RunData) -> dict[str, Any]:
    """Return the section ``kv_budget``, see `simulator.kv_budget.describe_kv_budget`."""
    if all(pool.kv_budget is None for pool in data.pools):
        return {"pools": None, "reason": "no pool has a KV budget"}
    from simulator.kv_budget import describe_kv_budget

    return describe_kv_budget(data)


def offload(data: RunData) -> dict[str, Any]:
    """Return the section ``offload``, see `simulator.offload.describe_offload`."""
    if all(pool.offload is None for pool in data.pools):
        return {"pools": None, "reason": "no pool has offload"}
    from simulator.offload import describe_offload

    return describe_offload(data.pools)
