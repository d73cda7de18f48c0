"""Uploads outlive a restart of the program, and stay no longer than they would have: pages name them again, see draft.

Gradio empties its cache when the program ends, and a page that then loads itself again would have lost its pictures.
What was made, and is shown from that cache, is elsewhere, and goes; where the program is killed, or a page that is open
keeps its server from ending, it stays as uploads do. The folder itself tells the next run what is there: it is no
other program's.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

from pusa_app.settings import Settings
from pusa_app.ui.timeline_editor import TimelineEditor
from pusa_app.ui.uploads import ClipUpload, Picture


def own_cache(settings: Settings) -> None:
    """Give the program a folder of its own within Gradio's cache, which all Gradio programs of a machine share.

    To be called before the page is built.
    """
    folder = Path(get_upload_folder()).absolute()
    if folder.name != _name(settings):
        os.environ["GRADIO_TEMP_DIR"] = str(folder / _name(settings))


def lasting(page: gr.Blocks, settings: Settings) -> Callable[[Any], AbstractAsyncContextManager[None]]:
    """What Gradio's server is to do first and last, as its `lifespan`."""
    folder = Path(get_upload_folder())

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        if folder.name == _name(settings):
            page.upload_file_set.update(_still_here(folder, settings.cache_seconds))
        try:
            yield
        finally:
            _keep(page)

    return lifespan


def _name(settings: Settings) -> str:
    """The name of a data folder's cache."""
    return f"pusa-studio-{hashlib.sha256(str(settings.data_dir).encode()).hexdigest()[:16]}"


def _keep(page: gr.Blocks) -> None:
    """Take uploads from what Gradio is about to remove."""
    fields = (part for part in page.blocks.values() if isinstance(part, Picture | ClipUpload | TimelineEditor))
    files = page.upload_file_set.union(*(field.temp_files for field in fields))
    for known in page.temp_file_sets:
        known.difference_update(files)


def _still_here(folder: Path, age: float) -> set[str]:
    """What an earlier run of the program left; older files than `age` seconds are removed."""
    kept: set[str] = set()
    for place, _, names in os.walk(folder) if _is_ours(folder) else ():
        for path in (os.path.join(place, name) for name in names):
            with contextlib.suppress(OSError):
                if time.time() - os.lstat(path).st_ctime > age:  # as Gradio counts
                    os.remove(path)
                else:
                    kept.add(path)
    return kept


def _is_ours(folder: Path) -> bool:
    """Others may write where temporary files are: of what they could have put there nothing is removed."""
    try:
        info = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(info.st_mode) and (not hasattr(os, "getuid") or info.st_uid == os.getuid())
