"""Steps that all take the same time."""

import pytest

from simulator.cost.constant import ConstantCost
from simulator.cost.shape import BatchShape
from simulator.errors import InputError


def test_every_step_takes_the_same_time():
    cost = ConstantCost(step_ns=7)
    assert cost.step_ns(BatchShape()) == 7
    assert cost.run_ns(BatchShape(), 3).tolist() == [7, 7, 7]
    assert cost.stage_ns(BatchShape()) == [7]


def test_seconds_round_half_to_even():
    assert ConstantCost(0.02).step_ns(BatchShape()) == 20_000_000
    assert ConstantCost(2.5e-9).step_ns(BatchShape()) == 2
    assert "0.02 s" in ConstantCost(step_s=0.02).sources[0]


def test_stages_add_up_to_a_step():
    assert ConstantCost(step_ns=11, stages=4).stage_ns(BatchShape()) == [3, 3, 3, 2]


def test_one_duration_is_given():
    with pytest.raises(InputError, match="either step_s or step_ns"):
        ConstantCost()
    with pytest.raises(InputError, match="either step_s or step_ns"):
        ConstantCost(1.0, step_ns=1)


def test_a_step_takes_time():
    with pytest.raises(InputError, match="at least 1 ns"):
        ConstantCost(step_s=0.0)
    with pytest.raises(InputError, match="at least 2 ns"):
        ConstantCost(step_ns=1, stages=2)
    with pytest.raises(InputError, match="stages must be at least 1"):
        ConstantCost(step_ns=1, stages=0)
