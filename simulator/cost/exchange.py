"""How attention data parallel ranks exchange tokens around the routed experts of a layer: dispatch, then combine.

- ``allgather``: every rank gets the hidden states of all (all-gather), and the experts' sums go back (reduce-scatter),
  each over the data parallel ranks. Default of vLLM (``allgather_reducescatter``), of SGLang (``moe-a2a-backend none``)
  and of TensorRT-LLM without NVLink all-to-all. Hidden states travel in the activations' datatype; router logits or
  scales, a few per cent of the bytes, are left out.
- ``deepep-high-throughput``, ``deepep-low-latency``: all-to-all over all expert parallel ranks by DeepEP's kernels,
  hidden states in 8 bits there and in 16 back. Which rank sends the most decides.

Times are measured where tables have them for as many ranks in one node (NCCL; DeepEP for the model's sizes); else the
accelerator's fits of NCCL; else an estimate by bytes over the links: in a node at the NVLink or PCIe rate, between
nodes over the network interfaces, of which NCCL's rings use all of a node at once and DeepEP each GPU its own. Links
are taken as free of other traffic. Not modelled: exchange hidden behind computation (two-batch overlap), DeepSeek's
limit on the nodes that a token's experts are on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from hardware_profiles.fits import list_fits, load_fits
from simulator.calibration.fitting.forms import FORMS, seconds
from simulator.cost.collectives import preferred_kernel
from simulator.cost.kernels import Floats, KernelShapes
from simulator.cost.links import NETWORK_EFFICIENCY, P2P_LATENCY_S, node_link
from simulator.cost.tables import curve
from simulator.errors import InputError

if TYPE_CHECKING:
    from hardware_profiles import NodeType

BACKENDS = ("allgather", "deepep", "deepep-low-latency", "deepep-high-throughput")

DEEPEP_LATENCY_S = {"deepep_ll": 45e-6, "deepep_ht": 48e-6}
"""Dispatch or combine of next to nothing: vLLM's low-latency kernels on 8 H200, one token, hidden size 7168: 44 and 50
us; SGLang's high-throughput combine there: 48 us (aiconfigurator-core 0.12.0)."""

DEEPEP_SMS = " 20 SMs"
"""Processors of the high-throughput kernels, of several that were measured: DeepEP's own default
(``Buffer.num_sms = 20``)."""

_FP8_BYTES, _BF16_BYTES = 1.0, 2.0


