"""Uploads outlive a restart of the program, and stay no longer than they would have: pages name them again, see draft.

Gradio empties its cache when the program ends, and a page that then loads itself again would have lost its pictures.
What was made, and is shown from that cache, is elsewhere, and goes.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import gradio as gr

from pusa_app.settings import Settings
from pusa_app.ui.player import is_uploaded
from pusa_app.ui.timeline_editor import TimelineEditor
from pusa_app.ui.uploads import ClipUpload, Picture


def lasting(page: gr.Blocks, settings: Settings) -> Callable[[Any], AbstractAsyncContextManager[None]]:
    """What Gradio's server is to do first and last, as its `lifespan`."""
    record = settings.data_dir / "uploads.json"

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        page.upload_file_set.update(_remembered(record, settings.cache_seconds))
        try:
            yield
        finally:
            _remember(page, record)

    return lifespan


def _remember(page: gr.Blocks, record: Path) -> None:
    """Write down what stays, and take it from what Gradio is about to remove."""
    fields = (part for part in page.blocks.values() if isinstance(part, Picture | ClipUpload | TimelineEditor))
    files = page.upload_file_set.union(*(field.temp_files for field in fields))
    with contextlib.suppress(OSError):  # then all of it goes
        record.write_text(json.dumps(sorted(filter(os.path.isfile, files))), encoding="utf-8")
        for known in page.temp_file_sets:
            known.difference_update(files)


def _remembered(record: Path, age: float) -> set[str]:
    """The uploads of an earlier run of the program that are there; older ones than `age` seconds are removed."""
    try:
        listed = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return set()
    kept = set()
    for path in listed if isinstance(listed, list) else []:
        with contextlib.suppress(OSError, ValueError):
            if not isinstance(path, str) or not is_uploaded(path):
                continue
            if time.time() - os.lstat(path).st_ctime > age:
                os.remove(path)
            else:
                kept.add(path)
    return kept
