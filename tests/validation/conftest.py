"""What the tests of validation share."""

from __future__ import annotations

import pytest

from simulator.validation import kernel_tables


@pytest.fixture
def no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the package of kernel tables for absent: what is tested must not depend on what is installed."""
    monkeypatch.setattr(kernel_tables, "installed_systems", lambda: ())
