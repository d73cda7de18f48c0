"""The worker process: keeps one model loaded, renders one job at a time, tells what happens over its pipe.

torch is imported here and nowhere on the way to here. The process ends when its pipe does, so that it never outlives
the program that started it.
"""

from __future__ import annotations

import logging
import logging.handlers
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pusa_app.errors import RunCancelled, UserError, in_words
from pusa_app.events import Cancelled, Done, Event, Failed, Preview, Progress

if TYPE_CHECKING:
    from pusa_app.timeline import Recipe, Sweep

Work = TypeVar("Work", "Recipe", "Sweep")

MAX_LOG_BYTES = 2_000_000


def main(pipe: Connection, log_file: str) -> None:
    """Serve jobs until the pipe closes."""
    _die_with_parent()
    # Ctrl-C in a terminal reaches every process of its group; the program decides what it means, not the worker.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    log = _open_log(Path(log_file))
    mailbox = Mailbox(pipe)
    worker = Worker(mailbox.send, log)
    while True:
        verb, *rest = mailbox.tasks.get()
        if verb == "warm":
            worker.warm(rest[0])
        else:
            job_id, recipe, out = rest
            mailbox.send(job_id, worker.run(job_id, recipe, out, mailbox.cancelled))


class Mailbox:
    """The worker's end of the pipe. A thread reads it all the time, so that a cancel is heard in the midst of a run."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._cancelled: set[str] = set()
        self.tasks: queue.Queue[tuple[str, ...]] = queue.Queue()
        threading.Thread(target=self._read, name="mailbox", daemon=True).start()

    def _read(self) -> None:
        while True:
            try:
                verb, *rest = self._pipe.recv()
            except (EOFError, OSError):
                # Nobody listens any more. A thread cannot end a process that is deep in a matrix product but so.
                os._exit(0)
            if verb == "cancel":
                self._cancelled.add(rest[0])
            else:
                self.tasks.put((verb, *rest))

    def cancelled(self, job_id: str) -> bool:
        return job_id in self._cancelled

    def send(self, job_id: str, event: Event) -> None:
        try:
            self._pipe.send((job_id, event))
        except OSError:
            os._exit(0)


class Worker:
    """Renders recipes with the model they name; the last model stays loaded. Every run returns its last event."""

    def __init__(self, send: Any, log: logging.Logger) -> None:
        self._send, self._log = send, log
        self._model: str | None = None
        self._backbone: Any = None

    def warm(self, model: str) -> None:
        """Load a model that nobody asked for yet; what is wrong with it is told to the job that needs it."""
        try:
            self._load(model, lambda event: None)
            import pusa_app.render  # noqa: F401
        except Exception:  # noqa: BLE001 - see above
            self._log.exception("warming up %s", model)

    def run(self, job_id: str, recipe_json: str, out: str, cancelled: Any) -> Event:
        """Done, Failed or Cancelled; never raises."""
        started = time.monotonic()

        def tell(event: Event) -> None:
            # How the run ended is ours to say, once the file is in its place.
            if isinstance(event, Progress | Preview):
                self._send(job_id, event)

        try:
            from pusa_app.timeline import Recipe, Sweep, is_sweep

            work = Sweep.from_json(recipe_json) if is_sweep(recipe_json) else Recipe.from_json(recipe_json)
            self._load(work.recipe.model if isinstance(work, Sweep) else work.model, tell)
            if cancelled(job_id):
                return Cancelled()
            num_frames = self._make(work, Path(out), tell, lambda: cancelled(job_id))
            self._save_poster(Path(out))
            return Done(out, work.to_json(), time.monotonic() - started, num_frames)
        except RunCancelled:
            return Cancelled()
        except UserError as error:
            return Failed(in_words(error))
        except Exception as error:  # noqa: BLE001 - whatever a model does, the worker lives on and the user gets a sentence
            self._log.exception("job %s", job_id)
            return Failed(in_words(error))

    def _make(self, work: Recipe | Sweep, out: Path, tell: Any, cancelled: Callable[[], bool]) -> int:
        """Render to `out`; returns the number of frames there."""
        from pusa_app.timeline import Sweep

        if isinstance(work, Sweep):
            from pusa_app.sweep import render_sweep

            return render_sweep(
                work, self._backbone, tell, out=out, cancelled=cancelled, embed=_seen_from, log=self._log
            ).num_frames
        from pusa_app.render import render

        inside = _seen_from(work, out.parent)
        return render(work, self._backbone, tell, out=out, cancelled=cancelled, embedded=inside).num_frames

    def _load(self, model: str, tell: Any) -> None:
        if self._model == model:
            return
        tell(Progress("loading"))
        self._model, self._backbone = None, None  # the old model leaves before the new one comes
        self._backbone = load_backbone(model)
        self._model = model

    def _save_poster(self, out: Path) -> None:
        """The frame in the middle, for lists. Its lack is no reason to lose a video."""
        from pusa_app import media

        try:
            info = media.check_clip(out)
            middle = info.num_frames // 2
            frames = media.load_clip(out, info.width, info.height, fps=info.fps, start=middle, num_frames=1)
            media.save_poster(frames[0], poster_of(out))
        except (UserError, OSError):
            self._log.exception("poster of %s", out.name)


def _seen_from(work: Work, folder: Path) -> Work:
    """A recipe or a sweep with paths relative to a folder: a shared video must not tell where it was made."""
    return work.with_paths(lambda path: os.path.relpath(path, folder))


def poster_of(result: Path) -> Path:
    """Where the poster of a result lies."""
    return result.with_suffix(".jpg")


def load_backbone(model: str) -> Any:
    """The loaded model; the fake one only where a test asked for it."""
    from pusa_app import testing

    if testing.enabled() and model == testing.FAKE:
        return testing.backbone()
    from pusa_app.models import load_backbone as load

    return load(model)


def _open_log(path: Path) -> logging.Logger:
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=MAX_LOG_BYTES, backupCount=1, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log = logging.getLogger("pusa_app.worker")
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    return log


def _die_with_parent() -> None:
    """Linux: be killed when the thread that started us ends, even if it was killed and the pipe leaked elsewhere."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    parent = os.getppid()
    pr_set_pdeathsig = 1
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before we asked
        os._exit(0)
