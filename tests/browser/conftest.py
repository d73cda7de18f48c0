"""A page in a real browser: the app on a free port with a data folder of its own, and headless Chromium."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pusa_app.control import Remote
from pusa_app.errors import UserError
from pusa_app.settings import Settings

playwright = pytest.importorskip("playwright.sync_api")

ROOT = Path(__file__).parents[2]
PATIENCE = 180.0  # seconds; a busy machine is slow, not wrong
CHROMIUM = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@dataclass(frozen=True)
class Server:
    """A running app: where it is, where it keeps its data."""

    url: str
    data: Path
    process: subprocess.Popen[bytes]


RUNNING: list[Server] = []  # those of `serve`


def serve(folder: Path, environment: dict[str, str], *arguments: str) -> Iterator[Server]:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    data = folder / "data"
    own = {"OMP_NUM_THREADS": "1", "GRADIO_TEMP_DIR": str(folder / "cache"), "GRADIO_ANALYTICS_ENABLED": "False"}
    command = [sys.executable, str(ROOT / "app.py"), "--port", str(port), "--data-dir", str(data), *arguments]
    log = folder / "log"
    with open(log, "wb") as file:
        process = subprocess.Popen(
            command, env={**os.environ, **own, **environment}, stdout=file, stderr=file, cwd=folder
        )
    url = f"http://127.0.0.1:{port}/"
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                urllib.request.urlopen(url, timeout=30).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
        RUNNING.append(Server(url, data, process))
        yield RUNNING[-1]
        trouble = [line for line in log.read_text().splitlines() if "Error" in line]
        assert not trouble, log.read_text()
    finally:
        RUNNING[:] = [one for one in RUNNING if one.process is not process]
        process.terminate()
        process.wait(30)


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """What a test leaves running or waiting ends with it: the next one, or its second attempt, has the same program."""
    yield
    for server in RUNNING:
        end_jobs(server)


def end_jobs(server: Server) -> None:
    """Cancel whatever runs or waits, whoever's it is, and wait until it has ended."""
    remote, deadline = Remote(Settings(data_dir=server.data)), time.monotonic() + PATIENCE
    while server.process.poll() is None:
        with contextlib.suppress(UserError, sqlite3.OperationalError):  # it is busy: the next round tells
            if not (left := going(server)):
                return
            for job_id in left:
                remote.ask("cancel", id=job_id)
        assert time.monotonic() < deadline, "jobs that were cancelled do not end"
        time.sleep(0.1)


def going(server: Server) -> list[str]:
    """The ids of the jobs that run or wait."""
    with contextlib.closing(sqlite3.connect(f"file:{server.data / 'queue.db'}?mode=ro", uri=True)) as store:
        return [row[0] for row in store.execute("SELECT id FROM job WHERE state IN ('queued', 'running')")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The app with the fake model, slowed down so that a run can be watched."""
    yield from serve(tmp_path_factory.mktemp("app"), {"PUSA_TEST_FAKE": "1", "PUSA_TEST_FAKE_DELAY": "0.3"})


@pytest.fixture(scope="session")
def chromium() -> Iterator[object]:
    path = next((p for p in CHROMIUM if Path(p).exists()), None) or shutil.which("chromium")
    if path is None:
        pytest.skip("there is no Chromium")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium: object) -> Iterator[Callable[..., object]]:
    """visit(url, **options of a context) -> a page of a new visitor, ready to be used; errors on it fail the test."""
    contexts, errors = [], []

    def open_page(url: str, **options: object) -> object:
        # As through a proxy: at the machine itself all pages would be one visitor's.
        stranger = {"extra_http_headers": {"X-Real-IP": "203.0.113.7"}}
        context = chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, **stranger, **options})  # type: ignore[attr-defined]
        context.set_default_timeout(PATIENCE * 1000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        # The browser hands choosers over only once it has heard of the first listener.
        page.on("filechooser", lambda _: None)
        if slower := float(os.environ.get("PUSA_TEST_SLOWER", "1")):
            # How a busy machine finds what a quick one hides: a browser so many times slower.
            context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": slower})
        page.goto(url)
        page.wait_for_selector("#generate")
        # The owner's mark is there once the page's load event has come back.
        page.wait_for_function("localStorage.getItem('pusa-owner') !== null")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not errors


@pytest.fixture
def shot(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Save a screenshot where PUSA_SCREENSHOTS says, if it does."""
    folder = os.environ.get("PUSA_SCREENSHOTS")

    def take(page: object, name: str) -> None:
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            page.wait_for_timeout(400)  # type: ignore[attr-defined]
            page.screenshot(path=str(Path(folder) / f"{re.sub(r'[^a-z0-9-]', '-', name)}.png"), full_page=True)  # type: ignore[attr-defined]

    return take
