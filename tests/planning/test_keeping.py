"""Capacities that are kept are found again, at other prices too; anything else asks anew."""

from __future__ import annotations

import pytest

from simulator import plan
from simulator.planning import capacity, keeping
from simulator.studies.store import Store
from tests.planning.test_plan import OBJECTIVES, scenario


def planned(store, price=1.0, **more):
    asked = {"gpus": {"a100-80gb": {"price": price}}, "max_gpus": 1, "tune": False, "workers": 1, "seeds": 0}
    return plan(
        scenario(10.0, 200, **more), objectives=OBJECTIVES, what_ifs=False, disaggregate=False, store=store, **asked
    )


def test_a_repeated_plan_asks_for_no_capacity_again(tmp_path, monkeypatch):
    store = Store(tmp_path)
    first = planned(store)

    def never(asked):
        raise AssertionError("asked again")

    monkeypatch.setattr(keeping, "capacity_of", never)
    again, dearer = planned(store), planned(store, price=2.0)
    assert again.candidates[0].capacities == first.candidates[0].capacities == dearer.candidates[0].capacities
    assert dearer.fleet.price == 2 * first.fleet.price
    with pytest.raises(AssertionError, match="asked again"):
        planned(store, seed=7)
    assert capacity.capacity_of is not never
