"""What the links did, for the summary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simulator.engine.clock import NS_PER_S

if TYPE_CHECKING:
    from simulator.network.cluster_network import ClusterNetwork


def describe_links(cluster_network: ClusterNetwork, end_ns: int) -> dict[str, Any]:
    """Return the use of each link that carried anything, the busiest first.

    Parameters
    ----------
    end_ns
        Length of the run.

    Returns
    -------
    dict
        ``links``: of each its name, ``bandwidth`` (bytes/s, one direction, as reached), ``bytes``, ``utilization``
        (bytes over what it could have carried in the run), ``busy`` (share of the run with at least one flow on it),
        ``peak_flows``; ``idle_links``: how many carried nothing; ``reason``: why there are none.
    """
    network = cluster_network.network
    uses = [network.use(link) for link in range(len(network.links))]
    used = [use for use in uses if use.peak_flows]
    # All of a run's length is the same, so the order is that of utilization.
    used.sort(key=lambda use: (-use.bytes / use.bandwidth, -use.busy_ns, use.name))
    described = [
        {
            "name": use.name,
            "bandwidth": use.bandwidth,
            "bytes": use.bytes,
            "utilization": use.bytes * NS_PER_S / (use.bandwidth * end_ns) if end_ns else None,
            "busy": use.busy_ns / end_ns if end_ns else None,
            "peak_flows": use.peak_flows,
        }
        for use in used
    ]
    reason = None if described else "nothing was moved over links"
    return {"links": described, "idle_links": len(uses) - len(used), "reason": reason}
