"""Options of commands that run several scenarios."""

from __future__ import annotations

import numpy as np
import pytest

from simulator.cli.several import gather_variants, key_of, seeds_of, variants_of
from simulator.errors import InputError
from simulator.studies.replications import list_seeds

KEY = "cluster.pools.*.engine.max_num_seqs"


def test_a_key_may_be_the_name_of_a_flag() -> None:
    assert [key_of(text) for text in ("max-num-seqs", "max_num_seqs", "--max-num-seqs", KEY)] == [KEY] * 4
    assert key_of("gpu") == "cluster.pools.*.accelerator"
    assert key_of("no-drain") == "no-drain"  # it would mean the contrary of what is written


def test_words_with_an_equals_sign_belong_to_the_variant_before_them() -> None:
    args = [
        "t.csv",
        "--variant",
        "big one",
        "max-num-seqs=512",
        "gpu=h200",
        "--variant",
        "small seed=1",
        "--set",
        "a=b",
    ]
    gathered = gather_variants(args)
    assert gathered == [
        "t.csv",
        "--variant='big one' max-num-seqs=512 gpu=h200",
        "--variant=small seed=1",
        "--set",
        "a=b",
    ]
    texts = [word.removeprefix("--variant=") for word in gathered if word.startswith("--variant=")]
    assert variants_of(texts) == {
        "big one": {KEY: 512, "cluster.pools.*.accelerator": "h200"},
        "small": {"seed": 1},
    }


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["big"], "--variant big: write a name and keys"),
        (["seed=1"], "--variant seed=1: write a name and keys"),
        (["'big seed=1"], "write a name and keys"),
        (["a seed=1", "a seed=2"], "two variants are called 'a'"),
        (["a seed=1 seed=2"], "--variant a: sets seed twice"),
        (["a max-num-seqs=1 max_num_seqs=2"], f"sets {KEY.replace('*', '.*')} twice"),
        (["a seed=1 =2"], "takes key=value, got '=2'"),
        (["a seed=[1"], "--variant a seed: "),
    ],
)
def test_a_variant_that_is_none_is_refused(texts: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        variants_of(texts)


def test_seeds_are_a_number_or_a_list() -> None:
    assert seeds_of("5") == 5
    assert seeds_of("3, 7") == [3, 7]
    for text in ("", "a", "0", "1,", "-1"):
        with pytest.raises(InputError, match="write how many"):
            seeds_of(text)
    assert list_seeds(3, first=4) == [4, 5, 6]
    assert list_seeds([3, 0]) == [3, 0]
    assert [type(seed) for seed in list_seeds([0, np.int64(5)])] == [int] * 2  # type: ignore[list-item]
    assert list_seeds(np.int64(2)) == [0, 1]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("seeds", "words"),
    [
        (0, "from 1 to 10,000 replications, got 0"),
        ([], "from 1 to 10,000"),
        ([1, 1], "1 is there twice"),
        ([-1], "got -1"),
        ([True], "got True"),
    ],
)
def test_seeds_that_are_none_are_refused(seeds: int | list[int], words: str) -> None:
    with pytest.raises(InputError, match=words):
        list_seeds(seeds)
