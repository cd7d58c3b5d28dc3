"""The trace itself, filters, statistics, and round trips through files."""

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workloads import (
    Categorical,
    Ragged,
    Trace,
    TraceError,
    describe,
    filter_trace,
    infinite_cache_hit_tokens,
    read_trace,
    write_trace,
)
from workloads.stats import dispersion, interarrival_cv, window_counts


def plain(n=4, **columns):
    return Trace(np.arange(n) * 1.0, np.arange(n) + 10, np.arange(n) + 1, **columns)


# ------------------------------------------------------------------------------------------------------- the trace


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arrival_s": [0, 2, 1, 3]}, "'arrival_s' falls at row 2"),
        ({"arrival_s": [-1, 0, 1, 2]}, "must be finite and start at 0"),
        ({"arrival_s": [0, 1, 2, math.inf]}, "must be finite"),
        ({"prompt_tokens": [1, 0, 1, 1]}, "'prompt_tokens' is below 1 at row 1"),
        ({"output_tokens": [1, 1, 1]}, "'output_tokens' has 3 rows, 'arrival_s' 4"),
        ({"parent_id": [-1, 1, -1, -1]}, "'parent_id' at row 1 isn't an earlier row"),
        ({"think_time_s": [0, 0, -1, 0]}, "'think_time_s' is negative at row 2"),
        ({"block_size_tokens": 16}, "'block_hashes' needs 'block_size_tokens'"),
    ],
)
def test_a_trace_checks_itself(change, message):
    columns = {"arrival_s": [0, 1, 2, 3], "prompt_tokens": [1] * 4, "output_tokens": [1] * 4} | change
    with pytest.raises(TraceError, match=message):
        Trace(**{name: np.array(value) if isinstance(value, list) else value for name, value in columns.items()})


def test_columns_are_read_only_and_leave_the_callers_array_alone():
    mine = np.arange(4) * 1.0
    trace = Trace(mine, np.ones(4), np.ones(4))
    with pytest.raises(ValueError, match="read-only"):
        trace.arrival_s[0] = 5
    mine[0] = 0


def test_select_renumbers_parents():
    trace = plain(
        5, parent_id=[-1, 0, 1, -1, 3], block_hashes=Ragged.of([[1], [], [2, 3], [4], [5]]), block_size_tokens=16
    )
    part = trace.select(np.array([True, False, True, True, True]))
    assert part.parent_id.tolist() == [-1, -1, -1, 2]
    assert [part.block_hashes[i].tolist() for i in range(4)] == [[1], [2, 3], [4], [5]]
    assert len(trace.select(np.zeros(5, bool))) == 0


def test_infinite_cache_by_hand():
    """Full blocks of the prompt from its start, of earlier rows, with at least one token left to compute."""
    trace = Trace(
        np.arange(6.0),
        np.array([33, 33, 32, 48, 40, 10]),
        np.array([16, 1, 1, 1, 1, 1]),
        block_hashes=Ragged.of([[1, 2, 3], [1, 2], [1, 2], [1, 2, 3], [9, 2], []]),
        block_size_tokens=16,
    )
    # row 2: 32 prompt tokens, so that the second block would leave none; row 3: the answer of row 0 is the third
    # block, but again one token must be left; row 4: block 2 is known, but not the one before it.
    assert infinite_cache_hit_tokens(trace).tolist() == [0, 32, 16, 32, 0, 0]
    assert infinite_cache_hit_tokens(plain()).tolist() == [0] * 4


@given(st.lists(st.tuples(st.integers(1, 60), st.lists(st.integers(0, 3), max_size=6)), min_size=1, max_size=12))
def test_infinite_cache_against_the_plain_definition(rows):
    chained = []
    known: dict[tuple[int, ...], int] = {}
    for _, blocks in rows:
        chained.append([known.setdefault(tuple(blocks[: i + 1]), len(known)) for i in range(len(blocks))])
    trace = Trace(
        np.zeros(len(rows)),
        np.array([p for p, _ in rows]),
        np.ones(len(rows)),
        block_hashes=Ragged.of(chained),
        block_size_tokens=8,
    )
    cache: set[int] = set()
    expected = []
    for (prompt, _), ids in zip(rows, chained, strict=True):
        hit = 0
        while hit < len(ids) and ids[hit] in cache and (hit + 1) * 8 < prompt:
            hit += 1
        expected.append(8 * hit)
        cache.update(ids)
    assert infinite_cache_hit_tokens(trace).tolist() == expected


