"""The fake model, and a studio that makes its videos with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from pusa_app.jobs import supervisor
from pusa_app.settings import Settings
from pusa_app.studio import Studio
from tests.faults.forked import Forked


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUSA_TEST_FAKE", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # also for the worker, so that processes add up in the same order


@pytest.fixture
def forked(fake: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The studio's workers start at once, and write a checkpoint after every step."""
    monkeypatch.setattr(supervisor, "multiprocessing", SimpleNamespace(get_context=lambda kind: Forked()))


@pytest.fixture
def studio(fake: None, tmp_path: Path) -> Iterator[Studio]:
    studio = Studio(Settings(data_dir=tmp_path / "data", cancel_grace_seconds=1.0))
    yield studio
    studio.close()
