"""The fake model, and a studio that makes its videos with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pusa_app.settings import Settings
from pusa_app.studio import Studio


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUSA_TEST_FAKE", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # also for the worker, so that processes add up in the same order


@pytest.fixture
def studio(fake: None, tmp_path: Path) -> Iterator[Studio]:
    studio = Studio(Settings(data_dir=tmp_path / "data", cancel_grace_seconds=1.0))
    yield studio
    studio.close()
