"""Memory plans: terms worked out by hand, comparisons with published logs, errors that help."""

import dataclasses

import pytest

from hardware_profiles import load_accelerator
from simulator.errors import InputError
from simulator.memory import FRAMEWORK_BYTES, NCCL_BYTES, activation_bytes, nccl_bytes, plan_memory
from simulator.models import list_models, load_model, weight_bytes
from simulator.parallel import ParallelPlan
from simulator.sharding import kv_elements_per_token_layer, layer_weight_bytes, stage_weight_bytes

GIB = 2**30
LLAMA = load_model("llama-3.1-8b")
A100 = load_accelerator("a100-80gb")
H100 = load_accelerator("h100-sxm")


def test_llama_8b_on_a100_by_hand():
    plan = plan_memory(LLAMA, A100, gpu_memory_utilization=0.9, max_num_batched_tokens=8192, max_num_seqs=256)
    assert plan.total == 81920 * 2**20
    assert plan.weights == 8_030_261_248 * 2
    assert plan.activations == 8192 * 4096 * 2 + 256 * 128256 * 39
    assert (plan.framework, plan.nccl) == (FRAMEWORK_BYTES, 0)
    assert plan.kv_bytes_per_token == 2 * 8 * 128 * 2 * 32 == 131072
    assert plan.kv_bytes == plan.budget - plan.weights - plan.activations - FRAMEWORK_BYTES
    assert plan.num_kv_blocks == plan.kv_bytes // (16 * 131072)
    assert plan.kv_tokens == plan.num_kv_blocks * 16


def test_weights_and_peak_as_vllm_logs_them():
    # vLLM pull request 10511: Llama-3-8B, 14.96 GiB of weights (7.48 with two GPUs), 1.26 GiB peak with either.
    for tp, gib in ((1, 14.96), (2, 7.48)):
        plan = plan_memory(load_model("llama-3-8b"), H100, ParallelPlan(tp=tp))
        assert plan.weights / GIB == pytest.approx(gib, abs=0.01)
        assert plan.activations / GIB == pytest.approx(1.26, abs=0.01)


def test_cuda_graphs_come_from_the_reserve_or_from_the_kv():
    before = plan_memory(LLAMA, H100)
    after = plan_memory(LLAMA, H100, cuda_graphs_in_budget=True)
    assert before.kv_bytes - after.kv_bytes == after.cuda_graphs > 0
    assert after.needed - before.needed == after.cuda_graphs


def test_nccl_takes_memory_with_more_than_one_gpu():
    assert [nccl_bytes(ranks) for ranks in (1, 2, 3, 4, 16)] == [0, *([NCCL_BYTES[2]] * 2), *([NCCL_BYTES[4]] * 2)]
    assert plan_memory(LLAMA, H100, ParallelPlan(pp=2)).nccl == NCCL_BYTES[2]


@pytest.mark.parametrize("name", list_models())
def test_one_rank_holds_the_whole_model(name):
    """Slices of one rank add up to the published weights, but for rows that pad the vocabulary to 64."""
    model = load_model(name)
    (held,) = stage_weight_bytes(model, ParallelPlan())
    padding = (-model.vocab_size % 64) * model.hidden_size * 2
    assert held == pytest.approx(weight_bytes(model) + padding * (1 if model.tied_embeddings else 2), rel=1e-5)


@pytest.mark.parametrize("name", ["llama-3.1-70b", "deepseek-v3", "gpt-oss-120b", "gemma-2-27b", "falcon-40b"])
def test_ranks_hold_at_least_their_share(name):
    model = load_model(name)
    whole = sum(stage_weight_bytes(model, ParallelPlan()))
    for tp in (2, 4, 8):
        (held,) = stage_weight_bytes(model, ParallelPlan(tp=tp))
        assert whole / tp <= held < 1.1 * whole / tp


def test_key_value_heads_are_replicated_beyond_their_number():
    assert [kv_elements_per_token_layer(LLAMA, tp) for tp in (1, 4, 8, 16, 32)] == [2048, 512, 256, 256, 256]
    deepseek = load_model("deepseek-v3")
    assert [kv_elements_per_token_layer(deepseek, tp) for tp in (1, 8)] == [576, 576]


def test_stages_hold_their_layers_and_ends():
    model = load_model("llama-3.1-70b")
    layer = layer_weight_bytes(model, ParallelPlan(2), moe_layer=False)
    table = 128256 // 2 * 8192 * 2
    norm = 8192 * 2
    first, middle, last = stage_weight_bytes(model, ParallelPlan(tp=2, pp=3))
    assert (first, middle, last) == (27 * layer + table + norm, 27 * layer, 26 * layer + table + norm)


def test_tied_embeddings_are_held_by_both_ends_of_a_pipeline():
    model = load_model("llama-3.2-1b")
    table = 128256 * 2048 * 2
    one = sum(stage_weight_bytes(model, ParallelPlan()))
    assert sum(stage_weight_bytes(model, ParallelPlan(pp=2))) == one + table + 2048 * 2


def test_stage_with_the_least_room_decides():
    model = load_model("llama-3.1-8b")
    whole = plan_memory(model, A100, ParallelPlan(pp=2))
    assert whole.stage == 1  # the sampler's peak stands there
    assert whole.num_kv_blocks > 2 * plan_memory(model, A100).num_kv_blocks


