"""Step times under a KV budget: what they add up to by hand, and a run equal to its steps to the last bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hardware_profiles import load_accelerator
from policies.budget import Cap, KVBudget, LayerGroup, Offload, Work
from simulator.calibration.load import load_measurements
from simulator.cost.budget_cost import BudgetCost, Rates
from simulator.cost.fitted_kernels import fitted_cost
from simulator.cost.measured import MeasuredCost
from simulator.cost.roofline import roofline_cost
from simulator.cost.shape import BatchShape, CostModel
from simulator.models import load_model
from tests.calibration.support import write_profile
from tests.cost.support import advanced, batch, shapes

FULL = 1000.0
RATES = Rates(flops=1e9, memory_bytes=1e8, host_bytes=1e7, kernel_s=1e-6)
LLAMA = load_model("llama-3.1-8b")


class Counted:
    """Step time in ns: 1,000 for the step, 100 a layer of work for each token computed, 1 a token attended to."""

    sources = ("test",)

    def step_ns(self, shape: BatchShape) -> int:
        pairs = sum(new * cached + new * (new + 1) // 2 for new, cached in shape.chunks)
        return 1000 + 100 * shape.tokens + shape.decode_kv + pairs

    def stage_ns(self, shape: BatchShape) -> list[int]:
        return [self.step_ns(shape)] * 2

    def run_ns(self, shape: BatchShape, k: int) -> npt.NDArray[np.int64]:
        raise AssertionError("steps of a run are asked for one by one")

    def few_ns(self, shape: BatchShape, k: int) -> list[int]:
        raise AssertionError("steps of a run are asked for one by one")


def budget(*groups: LayerGroup, **fields: Any) -> KVBudget:
    return KVBudget(groups=groups, **{"token_bits": FULL, "read_bits": FULL, **fields})


def cost(declared: KVBudget, inner: CostModel | None = None) -> BudgetCost:
    return BudgetCost(inner or Counted(), declared, FULL, RATES)


def test_a_budget_of_everything_changes_nothing() -> None:
    same = cost(budget(LayerGroup(4)))
    for shape in (batch(), batch(3, 50), batch(0, 0, [(7, 5)]), batch(3, 50, [(7, 5)], padding=2)):
        assert same.step_ns(shape) == Counted().step_ns(shape)


def test_decodes_attend_to_what_is_read() -> None:
    """Of 3 x 50 tokens 3 x 20 are read; half the bits make it 30."""
    shape = batch(3, 50)
    shape.decode_reads = [(60, 1200, 0, 0)]
    assert cost(budget(LayerGroup(4, Cap(20), Cap(20)))).step_ns(shape) == 1000 + 300 + 60
    assert cost(budget(LayerGroup(4, Cap(20), Cap(20)), read_bits=500.0)).step_ns(shape) == 1000 + 300 + 30
    assert cost(budget(LayerGroup(4), read_share=0.1)).step_ns(shape) == 1000 + 300 + 15


def test_layers_count_by_their_number() -> None:
    """Three of four layers read 60 tokens and one 90: 67.5 on the mean, rounded half to even."""
    shape = batch(3, 50)
    shape.decode_reads = [(60, 1200, 0, 0), (90, 2700, 0, 0)]
    declared = budget(LayerGroup(3, Cap(20), Cap(20)), LayerGroup(1, Cap(30), Cap(30)))
    assert cost(declared).step_ns(shape) == 1000 + 300 + 68


def test_later_layers_compute_a_part_of_the_prompt() -> None:
    """One layer computes 10 tokens after 20 others, three a fifth: 2 after 4."""
    whole, part = 1000 + 1000 + 200 + 55, 1000 + 200 + 8 + 3
    declared = budget(LayerGroup(1), LayerGroup(3, prefill_share=0.2))
    assert cost(declared).step_ns(batch(chunks=[(10, 20)])) == round(0.25 * whole + 0.75 * part)


def test_a_chunk_attends_to_what_is_kept_all_along() -> None:
    declared = budget(LayerGroup(4, Cap(8), Cap(8)), drop="prefill")
    assert cost(declared).step_ns(batch(chunks=[(10, 20)])) == 1000 + 1000 + 80 + 55


def test_extra_work_by_hand() -> None:
    """At 1 FLOP a ns, 0.1 bytes a ns, and 1,000 ns a kernel."""
    declared = budget(
        LayerGroup(4),
        step_kernels=2,
        per_decode=Work(flops=11, memory_bytes=1),
        per_read=Work(flops=1, memory_bytes=0.5),
        per_prefill=Work(flops=3),
        per_cached=Work(flops=2),
        per_pair=Work(flops=1),
    )
    shape = batch(3, 50, [(10, 20)])
    # 8 kernels; 3 decodes of max(11, 10); 150 reads of max(1, 5); 10 new, 20 cached, 255 pairs.
    extra = 8 * 1000 + 3 * 11 + 150 * 5 + 10 * 3 + 20 * 2 + 255
    assert cost(declared).step_ns(shape) == Counted().step_ns(shape) + extra
    two = BudgetCost(Counted(), declared, FULL, Rates(1e9, 1e8, 1e7, 1e-6, ranks=2))
    assert two.step_ns(shape) == Counted().step_ns(shape) + round(8 * 1000 + (extra - 8 * 1000) / 2)


def test_offloading_by_hand() -> None:
    """3 decodes of 50 tokens, 20 each on the GPU and 10 on the host, half of them loaded, a tenth made again."""
    offload = Offload(gpu_tokens=20, host_tokens=10, load_share=0.5, recompute_share=0.1, recompute=Work(flops=7))
    declared = budget(LayerGroup(4, Cap(20)), offload=offload)
    shape = batch(3, 50)
    shape.decode_reads = [(60, 1200, 0, 0), (90, 2700, 0, 0)]
    token_ns = 4 * FULL / 8 / 1e7 * 1e9
    # 30 on the host, half loaded; 3 written out; 60 deleted, 6 made again at 7 ns.
    assert cost(declared).step_ns(shape) == 1000 + 300 + 150 + round((15 + 3) * token_ns + 6 * 7)
    # A chunk of 10 tokens after 15 writes the 5 that don't fit.
    chunk = batch(chunks=[(10, 15)])
    assert cost(declared).step_ns(chunk) == Counted().step_ns(chunk) + round(5 * token_ns)
    forever = budget(LayerGroup(4, Cap(20)), offload=Offload(20, None, 0.5, 0.1, Work(flops=7)))
    shape.decode_reads = [(60, 1200, 0, 0)]
    assert cost(forever).step_ns(shape) == 1000 + 300 + 150 + round((45 + 3) * token_ns)


def test_stages_share_the_extra_work() -> None:
    declared = budget(LayerGroup(4), step_kernels=1)
    assert cost(declared).stage_ns(batch(3, 50)) == [1450 + 2000] * 2


BUDGETS = [
    budget(LayerGroup(32), read_bits=281.0, step_kernels=1, per_read=Work(flops=1e3, memory_bytes=4e2)),
    budget(LayerGroup(32, Cap(100), Cap(50)), per_decode=Work(flops=1e4), per_pair=Work(flops=10.0)),
    budget(LayerGroup(20, Cap(9), Cap(9)), LayerGroup(12, Cap(3), Cap(3), prefill_share=0.3), per_cached=Work(3.0)),
    budget(LayerGroup(32, Cap(40)), read_share=0.2, offload=Offload(40, 60, 0.1, 0.1, Work(flops=1e6))),
]


@pytest.fixture(scope="module")
def inner_models(tmp_path_factory: pytest.TempPathFactory) -> list[CostModel]:
    a100 = load_accelerator("a100-80gb")
    table = load_measurements(write_profile(tmp_path_factory.mktemp("profile") / "p"))
    measured = MeasuredCost(LLAMA, load_accelerator("rtx-pro-6000"), table)
    return [roofline_cost(LLAMA, a100), fitted_cost(LLAMA, a100), measured, Counted()]


@st.composite
def budgeted(draw: st.DrawFn, caps: int) -> tuple[BatchShape, int]:
    """A batch with sums for so many caps, and how many steps none of its members fills one."""
    shape = draw(shapes())
    for _ in range(caps):
        growing = draw(st.integers(0, shape.decodes))
        below = draw(st.integers(growing, 1000 * growing)) if growing else 0
        filled = shape.decodes - growing  # each reads a token at least
        full = draw(st.integers(filled, 10**6)) if filled else 0
        shape.decode_reads.append((below + full, draw(st.integers(0, 10**12)), growing, below))
    return shape, draw(st.integers(1, 45))


@pytest.mark.parametrize("declared", BUDGETS)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_a_run_equals_its_steps(declared: KVBudget, inner_models: list[CostModel], data: st.DataObject) -> None:
    shape, k = data.draw(budgeted(len(declared.tracked)))
    for inner in inner_models:
        model = cost(declared, inner)
        steps = []
        for i in range(k):
            later = advanced(shape, i)
            later.decode_reads = [
                (total + i * growing, squares + 2 * i * below + growing * i * i, growing, below + i * growing)
                for total, squares, growing, below in shape.decode_reads
            ]
            steps.append(model.step_ns(later))
        assert model.few_ns(shape, k) == model.run_ns(shape, k).tolist() == steps
        assert min(steps) >= 1


def test_reading_a_fifth_is_quicker_by_the_traffic() -> None:
    """On the roofline a decode attention's time falls by the bytes it doesn't read, and by nothing else."""
    a100 = load_accelerator("a100-80gb")
    inner = roofline_cost(LLAMA, a100)
    shape = batch(64, 8000)
    shape.decode_reads = [(64 * 1600, 64 * 1600 * 1600, 0, 0)]
    fifth = BudgetCost(inner, budget(LayerGroup(32, Cap(1600), Cap(1600))), FULL, RATES).step_ns(shape)
    assert fifth == inner.step_ns(batch(64, 1600))
    saved = (inner.step_ns(shape) - fifth) / 1e9
    traffic = 64 * 6400 * 32 * 2 * 8 * 128 * 2 / (a100.memory_bandwidth * 0.85)
    assert saved == pytest.approx(traffic, rel=1e-6)
