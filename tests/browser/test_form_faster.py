"""Cache and guidance interval in the form: they go into the recipe and come back, and say why where they cannot be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import Server
from tests.browser.pages import generate, new_video
from tests.browser.test_form_models import AT_THE_MACHINE, server, with_narrow  # noqa: F401 - a fixture
from tests.browser.test_models import choose_model

pytestmark = pytest.mark.browser

CACHE, HIGH, LOW = (f"#{name} input[type=number]" for name in ("cache", "guided_high", "guided_low"))


def put(page: Any, **values: str) -> None:
    for name, value in values.items():
        page.fill({"cache": CACHE, "high": HIGH, "low": LOW}[name], value)
        page.keyboard.press("Tab")


def test_they_are_in_the_recipe_and_come_back(
    server: Server,  # noqa: F811
    visit: Callable[..., Any],
    shot: Callable[..., None],
    tmp_path: Path,
) -> None:
    page = visit(server.url, **AT_THE_MACHINE)
    with_narrow(page)
    assert [page.input_value(field) for field in (CACHE, HIGH, LOW)] == ["0", "1", "0"]
    assert not page.locator("#guidance_2").is_visible(), "there is no second expert"
    put(page, cache="0.2", low="0.5")
    shot(page, "faster")
    generate(page, "a red ball")
    new_video(page, "", tmp_path)
    put(page, cache="0", low="0")
    page.get_by_role("button", name="Use these settings").click()
    page.wait_for_function("f => document.querySelector(f)?.value === '0.2'", arg=CACHE)
    assert [page.input_value(field) for field in (CACHE, HIGH, LOW)] == ["0.2", "1", "0.5"]


def test_a_model_without_blocks_says_so(server: Server, visit: Callable[..., Any]) -> None:  # noqa: F811
    page = visit(server.url, **AT_THE_MACHINE)
    with_narrow(page)
    assert page.is_enabled(CACHE)
    put(page, cache="0.2")
    choose_model(page, "Fake")
    page.wait_for_function("f => document.querySelector(f)?.disabled", arg=CACHE)
    assert "This model has no blocks to cache." in page.locator("#cache").inner_text()
    assert page.input_value(CACHE) == "0"
