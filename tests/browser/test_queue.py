"""The queue on the page: many wishes at once, their order, a second tab, a program that is killed, two users."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import PATIENCE, ROOT, Server, serve
from tests.browser.pages import generate, steps, video_frames
from tests.browser.test_create import PHONE

pytestmark = pytest.mark.browser

Visit = Callable[..., Any]
Shot = Callable[..., None]
LONG = 200  # steps of a run that goes on for as long as a test needs it; the test cancels it
AT_THE_MACHINE: dict[str, Any] = {"extra_http_headers": {}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from serve(tmp_path_factory.mktemp("queue"), {"PUSA_TEST_FAKE": "1", "PUSA_TEST_FAKE_DELAY": "1"})


# --- what a visitor does ---------------------------------------------------------------------------------------------


def open_queue(page: Any) -> None:
    page.get_by_role("tab", name="Queue").click()
    page.wait_for_selector(".queue", state="visible")


def open_create(page: Any) -> None:
    page.get_by_role("tab", name="Create").click()
    page.wait_for_selector("#generate", state="visible")


def names(page: Any, part: str = "waiting") -> list[str]:
    return page.locator(f".q-{part} .q-name").all_inner_texts()


def wait_for_names(page: Any, wanted: list[str], part: str = "waiting") -> None:
    page.wait_for_function(
        "([part, wanted]) => [...document.querySelectorAll(`.q-${part} .q-name`)].map(e => e.textContent).join('|') "
        "=== wanted",
        arg=[part, "|".join(wanted)],
    )


def press(page: Any, name: str, button: str, part: str = "waiting") -> None:
    """Press a button of the job of that name."""
    page.locator(f".q-{part} .q-row", has=page.locator(".q-name", has_text=name)).locator(f".q-{button}").first.click()


def watch(page: Any) -> None:
    """Wait until a run is seen that has made a step."""
    page.wait_for_selector(".stage.has-picture")


def begin(page: Any, *prompts: str) -> None:
    """A long run of the first prompt, which has begun, and the others behind it."""
    steps(page, LONG)
    for number, prompt in enumerate(prompts):
        generate(page, prompt)
        if number == 0:
            watch(page)
        else:
            page.locator("#queue-line", has_text=f"{number} waiting").wait_for()


def end_all(page: Any) -> None:
    """Cancel whatever the visitor has that runs or waits. What a test leaves is ended after it."""
    open_queue(page)
    if page.locator(".q-clear").is_visible():
        page.click(".q-clear")
        page.click(".q-sure")
        wait_for_names(page, [])
    if page.locator(".q-running .q-row").count():
        page.locator(".q-running .q-cancel").first.click()
        wait_for_names(page, [], "running")


# --- tests -----------------------------------------------------------------------------------------------------------


def test_generate_returns_at_once_with_a_place_in_the_queue(server: Server, visit: Visit, shot: Shot) -> None:
    page = visit(server.url)
    begin(page, "first")
    shot(page, "queue-running")
    page.fill("#count input", "3")
    page.click("#random input")
    page.fill("#seed input", "41")
    generate(page, "second")
    page.locator(".line-added", has_text="3 videos added to the queue. 1 video before this one").wait_for()
    page.locator(".line-facts", has_text="1 running, 3 waiting").wait_for()
    assert page.locator(".stage").get_attribute("data-state") == "running", "the run that is watched stays in view"
    page.wait_for_selector("#page-queue-button[data-count='4']")
    page.wait_for_function("document.title.includes('%')")
    open_queue(page)
    wait_for_names(page, ["second"] * 3)
    facts = page.locator(".q-waiting .q-facts").all_inner_texts()
    assert [f"seed {41 + n}" in text for n, text in enumerate(facts)] == [True] * 3, facts
    page.wait_for_function("/Step \\d+ of 200/.test(document.querySelector('.q-running .q-step')?.textContent)")
    page.wait_for_function("/MB|GB/.test(document.querySelector('.q-running .q-figures')?.textContent)")
    shot(page, "queue-page")
    # Clearing asks first, and leaves what runs alone.
    page.click(".q-clear")
    page.click(".q-keep")
    assert names(page) == ["second"] * 3
    page.click(".q-clear")
    page.click(".q-sure")
    wait_for_names(page, [])
    assert names(page, "running") == ["first"] and names(page, "ended") == ["second"] * 3
    end_all(page)
    page.wait_for_selector("#page-queue-button:not([data-count])")
    page.wait_for_function("document.title === 'Pusa Studio'")


def test_a_reload_and_a_second_tab_see_the_same_run(server: Server, visit: Visit) -> None:
    page = visit(server.url)
    second = page.context.new_page()  # opened before there was anything to see
    second.goto(server.url)
    second.wait_for_selector("#generate")
    begin(page, "seen from two tabs")
    watch(second)
    step = "Number((document.querySelector('.stage-step').textContent.match(/Step (\\d+)/) || [0, -1])[1])"
    for tab in (page, second):
        tab.wait_for_function(f"{step} > 0")
    for tab, other in ((page, second), (second, page)):
        tab.wait_for_function(f"{step} >= {other.evaluate(step)}")
    levels = page.locator(".stage-level").evaluate_all("all => all.map(e => e.style.transform)")
    assert len(levels) == 7 and len(set(levels)) == 1, "without keyframes every slot has the same noise"
    page.wait_for_selector(".te.te-runs")  # the timeline shows it too
    seen = page.evaluate(step)
    page.reload()
    watch(page)
    page.wait_for_function(f"{step} >= {seen}")
    # What was typed outlives a reload.
    page.wait_for_function("document.querySelector('#prompt textarea')?.value === 'seen from two tabs'")
    second.click("#cancel")
    for tab in (page, second):
        tab.locator(".stage-title", has_text="Cancelled").wait_for()


def test_an_answer_that_comes_late_takes_nothing_away(server: Server, visit: Visit) -> None:
    """A question of the clock is answered, and the answer stays on its way while the visitor begins another run."""
    page = visit(server.url)
    begin(page, "first")
    second = page.context.new_page()
    second.goto(server.url)
    watch(second)
    held: list[tuple[Any, Any]] = []

    def hold(route: Any) -> None:
        if held:
            route.continue_()
        else:
            held.append((route, route.fetch()))

    polls = "**/gradio_api/run/**"
    page.route(polls, hold)
    while not held:
        page.wait_for_timeout(50)
    page.click("#cancel")
    second.locator(".stage-title", has_text="Cancelled").wait_for()
    generate(page, "second")
    page.locator(".stage[data-state=running]").wait_for()
    route, response = held[0]

    def asks_for_all(request: Any) -> bool:
        return "/gradio_api/run/" in request.url and request.post_data_json["data"][4] == {}

    # Told since then was more than this answer knows of: the page cannot know what it has, and says so.
    with page.expect_request(asks_for_all):
        route.fulfill(response=response)
    watch(page)
    open_queue(page)
    wait_for_names(page, ["second"], "running")
    open_create(page)
    page.click("#cancel")
    page.locator(".stage-title", has_text="Cancelled").wait_for()


def test_an_answer_that_is_lost_does_not_stop_the_clock(server: Server, visit: Visit) -> None:
    page = visit(server.url)
    lost: list[Any] = []

    def lose(route: Any) -> None:
        """The first question of the clock is never answered."""
        if lost:
            route.continue_()
        lost.append(route)

    page.route("**/gradio_api/run/**", lose)
    generate(page, "seen in the end")
    page.wait_for_selector("#player video")
    assert len(lost) > 1 and page.is_hidden("#cancel")


def pause(page: Any) -> None:
    """Pause the queue in which "runs" runs alone, and end that. Only a queue with something in it can be paused."""
    open_queue(page)
    page.click(".q-pause")
    page.locator(".q-summary", has_text="paused").wait_for()
    press(page, "runs", "cancel", "running")
    wait_for_names(page, [], "running")
    open_create(page)


def wait_until_kept(server: Server, wanted: list[str]) -> None:
    """Wait until the newest visitor's queue has this order on the disk: the page shows it before the program knows."""
    query = (
        "SELECT prompt FROM job WHERE state = 'queued' "
        "AND owner = (SELECT owner FROM job ORDER BY number DESC LIMIT 1) ORDER BY position"
    )
    deadline = time.monotonic() + PATIENCE
    while True:
        with contextlib.closing(sqlite3.connect(f"file:{server.data / 'queue.db'}?mode=ro", uri=True)) as store:
            rows = store.execute(query).fetchall()
        if (found := [prompt for (prompt,) in rows]) == wanted:
            return
        assert time.monotonic() < deadline, found
        time.sleep(0.1)


