"""Splitwise's study: at one load the split cluster keeps objectives that the mixed one of the same machines misses."""

from __future__ import annotations

import pytest

from simulator.reproduce import Options, load_study
from simulator.reproduce.studies import splitwise


def test_split_machines_keep_objectives_that_mixed_ones_miss() -> None:
    workload, requests = splitwise.drawn(Options(), 150)
    assert workload == "conversation"
    alone = splitwise.latencies(splitwise.one_machine("A", requests))
    mixed, split = (
        next(design for design in splitwise.designs(workload, quick=True) if name in design.name)
        for name in ("Baseline-A100", "Splitwise-AA")
    )
    assert (mixed.cost, mixed.power) == pytest.approx((split.cost, split.power))
    missed = splitwise.missed(mixed, requests, alone, 35.0)
    # What suffers is the time between tokens, from prompts in the same step.
    assert "TBT" in missed
    assert splitwise.missed(split, requests, alone, 35.0) == ""


def test_designs_are_a_fifth_of_the_paper_s() -> None:
    for workload in ("conversation", "coding"):
        found = {design.name: design for design in splitwise.designs(workload, quick=False)}
        base = found["Baseline-H100"]
        assert base.counts == (8, 0)
        for name, design in found.items():
            if "equal power" in name:
                assert design.power == pytest.approx(base.power, rel=0.04)
            elif "equal cost" in name:
                assert design.cost == pytest.approx(base.cost, rel=0.03)


def test_figures_are_cited() -> None:
    assert all(figure.source for figure in load_study("splitwise").figures.values())
