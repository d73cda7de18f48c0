"""Who asks, and what he may have: the questions that every event of the page begins with."""

from __future__ import annotations

import contextlib
import ipaddress
import math
import re
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from pusa_app.errors import UserError
from pusa_app.jobs import Job
from pusa_app.settings import LOCAL
from pusa_app.studio import Studio
from pusa_app.timeline import Recipe
from pusa_app.ui import strings
from pusa_app.ui.player import safe

WHOLE = -1  # instead of one cell of a sweep
PROXY_HEADERS = ("x-forwarded-for", "x-forwarded-host", "x-real-ip", "forwarded", "via")


@contextlib.contextmanager
def told_to_user() -> Iterator[None]:
    """What a user did wrong is shown as it is worded; Gradio takes such a message for HTML, and it may quote a file."""
    try:
        yield
    except UserError as error:
        raise gr.Error(safe(str(error)), title=strings.FAILED_TITLE, print_exception=False) from None


def is_mark(mark: Any) -> bool:
    """Whether this is the mark that the page leaves in a browser."""
    return isinstance(mark, str) and re.fullmatch(r"[0-9a-f]{32}", mark) is not None


def owner_of(mark: Any, request: gr.Request, shared: bool) -> str:
    """Who asks: the account where there is a login; whoever sits at this machine, where nobody else can reach the page;
    else the mark in the browser, else the open page.

    One name for everybody at the machine keeps a library when a browser forgets, and shows what the command line made.
    """
    if request.username:
        return f"account:{request.username}"
    if not shared and is_local(request):
        return LOCAL
    return f"browser:{mark}" if is_mark(mark) else f"page:{request.session_hash}"


def is_local(request: gr.Request) -> bool:
    """Whether a request comes from this machine itself, and not through a proxy or under a stranger's name for it."""
    headers = request.headers
    if any(name in headers for name in PROXY_HEADERS):
        return False
    client = request.client.host if request.client else ""
    # A page elsewhere can have its own name lead to this machine, but the browser then sends that name.
    name = urllib.parse.urlsplit(f"//{headers.get('host', '')}").hostname
    return _is_loopback(client) and (name == "localhost" or _is_loopback(name))


def _is_loopback(host: str | None) -> bool:
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def number(value: Any) -> float:
    """A number in an event; a program can send anything."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise gone()
    return value


def gone() -> gr.Error:
    return gr.Error(strings.GONE, print_exception=False)


def job_of(studio: Studio, job_id: Any, owner: str) -> Job:
    """A job of the owner's; what is somebody else's is not there for him."""
    job = studio.job(str(job_id), owner)
    if job is None:
        raise gone()
    return job


def recipe_of(studio: Studio, job: Job, cell: int = WHOLE) -> Recipe:
    """The recipe of a job, or of one cell of its sweep."""
    sweep = studio.sweep(job)
    return studio.recipe(job) if sweep is None or cell == WHOLE else sweep.cells()[cell].recipe


def video_of(studio: Studio, job: Job, cell: int = WHOLE) -> Path:
    """The video of a job, or of one cell of its sweep."""
    video = studio.result(job) if cell == WHOLE else studio.cells(job)[cell].path
    if video is None:
        raise gone()
    return video
