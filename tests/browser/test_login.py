"""A page with a login lets nobody in without it."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import serve

pytestmark = pytest.mark.browser


def test_a_login_is_asked_for(chromium: Any, tmp_path: Path, shot: Callable[..., None]) -> None:
    for server in serve(tmp_path, {"PUSA_TEST_FAKE": "1"}, "--auth", "ann:right"):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{server.url}config", timeout=60)
        assert caught.value.code == 401
        page = chromium.new_page()
        page.goto(server.url)
        page.get_by_label("username").fill("ann")
        page.get_by_label("password").fill("right")
        shot(page, "light-login")
        page.get_by_role("button", name="Login").click()
        page.wait_for_selector("#generate")
        page.close()