def test_sliding_layers_keep_their_windows_only():
    model = load_model("gpt-oss-120b")  # 18 layers of window 128, 18 full ones; 8 KV heads of 64
    hybrid = plan_memory(model, H100, max_num_seqs=256)
    per_layer = 2 * 8 * 64 * 2
    assert hybrid.kv_bytes_per_token == 18 * per_layer
    assert hybrid.kv_window_bytes == 256 * (128 + 16) * 18 * per_layer
    assert hybrid.num_kv_blocks == (hybrid.kv_bytes - hybrid.kv_window_bytes) // (16 * 18 * per_layer)
    full = plan_memory(model, H100, max_num_seqs=256, hybrid_kv=False)
    assert full.kv_bytes_per_token == 36 * per_layer
    assert hybrid.num_kv_blocks > 1.5 * full.num_kv_blocks


def test_windows_are_not_set_aside_where_that_would_hold_fewer_tokens():
    model = load_model("gemma-2-9b")  # windows of 4096 for 256 requests are more than there is
    plan = plan_memory(model, H100, max_num_seqs=256)
    assert (plan.kv_window_bytes, plan.kv_bytes_per_token) == (0, 42 * 2 * 8 * 256 * 2)
    assert plan_memory(model, H100, max_num_seqs=8).kv_window_bytes > 0


def test_requests_sampled_for_decide_the_sampler_only():
    model = load_model("gpt-oss-20b")
    few, all_ = (plan_memory(model, H100, max_num_seqs=1024, sampled_seqs=n) for n in (1, None))
    assert few.activations < all_.activations
    assert few.kv_window_bytes == all_.kv_window_bytes == 1024 * (128 + 16) * 12 * 2 * 8 * 64 * 2


def test_blocks_as_an_engine_reports_them_are_taken():
    plan = plan_memory(LLAMA, H100, num_kv_blocks=1000)
    assert (plan.num_kv_blocks, plan.kv_tokens, plan.given_blocks) == (1000, 16000, True)
    assert plan.kv_bytes == 1000 * 16 * 131072
    assert "1000 blocks of 16 = 16000 tokens (as given)" in plan.explain()


def test_narrower_cache_holds_more_tokens():
    bf16, fp8 = (plan_memory(LLAMA, H100, kv_dtype=dtype) for dtype in ("bf16", "fp8"))
    assert fp8.kv_bytes_per_token * 2 == bf16.kv_bytes_per_token
    assert fp8.num_kv_blocks in (2 * bf16.num_kv_blocks, 2 * bf16.num_kv_blocks + 1)


def test_peak_of_a_forward_pass_by_hand():
    # few requests, so that the sampler is not the peak: gate, up and product are 3 x 14336 wide
    assert activation_bytes(LLAMA, 1, 8192, 1) == 8192 * 2 * (2 * 4096 + 3 * 14336)
    assert activation_bytes(LLAMA, 2, 8192, 256, last_stage=False) == 8192 * 2 * (2 * 4096 + 3 * 7168)


def test_table_shows_every_term():
    table = plan_memory(load_model("gpt-oss-120b"), H100, ParallelPlan(tp=2)).explain()
    for term in ("total", "reserve", "weights", "activations", "framework", "nccl", "cuda graphs", "left for kv"):
        assert term in table
    assert table.splitlines()[0] == "gpt-oss-120b on h100-sxm, tp=2 pp=1: one GPU of stage 0, GB"


def test_too_large_a_model_says_why_and_what_would_fit():
    with pytest.raises(InputError) as error:
        plan_memory(load_model("llama-3.1-70b"), A100, larger=[load_accelerator("b200"), load_accelerator("h200")])
    message = str(error.value)
    assert "\n" not in message
    assert "weights 141.1" in message
    assert "one GPU needs 142.9 GB" in message
    assert "has 77.3 GB (90% of 85.9)" in message
    assert "would fit: tp=2, or dtypes.weights=fp8, or accelerator=b200" in message


def test_too_large_a_step_says_so():
    with pytest.raises(
        InputError, match=r"activations \d.*would fit: max_num_batched_tokens=2048 with max_num_seqs=16"
    ):
        plan_memory(LLAMA, A100, ParallelPlan(tp=32), max_num_batched_tokens=5_000_000, max_num_seqs=16)


def test_nothing_would_fit():
    tiny = dataclasses.replace(A100, name="tiny", memory_bytes=10**9, usable_memory_bytes=None)
    with pytest.raises(InputError, match="no larger tp or narrower weights would fit either"):
        plan_memory(load_model("llama-3.1-70b"), tiny)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gpu_memory_utilization": 0.0}, r"gpu_memory_utilization must be in \(0, 1\], got 0.0"),
        ({"gpu_memory_utilization": 1.1}, r"gpu_memory_utilization must be in \(0, 1\], got 1.1"),
        ({"block_size": 0}, "block_size must be at least 1"),
        ({"max_num_batched_tokens": 0}, "max_num_batched_tokens must be at least 1"),
        ({"max_num_seqs": -1}, "max_num_seqs must be at least 1, got -1"),
        ({"num_kv_blocks": 0}, "num_kv_blocks must be at least 1"),
        ({"kv_dtype": "fp7"}, "unknown datatype 'fp7'"),
        ({"weights_dtype": "bf17"}, "unknown datatype 'bf17'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        plan_memory(LLAMA, H100, **arguments)
