"""What the form holds is there again after the page was loaded anew, by the visitor or by a restart of the program."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pusa_app.ui.draft import SCRIPT
from tests.browser.conftest import PATIENCE, Server
from tests.browser.pages import (
    choose,
    generate,
    keyframes,
    messages,
    runs,
    steps,
    sweep_axis,
    type_number,
    upload,
    video_frames,
)
from tests.browser.test_queue import Program, program, unused_tcp_port_of  # noqa: F401

pytestmark = pytest.mark.browser
Visit = Callable[..., Any]
KEY = "pusa-form"
NEVER = 2**30  # milliseconds
FIELDS = {
    "prompt": "#prompt textarea",
    "seed": "#seed input",
    "count": "#count input",
    "length": "#length input[type=number]",
    "steps": "#steps input[type=number]",
    "guidance": "#guidance input[type=number]",
    "negative": "#negative textarea, #negative input",
}


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    return paint(tmp_path / "red.png", (200, 30, 30))


def paint(path: Path, color: tuple[int, int, int]) -> Path:
    Image.new("RGB", (120, 90), color).save(path)
    return path


def kept(page: Any, **fields: Any) -> None:
    """Wait until the browser has heard of what was done last."""
    page.wait_for_function(
        "([key, wanted]) => { const held = JSON.parse(sessionStorage.getItem(key) || '{}'); "
        "return Object.keys(wanted).every(name => JSON.stringify(held[name]) === JSON.stringify(wanted[name])) }",
        arg=[KEY, fields],
    )


def noises(page: Any, *wanted: float) -> None:
    """As `kept`, of the keyframes on the timeline."""
    page.wait_for_function(
        "([key, wanted]) => JSON.stringify((JSON.parse(sessionStorage.getItem(key) || '{}').timeline?.keyframes || [])"
        ".map(k => k.noise[0])) === JSON.stringify(wanted)",
        arg=[KEY, list(wanted)],
    )


def ready(page: Any) -> Any:
    """Wait until what was kept is back, if there was something, and every change is heard."""
    page.locator("body[data-draft=ready]").wait_for()
    return page


def stored(page: Any) -> str | None:
    return page.evaluate(f"sessionStorage.getItem('{KEY}')")


def patience(page: Any, milliseconds: int) -> None:
    """When the pages that come give up waiting for their form."""
    usual = re.search(r"PATIENCE = (\d+)", SCRIPT.read_text())[1]  # type: ignore[index]
    page.add_init_script(
        "(() => { const wait = window.setTimeout; window.setTimeout = (then, after, ...rest) => "
        f"wait(then, after === {usual} ? {milliseconds} : after, ...rest); }})()"
    )


def drop(page: Any, *, file: bool) -> None:
    """Drop something on the page. It is for the form that comes back to see: nothing else takes it."""
    page.evaluate(
        "file => { const dataTransfer = new DataTransfer();"
        "if (file) dataTransfer.items.add(new File(['no video'], 'a.mp4'));"
        "else dataTransfer.setData('text/plain', 'words');"
        "window.addEventListener('drop', event => event.preventDefault(), { capture: true, once: true });"
        "const how = { bubbles: true, cancelable: true, dataTransfer };"
        "document.body.dispatchEvent(new DragEvent('drop', how)); }",
        file,
    )


def hold_back(page: Any) -> list[Any]:
    """What asks for the form stays on its way; it comes into the list."""
    held: list[Any] = []
    instead_of_asking(page, held.append)
    return held


def instead_of_asking(page: Any, do: Callable[[Any], Any]) -> None:
    page.route("**/queue/join*", lambda route: do(route) if "form" in sent(route) else route.continue_())


def louder(page: Any, number: int, presses: int, words: str) -> None:
    """More noise for a keyframe, by keys, which count at once."""
    card = page.locator(".te-card").nth(number)
    card.click()
    for _ in range(presses):
        card.press("Shift+ArrowUp")
    page.locator(f".te-card[aria-valuetext*='{words}']").wait_for()


def shown_fields(page: Any) -> dict[str, str]:
    if not page.locator(FIELDS["steps"]).is_visible():
        page.locator("#advanced button").first.click()
        page.locator(FIELDS["steps"]).wait_for()
    return {name: page.input_value(where) for name, where in FIELDS.items()}


def same_fields(page: Any, wanted: dict[str, str]) -> None:
    """Wait until the fields show what is wanted."""
    deadline = time.monotonic() + PATIENCE
    while (now := shown_fields(page)) != wanted:
        assert time.monotonic() < deadline, now
        page.wait_for_timeout(50)


def first(held: list[Any], page: Any) -> Any:
    """Wait until something was held back."""
    deadline = time.monotonic() + PATIENCE
    while not held:
        assert time.monotonic() < deadline
        page.wait_for_timeout(50)
    return held[0]


def recipe_of_the_run(server: Server, before: set[str]) -> dict[str, Any]:
    (new,) = runs(server) - before
    return json.loads((server.data / "runs" / new / "recipe.json").read_text())


def fill_in(page: Any, picture: Path) -> None:
    """A form that is not as it was at first."""
    ready(page)
    choose(page, "Image to video")
    upload(page, picture)
    keyframes(page, 1)
    page.fill(FIELDS["prompt"], "it moves, <b>slowly</b>")
    steps(page, 5)
    type_number(page, "guidance", "4.5")
    page.fill(FIELDS["negative"], "dark ${1+1}")
    page.click("#random input")
    type_number(page, "seed", "77")
    louder(page, 0, 7, "noise 0.35")
    noises(page, 0.35)
    kept(page, seed=77, steps=5, guidance=4.5, negative="dark ${1+1}", random=False)


def test_the_whole_form_is_there_after_a_reload_and_runs(
    server: Server, visit: Visit, picture: Path, tmp_path: Path, shot: Callable[..., None]
) -> None:
    page = visit(server.url)
    fill_in(page, picture)
    before, timeline = shown_fields(page), keyframes(page, 1)
    page.reload()
    ready(page)
    page.wait_for_selector("#image img")
    assert keyframes(page, 1) == timeline == ["slot 0, frame 0, noise 0.35: this frame with natural motion"]
    same_fields(page, before)
    assert not page.is_checked("#random input") and not messages(page)
    assert page.get_by_role("tab", name="Image to video").get_attribute("aria-selected") == "true"
    shot(page, "reload-whole")
    # What is changed now changes nothing else: the timeline goes on being the visitor's.
    type_number(page, "length", "13")
    page.wait_for_function("document.querySelectorAll('.te-well').length === 3")
    assert keyframes(page, 1) == timeline
    kept(page, frames=13)
    there = runs(server)
    page.reload()
    ready(page)
    page.wait_for_function("document.querySelectorAll('.te-well').length === 3")
    assert keyframes(page, 1) == timeline
    page.click("#generate")
    assert video_frames(page, tmp_path).shape[0] == 13
    made = recipe_of_the_run(server, there)
    assert (made["task"], made["prompt"], made["negative_prompt"]) == (
        "image-to-video",
        "it moves, <b>slowly</b>",
        "dark ${1+1}",
    )
    assert (made["steps"], made["guidance"], made["seed"]) == (5, 4.5, 77)
    (keyframe,) = made["timeline"]["keyframes"]
    assert (keyframe["slot"], keyframe["noise"]) == (0, 0.35)


def test_options_of_a_task_and_keyframes_of_the_hand_come_back(
    server: Server, visit: Visit, picture: Path, tmp_path: Path
) -> None:
    page = ready(visit(server.url))
    choose(page, "Keyframes")
    for count, file in enumerate((picture, paint(tmp_path / "blue.png", (30, 30, 200))), 1):
        with page.expect_file_chooser() as chooser:
            page.click(".te-do-add")
        chooser.value.set_files(file)
        keyframes(page, count)
    louder(page, 1, 6, "noise 0.6")
    page.fill("#count input", "3")
    noises(page, 0, 0.6)
    page.locator("#sweep button").first.click()
    sweep_axis(page, 1, "Noise", "0, 0.5")
    type_number(page, "sweep-keyframe-1", "2")
    kept(page, count=3, task="keyframes", sweep_kind_1="noise", sweep_keyframe_1=2, sweep_values_1="0, 0.5")
    before = keyframes(page, 2)
    page.reload()
    ready(page)
    assert keyframes(page, 2) == before
    page.wait_for_function("document.querySelector('#count input').value === '3'")
    assert page.is_checked("#random input")
    page.locator("#sweep button").first.click()
    page.locator("#sweep-keyframe-1").wait_for()
    sweep = ("#sweep-kind-1 input", "#sweep-keyframe-1 input", "#sweep-values-1 :is(input, textarea)")
    assert [page.input_value(where) for where in sweep] == ["Noise", "2", "0, 0.5"]
    choose(page, "Extend")
    page.locator("#direction").get_by_text("Both", exact=True).click()
    type_number(page, "more", "40")
    kept(page, task="extend", more=40, direction="both")
    page.reload()
    page.wait_for_function("document.querySelector('#more input')?.value === '40'")
    assert page.locator("#direction").get_by_label("Both", exact=True).is_checked()


def test_a_page_that_nobody_touched_has_nothing_to_put_back(server: Server, visit: Visit) -> None:
    page = ready(visit(server.url))
    before = shown_fields(page)
    page.reload()
    ready(page)
    assert shown_fields(page) == before and before["prompt"] == ""
    page.locator("#sweep button").first.click()
    page.locator("#sweep-values-1").wait_for()
    assert stored(page) is None
    # What was typed and taken back is no draft either.
    page.fill(FIELDS["prompt"], "no")
    kept(page, prompt="no")
    page.fill(FIELDS["prompt"], "")
    page.wait_for_function(f"sessionStorage.getItem('{KEY}') === null")
    # Another tab begins with an empty form.
    page.fill(FIELDS["prompt"], "of this tab")
    kept(page, prompt="of this tab")
    other = page.context.new_page()
    other.goto(server.url)
    ready(other)
    assert other.input_value(FIELDS["prompt"]) == ""


def test_files_that_are_gone_are_told_and_the_rest_is_there(server: Server, visit: Visit, picture: Path) -> None:
    page = visit(server.url)
    fill_in(page, picture)
    path = page.evaluate(f"JSON.parse(sessionStorage.getItem('{KEY}')).image.path")
    Path(path).unlink()
    page.reload()
    ready(page)
    page.locator("#timeline-editor", has_text="no longer here: red.png").wait_for()
    keyframes(page, 0)
    page.wait_for_function("document.querySelector('#seed input').value === '77'")
    assert page.locator("#image img").count() == 0


def test_whoever_writes_while_the_form_comes_back_goes_on_with_it(server: Server, visit: Visit, picture: Path) -> None:
    """The answer stays on its way until something was typed."""
    page = visit(server.url)
    fill_in(page, picture)
    held = hold_back(page)
    patience(page, NEVER)
    page.reload()
    page.wait_for_selector(".pusa-restoring")
    page.wait_for_function("document.querySelector('#prompt textarea').value.startsWith('it moves')")
    page.locator(FIELDS["prompt"]).press("End")
    page.keyboard.type(", and stops")
    drop(page, file=False)
    assert page.evaluate("document.querySelector('#generate').closest('[inert]') !== null"), "half a form is not run"
    first(held, page).continue_()
    ready(page)
    page.wait_for_selector("#image img")
    page.wait_for_function("document.querySelector('#seed input').value === '77'")
    assert page.input_value(FIELDS["prompt"]) == "it moves, <b>slowly</b>, and stops"


def test_what_fills_the_form_meanwhile_is_not_undone(server: Server, visit: Visit, picture: Path) -> None:
    """As above, but a file is dropped on the page: then its recipe is what counts."""
    page = visit(server.url)
    fill_in(page, picture)
    held = hold_back(page)
    patience(page, NEVER)
    page.reload()
    page.wait_for_selector(".pusa-restoring")
    first(held, page)
    with page.expect_response(lambda response: sent(response).get("stop")):
        drop(page, file=True)  # it is answered once the program knows
    ready(page)
    assert not page.locator("[inert]").count()
    type_number(page, "seed", "5")
    with page.expect_event("console", lambda message: message.text == "answered"):
        page.evaluate("document.addEventListener('pusa-restored', () => setTimeout(() => console.log('answered'), 50))")
        first(held, page).continue_()
    assert page.input_value(FIELDS["seed"]) == "5" and page.locator("#image img").count() == 0
    assert page.locator(".te-card").count() == 0


@pytest.mark.parametrize("why", ["refused", "late"])
def test_a_form_that_cannot_be_put_back_is_not_lost(server: Server, visit: Visit, why: str) -> None:
    page = ready(visit(server.url))
    page.fill(FIELDS["prompt"], "a long text")
    page.click("#random input")
    type_number(page, "seed", "77")
    kept(page, prompt="a long text", seed=77, random=False)
    before = stored(page)
    if why == "late":
        hold_back(page)
        patience(page, 0)
    else:
        instead_of_asking(page, lambda route: route.fulfill(status=503, json={"detail": "Queue is full."}))
    for _ in range(2):  # a page that goes writes what it has to write
        page.reload()
        ready(page)
        assert page.input_value(FIELDS["prompt"]) == "a long text" and page.is_checked("#random input")
    assert stored(page) == before
    page.click("#random input")
    type_number(page, "seed", "5")
    kept(page, prompt="a long text", seed=5)


def sent(exchange: Any) -> dict[str, Any]:
    """What an event carries, of a route or a response."""
    if not any(place in exchange.request.url for place in ("/queue/join", "/run/")):
        return {}
    data = (exchange.request.post_data_json or {}).get("event_data")
    return data if isinstance(data, dict) else {}


@pytest.mark.slow
def test_a_restart_of_the_program_leaves_the_form_as_it_was(
    program: Program,  # noqa: F811
    visit: Visit,
    picture: Path,
    tmp_path: Path,
) -> None:
    page = visit(program.url)
    fill_in(page, picture)
    before, timeline = shown_fields(page), keyframes(page, 1)
    file = Path(json.loads(stored(page) or "")["image"]["path"])
    assert file.parents[1].name.startswith("pusa-studio-"), "where the next program looks for what this one left"
    for end in (program.kill, lambda: (program.process.terminate(), program.process.wait(60))):
        app = page.evaluate("window.gradio_config.app_id")
        end()
        page.locator(".gone", has_text="The program was closed").wait_for()
        program.start()
        page.wait_for_function(
            "before => window.gradio_config?.app_id && window.gradio_config.app_id !== before", arg=app
        )
        ready(page)
        page.wait_for_selector("#image img")
        assert keyframes(page, 1) == timeline and file.is_file()
        same_fields(page, before)
    generate(page)
    assert video_frames(page, tmp_path).shape[0] == 37
