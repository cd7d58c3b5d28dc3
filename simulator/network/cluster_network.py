"""What a cluster sends over its links: replicas' data between GPUs, host memory, flash and shared storage.

Nothing of this is made unless a feature of the run moves data. The collectives within a replica are part of its steps
(`simulator.cost`) and are not flows: they neither slow these flows down nor are slowed down by them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from simulator.engine.clock import NS_PER_S, Environment, to_ns
from simulator.errors import InputError
from simulator.network.flows import Done, FlowGroup, Network, Path, stripe
from simulator.network.max_min import completion_times
from simulator.network.placement import PoolNodes
from simulator.network.shares import Portion, Share, kv_shares, overlaps, share_bytes
from simulator.network.topology import Endpoint, Topology, flash, gpu, host, remote

if TYPE_CHECKING:
    from simulator.parallel import ParallelPlan
    from simulator.resolve import Resolved

Place = Literal["gpu", "host", "flash", "remote"]
"""Memory of a replica's GPUs, of its nodes, their flash, or the shared storage."""

Part = tuple[Endpoint, Endpoint, int]
"""From where, to where, bytes."""

_Shares = tuple[Endpoint, Endpoint, list[tuple[Portion, ...]]]
"""From where, to where, and which shares of a transfer's bytes."""

_ESTIMATED_BYTES = 2**40
"""What the time of a byte is worked out with: so many that whole bytes make no difference."""