def grab(page: Any, grip: Any) -> tuple[float, float]:
    """Press the mouse on a row's grip and say where: what stands above may grow just then, and the row is elsewhere."""
    deadline = time.monotonic() + PATIENCE
    while True:
        grip.hover()
        page.mouse.down()
        if page.locator(".q-dragged").count():
            box = grip.bounding_box()
            return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.mouse.up()
        assert time.monotonic() < deadline


def test_the_order_is_changed_by_drag_buttons_and_keys(server: Server, visit: Visit, shot: Shot) -> None:
    page = visit(server.url)
    begin(page, "runs", "one", "two", "three")
    open_queue(page)
    wait_for_names(page, ["one", "two", "three"])
    rows = page.locator(".q-waiting .q-row")
    x, y = grab(page, rows.nth(2).locator(".q-grip"))
    page.mouse.move(x, y - 60, steps=5)
    shot(page, "queue-drag")
    page.mouse.move(x, rows.nth(0).bounding_box()["y"] + 5, steps=5)
    page.mouse.up()
    wait_for_names(page, ["three", "one", "two"])
    rows.nth(2).locator(".q-grip").focus()
    page.keyboard.press("Alt+ArrowUp")
    wait_for_names(page, ["three", "two", "one"])
    page.keyboard.press("ArrowUp")
    wait_for_names(page, ["two", "three", "one"])
    assert page.evaluate("document.activeElement.closest('.q-row').querySelector('.q-name').textContent") == "two" or (
        page.evaluate("document.activeElement.closest('.q-row') !== null")
    )
    press(page, "three", "down")
    wait_for_names(page, ["two", "one", "three"])
    # Presses that follow each other quickly all count.
    for key in ("ArrowUp", "ArrowUp", "ArrowDown", "ArrowDown"):
        page.keyboard.press(f"Alt+{key}")
    # Escape gives a drag up.
    x, y = grab(page, rows.nth(0).locator(".q-grip"))
    page.mouse.move(x, y + 200, steps=5)
    page.keyboard.press("Escape")
    page.mouse.up()
    wait_for_names(page, ["two", "one", "three"])
    wait_until_kept(server, ["two", "one", "three"])
    page.reload()
    open_queue(page)
    wait_for_names(page, ["two", "one", "three"])


