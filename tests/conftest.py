"""What all tests have in common."""

from itertools import count
from pathlib import Path

import pytest
from hypothesis import settings

from simulator.studies.store import ENVIRONMENT

# How long an example takes says more about the machine than about the code.
settings.register_profile("unhurried", parent=settings(), deadline=None)
settings.load_profile("unhurried")

_numbers = count()


@pytest.fixture(scope="session")
def _stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stores")


@pytest.fixture(autouse=True)
def _own_store(_stores: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep results of studies out of the user's store, and those of one test from the next."""
    monkeypatch.setenv(ENVIRONMENT, str(_stores / str(next(_numbers))))