class ClusterNetwork:
    """Links of a cluster, and transfers of its replicas' data over them.

    Bytes are those of a whole replica as the engine counts them (an attention data parallel rank is one). Its GPUs take
    part in parallel, each with its share, over the routes that `Topology` gives, striped over interfaces; a transfer is
    done with the last of them.

    Parameters
    ----------
    plans
        Parallel layout of each replica.
    num_layers, num_kv_heads
        Of the model, or of each replica's; one key-value head where every rank holds all of the KV (MLA).
    """

    def __init__(
        self,
        env: Environment,
        topology: Topology,
        plans: Sequence[ParallelPlan],
        *,
        num_layers: int | Sequence[int],
        num_kv_heads: int | Sequence[int],
        keep_timeline: bool = False,
    ) -> None:
        self.topology = topology
        self.network = Network(env, topology.links, keep_timeline=keep_timeline)
        self._plans = tuple(plans)
        self._num_layers = _of_each(num_layers, len(self._plans))
        self._num_kv_heads = _of_each(num_kv_heads, len(self._plans))
        self._shares: dict[tuple[Place, Place, int, int | None, Sequence[int] | None], list[_Shares]] = {}
        self._estimates: dict[
            tuple[Place, Place, int, int | None], tuple[frozenset[tuple[float, float]], int, float]
        ] = {}
        self._estimated_at = 0

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on what was taken for granted, for the result."""
        return self.topology.notes

    # ------------------------------------------------------------------------------------------------- transfers

    def gpu_to_gpu(
        self,
        replica: int,
        to: int,
        num_bytes: int,
        done: Done,
        *,
        layers: Sequence[int] | None = None,
        messages: int = 1,
        label: str = "",
    ) -> FlowGroup:
        """Send KV from one replica's GPUs to another's: each rank its heads and layers to the ranks that want them.

        Parameters
        ----------
        num_bytes
            Of KV, each head of each layer once; where the receiver's ranks hold copies, they are sent besides.
        layers
            Which layers' KV it is (for transfers layer by layer); None: all.
        messages
            Of each rank to each, spread over its interfaces.
        """
        parts = self.parts("gpu", "gpu", replica, num_bytes, to=to, layers=layers)
        return self.start(parts, done, messages=messages, label=label)

    def gpu_to_host(self, replica: int, num_bytes: int, done: Done, *, messages: int = 1, label: str = "") -> FlowGroup:
        """Move data from a replica's GPUs to the host memory of their nodes, in equal shares."""
        return self.start(self.parts("gpu", "host", replica, num_bytes), done, messages=messages, label=label)

    def host_to_gpu(self, replica: int, num_bytes: int, done: Done, *, messages: int = 1, label: str = "") -> FlowGroup:
        """Move data from host memory to a replica's GPUs, in equal shares."""
        return self.start(self.parts("host", "gpu", replica, num_bytes), done, messages=messages, label=label)

    def flash_to_host(self, replica: int, num_bytes: int, done: Done, *, label: str = "") -> FlowGroup:
        """Read data from the flash of a replica's nodes into their host memory."""
        return self.start(self.parts("flash", "host", replica, num_bytes), done, label=label)

    def host_to_flash(self, replica: int, num_bytes: int, done: Done, *, label: str = "") -> FlowGroup:
        """Write data from host memory to flash."""
        return self.start(self.parts("host", "flash", replica, num_bytes), done, label=label)

    def storage_to_host(self, replica: int, num_bytes: int, done: Done, *, label: str = "") -> FlowGroup:
        """Read data from the shared storage into the host memory of a replica's nodes."""
        return self.start(self.parts("remote", "host", replica, num_bytes), done, label=label)

    def host_to_storage(self, replica: int, num_bytes: int, done: Done, *, label: str = "") -> FlowGroup:
        """Write data from host memory to the shared storage."""
        return self.start(self.parts("host", "remote", replica, num_bytes), done, label=label)

    def storage_to_gpu(self, replica: int, num_bytes: int, done: Done, *, label: str = "") -> FlowGroup:
        """Load data, such as weights, from the shared storage onto a replica's GPUs, in equal shares."""
        return self.start(self.parts("remote", "gpu", replica, num_bytes), done, label=label)

    def host_to_host(
        self, replica: int, to: int, num_bytes: int, done: Done, *, messages: int = 1, label: str = ""
    ) -> FlowGroup:
        """Move data from the host memory of one replica's nodes to that of another's."""
        parts = self.parts("host", "host", replica, num_bytes, to=to)
        return self.start(parts, done, messages=messages, label=label)

    def start(self, parts: Sequence[Part], done: Done, *, messages: int = 1, label: str = "") -> FlowGroup:
        """Begin a transfer of several parts now; each is striped over its route's paths."""
        pieces, fewest = self._pieces(parts)
        return self.network.start_group(pieces, done, messages=math.ceil(messages / fewest), label=label)

    # ------------------------------------------------------------------------------------------------- estimates

    def estimate_ns(
        self, source: Place, target: Place, replica: int, num_bytes: int, *, to: int | None = None, messages: int = 1
    ) -> int | None:
        """Return what a transfer would take if it had the links to itself, ns; None while a link on its way is down.

        Latencies of different paths are taken as the longest. What other flows do to it can't be known beforehand.
        """
        if self._estimated_at != self.network.capacity_changes:
            self._estimates.clear()
            self._estimated_at = self.network.capacity_changes
        key = source, target, replica, to
        if key not in self._estimates:
            self._estimates[key] = self._estimate(self.parts(source, target, replica, _ESTIMATED_BYTES, to=to))
        overheads, fewest, seconds = self._estimates[key]
        if math.isinf(seconds):
            return None
        each = math.ceil(messages / fewest)
        latency_ns = max(to_ns(latency_s + each * per_message_s) for latency_s, per_message_s in overheads)
        return latency_ns + round(num_bytes * seconds * NS_PER_S)

    def expected_ns(self, parts: Sequence[Part]) -> int | None:
        """Return what a transfer that begins now would take beside the present flows, if those stayed, ns.

        None while a link on its way is down.
        """
        return self.network.expected_ns(self._pieces(parts)[0])

    def _estimate(self, parts: Sequence[Part]) -> tuple[frozenset[tuple[float, float]], int, float]:
        """Return the paths' distinct overheads, the fewest paths of a part, and seconds a byte."""
        pieces, fewest = self._pieces(parts)
        capacities = [self.network.capacity(link) for link in range(len(self.network.links))]
        times = completion_times(capacities, [path for path, _ in pieces], [float(size) for _, size in pieces])
        overheads = frozenset(self.network.overhead_s(path) for path, _ in pieces)
        return overheads, fewest, max(times) / _ESTIMATED_BYTES

    def set_capacity(self, name: str, factor: float) -> None:
        """Give a link this share of its bandwidth from now on; 0: it is down, and its flows stall."""
        self.network.set_capacity(self.topology.link(name), factor)

    # ----------------------------------------------------------------------------------------------------- parts

    def parts(
        self,
        source: Place,
        target: Place,
        replica: int,
        num_bytes: int,
        *,
        to: int | None = None,
        layers: Sequence[int] | None = None,
    ) -> list[Part]:
        """Return what goes from where to where; parts between the same two endpoints are one.

        Parameters
        ----------
        to
            The other replica, for transfers between two.
        """
        # Who sends which share to whom is the same for any number of bytes.
        key = source, target, replica, to, layers if layers is None or isinstance(layers, range) else tuple(layers)
        found = self._shares.get(key)
        if found is None:
            found = self._shares[key] = self._divided(source, target, replica, to, layers)
        return [(begin, end, sum([share_bytes(num_bytes, each) for each in shares])) for begin, end, shares in found]

    def _divided(
        self, source: Place, target: Place, replica: int, to: int | None, layers: Sequence[int] | None
    ) -> list[_Shares]:
        """Return between which endpoints the shares of a transfer go."""
        ranks = self.topology.placement(replica)
        others = ranks if to is None else self.topology.placement(to)
        if to is None:
            shares: list[Share] = [(i, i, ((i, i + 1, len(ranks)),)) for i in range(len(ranks))]
        elif source == target == "gpu":
            heads, num_layers = self._num_kv_heads[replica], self._num_layers[replica]
            if (heads, num_layers) != (self._num_kv_heads[to], self._num_layers[to]):
                raise ValueError(f"replicas {replica} and {to} serve models whose KV differs")
            plans = self._plans[replica], self._plans[to]
            shares = kv_shares(*plans, num_layers=num_layers, num_kv_heads=heads, layers=layers)
        else:
            units = len(ranks) * len(others)
            shares = [(i, j, ((low, high, units),)) for i, j, low, high in overlaps(len(ranks), len(others))]
        merged: dict[tuple[Endpoint, Endpoint], list[tuple[Portion, ...]]] = {}
        for i, j, portions in shares:
            # A share of all layers, or all tokens, or all heads takes nothing off.
            some = tuple((low, high, of) for low, high, of in portions if high - low < of)
            merged.setdefault((_at(source, ranks[i]), _at(target, others[j])), []).append(some)
        return [(begin, end, each) for (begin, end), each in merged.items()]

    def _pieces(self, parts: Sequence[Part]) -> tuple[list[tuple[Path, int]], int]:
        """Return the paths with their bytes, and the fewest paths of a part: messages are spread over them."""
        pieces: list[tuple[Path, int]] = []
        fewest = math.inf
        for source, target, size in parts:
            route = self.topology.route(source, target)
            fewest = min(fewest, len(route))
            if len(route) == 1:
                pieces.append((route[0], size))
            else:
                pieces += stripe(route, size)
        return pieces, int(fewest)