def test_the_order_is_changed_with_a_finger(server: Server, visit: Visit, shot: Shot) -> None:
    page = visit(server.url, **PHONE)
    begin(page, "runs", "one", "two")
    open_queue(page)
    wait_for_names(page, ["one", "two"])
    shot(page, "phone-queue")
    assert page.evaluate("document.documentElement.scrollWidth") == 390, "nothing scrolls sideways"
    grip, finger = page.locator(".q-waiting .q-grip").nth(1), page.context.new_cdp_session(page)
    deadline = time.monotonic() + PATIENCE
    while True:
        grip.scroll_into_view_if_needed()
        box = grip.bounding_box()
        x, y = box["x"] + 10, box["y"] + 20
        finger.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
        if page.locator(".q-dragged").count():
            break
        finger.send("Input.dispatchTouchEvent", {"type": "touchCancel", "touchPoints": []})
        assert time.monotonic() < deadline
    first = page.locator(".q-waiting .q-row").nth(0).bounding_box()
    for n in range(1, 9):
        point = {"x": x, "y": y + (first["y"] - y) * n / 8}
        finger.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [point]})
    finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    wait_for_names(page, ["two", "one"])


def test_a_waiting_video_is_edited_duplicated_and_held(server: Server, visit: Visit, shot: Shot) -> None:
    page = visit(server.url)
    begin(page, "runs", "one", "two")
    open_queue(page)
    press(page, "one", "edit")
    page.wait_for_function("document.querySelector('#prompt textarea')?.value === 'one'")
    page.locator("#generate", has_text="Save to the queue").wait_for()
    page.locator("#editing", has_text="one").wait_for()
    shot(page, "queue-editing")
    open_queue(page)
    page.locator(".q-held", has_text="Held while you edit it").wait_for()
    open_create(page)
    generate(page, "one, mended")
    page.wait_for_function("document.querySelector('#generate')?.textContent.trim() === 'Generate'")
    page.wait_for_selector("#editing", state="hidden")
    open_queue(page)
    wait_for_names(page, ["one, mended", "two"])
    assert page.locator(".q-held").count() == 0
    press(page, "two", "edit")
    page.locator("#editing", has_text="two").wait_for()
    page.fill("#prompt textarea", "never saved")
    page.click("#stop-editing")
    page.wait_for_selector("#editing", state="hidden")
    open_queue(page)
    wait_for_names(page, ["one, mended", "two"])
    # Whoever leaves in the midst of it lets the video go.
    press(page, "two", "edit")
    page.locator("#editing", has_text="two").wait_for()
    page.reload()
    page.wait_for_selector("#generate")
    open_queue(page)
    page.wait_for_function("document.querySelector('.q-row') && !document.querySelector('.q-held')")
    press(page, "one, mended", "copy")
    wait_for_names(page, ["one, mended", "two", "one, mended"])
    press(page, "two", "cancel")
    wait_for_names(page, ["one, mended", "one, mended"])


