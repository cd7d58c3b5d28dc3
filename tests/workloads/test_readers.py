"""Each format is read as its publisher describes it; every kind of damage is named with file, line and reason."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from workloads import TraceError, read_trace, readers
from workloads.readers._base import spread

BURST = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
NATIVE = "arrival_s,prompt_tokens,output_tokens\n"


def write(folder: Path, text: str, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8", newline="")
    return path


def test_burstgpt_six_columns(tmp_path):
    """The first arrival becomes 0, failures are dropped and counted, and the log type is the class."""
    path = write(
        tmp_path,
        BURST
        + "5,ChatGPT,472,18,490,Conversation log\n45,ChatGPT,1087,0,1087,API log\n118,GPT-4,417,276,693,API log\n",
    )
    trace = read_trace(path)
    assert trace.arrival_s.tolist() == [0.0, 113.0]
    assert trace.prompt_tokens.tolist() == [472, 417]
    assert trace.output_tokens.tolist() == [18, 276]
    assert trace.model.texts() == ["ChatGPT", "GPT-4"]
    assert trace.request_class.texts() == ["Conversation log", "API log"]
    assert trace.time_origin == "5 s on the file's clock"
    assert trace.counts == {"failed": 1}
    assert trace.notes == ("dropped 1 failed request (0 output tokens, 33.3% of the rows); --keep-failed keeps them",)


def test_burstgpt_eight_columns_give_sessions(tmp_path):
    """Parent is the previous turn of the session; think time runs from its arrival plus its elapsed time."""
    path = write(
        tmp_path,
        "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
        "100.0,aa,4,GPT-4,10,5,15,Conversation log\n"
        "101.0,,2,ChatGPT,20,5,25,API log\n"
        "103.0,bb,1,GPT-4,30,5,35,Conversation log\n"
        "110.0,aa,3,GPT-4,40,5,45,Conversation log\n"
        "112.0,aa,1,GPT-4,50,5,55,Conversation log\n",
    )
    trace = read_trace(path)
    assert trace.session_id.tolist() == [0, -1, 1, 0, 0]
    assert trace.parent_id.tolist() == [-1, -1, -1, 0, 3]
    assert trace.think_time_s[3:].tolist() == [6.0, 0.0]
    assert np.isnan(trace.think_time_s[:3]).all()
    assert trace.counts["overlapping_turns"] == 1


def test_kept_failures_have_one_output_token(tmp_path):
    trace = read_trace(write(tmp_path, BURST + "5,ChatGPT,472,0,472,API log\n"), keep_failed=True)
    assert trace.output_tokens.tolist() == [1]
    assert "1 output token in place of 0" in trace.notes[0]


def test_ties_are_spread_over_their_second_in_file_order(tmp_path):
    rows = "".join(f"{t},ChatGPT,{p},1,{p + 1},API log\n" for t, p in ((7, 1), (7, 2), (7, 3), (7, 4), (9, 5), (9, 6)))
    path = write(tmp_path, BURST + rows)
    trace = read_trace(path)
    assert trace.arrival_s.tolist() == [0.0, 0.25, 0.5, 0.75, 2.0, 2.5]
    assert trace.prompt_tokens.tolist() == [1, 2, 3, 4, 5, 6]
    assert trace.counts["tied_arrivals"] == 6
    assert "(2 times)" in trace.notes[0]
    assert read_trace(path, spread_ties="keep").arrival_s.tolist() == [0, 0, 0, 0, 2, 2]


def test_ties_never_pass_the_next_arrival():
    assert spread(np.array([0.0, 0.0, 0.5, 0.5, 3.0])).tolist() == [0.0, 0.25, 0.5, 1.0, 3.0]


def test_azure_2023_and_2024(tmp_path):
    """100-ns digits, zones, and times without a fraction are all read, also mixed in one file."""
    old = read_trace(
        write(tmp_path, AZURE + "2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04.0319601,3180,8\n")
    )
    assert old.arrival_s == pytest.approx([0, 0.0520001], abs=1e-12)
    assert old.time_origin == "2023-11-16T18:17:03.979960000 UTC"
    new = read_trace(
        write(tmp_path, AZURE + "2024-05-10 00:00:00.009930+00:00,2162,5\n2024-05-10 00:00:01+00:00,2399,6\n")
    )
    assert new.arrival_s == pytest.approx([0, 0.99007], abs=1e-12)
    mixed = read_trace(write(tmp_path, AZURE + "2024-05-10 00:00:00,1,5\n2024-05-10 02:00:01.5+02:00,2,6\n"))
    assert mixed.arrival_s.tolist() == [0, 1.5]


def test_mooncake_keeps_prefix_identity(tmp_path):
    text = (
        '{"timestamp": 1000, "input_length": 600, "output_length": 5, "hash_ids": [0, 1]}\n'
        '{"timestamp": 2500, "input_length": 512, "output_length": 7, "hash_ids": [0]}\n'
    )
    trace = read_trace(write(tmp_path, text, "t.jsonl"))
    assert trace.arrival_s.tolist() == [0, 1.5]
    assert trace.block_size_tokens == 512
    assert trace.block_hashes[0].tolist() == [0, 1]
    assert trace.block_hashes[1].tolist() == [0]


def test_vllm_workload_reads_hexadecimal_and_keeps_its_zero(tmp_path):
    text = '{"arrival_s": 0.5, "prompt_tokens": 20, "output_tokens": 12, "block_hashes": ["ff", "54f7e1db80"]}\n'
    trace = read_trace(write(tmp_path, text, "t.jsonl"))
    assert trace.arrival_s.tolist() == [0.5]
    assert trace.block_hashes[0].tolist() == [255, 0x54F7E1DB80]
    assert trace.block_size_tokens == 16


def test_vidur_and_splitwise(tmp_path):
    vidur = read_trace(
        write(tmp_path, "arrived_at,num_prefill_tokens,num_decode_tokens\n0.0,374,44\n4.314579,396,109\n")
    )
    assert vidur.arrival_s.tolist() == [0, 4.314579]
    assert vidur.output_tokens.tolist() == [44, 109]
    splitwise = read_trace(
        write(
            tmp_path,
            "request_id,request_type,application_id,arrival_timestamp,batch_size,prompt_size,token_size\n"
            "0,2,0,1,1,4096,32\n1,2,0,3,2,2048,8\n",
        )
    )
    assert splitwise.arrival_s.tolist() == [0, 2]
    assert splitwise.tenant.texts() == ["application-0"] * 2
    assert splitwise.counts == {"batched_rows": 1}


def test_native_columns(tmp_path):
    """Parents count rows of the file; a parent that is skipped leaves its turn without one, and a note says so."""
    text = (
        "arrival_s,prompt_tokens,output_tokens,session_id,parent_id,think_time_s,class,block_size_tokens,block_hashes,mood\n"
        "1.5,10,5,3,,,chat,16,1 2,x\n2,0,5,3,0,1.0,chat,16,1 2,x\n3,20,5,3,1,2.0,,16,,x\n4,20,5,3,2,2.5,,16,7,x\n"
    )
    path = write(tmp_path, text)
    with pytest.raises(TraceError, match=r"t\.csv:3: prompt_tokens is 0, must be at least 1"):
        read_trace(path)
    trace = read_trace(path, on_bad_row="skip")
    assert trace.arrival_s.tolist() == [1.5, 3, 4]
    assert trace.parent_id.tolist() == [-1, -1, 1]
    assert trace.request_class.texts() == ["chat", "", ""]
    assert [trace.block_hashes[i].tolist() for i in range(3)] == [[1, 2], [], [7]]
    assert trace.counts == {"unknown_columns": 1, "bad_rows_skipped": 1, "orphaned_turns": 1}
    assert trace.notes[0] == "ignored unknown column 'mood'"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("8,GPT-4,1,2,3", "5 fields, 6 expected"),
        ("8,GPT-4,1,2,3,API log,extra", "7 fields, 6 expected"),
        ("8,GPT-4,,2,3,API log", "Request tokens is missing"),
        ("8,GPT-4,abc,2,3,API log", "Request tokens is 'abc', not a number"),
        ("8,GPT-4,1_0,2,3,API log", "Request tokens is '1_0', not a number"),
        ("8,GPT-4,nan,2,3,API log", "Request tokens is 'nan', not a number"),
        ("8,GPT-4,0,2,3,API log", "Request tokens is 0, must be at least 1"),
        ("8,GPT-4,-4,2,3,API log", "Request tokens is -4, must be at least 1"),
        ("8,GPT-4,1.5,2,3,API log", "Request tokens is 1.5, must be a whole number"),
        ("8,GPT-4,1,99999999999,3,API log", "Response tokens is 99999999999, must be at most 2147483648"),
        ("8,GPT-4,1,-1,3,API log", "Response tokens is -1, must be at least 0"),
        ("inf,GPT-4,1,2,3,API log", "Timestamp is inf, must be finite"),
        ("-8,GPT-4,1,2,3,API log", "Timestamp is -8, must be at least 0"),
        (",GPT-4,1,2,3,API log", "Timestamp is missing"),
    ],
)
def test_bad_rows_fail_skip_or_stop(tmp_path, row, reason):
    """The physical line is named; skip leaves the row out and counts it; stop uses the rows before it."""
    path = write(tmp_path, BURST + f"5,ChatGPT,1,2,3,API log\n\n{row}\n9,ChatGPT,4,5,9,API log\n")
    with pytest.raises(TraceError) as error:
        read_trace(path)
    assert str(error.value).startswith(f"{path}:4: {reason}")
    assert "\n" not in str(error.value)
    assert "--on-bad-row" in str(error.value)
    skipped = read_trace(path, on_bad_row="skip")
    assert skipped.prompt_tokens.tolist() == [1, 4]
    assert skipped.counts["bad_rows_skipped"] == 1
    assert any(f"line 4: {reason}" in note for note in skipped.notes)
    stopped = read_trace(path, on_bad_row="stop")
    assert stopped.prompt_tokens.tolist() == [1]
    assert stopped.counts["stopped_at_line"] == 4


@pytest.mark.parametrize("last", ["9,ChatGPT,4", "9,ChatGPT,4,5,9,API l"])
def test_a_truncated_last_line_is_a_bad_row(tmp_path, last):
    path = write(tmp_path, BURST + "5,ChatGPT,1,2,3,API log\n6,ChatGPT,1,2,3,API log\n" + last)
    with pytest.raises(TraceError, match=r":4: .*the last line is truncated"):
        read_trace(path)
    assert len(read_trace(path, on_bad_row="skip")) == 2


def test_a_whole_last_line_needs_no_line_end(tmp_path):
    assert len(read_trace(write(tmp_path, BURST + "5,ChatGPT,1,2,3,API log\n6,ChatGPT,1,2,3,API log"))) == 2


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"timestamp": 0, "input_le', "is no JSON object"),
        ("[1]", "is no JSON object"),
        ('{"timestamp": 0, "input_length": 1, "hash_ids": []}', "output_length is missing"),
        (
            '{"timestamp": 0, "input_length": "x", "output_length": 1, "hash_ids": []}',
            "input_length is 'x', not a number",
        ),
        (
            '{"timestamp": 0, "input_length": 1, "output_length": 1, "hash_ids": [0.5]}',
            "hash_ids must be a list of whole",
        ),
        (
            '{"timestamp": 1e999, "input_length": 1, "output_length": 1, "hash_ids": []}',
            "timestamp is inf, must be finite",
        ),
    ],
)
def test_bad_json_rows(tmp_path, line, reason):
    good = '{"timestamp": 0, "input_length": 1, "output_length": 1, "hash_ids": [3]}\n'
    path = write(tmp_path, good + line, "t.jsonl")
    with pytest.raises(TraceError) as error:
        read_trace(path)
    assert str(error.value).startswith(f"{path}:2: {reason}")
    kept = read_trace(path, on_bad_row="skip")
    assert kept.block_hashes[0].tolist() == [3]


@pytest.mark.parametrize("stamp", ["2023-13-16 18:17:03", "yesterday", "", "2500-01-01 00:00:00"])
def test_bad_times(tmp_path, stamp):
    path = write(tmp_path, AZURE + f"2023-11-16 18:17:03.9799600,4808,10\n{stamp},1,1\n")
    with pytest.raises(TraceError, match=r":3: TIMESTAMP is (missing|.*, not a time)"):
        read_trace(path)


def test_an_unsorted_trace_is_refused_with_its_remedy(tmp_path):
    path = write(tmp_path, NATIVE + "1,1,1\n3,2,1\n2,3,1\n")
    with pytest.raises(TraceError, match=r"t\.csv:4: arrives before the row above it.*--sort sorts it"):
        read_trace(path)
    trace = read_trace(path, sort=True)
    assert trace.prompt_tokens.tolist() == [1, 3, 2]
    assert trace.counts == {"out_of_order": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        (BURST, "holds no requests, only a header"),
        (BURST.replace("Model,", "") + "1,2,3,5,x\n", r"column 'Model' is missing \(found: 'Timestamp', 'Request"),
        (BURST.replace("Log Type", "LogType") + "1,a,2,3,5,x\n", "'Log Type' is missing .* did you mean 'LogType'"),
        ("a,b\n1,2\n", r"unknown trace format \(found: 'a', 'b'\); known: azure, burstgpt"),
        (
            NATIVE.replace("output_tokens", "output_token") + "1,2,3\n",
            "nearest is 'native', which needs 'output_tokens'",
        ),
        ("arrival_s,arrival_s,prompt_tokens,output_tokens\n1,1,2,3\n", "column 'arrival_s' occurs 2 times"),
        (BURST + "1,a,2,0,2,x\n", "all 1 requests failed"),
        (BURST + "x,a,2,0,2,x\n", "Timestamp is 'x', not a number"),
    ],
)
def test_hopeless_files(tmp_path, text, message):
    with pytest.raises(TraceError, match=message) as error:
        read_trace(write(tmp_path, text))
    assert "\n" not in str(error.value)


def test_nothing_good_left(tmp_path):
    path = write(tmp_path, BURST + "x,a,2,0,2,x\n")
    with pytest.raises(TraceError, match="no good row is left, 1 were bad"):
        read_trace(path, on_bad_row="skip")
    with pytest.raises(TraceError, match=r"the first row \(line 2\) is bad already"):
        read_trace(path, on_bad_row="stop")


def test_unreadable_files(tmp_path):
    with pytest.raises(TraceError, match="no such file"):
        read_trace(tmp_path / "nothing.csv")
    with pytest.raises(TraceError, match="is a directory"):
        read_trace(tmp_path)
    latin = tmp_path / "latin.csv"
    latin.write_bytes(BURST.encode() + b"5,Chat\xe9,1,2,3,API log\n")
    with pytest.raises(TraceError, match="is not UTF-8 text"):
        read_trace(latin)
    cut = tmp_path / "cut.csv.gz"
    cut.write_bytes(gzip.compress((BURST + "5,ChatGPT,1,2,3,API log\n" * 1000).encode())[:-20])
    with pytest.raises(TraceError, match="damaged gzip file"):
        read_trace(cut)
    parquet = tmp_path / "cut.parquet"
    parquet.write_bytes(b"PAR1 and no more")
    with pytest.raises(TraceError, match="no readable Parquet file"):
        read_trace(parquet)


def test_a_damaged_first_json_line(tmp_path):
    with pytest.raises(TraceError, match=r"t\.jsonl:1: begins like JSON Lines, but the first line is no whole JSON"):
        read_trace(write(tmp_path, '{"timestamp": 1\n', "t.jsonl"))


def test_named_formats(tmp_path):
    path = write(tmp_path, AZURE + "2023-11-16 18:17:03,1,1\n")
    with pytest.raises(TraceError, match="unknown trace format 'azur'; did you mean 'azure'"):
        read_trace(path, format="azur")
    with pytest.raises(TraceError, match="column 'Timestamp' is missing"):
        read_trace(path, format="burstgpt")
    with pytest.raises(TraceError, match="is no JSON object"):
        read_trace(path, format="mooncake")
    with pytest.raises(TraceError, match="on_bad_row is 'skipp'; did you mean 'skip'"):
        read_trace(path, on_bad_row="skipp")
    assert set(readers()) == {"azure", "burstgpt", "mooncake", "native", "splitwise", "vidur", "vllm-workload"}


def test_gzip_bom_and_crlf_are_read(tmp_path):
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(("﻿" + BURST + "5,ChatGPT,1,2,3,API log\n").replace("\n", "\r\n").encode()))
    assert read_trace(path).request_class.texts() == ["API log"]


def test_the_careful_pass_reads_what_the_fast_one_reads(tmp_path):
    """A bad row at the end sends the whole file through the line-by-line pass; the good rows stay the same."""
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.random(500) * 10).round(6)
    rows = "".join(f"{t},M{i % 3},{i + 1},{i % 7},{i + 1 + i % 7},L{i % 2}\n" for i, t in enumerate(times))
    fast = read_trace(write(tmp_path, BURST + rows, "fast.csv"))
    slow = read_trace(write(tmp_path, BURST + rows + "x\n", "slow.csv"), on_bad_row="skip")
    for name, column in fast.columns().items():
        other = slow.columns()[name]
        if hasattr(column, "texts"):
            assert column.texts() == other.texts()
        else:
            np.testing.assert_array_equal(column, other)


def test_native_parents_must_be_earlier(tmp_path):
    head = "arrival_s,prompt_tokens,output_tokens,parent_id\n"
    with pytest.raises(TraceError, match=r":2: parent_id is 1, which isn't an earlier request"):
        read_trace(write(tmp_path, head + "1,1,1,1\n2,1,1,\n"))
    with pytest.raises(TraceError, match=r":3: parent_id is 9, but the file has 2 rows"):
        read_trace(write(tmp_path, head + "1,1,1,\n2,1,1,9\n"))


def test_block_sizes_must_be_known_and_equal(tmp_path):
    head = "arrival_s,prompt_tokens,output_tokens,block_size_tokens,block_hashes\n"
    with pytest.raises(TraceError, match="'block_size_tokens' differs by row"):
        read_trace(write(tmp_path, head + "1,1,1,16,1\n2,1,1,32,1\n"))
    with pytest.raises(TraceError, match="needs a column 'block_size_tokens'"):
        read_trace(write(tmp_path, "arrival_s,prompt_tokens,output_tokens,block_hashes\n1,1,1,4\n"))
    with pytest.raises(TraceError, match="block_hashes is 'a b', not whole numbers"):
        read_trace(write(tmp_path, head + "1,1,1,16,a b\n"))
