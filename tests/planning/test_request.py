"""Plan files, and flags that go before them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from simulator.errors import InputError
from simulator.planning.choices import choices_of
from simulator.planning.objectives import objectives_of
from simulator.planning.request import KEYS, arguments_of

PAGE = Path(__file__).parents[2] / "docs" / "planning.md"
NO_FLAGS = {"objectives": {}, "gpus": None, "prices": {}, "at_most": {}}


def test_the_file_that_the_documentation_shows_is_taken(tmp_path):
    (text,) = re.findall(r"^```\n(objectives:.*?)^```", PAGE.read_text("utf-8"), re.M | re.S)
    file = tmp_path / "plan.yaml"
    file.write_text(text)
    found = arguments_of(file, **NO_FLAGS)
    assert set(found) == {*KEYS, "prices", "at_most"}
    assert [each.text for each in objectives_of(found["objectives"])] == [
        "TTFT p99 <= 2 s",
        "TTFT p95 of chat <= 500 ms",
    ]
    h100, l40s = choices_of(found["gpus"], provider=found["provider"])
    assert (h100.at_most, h100.price, h100.offer) == (16, 2.5, None)
    assert (l40s.node, l40s.offer.provider) == ("l40s-8x-pcie", "nebius")


def test_flags_go_before_the_file(tmp_path):
    file = tmp_path / "plan.yaml"
    file.write_text("objectives: {ttft_p99: 2, tpot_p99: 0.1}\ngpus: {h200: {at_most: 4}, l40s: {}}\nseeds: 5\n")
    flags = {"objectives": {"ttft_p99": 1.0}, "gpus": ["h200"], "prices": {"h200": 4.0}, "at_most": {}}
    found = arguments_of(file, **flags, seeds=2)
    assert found["objectives"] == {"ttft_p99": 1.0, "tpot_p99": 0.1}
    assert found["gpus"] == {"h200": {"at_most": 4}}
    assert found["seeds"] == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("objective: {}", "line 1: unknown key 'objective'; did you mean 'objectives'"),
        ("objectives: 3", "'objectives' must be a mapping"),
        ("gpus: [h200]", "which objectives"),
        ("objectives: {ttft_p99: 1}", "which GPUs"),
    ],
)
def test_what_is_wrong_in_a_file_is_said(tmp_path, text, said):
    file = tmp_path / "plan.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=said):
        arguments_of(file, **NO_FLAGS)


def test_list_prices_name_their_source():
    for choice in choices_of(["a100-80gb", "h100-sxm", "h200", "l40s"]):
        assert choice.offer.provider == "runpod-secure"
        assert choice.offer.seen == "2026-09-25"
        assert choice.offer.source.startswith("https://")
        assert "seen 2026-09-25" in choice.source


def test_aliases_are_the_gpus_that_they_name():
    (choice,) = choices_of(["h100"], prices={"h100-sxm": 2.0})
    assert (choice.gpu, choice.price) == ("h100-sxm", 2.0)
    with pytest.raises(InputError, match="h100-sxm is named twice"):
        choices_of(["h100", "h100-sxm"])