def test_a_paused_queue_begins_nothing_until_it_goes_on(server: Server, visit: Visit, tmp_path: Path) -> None:
    page = visit(server.url)
    begin(page, "runs")
    pause(page)
    page.fill("#steps input[type=number]", "2")
    page.keyboard.press("Tab")
    generate(page, "waits for a word")
    page.locator(".stage-detail", has_text="paused").wait_for()
    page.wait_for_timeout(1500)
    open_queue(page)
    wait_for_names(page, ["waits for a word"])
    assert not names(page, "running")
    page.locator(".q-pause", has_text="Go on").click()
    page.wait_for_function(
        "!document.querySelector('.q-waiting .q-row') && !document.querySelector('.q-running .q-row')"
    )
    open_create(page)
    assert video_frames(page, tmp_path).shape[0] == 37


@pytest.mark.slow
def test_a_cancelled_run_goes_on_from_its_step_or_begins_anew(server: Server, visit: Visit, shot: Shot) -> None:
    page = visit(server.url)
    begin(page, "to be resumed")
    page.wait_for_function("/Step (1[5-9]|[2-9]\\d) of 200/.test(document.querySelector('.stage-step')?.textContent)")
    open_queue(page)
    press(page, "to be resumed", "cancel", "running")
    wait_for_names(page, ["to be resumed"], "ended")
    words = page.locator(".q-resume").inner_text()
    assert words.startswith("Resume from step ")
    step = int(words.split()[-1])
    assert step > 10
    shot(page, "queue-cancelled")
    page.click(".q-resume")
    page.wait_for_function(
        "least => { const told = document.querySelector('.q-running .q-step')?.textContent.match(/Step (\\d+)/); "
        "return told && Number(told[1]) >= least }",
        arg=step,
    )
    wait_for_names(page, [], "ended")
    press(page, "to be resumed", "cancel", "running")
    wait_for_names(page, ["to be resumed"], "ended")
    press(page, "to be resumed", "retry", "ended")
    page.wait_for_function("/Step \\d of 200/.test(document.querySelector('.q-running .q-step')?.textContent || '')")
    press(page, "to be resumed", "cancel", "running")
    wait_for_names(page, ["to be resumed"], "ended")
    press(page, "to be resumed", "remove", "ended")
    page.locator(".q-nothing", has_text="Nothing waits").wait_for()