def test_rate_and_burstiness_by_hand():
    arrival = np.array([0.0, 1, 2, 5, 6])
    assert interarrival_cv(arrival) == pytest.approx(math.sqrt(0.75) / 1.5)
    assert window_counts(arrival, 2.0).tolist() == [2, 1, 1]
    assert dispersion(np.array([2, 1, 1])) == pytest.approx((2 / 9) / (4 / 3))
    found = describe(plain(3))
    assert found["rate_mean"] == 1.0
    assert found["prompt_tokens"]["p50"] == 11
    assert math.isnan(describe(plain(1))["rate_mean"])


# --------------------------------------------------------------------------------------------------------- filters


def test_window_limit_and_scales():
    trace = plain(6, parent_id=[-1, 0, -1, 2, 3, -1], think_time_s=[math.nan, 1, math.nan, 1, 1, math.nan])
    part = filter_trace(trace, start_s=1, end_s=5, limit=3, rate_scale=2)
    assert part.arrival_s.tolist() == [0, 0.5, 1.0]
    assert part.prompt_tokens.tolist() == [11, 12, 13]
    assert part.parent_id.tolist() == [-1, -1, 1]
    assert part.counts == {"outside_window": 2, "beyond_limit": 1, "orphaned_turns": 1}
    assert "1 turns lost their parent to a filter; they start at their own arrival" in part.notes
    slow = filter_trace(trace, time_scale=3)
    assert slow.arrival_s.tolist() == [0, 3, 6, 9, 12, 15]
    assert slow.think_time_s[1] == 3


def test_filter_by_name():
    trace = plain(4, model=Categorical.of(["a", "b", "", "a"]), request_class=Categorical.of(["x", "y", "x", "y"]))
    assert filter_trace(trace, model="a", log_type="y").prompt_tokens.tolist() == [13]
    assert filter_trace(trace, model=["a", "b"]).prompt_tokens.tolist() == [10, 11, 13]
    with pytest.raises(TraceError, match="no request has model 'A1'"):
        filter_trace(trace, model="A1")
    with pytest.raises(TraceError, match="has no column 'model'"):
        filter_trace(plain(), model="a")
    with pytest.raises(TraceError, match="same filter"):
        filter_trace(trace, log_type="x", request_class="x")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate_scale": 0}, "rate_scale must be above 0"),
        ({"time_scale": math.inf}, "time_scale must be above 0 and finite"),
        ({"sample": 1.5}, "sample must be above 0 and at most 1"),
        ({"sample": 0}, "sample must be above 0"),
        ({"limit": 0}, "limit must be at least 1"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"start_s": 3, "end_s": 2}, r"the window ends \(2 s\) before it starts"),
        ({"start_s": math.nan}, "start_s must be at least 0"),
        ({"start_s": 100}, "no request is left of 4"),
    ],
)
def test_filters_refuse(options, message):
    with pytest.raises(TraceError, match=message):
        filter_trace(plain(), **options)


def many(n=2000, sessions=False):
    rng = np.random.default_rng(1)
    columns = {"session_id": rng.integers(-1, 300, n)} if sessions else {}
    return Trace(np.cumsum(rng.random(n)), rng.integers(1, 50, n), rng.integers(1, 50, n), **columns)


@given(st.floats(0.01, 1), st.floats(0.01, 1), st.integers(0, 1000))
@settings(max_examples=30)
def test_a_larger_sample_keeps_what_a_smaller_one_keeps(a, b, seed):
    trace, (small, large) = many(), sorted((a, b))
    times = [set(filter_trace(trace, sample=s, seed=seed).arrival_s.tolist()) for s in (small, large)]
    assert times[0] <= times[1]
    assert len(times[1]) == pytest.approx(large * 2000, abs=5 * math.sqrt(2000 * large * (1 - large)) + 1)


@given(st.integers(0, 1500), st.integers(0, 100))
@settings(max_examples=30)
def test_the_rows_before_decide_nothing(cut, seed):
    """A row is sampled alike whether or not rows before it were filtered away first."""
    trace = many()
    whole = filter_trace(trace, sample=0.3, seed=seed).arrival_s
    start = float(trace.arrival_s[cut])
    part = filter_trace(filter_trace(trace, end_s=1e9, start_s=start), sample=0.3, seed=seed) if cut else None
    expected = whole[whole >= start]
    if part is not None:
        np.testing.assert_allclose(part.arrival_s + start, expected)


