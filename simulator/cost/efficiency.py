"""How much of the data sheet kernels reach: one table, with where each figure comes from.

An operator takes ``latency + max(FLOPs / (peak x flops), bytes / (bandwidth x bytes))``. The figures are what that form
fits best, by the median of relative errors, in kernel times that others measured and published: *AIC* is
aiconfigurator-core 0.12.0 (Apache-2.0; vLLM 0.14 on A100 SXM, vLLM 0.24 on H100 SXM and B200), *LLMServingSim* the
layer profiles of its repository (MIT; vLLM 0.19 on RTX PRO 6000). Each stands for all accelerators, so a single one is
off by 10 to 20 %, and kernels of few tokens or short contexts by more.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Efficiency:
    """Fractions of peak FLOP/s and of memory bandwidth, and seconds that a kernel takes whatever it computes.

    Attributes
    ----------
    gemm_flops
        Matrix products in 16 bits or more. AIC: 0.86 on A100, 0.82 on H100; LLMServingSim: 0.82 to 0.87.
    gemm_flops_narrow
        Matrix products in 8 bits or fewer. AIC, fp8 on H100 from 8,192 tokens: 0.40 to 0.69, median 0.55.
    gemm_bytes
        Memory traffic of the same. AIC: 0.73 on A100, 0.88 on H100 (fp8 0.82); LLMServingSim: 0.82 to 0.92.
    gemm_latency_s
        AIC: 5.6 us on A100, 3.2 us on H100.
    experts_flops, experts_bytes, experts_latency_s
        The routed experts of a layer, all kernels together, with balanced routing. AIC, bf16: 0.47, 0.75 and 31 us on
        H100; 0.28, 0.79 and 6.5 us on A100; 0.38, 0.79 and 18 us on B200.
    prefill_flops, prefill_bytes
        Attention of prefill chunks. AIC: 0.51 and 0.32 on A100, 0.58 and 0.34 on H100; LLMServingSim: 0.41 to 0.57.
    decode_flops
        Attention of decodes where it is bound by arithmetic (latent attention with many heads): an assumption; the
        README of FlashMLA reports 660 TFLOP/s on H800, 0.67 of peak, for its own best case.
    decode_bytes
        Attention of decodes otherwise. AIC: 0.73 to 0.79 on A100, 0.89 to 0.95 on H100; LLMServingSim: 0.95.
    attention_latency_s
        A layer's attention. AIC: 19 us on A100, 12 us on H100; LLMServingSim: 8 us.
    elementwise_bytes, elementwise_latency_s
        Norms, rotary embedding, activations, cache writes, sampling. 0.8: ``mem_bw_empirical_scaling_factor`` of AIC's
        system files; LLMServingSim: 2.4 to 2.9 us for few tokens.
    """

    gemm_flops: float = 0.82
    gemm_flops_narrow: float = 0.55
    gemm_bytes: float = 0.82
    gemm_latency_s: float = 4e-6
    experts_flops: float = 0.4
    experts_bytes: float = 0.77
    experts_latency_s: float = 20e-6
    prefill_flops: float = 0.55
    prefill_bytes: float = 0.33
    decode_flops: float = 0.5
    decode_bytes: float = 0.85
    attention_latency_s: float = 12e-6
    elementwise_bytes: float = 0.8
    elementwise_latency_s: float = 2.5e-6


DEFAULT_EFFICIENCY = Efficiency()

DEFAULT_HOST_OVERHEAD_S = 0.5e-3
"""Seconds a step that the accelerators wait for the host: scheduling, preparing inputs, taking outputs. An assumption,
of the size of what an engine loop of vLLM 0.27.1 without a GPU takes (0.54 ms a step, a figure that its own authors
call uncertified for its drift: openfabric-systems/simllm pull request 204). Engines that prepare a step during the one
before hide most of it; vLLM before V1 took several milliseconds (vLLM issue 6854)."""

SAMPLER_BYTES_PER_LOGIT = 8
"""Memory traffic of sampling for each logit on one rank, bytes: fp32 written and read once. LLMServingSim: 164 us for
256 rows of 128,256 logits on RTX PRO 6000, which is this at 1.6 TB/s."""
