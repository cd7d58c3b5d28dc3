"""A real Dask cluster on this machine, started as docs/sweeping.md says; and what is said where there is none."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from simulator import InputError, sweep
from simulator.studies import dask_cluster
from simulator.studies.dask_cluster import dask_executor
from simulator.studies.identity import program_digest

from .test_sweep import scenario


class Fake:
    """A client of a cluster whose workers answer as they are told to."""

    def __init__(self, answers: dict[str, str] | Exception) -> None:
        self.answers = answers

    def wait_for_workers(self, count: int, timeout: float) -> None:
        if not self.answers:
            raise TimeoutError

    def run(self, function: Callable[[], str]) -> dict[str, str]:
        if isinstance(self.answers, Exception):
            raise self.answers
        return self.answers


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ({}, "has no worker; start some"),
        (ModuleNotFoundError("No module named 'simulator'"), "can't run the simulator .No module.*install it there"),
        ({"tcp://a": program_digest(), "tcp://b": "0"}, "1 of 2 workers .* have another version .*first: tcp://b"),
    ],
)
def test_a_cluster_that_can_not_do_it_is_refused(answers: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        dask_cluster._check_workers(Fake(answers), "tcp://x:1", 0.1)


def test_without_dask_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match="needs the extra 'dask'"), dask_executor("tcp://127.0.0.1:1"):
        pass


def test_an_address_where_nobody_answers_is_said_to_be_one() -> None:
    pytest.importorskip("distributed", reason="the extra 'dask' isn't installed")
    for address in ("tcp://127.0.0.1:1", "nonsense://x"):
        words = f"no Dask scheduler answers at {address} within 0.5 s"
        with pytest.raises(InputError, match=words), dask_executor(address, 0.5):
            pass


def started(stack: ExitStack, folder: Path, *arguments: str) -> Path:
    """Start a command of Dask in a session of its own, to be killed at the end; return its log."""
    log = folder / f"{arguments[0]}.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [str(Path(sys.executable).parent / "dask"), *arguments], stdout=file, stderr=file, start_new_session=True
        )

    def end() -> None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    stack.callback(end)
    return log


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A scheduler and two workers."""
    pytest.importorskip("distributed", reason="the extra 'dask' isn't installed")
    folder = tmp_path_factory.mktemp("dask")
    with ExitStack() as stack:
        log = started(stack, folder, "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
        found = None
        until = time.monotonic() + 60
        while found is None and time.monotonic() < until:
            time.sleep(0.1)
            found = re.search(r"Scheduler at: +(tcp://\S+)", log.read_text())
        assert found is not None, log.read_text()
        started(stack, folder, "worker", found[1], "--nworkers", "2", "--nthreads", "1", "--no-dashboard")
        yield found[1]


def test_a_cluster_gives_the_same_table_to_the_last_bit(address: str, tmp_path: Path) -> None:
    over = {"max_num_seqs": [1, 2, 4], "tp": [1, 3]}
    here = sweep(scenario(), over, seeds=2, store=False, workers=1, out=tmp_path / "here")
    there = sweep(scenario(), over, seeds=2, store=tmp_path / "kept", cluster=address, out=tmp_path / "there")
    pd.testing.assert_frame_equal(here, there, check_exact=True)
    for name in ("sweep.csv", "points.csv"):
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()


def test_a_worker_of_a_cluster_that_is_killed_loses_nothing(address: str, tmp_path: Path) -> None:
    from distributed import Client

    with Client(address, set_as_default=False) as client:
        client.wait_for_workers(2)
        processes = sorted(client.run(os.getpid).values())
    killed = []

    def kill_one(done: int, total: int, name: str) -> None:
        if done == 3:
            os.kill(processes[0], signal.SIGKILL)
            killed.append(processes[0])

    over = {"max_num_seqs": "1..24:24"}
    there = sweep(scenario(), over, store=tmp_path, cluster=address, progress=kill_one)
    assert killed
    pd.testing.assert_frame_equal(sweep(scenario(), over, store=False), there, check_exact=True)
