"""Tasks in processes: all results come, whoever dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from simulator.errors import InputError
from simulator.studies.workers import run_tasks


def square(number: int) -> int:
    return number * number


def fatal(number: int) -> int:
    if number == 2:
        os._exit(9)
    return number * number


def died(number: int) -> int:
    return -number


@pytest.mark.parametrize("workers", [1, 2])
def test_each_task_has_its_result(workers: int) -> None:
    assert dict(run_tasks(square, [1, 2, 3, 4], died, workers=workers)) == {0: 1, 1: 4, 2: 9, 3: 16}


def test_a_process_that_dies_takes_its_own_task_only() -> None:
    assert dict(run_tasks(fatal, [1, 2, 3, 4], died, workers=2)) == {0: 1, 1: -2, 2: 9, 3: 16}


def test_no_workers_are_refused() -> None:
    with pytest.raises(InputError, match="workers must be at least 1, got 0"):
        list(run_tasks(square, [1], died, workers=0))


def test_an_interrupt_ends_the_processes_and_keeps_what_came(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys, time
            from simulator.studies.workers import run_tasks

            def work(seconds):
                time.sleep(seconds)
                return seconds

            if __name__ == "__main__":
                try:
                    for place, result in run_tasks(work, [0, 300, 300], abs, workers=2):
                        print("done", place, flush=True)
                except KeyboardInterrupt:
                    print("interrupted", flush=True)
            """
        )
    )
    env = {**os.environ, "PYTHONPATH": os.getcwd()}  # noqa: PTH109
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=env, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "done 0\n"
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process of the command
        begun = time.monotonic()
        rest, _ = process.communicate(timeout=60)
        assert rest == "interrupted\n" and time.monotonic() - begun < 60
