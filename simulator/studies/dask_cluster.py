"""A Dask cluster as an executor, by the address of its scheduler; needs the extra ``dask``."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any

from simulator.errors import InputError
from simulator.studies.identity import program_digest

TIMEOUT_S = 10.0
"""How long a scheduler may take to answer, and then its first worker to be there, seconds: a choice."""


@contextmanager
def dask_executor(address: str, timeout_s: float = TIMEOUT_S) -> Iterator[Executor]:
    """Yield an executor whose tasks run on the workers of a Dask cluster; what still runs is cancelled at the end.

    Parameters
    ----------
    address
        Of the scheduler, ``tcp://host:port``.

    Raises
    ------
    InputError
        If Dask isn't installed, nobody answers, there is no worker, or one has another version of the simulator.
    """
    try:
        from distributed import Client
    except ImportError:
        raise InputError(
            "a Dask cluster needs the extra 'dask' (dask.distributed), which isn't installed: pip install "
            "'llm-cluster-simulator[dask]'"
        ) from None
    with _quietly(), _client(Client, address, timeout_s) as client:
        _check_workers(client, address, timeout_s)
        executor = client.get_executor(pure=False)  # equal tasks are told apart: they were put together before
        try:
            yield executor
        finally:
            executor.shutdown(wait=False)


@contextmanager
def _client(make: Any, address: str, timeout_s: float) -> Iterator[Any]:
    try:
        client = make(address, timeout=timeout_s, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"no Dask scheduler answers at {address} within {timeout_s:g} s ({_first_line(error)}); start one (dask "
            "scheduler) and give the address that it prints, as in --cluster tcp://host:8786"
        ) from None
    try:
        yield client
    finally:
        client.close(timeout=timeout_s)


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep Dask from printing tracebacks of its threads: what goes wrong is told in a sentence."""
    log = logging.getLogger("distributed.client")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)


def _check_workers(client: Any, address: str, timeout_s: float) -> None:
    """Refuse a cluster without workers, or one of whose workers runs another version of the simulator."""
    try:
        client.wait_for_workers(1, timeout=timeout_s)
    except TimeoutError:
        raise InputError(
            f"the Dask cluster at {address} has no worker; start some (dask worker {address}) on machines that have "
            "the simulator"
        ) from None
    try:
        found = client.run(program_digest)
    except Exception as error:  # what a worker's process raises: it can't import the simulator, most often
        raise InputError(
            f"a worker of the Dask cluster at {address} can't run the simulator ({_first_line(error)}); install "
            "it there"
        ) from None
    others = sorted(worker for worker, digest in found.items() if digest != program_digest())
    if others:
        raise InputError(
            f"{len(others)} of {len(found)} workers of the Dask cluster at {address} have another version of the "
            f"simulator (the first: {others[0]}); install this one there"
        )


def _first_line(error: BaseException) -> str:
    said = str(error).strip().splitlines()
    return said[0] if said else type(error).__name__


__all__ = ["TIMEOUT_S", "dask_executor"]
