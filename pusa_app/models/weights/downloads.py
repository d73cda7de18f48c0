"""Downloads that go on behind the page: each in a process of its own, so that it can be stopped at once, and so that
checking and converting tens of gigabytes takes nothing from the page.

A process that is ended keeps what came: it is all in files whose length says how far it got.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Collection
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any, Literal

from pusa_app.errors import ModelError, UserError, in_words
from pusa_app.models.entry import entries
from pusa_app.models.home import Home
from pusa_app.models.weights.fetch import Step, fetch

LOOKING = Step("looking")
GRACE = 5.0  # seconds to end in after being asked to


@dataclass(frozen=True)
class Download:
    """What becomes of a download. message: why it failed, in a sentence."""

    id: str
    state: Literal["running", "paused", "failed", "done"]
    step: Step = LOOKING
    message: str = ""


class Downloads:
    """Thread safe. What was downloaded before this program started is told by `states`, not here."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._lock = threading.Lock()
        self._all: dict[str, Download] = {}
        self._processes: dict[str, Any] = {}

    def start(self, model_id: str) -> None:
        """Begin a download, or go on with one; raises ModelError when there is no such model to be had."""
        entry = entries(self._home.data_dir).get(model_id)
        if entry is None or not entry.parts:
            raise ModelError(f"There is no model {model_id[:100]!r} to download.")
        with self._lock:
            if model_id in self._processes:
                return
            context = multiprocessing.get_context("spawn")
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_child, args=(theirs, self._home, model_id), name=model_id, daemon=True)
            process.start()
            theirs.close()
            self._processes[model_id] = process
            self._all[model_id] = Download(model_id, "running")
        threading.Thread(target=self._listen, args=(model_id, process, ours), name="download", daemon=True).start()

    def pause(self, model_id: str) -> None:
        """Stop a download at once; what came is kept. Nothing happens when it does not run."""
        with self._lock:
            process = self._processes.pop(model_id, None)
            if process is not None:
                self._all[model_id] = replace(self._all[model_id], state="paused")
        if process is not None:
            _end(process)

    def forget(self, model_id: str) -> None:
        """Stop a download, and tell nothing more of it."""
        self.pause(model_id)
        with self._lock:
            self._all.pop(model_id, None)

    def get(self, model_id: str) -> Download | None:
        with self._lock:
            return self._all.get(model_id)

    def lost(self, known: Collection[str]) -> list[Download]:
        """Those that failed, of models that are not on the list any more: what the hub sent was not to be kept."""
        with self._lock:
            return [one for one in self._all.values() if one.state == "failed" and one.id not in known]

    def drop_lost(self, known: Collection[str]) -> None:
        for one in self.lost(known):
            self.forget(one.id)

    @property
    def running(self) -> list[str]:
        """The ids of what is being downloaded now."""
        with self._lock:
            return list(self._processes)

    def close(self) -> None:
        for model_id in self.running:
            self.pause(model_id)

    def _listen(self, model_id: str, process: Any, pipe: Connection) -> None:
        said: Download | None = None
        try:
            while True:
                said = pipe.recv()
                with self._lock:
                    if self._processes.get(model_id) is not process:
                        return  # paused, or begun anew
                    self._all[model_id] = said
                    if said.state != "running":
                        del self._processes[model_id]
                        break
        except (EOFError, OSError):
            with self._lock:
                if self._processes.get(model_id) is process:
                    del self._processes[model_id]
                    words = "The download ended unexpectedly: press Resume to go on."
                    self._all[model_id] = replace(self._all[model_id], state="failed", message=words)
        finally:
            pipe.close()
            process.join(GRACE)


def _end(process: Any) -> None:
    process.terminate()
    process.join(GRACE)
    if process.is_alive():
        process.kill()
        process.join(GRACE)


def _child(pipe: Connection, home: Home, model_id: str) -> None:
    """The process: one download, told through the pipe. Ctrl-C in the terminal is the program's to answer."""
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.disable(logging.WARNING)
    last = LOOKING

    def say(said: Download) -> None:
        try:
            pipe.send(said)
        except OSError:  # nobody is there any more
            os._exit(0)

    def tell(step: Step) -> None:
        nonlocal last
        last = step
        say(Download(model_id, "running", step))

    try:
        fetch(home, entries(home.data_dir)[model_id], tell=tell)
        say(Download(model_id, "done", Step("done", last.total, last.total)))
    except UserError as error:
        say(Download(model_id, "failed", last, in_words(error)))
    except Exception as error:  # noqa: BLE001 - the end of a process: whatever it was, the page is told
        say(
            Download(model_id, "failed", last, f"The download failed unexpectedly ({type(error).__name__}): try again.")
        )