class Exchange:
    """Seconds of dispatch and combine of one layer.

    Parameters
    ----------
    shapes
        Model, layout and links; ``plan.dp`` above 1.
    node
        Node type; None: one node that is large enough for all ranks.
    backend
        See the module.
    rows
        Kernel measurements of the accelerator; None: none.

    Attributes
    ----------
    sources
        Lines for the result.
    """

    def __init__(
        self, shapes: KernelShapes, node: NodeType | None, backend: str, rows: pd.DataFrame | None = None
    ) -> None:
        if backend not in BACKENDS:
            raise InputError(f"unknown exchange {backend!r}; known: {', '.join(BACKENDS)}")
        assert shapes.model.moe is not None
        self._shapes, self._backend = shapes, backend
        self._rows = rows
        plan = shapes.plan
        self._ranks = plan.tp * plan.dp
        self._nodes = 1 if node is None else -(-self._ranks // node.gpus)
        if node is not None and self._nodes > 1 and self._ranks % node.gpus:
            raise InputError(f"{self._ranks} expert parallel ranks don't fill nodes of {node.gpus} GPUs ({node.name})")
        self._link = node_link(shapes.accelerator, node, self._ranks // self._nodes)
        self._network = 0.0
        if node is not None and self._nodes > 1:
            self._network = sum(nic.count * nic.bandwidth for nic in node.nics) * NETWORK_EFFICIENCY
            if self._network <= 0:
                raise InputError(
                    f"{node.name} has no network interface, and {self._ranks} ranks need {self._nodes} nodes"
                )
        self._node_gpus = self._ranks // self._nodes
        self._lines: dict[str, str] = {}
        self._curves: dict[str, tuple[Floats, Floats] | None] = {}
        # Say at once where the times come from.
        one = np.array([1.0])
        for chunks in (True, False):
            self.seconds(one, one, chunks)

    @property
    def sources(self) -> tuple[str, ...]:
        """Where the times come from."""
        return tuple(self._lines.values())

    def seconds(self, most: Floats, total: Floats, chunks: bool) -> Floats:
        """Return the seconds of one layer's dispatch and combine.

        Parameters
        ----------
        most, total
            Tokens of the rank that has the most, and of all data parallel ranks.
        chunks
            Whether some rank has prefill chunks in this step.
        """
        if self._backend == "allgather":
            size = total * (self._shapes.model.hidden_size * self._shapes.activation_bytes)
            return self._collective("all_gather", size) + self._collective("reduce_scatter", size)
        kind = {"deepep-low-latency": "deepep_ll", "deepep-high-throughput": "deepep_ht"}.get(self._backend)
        kind = kind or ("deepep_ht" if chunks else "deepep_ll")
        each = most / self._shapes.plan.tp  # tensor parallel ranks send a part of the tokens each
        return self._deepep("moe_dispatch", kind, each) + self._deepep("moe_combine", kind, each)

    # --------------------------------------------------------------------------------------------------- collectives

    def _collective(self, operator: str, size: Floats) -> Floats:
        """Return the seconds of a collective over the data parallel ranks, ``size`` bytes on each after or before."""
        ranks = self._shapes.plan.dp
        if self._nodes == 1:
            found = self._measured_collective(operator)
            if found is not None:
                return np.where(size > 0, curve(*found, size, hold=False), 0.0)
            fitted = self._fitted(operator, size)
            if fitted is not None:
                return np.where(size > 0, fitted, 0.0)
        self._lines.setdefault(operator, f"experts' {operator} over {ranks} ranks: estimate for {self._where()}")
        if self._nodes == 1:
            return np.where(size > 0, self._link.all_gather_s(size, ranks), 0.0)
        # Rings that enter and leave every node by each of its interfaces: all of the data but a node's own comes in.
        between = size * ((self._nodes - 1) / self._nodes) / self._network
        within = size * ((ranks - 1) / ranks) / self._link.bandwidth
        latency = P2P_LATENCY_S * self._nodes + self._link.latency_s
        return np.where(size > 0, latency + np.maximum(between, within), 0.0)

    def _measured_collective(self, operator: str) -> tuple[Floats, Floats] | None:
        if operator not in self._curves:
            self._curves[operator] = None
            rows = self._rows
            if rows is not None:
                here = rows[(rows["operator"] == operator) & (rows["ranks"] == self._shapes.plan.dp)]
                part = preferred_kernel(here)
                if not part.empty:
                    median = part.groupby("message_bytes", sort=True)["time_s"].median()
                    self._curves[operator] = median.index.to_numpy(dtype=np.float64), median.to_numpy(dtype=np.float64)
                    self._measured(operator, part)
        return self._curves[operator]

    def _fitted(self, operator: str, size: Floats) -> Floats | None:
        shapes = self._shapes
        accelerator = shapes.accelerator
        measured = accelerator.pcie if accelerator.scale_up.startswith("pcie") else accelerator.scale_up
        if accelerator.name not in list_fits() or self._link.name != measured:
            return None
        fit = load_fits(accelerator.name).find(operator)
        if fit is None:
            return None
        self._lines.setdefault(
            operator, f"experts' {operator} over {shapes.plan.dp} ranks: fitted to {fit.software} on {accelerator.name}"
        )
        columns = {"message_bytes": size, "ranks": np.full_like(size, shapes.plan.dp)}
        return seconds(FORMS[operator].work(columns, {}, accelerator, fit.latency_s), fit.ratios, fit.padding)

    # -------------------------------------------------------------------------------------------------------- DeepEP

    def _deepep(self, operator: str, kind: str, tokens: Floats) -> Floats:
        """Return the seconds of one phase by tokens of one GPU."""
        key = f"{operator} {kind}"
        if key not in self._curves:
            self._curves[key] = self._measured_exchange(operator, kind)
        found = self._curves[key]
        if found is not None:
            return np.where(tokens > 0, curve(*found, tokens, hold=False), 0.0)
        self._lines.setdefault(key, f"experts' {key} over {self._ranks} ranks: estimate for {self._where()}")
        moe = self._shapes.model.moe
        assert moe is not None
        width = _FP8_BYTES if operator == "moe_dispatch" else _BF16_BYTES
        if kind == "deepep_ll":  # a message to each expert's rank
            peers = moe.experts_per_token * (1.0 - 1.0 / self._ranks)
            remote = moe.experts_per_token * (1.0 - 1.0 / self._nodes)
        else:  # one to each rank that has one of them, one to each node between nodes
            peers = _distinct(self._ranks, moe.experts_per_token) * (1.0 - 1.0 / self._ranks)
            remote = _distinct(self._nodes, moe.experts_per_token) * (1.0 - 1.0 / self._nodes)
        size = tokens * (self._shapes.model.hidden_size * width)
        within = size * peers / self._link.bandwidth
        between = size * remote / (self._network / self._node_gpus) if self._nodes > 1 else np.zeros_like(size)
        return np.where(tokens > 0, DEEPEP_LATENCY_S[kind] + np.maximum(within, between), 0.0)

    def _measured_exchange(self, operator: str, kind: str) -> tuple[Floats, Floats] | None:
        rows, model, moe = self._rows, self._shapes.model, self._shapes.model.moe
        if rows is None or moe is None:
            return None
        part = rows[(rows["operator"] == operator) & (rows["ranks"] == self._ranks)]
        part = part[part["nodes"].fillna(1) == self._nodes]
        sizes = {"hidden_size": model.hidden_size, "num_experts": moe.num_experts, "top_k": moe.experts_per_token}
        for name, value in sizes.items():
            part = part[part[name] == value]
        part = part[part["kernel"].fillna("").str.contains(kind) & ~part["dtype"].fillna("").isin(("fp4",))]
        default = part[part["kernel"].str.endswith(DEEPEP_SMS)]
        part = part if default.empty else default
        if part.empty:
            return None
        self._measured(f"{operator} {kind}", part)
        median = part.groupby(["tokens", "kernel", "dtype"], sort=True, dropna=False)["time_s"].median()
        least = median.groupby(level="tokens", sort=True).min()
        return least.index.to_numpy(dtype=np.float64), least.to_numpy(dtype=np.float64)

    # --------------------------------------------------------------------------------------------------------- words

    def _measured(self, what: str, part: pd.DataFrame) -> None:
        made = part.iloc[0]
        ranks = int(made["ranks"])
        self._lines.setdefault(
            what,
            f"experts' {what}: measured over {ranks} ranks, {made['software']} {made['software_version']}, "
            f"{made['kernel']} ({made['source']})",
        )

    def _where(self) -> str:
        return (
            self._link.name if self._nodes == 1 else f"{self._nodes} nodes, {self._link.name} within and NICs between"
        )


def _distinct(places: int, choices: int) -> float:
    """Return how many of ``places`` as many independent, uniform choices hit on average."""
    missed = 1.0
    for _ in range(choices):
        missed *= 1.0 - 1.0 / places
    return places * (1.0 - missed)