def _of_each(value: int | Sequence[int], number: int) -> tuple[int, ...]:
    return (value,) * number if isinstance(value, int) else tuple(value)


def _at(place: Place, rank: tuple[int, int]) -> Endpoint:
    if place == "gpu":
        return gpu(*rank)
    if place == "remote":
        return remote()
    return host(rank[0]) if place == "host" else flash(rank[0])


# -------------------------------------------------------------------------------------------------------- building


def pool_nodes(resolved: Resolved, replicas: Sequence[int] | None = None) -> list[PoolNodes]:
    """Return what the topology needs to know of a scenario's pools.

    Parameters
    ----------
    replicas
        Of each pool; None: as many as the scenario lets it have.
    """
    counts = [each.max_replicas for each in resolved.pools] if replicas is None else replicas
    swap = resolved.scenario.cluster.model_swap
    order = [each.pool.name for each in resolved.pools if swap is not None and each.pool.name in swap.pools]
    return [
        PoolNodes(
            each.pool.name,
            each.node,
            each.accelerator,
            each.plan,
            count,
            same_as=order[0] if each.pool.name in order[1:] else None,
        )
        for each, count in zip(resolved.pools, counts, strict=True)
    ]


def build_network(
    env: Environment, resolved: Resolved, *, replicas: Sequence[int] | None = None, keep_timeline: bool = False
) -> ClusterNetwork:
    """Make the links of a scenario's cluster; `pool_nodes` says what ``replicas`` is."""
    pools = pool_nodes(resolved, replicas)
    models = [each.model for each, pool in zip(resolved.pools, pools, strict=True) for _ in range(pool.num_engines)]
    return ClusterNetwork(
        env,
        Topology(pools, resolved.scenario.network),
        [pool.plan for pool in pools for _ in range(pool.num_engines)],
        num_layers=[model.num_layers for model in models],
        num_kv_heads=[1 if model.mla is not None else model.num_kv_heads for model in models],
        keep_timeline=keep_timeline,
    )


def check_connected(resolved: Resolved, names: Sequence[str], what: str) -> None:
    """Refuse pools between whose replicas there is no link.

    Parameters
    ----------
    names
        Pools whose replicas send data to each other.
    what
        The feature that needs it, for the message: ``"disaggregation"``.

    Raises
    ------
    InputError
        With the first two replicas that nothing joins.
    """
    pools = pool_nodes(resolved)
    topology = Topology(pools, resolved.scenario.network)
    owner = [pool.name for pool in pools for _ in range(pool.num_engines)]
    ranks = {(topology.placement(i)[0], name) for i, name in enumerate(owner) if name in names}
    places = sorted(ranks)
    if topology.unreachable({node for (node, _), _ in places}) is None:
        return
    for at, name in places:
        for other_at, other in places:
            if at == other_at:
                continue
            try:
                topology.route(gpu(*at), gpu(*other_at))
            except InputError as error:
                raise InputError(f"{what} moves data between pools {name!r} and {other!r}, but {error}") from None


__all__ = ["ClusterNetwork", "Part", "Place", "build_network", "check_connected", "pool_nodes"]
