"""Runs on ZeroGPU, where a Space borrows a GPU for the time of one visitor's event.

The function that has the GPU is forked from this process: what goes in and what comes out is pickled, and nothing that
it changes in memory is seen here. It gets a recipe as JSON and yields events; to cancel it, a file is made that it
looks for between steps. Models are loaded into this process before the page is served, so that every fork has them.
Elsewhere the same function runs in this process, which is how it is tested. No torch at import.
"""

from __future__ import annotations

import html
import importlib.util
import os
import queue
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from pusa_app.errors import UserError, in_words
from pusa_app.events import Cancelled, Done, Event, Failed
from pusa_app.models import ModelCard
from pusa_app.timeline import Recipe, plan_of
from pusa_app.worker import Worker, open_log

# Of one call. The platform says nowhere what it allows; more than 5 minutes was refused to most visitors. What a
# visitor asks for must also be within what he has left for the day, so that asking for too much locks people out.
MAX_SECONDS = 300.0
AT_ONCE = 4  # visitors that may ask for a GPU at the same time; the platform has a queue of its own
BEGIN_SECONDS = 20.0  # until the first step: the model comes to the GPU, words and pictures are encoded
MARGIN = 1.3  # on a time that was measured
# Where nothing was measured: a GPU's real speed, at a third of what the half of an H200 that a visitor gets can do.
FLOPS = 1e14
BYTES_PER_WEIGHT = 2  # bfloat16, as all models here are kept
ATTENTION = 2.0  # of what the weights cost, at the longest clips

ABORTED = "The GPU was taken back before this video was finished: resume it, or ask for fewer steps or a shorter video."

Gpu = Callable[..., Iterator[Event]]


def available() -> bool:
    """Whether this program runs on ZeroGPU."""
    on = os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")
    return on and importlib.util.find_spec("spaces") is not None


def seconds_needed(
    recipes: Iterable[Recipe], card: ModelCard, pace: Callable[[Recipe], float | None], share: float = 1.0
) -> float:
    """For how many seconds to borrow the GPU: by the measured seconds of a step, pace(recipe), else by a guess.

    share: of the steps, what a checkpoint leaves to be made.
    """
    total = 0.0
    for recipe in recipes:
        steps = recipe.steps * max(1, len(plan_of(recipe).parts))
        measured = pace(recipe)
        total += steps * (_guess(recipe, card) if measured is None else MARGIN * measured)
    most = float(os.environ.get("PUSA_ZEROGPU_SECONDS") or MAX_SECONDS)
    return min(BEGIN_SECONDS + share * total, most)


def _guess(recipe: Recipe, card: ModelCard) -> float:
    """Seconds that a step may take at most: two operations per weight and token, and attention on top."""
    timeline, spec = recipe.timeline, card.spec
    tokens = timeline.grid.num_slots * timeline.width * timeline.height / spec.size_multiple**2
    weights = _size(card.folder / "transformer") / BYTES_PER_WEIGHT if card.folder else 0.0
    passes = 1 if not recipe.guided or spec.distilled else 2
    return passes * 2 * weights * tokens * (1 + ATTENTION) / FLOPS


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


class Making:
    """The function that has the GPU, as InlineRunner's target. log_file: where tracebacks go.

    decorate(function, duration=...): what lends the GPU, by default the platform's where there is one. It is called
    here, since the platform must know of the function before the page is served.
    """

    def __init__(self, log_file: Path, decorate: Callable[..., Gpu] | None = None) -> None:
        self._log = open_log(log_file)
        self._tell = {}  # type: dict[str, Callable[[Event], None]]
        self._worker = Worker(self._route, self._log)
        self._busy = threading.Lock()
        self._lent = (decorate or _decorator())(self._make, duration=_duration)

    def warm(self, model: str) -> None:
        """Load a model into this process, for all forks to come."""
        self._worker.warm(model)

    def __call__(self, job_id: str, recipe: str, out: str, options: dict[str, Any]) -> Iterator[Event]:
        """Borrow a GPU and make a job; never raises."""
        try:
            yield from self._lent(job_id, recipe, out, options)
        except Exception as error:  # noqa: BLE001 - whatever lends the GPU, the visitor gets a sentence
            self._log.exception("job %s", job_id)
            yield Failed(_words(error))

    # --- where the GPU is --------------------------------------------------------------------------------------------

    def _make(self, job_id: str, recipe: str, out: str, options: dict[str, Any]) -> Iterator[Event]:
        """Yields the events of a run. It is made in a thread beside this one, whose turn it is to hand them on."""
        flag, left = Path(options["cancel"]), threading.Event()
        events: queue.SimpleQueue[Event] = queue.SimpleQueue()

        def cancelled(_: str) -> bool:
            return left.is_set() or flag.exists()

        def run() -> None:
            # A fork has all of this to itself. Without a fork a second run must not get the model of the first; and
            # nobody ever waits for a lock here, which in a fork might stay locked for good.
            own = self._busy.acquire(blocking=False)
            worker = self._worker if own else Worker(self._route, self._log)
            try:
                end = worker.run(job_id, recipe, out, cancelled, options)
            finally:
                if own:
                    self._busy.release()
            events.put(end)

        self._tell[job_id] = events.put
        thread = threading.Thread(target=run, name="gpu", daemon=True)
        try:
            thread.start()
            while True:
                try:
                    event = events.get(timeout=1.0)
                except queue.Empty:
                    if thread.is_alive() or not events.empty():
                        continue
                    return
                yield event
                if isinstance(event, Done | Failed | Cancelled):
                    return
        finally:
            left.set()
            thread.join()  # the GPU is given back after this
            self._tell.pop(job_id, None)

    def _route(self, job_id: str, event: Event) -> None:
        self._tell[job_id](event)


def _duration(job_id: str, recipe: str, out: str, options: dict[str, Any]) -> int:
    return round(options["seconds"])


def _decorator() -> Callable[..., Gpu]:
    if not available():
        return lambda function, duration: function
    import spaces

    return spaces.GPU  # type: ignore[no-any-return]


def _words(error: Exception) -> str:
    """Why there was no GPU, or none any more, in one line. The platform's own errors are words for the visitor."""
    if isinstance(error, UserError) or not any(kind.__module__.startswith("gradio") for kind in type(error).__mro__):
        return in_words(error)
    said = " ".join(html.unescape(re.sub(r"<[^>]*>", "", str(getattr(error, "message", "") or ""))).split())
    if "aborted" in said.lower():
        return ABORTED
    # From a run itself comes only the name of an exception, which says nothing to a visitor.
    return said if " " in said else "The run failed unexpectedly. Try again; the log says more."