@pytest.mark.slow
def test_the_bell_tells_of_the_end_of_a_run_when_nobody_looks(server: Server, visit: Visit) -> None:
    page = visit(server.url)
    page.context.add_init_script(
        "window.told = []; window.Notification = class { static permission = 'granted'; "
        "constructor(title, options) { window.told.push([title, options.body]); } }; "
        "Object.defineProperty(document, 'hidden', { get: () => window.away === true });"
    )
    page.reload()
    page.wait_for_selector("#generate")
    steps(page, 2)
    for rings, prompt in ((False, "unheard"), (True, "heard")):
        if rings:
            page.click(".top-bell")
        assert page.get_attribute(".top-bell", "aria-pressed") == str(rings).lower(), "off until it is asked for"
        page.evaluate("window.away = true")
        generate(page, prompt)
        page.locator("#caption", has_text=prompt).wait_for()
        page.wait_for_function("document.title === 'Done - Pusa Studio'")
        page.evaluate("window.away = false; document.dispatchEvent(new Event('visibilitychange'))")
        page.wait_for_function("document.title === 'Pusa Studio'")
    assert page.evaluate("window.told") == [["Your video is ready", "heard"]]
    page.reload()
    page.wait_for_selector(".top-bell[aria-pressed=true]")


@pytest.mark.slow
def test_who_sits_at_the_machine_is_one_visitor_in_every_browser(server: Server, visit: Visit, tmp_path: Path) -> None:
    page, other = visit(server.url, **AT_THE_MACHINE), visit(server.url, **AT_THE_MACHINE)
    stranger = visit(server.url)
    steps(page, 2)
    generate(page, "made at the machine")
    assert video_frames(page, tmp_path).shape[0] == 37
    for visitor in (other, stranger):
        visitor.reload()
        visitor.wait_for_selector("#generate")
    other.locator(".history-item", has_text="made at the machine").wait_for()
    assert stranger.is_hidden("#history")


# --- the program is killed -------------------------------------------------------------------------------------------


class Program:
    """The app, which can be killed and started again at the same address with the same data."""

    def __init__(self, folder: Path, port: int) -> None:
        self.url, self._folder, self._port = f"http://127.0.0.1:{port}/", folder, port
        self.start()

    def start(self) -> None:
        own = {"OMP_NUM_THREADS": "1", "GRADIO_TEMP_DIR": str(self._folder / "cache"), "GRADIO_ANALYTICS_ENABLED": "0"}
        fake = {"PUSA_TEST_FAKE": "1", "PUSA_TEST_FAKE_DELAY": "0.2"}
        data = str(self._folder / "data")
        command = [sys.executable, str(ROOT / "app.py"), "--port", str(self._port), "--data-dir", data]
        with open(self._folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                command, env={**os.environ, **own, **fake}, stdout=log, stderr=log, cwd=self._folder
            )
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                urllib.request.urlopen(self.url, timeout=30).close()
                return
            except OSError:
                assert self.process.poll() is None and time.monotonic() < deadline, (self._folder / "log").read_text()
                time.sleep(0.1)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)


@pytest.fixture
def program(tmp_path: Path, unused_tcp_port_of: int) -> Iterator[Program]:
    running = Program(tmp_path, unused_tcp_port_of)
    yield running
    running.process.terminate()
    running.process.wait(30)


