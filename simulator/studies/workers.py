"""Independent pieces of work, in processes of this machine or on any executor; one never stops the others."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Executor, Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

from simulator.errors import InputError

Task = TypeVar("Task")
Result = TypeVar("Result")

_ORPHAN_S = 1.0
"""How often a process looks whether the one that started it is still there, seconds: a choice."""


class ExecutorLostError(InputError):
    """An executor that was given up on its tasks, as that of a cluster whose scheduler has gone."""


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
        Makes the result of a task whose process died (out of memory, most often), or that the executor lost.
    workers
        Processes of this machine; None: one a processor; 1: this process.
    executor
        Where tasks run, in place of processes of this machine.

    Raises
    ------
    ExecutorLostError
        If the executor that was given ended before its tasks; what was yielded before is the caller's.
    KeyboardInterrupt
        On Ctrl-C, with tasks that run ended and those that wait given up; what was yielded before is the caller's.
    """
    if workers is not None and workers < 1:
        raise InputError(f"workers must be at least 1, got {workers}")
    count = min(workers or os.cpu_count() or 1, len(tasks))
    if executor is not None:
        yield from _elsewhere(executor, work, tasks, died)
    elif count < 2:
        yield from ((place, work(task)) for place, task in enumerate(tasks))
    else:
        yield from _in_processes(count, work, tasks, died)


def _in_processes(
    count: int, work: Callable[[Task], Result], tasks: Sequence[Task], died: Callable[[Task], Result]
) -> Iterator[tuple[int, Result]]:
    left = dict.fromkeys(range(len(tasks)))
    while left:
        try:
            with _processes(count) as pool:
                for place, result in _on(pool, work, tasks, list(left)):
                    del left[place]
                    yield place, result
        except BrokenProcessPool:
            # Which task it was is not known. Processes take them in their order, and one waits for each that runs, and
            # one more: those that may have been sent run alone, then the rest go on together.
            for place in list(left)[: 2 * count + 1]:
                del left[place]
                yield place, _alone(work, tasks[place], died)


def _alone(work: Callable[[Task], Result], task: Task, died: Callable[[Task], Result]) -> Result:
    try:
        with _processes(1) as pool:
            return pool.submit(work, task).result()
    except BrokenProcessPool:
        return died(task)


def _elsewhere(
    executor: Executor, work: Callable[[Task], Result], tasks: Sequence[Task], died: Callable[[Task], Result]
) -> Iterator[tuple[int, Result]]:
    """Yield what comes back; a task that the executor has lost (its workers died with it again and again) is one."""
    futures = {executor.submit(work, task): place for place, task in enumerate(tasks)}
    try:
        for future in as_completed(list(futures)):
            place = futures.pop(future)
            try:
                result = future.result()
            except CancelledError:  # not by us: whoever gives up on a study reads no more of this
                raise ExecutorLostError("the executor ended before its tasks; what came until then is kept") from None
            except Exception:  # whatever the executor raises: the work itself raises nothing
                result = died(tasks[place])
            yield place, result
    finally:
        for future in futures:  # it is the caller's, and goes on without this study
            future.cancel()


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
    pool = ProcessPoolExecutor(count, initializer=_begin, initargs=(os.getpid(),))
    try:
        yield pool
    except BaseException:
        ours = set(multiprocessing.active_children()) - before
        pool.shutdown(wait=False, cancel_futures=True)
        for process in ours:
            process.terminate()
        raise
    pool.shutdown()


def _begin(parent: int) -> None:
    """Ignore Ctrl-C, which a terminal sends to every process of a command; end when the parent is gone.

    A process of a pool waits for tasks for ever, also when whoever started it was killed.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_ORPHAN_S)
        os._exit(1)

    threading.Thread(target=watch, name="watch-parent", daemon=True).start()
