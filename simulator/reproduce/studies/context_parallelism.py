"""Context parallelism for long prompts: prefill of 128K and of a million tokens over 16 nodes."""

from __future__ import annotations

from collections.abc import Sequence

from simulator.reproduce.study import Options, PaperFigure, Row, Study

MODEL, NODE, TP = "llama-3.1-405b", "dgx-h100", 8
SHORT, LONG = 131_072, 1_048_576
"""Tokens of a prompt: 128K and 1M."""
RANKS = (1, 2, 4, 8, 16)
"""Context parallel ranks, each of a node."""


def run(options: Options) -> Sequence[Row]:
    """Seconds of prefill by ranks, for a ring that is balanced and one that isn't, and Ulysses where heads divide."""
    rows = []
    for ranks in RANKS:
        seconds = prefill_s(SHORT, ranks)
        options.progress(f"128K tokens on {ranks} nodes: {seconds:.2f} s")
        rows.append(Row(f"128K tokens, cp={ranks}, ring", seconds, "s", "short" if ranks == 16 else None))
    balanced, alone = prefill_s(LONG, 16), prefill_s(LONG, 1)
    rows.append(Row("1M tokens, cp=16, ring", balanced, "s", "long"))
    rows.append(Row("1M tokens, cp=16, efficiency", 100 * alone / (16 * balanced), "%", "efficiency"))
    uneven = prefill_s(LONG, 16, striped=False)
    rows.append(Row("1M tokens, cp=16, unstriped ring over balanced", uneven / balanced, "x"))
    for tokens, name in ((SHORT, "128K"), (LONG, "1M")):
        ratio = prefill_s(tokens, 16, context="ulysses") / prefill_s(tokens, 16)
        rows.append(Row(f"{name} tokens, cp=16, ulysses over ring", ratio, "x"))
    return rows


def prefill_s(tokens: int, ranks: int, *, context: str = "ring", striped: bool = True) -> float:
    """Return the time of a step that computes one prompt, seconds."""
    from hardware_profiles import load_accelerator, load_node
    from simulator.cost.fitted_kernels import fitted_cost
    from simulator.cost.shape import BatchShape
    from simulator.models import load_model
    from simulator.parallel import ParallelPlan

    node = load_node(NODE)
    plan = ParallelPlan(tp=TP, cp=ranks, context=context, striped=striped)
    cost = fitted_cost(load_model(MODEL), load_accelerator(node.accelerator), plan, node=node, weights_dtype="fp8")
    shape = BatchShape()
    shape.chunks, shape.prefill_tokens, shape.logit_rows = [(tokens, 0)], tokens, 1
    return cost.step_ns(shape) / 1e9


STUDY = Study(
    name="context-parallelism",
    paper="A. Yang et al., Context Parallelism for Scalable Million-Token Inference, MLSys 2025, arXiv:2411.01783",
    claim="Llama-3-405B computes a prompt of 1M tokens in 77 s on 128 H100 (93 % parallelization efficiency), one of "
    "128K in 3.8 s.",
    figures={
        "short": PaperFigure(3.8, "s", "abstract; 128 H100"),
        "long": PaperFigure(77.0, "s", "abstract; 128 H100"),
        "efficiency": PaperFigure(93.0, "%", "abstract"),
    },
    setup="Llama-3.1-405B in fp8 on nodes of eight H100, tensor parallel in a node, context parallel over up to 16 of "
    "them; the duration of one step that computes one prompt, from the embedded fits to measured kernels. Efficiency "
    "is the time of one node over 16 times that of 16.",
    differences="The paper quantises the feed-forward layers only and its H100 have HBM2e, a lower power limit (500 W) "
    "and 400 Gbit/s a GPU; fits here are of H100 SXM at full power. Attention of 1M tokens lies beyond the measured "
    "kernels and is extrapolated. Transfers hide completely under attention here.",
    run=run,
    without_runs="Each figure is the duration of one step, asked of the cost model: nothing is simulated.",
)