def test_the_head_of_a_file_decides_nothing(tmp_path):
    head = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    rows = [f"{i // 3},GPT-4,{i + 1},2,{i + 3},API log\n" for i in range(900)]
    (tmp_path / "a.csv").write_text(head + "".join(rows))
    (tmp_path / "b.csv").write_text(head + "".join(rows[300:]))
    a, b = (filter_trace(read_trace(tmp_path / name), sample=0.4).prompt_tokens for name in ("a.csv", "b.csv"))
    assert a[a > 300].tolist() == b.tolist()


def test_sampling_keeps_conversations_whole():
    trace = many(sessions=True)
    part = filter_trace(trace, sample=0.5, seed=4)
    for session in set(part.session_id.tolist()) - {-1}:
        assert np.count_nonzero(part.session_id == session) == np.count_nonzero(trace.session_id == session)


# ------------------------------------------------------------------------------------------------------ round trips

_texts = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=6)


@st.composite
def traces(draw):
    n = draw(st.integers(1, 8))
    rows = st.lists
    arrival = sorted(draw(rows(st.floats(0, 1e7), min_size=n, max_size=n)))
    counts = rows(st.integers(1, 2**31), min_size=n, max_size=n)
    columns = {}
    if draw(st.booleans()):
        columns["session_id"] = np.array(draw(rows(st.integers(-1, 2**40), min_size=n, max_size=n)))
        columns["parent_id"] = np.array([draw(st.integers(-1, i - 1)) for i in range(n)])
        columns["think_time_s"] = np.array(draw(rows(st.floats(0, 1e6) | st.just(math.nan), min_size=n, max_size=n)))
        columns["deadline_s"] = np.array(draw(rows(st.floats(0, 1e6) | st.just(math.nan), min_size=n, max_size=n)))
    if draw(st.booleans()):
        columns["model"] = Categorical.of(draw(rows(_texts, min_size=n, max_size=n)))
        columns["request_class"] = Categorical.of(draw(rows(_texts, min_size=n, max_size=n)))
        columns["priority"] = np.array(draw(rows(st.integers(-9, 9), min_size=n, max_size=n)))
    if draw(st.booleans()):
        ids = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4)
        columns["block_hashes"] = Ragged.of(draw(rows(ids, min_size=n, max_size=n)))
        columns["block_size_tokens"] = draw(st.integers(1, 512))
    return Trace(np.array(arrival), np.array(draw(counts)), np.array(draw(counts)), **columns)


def assert_same(a, b):
    left, right = ({k: v for k, v in t.columns().items() if k != "row_key"} for t in (a, b))
    assert left.keys() == right.keys()
    for name, column in left.items():
        other = right[name]
        if isinstance(column, Categorical):
            assert column.texts() == other.texts(), name
        elif isinstance(column, Ragged):
            assert column.offsets.tolist() == other.offsets.tolist()
            assert column.values.tolist() == other.values.tolist()
        else:
            np.testing.assert_array_equal(column, other, err_msg=name)
    assert a.block_size_tokens == b.block_size_tokens


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet"])
@given(trace=traces())
@settings(max_examples=60, deadline=None)
def test_a_written_trace_is_read_again(tmp_path_factory, suffix, trace):
    path = tmp_path_factory.getbasetemp() / f"round{suffix}"
    write_trace(trace, path)
    assert_same(trace, read_trace(path))
    before = path.read_bytes()
    write_trace(trace, path)
    assert path.read_bytes() == before


def test_writing_refuses_and_leaves_nothing(tmp_path):
    with pytest.raises(TraceError, match="unknown suffix"):
        write_trace(plain(), tmp_path / "a.txt")
    with pytest.raises(TraceError, match="there is no folder"):
        write_trace(plain(), tmp_path / "none" / "a.csv")
    (tmp_path / "d.csv").mkdir()
    with pytest.raises(TraceError, match="is a directory"):
        write_trace(plain(), tmp_path / "d.csv")
    assert [p.name for p in tmp_path.iterdir()] == ["d.csv"]


def test_importing_workloads_needs_numpy_only():
    code = (
        "import workloads, sys; print(sorted({'pandas', 'pyarrow', 'scipy', 'matplotlib', 'yaml'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
