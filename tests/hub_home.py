"""A home of models beside the small hub, and what it says when something goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pusa_app.errors import UserError
from pusa_app.models.home import Home
from pusa_app.models.weights import hub as hub_module
from tests.hub_server import Hub


def home_beside(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A data folder and an empty cache below `folder`, no token, and little patience."""
    from huggingface_hub import constants

    monkeypatch.setattr(hub_module, "WAIT", 0.01)
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (
        ("HF_HUB_OFFLINE", False),
        ("HF_TOKEN_PATH", str(folder / "token")),
        ("HF_STORED_TOKENS_PATH", str(folder / "stored_tokens")),
    ):
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setenv("PUSA_DATA_DIR", str(folder / "data"))
    return Home(folder / "data", folder / "cache", hub.url)


def told(match: str, work: Callable[..., Any], *arguments: Any, **more: Any) -> str:
    """It fails with one sentence, which is returned."""
    with pytest.raises(UserError, match=match) as caught:
        work(*arguments, **more)
    text = str(caught.value)
    assert "\n" not in text and text.endswith(".") and "Traceback" not in text
    return text