@pytest.fixture
def unused_tcp_port_of() -> int:
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@pytest.mark.slow
def test_a_killed_program_comes_back_with_its_queue(program: Program, visit: Visit, shot: Shot, tmp_path: Path) -> None:
    page, idle = visit(program.url), visit(program.url)
    steps(page, 120)
    generate(page, "cut off")
    page.wait_for_function("/Step ([6-9]|\\d\\d) of 120/.test(document.querySelector('.stage-step')?.textContent)")
    page.fill("#steps input[type=number]", "3")
    page.fill("#count input", "2")
    generate(page, "waits")
    page.locator("#queue-line", has_text="2 waiting").wait_for()
    page.fill("#prompt textarea", "typed, and not sent")
    idle.fill("#prompt textarea", "typed by somebody who waits for nothing")
    before = page.evaluate("window.gradio_config.app_id")
    program.kill()
    for visitor in (page, idle):
        visitor.locator(".gone", has_text="The program was closed. Waiting for it").wait_for()
    shot(page, "queue-gone")
    assert page.locator(".toast-body:visible").count() == 0
    program.start()
    for visitor in (page, idle):
        visitor.wait_for_function(
            "before => window.gradio_config?.app_id && window.gradio_config.app_id !== before "
            "&& document.querySelector('#generate')",
            arg=before,
        )
    page.wait_for_function("document.querySelector('#prompt textarea')?.value === 'typed, and not sent'")
    idle.wait_for_function("document.querySelector('#prompt textarea')?.value.startsWith('typed by somebody')")
    words = "1 video was interrupted and 2 videos were waiting when the program ended."
    page.locator("#resume-create", has_text=words).wait_for()
    assert idle.locator(".resume:visible").count() == 0, "it is nobody else's business"
    shot(page, "queue-restarted")
    open_queue(page)
    page.locator("#resume-queue", has_text=words).wait_for()
    assert names(page) == ["waits", "waits"] and names(page, "ended") == ["cut off"]
    page.locator("#resume-queue .resume-later").click()
    open_create(page)
    assert page.locator(".resume:visible").count() == 0
    page.evaluate("sessionStorage.removeItem('pusa-not-now')")
    page.reload()
    page.locator("#resume-create .resume-go", has_text="Resume 3 jobs").click()
    page.wait_for_function("document.querySelectorAll('.history-frame img[src]').length === 3")
    page.wait_for_function("!document.querySelector('#page-queue-button')?.dataset.count")
    assert sorted(path.name.split("-")[0] for path in tmp_path.glob("data/results/*.mp4")) == ["cut", "waits", "waits"]
    assert page.locator(".resume:visible").count() == 0


# --- two users -------------------------------------------------------------------------------------------------------


def test_two_users_see_their_own_runs_only(
    chromium: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shot: Shot
) -> None:
    from pusa_app.settings import Settings
    from pusa_app.studio import Studio
    from pusa_app.ui import build, look

    monkeypatch.setenv("PUSA_TEST_FAKE", "1")
    monkeypatch.setenv("PUSA_TEST_FAKE_DELAY", "1")
    studio = Studio(Settings(data_dir=tmp_path / "data", shared=True))
    blocks = build(studio)
    logins = [("ann", "a secret"), ("bob", "another")]
    _, url, _ = blocks.launch(
        quiet=True, prevent_thread_lock=True, server_name="127.0.0.1", auth=logins, show_error=False, **look()
    )
    try:
        pages = {}
        for name, password in logins:
            page = pages[name] = chromium.new_context().new_page()
            page.set_default_timeout(PATIENCE * 1000)
            page.goto(url)
            page.get_by_label("username").fill(name)
            page.get_by_label("password").fill(password)
            page.get_by_role("button", name="Login").click()
            page.wait_for_selector("#generate")
        begin(pages["ann"], "what ann makes", "what ann makes next")
        begin_behind = pages["bob"]
        generate(begin_behind, "what bob waits for")
        begin_behind.locator(".stage-detail", has_text="2 videos before this one").wait_for()
        assert "has-picture" not in (begin_behind.locator(".stage").get_attribute("class") or "")
        open_queue(begin_behind)
        wait_for_names(begin_behind, ["what bob waits for"])
        assert "ann" not in begin_behind.locator("#queue").inner_text()
        begin_behind.wait_for_selector("#page-queue-button[data-count='1']")
        assert names(begin_behind, "running") == []
        end_all(pages["ann"])
        begin_behind.wait_for_function("document.querySelector('.q-running .q-picture')?.src.startsWith('data:')")
        pages["ann"].wait_for_selector("#page-queue-button:not([data-count])")
        assert names(pages["ann"], "running") == [] and "bob" not in pages["ann"].locator("#queue").inner_text()
        for page in pages.values():
            page.context.close()
    finally:
        blocks.close()
        studio.close()
