"""Step times from the data sheet, for hardware and models that nobody measured: an estimate, and it says so.

A roofline for every operator, with the fractions of the data sheet in `simulator.cost.efficiency`, fitted to measured
kernels. Not modelled beyond what `simulator.cost.operator_cost` leaves out: experts visited unequally, the conversion
of activations to narrow datatypes, the arithmetic of widening 4-bit weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from simulator.cost.efficiency import DEFAULT_EFFICIENCY, DEFAULT_HOST_OVERHEAD_S, Efficiency
from simulator.cost.expert_load import DEFAULT_LOAD, ExpertLoad
from simulator.cost.graphs import NO_GRAPHS, CudaGraphs
from simulator.cost.kernels import Kernels, KernelShapes, RooflineKernels, check_activation_dtype
from simulator.cost.links import stage_link, tensor_link
from simulator.cost.operator_cost import OperatorCost
from simulator.errors import InputError
from simulator.models.dtypes import WEIGHT_FORMATS, canonical_dtype
from simulator.models.spec import ModelSpec
from simulator.models.weights import weight_formats
from simulator.parallel import ParallelPlan

if TYPE_CHECKING:
    from hardware_profiles import Accelerator, NodeType


def kernel_shapes(
    model: ModelSpec,
    accelerator: Accelerator,
    plan: ParallelPlan | None = None,
    *,
    weights_dtype: str | None = None,
    kv_dtype: str | None = None,
    activation_dtype: str | None = None,
    node: NodeType | None = None,
    load: ExpertLoad = DEFAULT_LOAD,
    shared_beside: int = 0,
) -> KernelShapes:
    """Return what the kernels of a model compute with on a layout.

    Parameters
    ----------
    plan
        Parallel layout; None: one GPU.
    weights_dtype
        As in `simulator.models.weights.weight_formats`; None: as published.
    kv_dtype
        Datatype of the cache; None: that of the activations.
    activation_dtype
        Datatype of activations and of attention, 16 bits or more; None: the model's 16-bit datatype.
    node
        Node type, for the links between GPUs; None: one node that is large enough, at the accelerator's own rates.
    load
        How tokens spread over routed experts.
    shared_beside
        Tokens of a step of decodes alone up to which shared experts are computed beside the routed ones; 0: never.

    Raises
    ------
    InputError
        If the layout or a datatype is impossible.
    """
    plan = plan or ParallelPlan()
    plan.check(model)
    activation = canonical_dtype(activation_dtype or model.base_dtype, f"activations of {model.name}")
    if WEIGHT_FORMATS[activation].element_bits < 16:
        raise InputError(f"activation_dtype must have 16 bits or more, got {activation!r}")
    check_activation_dtype(accelerator, activation)
    return KernelShapes(
        model=model,
        accelerator=accelerator,
        plan=plan,
        formats=weight_formats(model, weights_dtype),
        activation_dtype=activation,
        kv_dtype=canonical_dtype(kv_dtype or activation, f"KV cache of {model.name}"),
        link=tensor_link(accelerator, node, plan.tp) if plan.tp > 1 else None,
        stage_link=stage_link(accelerator, node, plan.gpus) if plan.pp > 1 else None,
        context_link=tensor_link(accelerator, node, plan.tp * plan.cp) if plan.cp > 1 else None,
        load=load,
        shared_beside=shared_beside,
    )


def rank_kernels(shapes: KernelShapes, make: Callable[[KernelShapes], Kernels]) -> Kernels:
    """Return the kernels of one rank of a layout; ``make`` makes those without context parallelism."""
    if shapes.plan.cp == 1:
        return make(shapes)
    from simulator.cost.context_parallel import context_parallel_kernels

    return context_parallel_kernels(shapes, make)


def roofline_cost(
    model: ModelSpec,
    accelerator: Accelerator,
    plan: ParallelPlan | None = None,
    *,
    weights_dtype: str | None = None,
    kv_dtype: str | None = None,
    activation_dtype: str | None = None,
    host_overhead_s: float | None = None,
    graphs: CudaGraphs = NO_GRAPHS,
    node: NodeType | None = None,
    load: ExpertLoad = DEFAULT_LOAD,
    shared_beside: int = 0,
    efficiency: Efficiency = DEFAULT_EFFICIENCY,
) -> OperatorCost:
    """Return the cost model from the data sheet of an accelerator.

    Parameters are those of `kernel_shapes`, and:

    Parameters
    ----------
    host_overhead_s
        Seconds a step that the accelerators wait for the host; None: `DEFAULT_HOST_OVERHEAD_S`.
    graphs
        How steps are padded.
    efficiency
        Fractions of the data sheet that kernels reach.
    """
    shapes = kernel_shapes(
        model,
        accelerator,
        plan,
        weights_dtype=weights_dtype,
        kv_dtype=kv_dtype,
        activation_dtype=activation_dtype,
        node=node,
        load=load,
        shared_beside=shared_beside,
    )
    return OperatorCost(
        shapes,
        rank_kernels(shapes, lambda each: RooflineKernels(each, efficiency)),
        host_overhead_s=DEFAULT_HOST_OVERHEAD_S if host_overhead_s is None else host_overhead_s,
        graphs=graphs,
    )
