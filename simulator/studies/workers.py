"""Independent pieces of work, in processes of this machine or on any executor; one never stops the others."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from os import cpu_count
from typing import TypeVar

from simulator.errors import InputError

Task = TypeVar("Task")
Result = TypeVar("Result")


def run_tasks(
    work: Callable[[Task], Result],
    tasks: Sequence[Task],
    died: Callable[[Task], Result],
    *,
    workers: int | None = None,
    executor: Executor | None = None,
) -> Iterator[tuple[int, Result]]:
    """Yield the place and result of each task as it ends.

    Parameters
    ----------
    work
        A function of a module, so that it can be sent; it must not raise.
    died
        Makes the result of a task whose process died (out of memory, most often).
    workers
        Processes of this machine; None: one a processor; 1: this process.
    executor
        Where tasks run, in place of processes of this machine.

    Raises
    ------
    KeyboardInterrupt
        On Ctrl-C, with tasks that run ended and those that wait given up; what was yielded before is the caller's.
    """
    if workers is not None and workers < 1:
        raise InputError(f"workers must be at least 1, got {workers}")
    count = min(workers or cpu_count() or 1, len(tasks))
    if executor is not None:
        yield from _on(executor, work, tasks, range(len(tasks)))
    elif count < 2:
        yield from ((place, work(task)) for place, task in enumerate(tasks))
    else:
        yield from _in_processes(count, work, tasks, died)


def _in_processes(
    count: int, work: Callable[[Task], Result], tasks: Sequence[Task], died: Callable[[Task], Result]
) -> Iterator[tuple[int, Result]]:
    left = set(range(len(tasks)))
    try:
        with _processes(count) as pool:
            for place, result in _on(pool, work, tasks, sorted(left)):
                left.discard(place)
                yield place, result
    except BrokenProcessPool:  # which task it was is not known: the rest run alone
        for place in sorted(left):
            try:
                with _processes(1) as pool:
                    result = pool.submit(work, tasks[place]).result()
            except BrokenProcessPool:
                result = died(tasks[place])
            yield place, result


def _on(
    executor: Executor, work: Callable[[Task], Result], tasks: Sequence[Task], places: Sequence[int]
) -> Iterator[tuple[int, Result]]:
    futures: dict[Future[Result], int] = {executor.submit(work, tasks[place]): place for place in places}
    for future in as_completed(futures):
        yield futures[future], future.result()


@contextmanager
def _processes(count: int) -> Iterator[Executor]:
    """Yield processes that leave Ctrl-C to this one; when the caller leaves early, they are ended at once."""
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(count, initializer=_leave_interrupts)
    try:
        yield pool
    except BaseException:
        ours = set(multiprocessing.active_children()) - before
        pool.shutdown(wait=False, cancel_futures=True)
        for process in ours:
            process.terminate()
        raise
    pool.shutdown()


def _leave_interrupts() -> None:
    """Ignore Ctrl-C, which a terminal sends to every process of a command."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
