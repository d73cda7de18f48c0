"""The worker process: keeps one model loaded, renders one job at a time, tells what happens over its pipe.

    to the worker    ("run", job id, recipe JSON, output path, options) | ("cancel", job id) | ("warm", model id)
    from the worker  (job id, Event), the last one of a job being Done, Failed or Cancelled

options: {"state": where the checkpoint lies, "embed": whether the video holds its recipe, "lean": 1 for the smaller
memory plan}; what is missing is no checkpoint, True and 0.

Beside the video `clip.mp4` a job leaves its poster `clip.jpg` and its recipe `clip.json`. torch is imported here and
nowhere on the way to here. The process ends when its pipe does, so that it never outlives the program that started it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import logging
import logging.handlers
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pusa_app.errors import RunCancelled, UserError, in_words, is_memory
from pusa_app.events import Cancelled, Done, Event, Failed, Preview, Progress
from pusa_app.pace import Pace

if TYPE_CHECKING:
    from pusa_app.models import ModelCard
    from pusa_app.models.fitting import Memory
    from pusa_app.models.machine import Machine
    from pusa_app.models.plan_types import MemoryPlan, Work
    from pusa_app.render import Clip
    from pusa_app.sweep import SweepResult
    from pusa_app.timeline import Recipe, Sweep

Work = TypeVar("Work", "Recipe", "Sweep")

MAX_LOG_BYTES = 2_000_000


def main(pipe: Connection, log_file: str, device: str = "") -> None:
    """Serve jobs until the pipe closes. device: the GPU to use, as CUDA_VISIBLE_DEVICES names it; "" is as it comes."""
    _die_with_parent()
    if device:
        os.environ["CUDA_VISIBLE_DEVICES"] = device  # torch, which is not here yet, sees this one only
    # Ctrl-C in a terminal reaches every process of its group; the program decides what it means, not the worker.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    log = open_log(Path(log_file))
    mailbox = Mailbox(pipe)
    worker = Worker(mailbox.send, log)
    while True:
        verb, *rest = mailbox.tasks.get()
        if verb == "warm":
            worker.warm(rest[0])
        else:
            job_id, recipe, out, *options = rest
            mailbox.send(job_id, worker.run(job_id, recipe, out, mailbox.cancelled, *options))
            mailbox.forget(job_id)


class Mailbox:
    """The worker's end of the pipe. A thread reads it all the time, so that a cancel is heard in the midst of a run."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._cancelled: set[str] = set()
        self.tasks: queue.Queue[tuple[Any, ...]] = queue.Queue()
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

    def forget(self, job_id: str) -> None:
        """The job has ended: a cancel that comes too late must not meet a later run of it."""
        self._cancelled.discard(job_id)

    def send(self, job_id: str, event: Event) -> None:
        try:
            self._pipe.send((job_id, event))
        except OSError:
            os._exit(0)


class Worker:
    """Renders recipes with the model they name; the last model stays loaded. Every run returns its last event."""

    def __init__(self, send: Any, log: logging.Logger) -> None:
        self._send, self._log = send, log
        self._loaded: tuple[Any, ...] | None = None  # model id, and what it was loaded with
        self._backbone: Any = None

    def warm(self, model: str) -> None:
        """Load a model that nobody asked for yet; what is wrong with it is told to the job that needs it."""
        try:
            self._load(model, 0, lambda event: None, None)
            import pusa_app.render  # noqa: F401
        except Exception:  # noqa: BLE001 - see above
            self._log.exception("warming up %s", model)

    def run(
        self,
        job_id: str,
        recipe_json: str,
        out: str,
        cancelled: Callable[[str], bool],
        options: Mapping[str, Any] | None = None,
    ) -> Event:
        """Done, Failed or Cancelled; never raises. options: see the top of this file."""
        failed = None
        try:
            return self._run(job_id, recipe_json, Path(out), lambda: cancelled(job_id), options or {})
        except RunCancelled:
            return Cancelled()
        except UserError as error:
            return Failed(in_words(error))
        except Exception as error:  # noqa: BLE001 - whatever a model does, the worker lives on and the user gets a sentence
            self._log.exception("job %s", job_id)
            failed = Failed(in_words(error), memory=is_memory(error))
        # Not before here: the traceback holds on to the tensors of all its frames.
        if failed.memory:
            self._unload()
        return failed

    def _run(
        self, job_id: str, recipe_json: str, out: Path, cancelled: Callable[[], bool], options: Mapping[str, Any]
    ) -> Event:
        started, pace = time.monotonic(), Pace()

        def tell(event: Event) -> None:
            # How the run ended is ours to say, once the file is in its place.
            if isinstance(event, Progress):
                pace.see(event)
                self._send(job_id, dataclasses.replace(event, memory=memory_held()))
            elif isinstance(event, Preview):
                self._send(job_id, event)

        from pusa_app.timeline import Recipe, Sweep, is_sweep

        work = Sweep.from_json(recipe_json) if is_sweep(recipe_json) else Recipe.from_json(recipe_json)
        lean = int(options.get("lean", 0))
        run = self._load(work.recipe.model if isinstance(work, Sweep) else work.model, lean, tell, work)
        if cancelled():
            return Cancelled()
        _count_memory_from_here()
        made = self._make(work, out, tell, cancelled, options)
        made_with: dict[str, Any] | None = None
        if run is not None:
            run.worked(pace.per_step, lean)
            made_with = {"plan": run.plan.choice}
            if reports := getattr(getattr(self._backbone, "loras", None), "reports", ()):
                made_with["loras"] = [str(report) for report in reports]
                made_with["lora_files"] = [{"name": one.name, "sha256": one.sha256} for one in reports]
        save_beside(out, work, self._log, getattr(made, "middle", None), made_with)
        return Done(str(out), work.to_json(), time.monotonic() - started, made.num_frames)

    def _make(
        self, work: Recipe | Sweep, out: Path, tell: Any, cancelled: Callable[[], bool], options: Mapping[str, Any]
    ) -> Clip | SweepResult:
        """Render to `out`; returns what is there."""
        from pusa_app.timeline import Sweep

        embed = seen_from if options.get("embed", True) else _nothing
        state = Path(options["state"]) if options.get("state") else None
        if isinstance(work, Sweep):
            from pusa_app.sweep import render_sweep

            # With the usual memory plan the whole sweep gets a second try; with the smaller one a cell that is too
            # large fails alone.
            return render_sweep(
                work,
                self._backbone,
                tell,
                out=out,
                cancelled=cancelled,
                embed=embed,
                state_path=state,
                fatal=None if options.get("lean") else is_memory,
                log=self._log,
            )
        from pusa_app.render import render

        return render(work, self._backbone, tell, out=out, cancelled=cancelled, state_path=state, embed=embed)

    def _load(self, model: str, lean: int, tell: Any, work: Recipe | Sweep | None) -> Planned | None:
        """Have a model loaded as its memory plan for a run says; None where there is no plan for it (the fake one).

        work None: as for a clip of the model's own size.
        """
        loaded = None
        if self._loaded is not None and self._loaded[0] == model:
            loaded = getattr(getattr(self._backbone, "fit", None), "plan", None)
        run = planned(model, work, lean, loaded, self._log)
        key = (model, lean) if run is None else (model, *run.mark)
        if self._loaded != key or (run is not None and run.text_goes_first(self._backbone)):
            tell(Progress("loading"))
            self._unload()  # the old model leaves before the new one comes
            if run is None:
                self._backbone = load_backbone(model, lean)
            else:
                self._log.info("plan for %s: %s", model, run.plan.reason)
                run.encode_texts()
                self._backbone = load_backbone(model, lean, run.plan)
            self._loaded = key
        if run is not None:
            self._backbone.fit.plan = run.plan
        return run

    def _unload(self) -> None:
        """Let go of the model and of what the GPU holds for it."""
        if self._loaded is None and self._backbone is None:
            return
        if (fit := getattr(self._backbone, "fit", None)) is not None:
            fit.close()
        self._loaded, self._backbone = None, None
        gc.collect()
        # A GPU whose driver has given up raises here too; its next job says so.
        with contextlib.suppress(Exception):
            if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_initialized():
                torch.cuda.empty_cache()


class Planned:
    """A memory plan for a run, and what it was made for."""

    def __init__(
        self, card: ModelCard, run: Work, plan: MemoryPlan, memory: Memory, work: Recipe | Sweep | None
    ) -> None:
        self.plan, self._card, self._run, self._memory = plan, card, run, memory
        one = getattr(work, "recipe", work)
        guided = one is not None and one.guided and not card.spec.distilled
        self._prompts = () if one is None else (one.prompt, *((one.negative_prompt,) if guided else ()))
        # Steps that were made faster say nothing of the pace of others.
        self._plain = one is None or not one.faster
        self._loras = () if one is None else tuple(lora.model_dump_json() for lora in one.loras)

    @property
    def mark(self) -> tuple[Any, ...]:
        """Another one where the model must be loaded anew."""
        from pusa_app.models.plan_types import LOADED

        # LoRAs must be on a transformer before its blocks go to the disk.
        loras = self._loras if self.plan.offload == "disk" else ()
        return (*(getattr(self.plan, name) for name in LOADED), *loras)

    def text_goes_first(self, backbone: Any) -> bool:
        """Whether the loaded model must leave for the text encoder."""
        from pusa_app.models.plan import text_beside

        if backbone.text_encoder is not None or all(map(backbone.has_text, self._prompts)):
            return False
        return not text_beside(self._run, self.plan)

    def encode_texts(self) -> None:
        """Encode the prompts while nothing else is in memory, where the encoder does not stay."""
        if self.plan.text in ("load", "stream", "cpu"):
            from pusa_app.models.catalogue import encode_alone

            encode_alone(self._card, self.plan, self._prompts)

    def worked(self, step_seconds: float | None, lean: int) -> None:
        """Remember it."""
        from pusa_app.models.fitting import by_hand, worth_remembering

        if worth_remembering(self._run, lean):
            self._memory.remember(
                self._card.id,
                self._run,
                self.plan,
                step_seconds=step_seconds if self._plain else None,
                peak=memory_held(),
                # Not what was chosen by hand: it would stay when the choice is taken back.
                stepped_down=lean > 0 and not by_hand(),
            )


def planned(
    model: str,
    work: Recipe | Sweep | None,
    lean: int = 0,
    loaded: MemoryPlan | None = None,
    log: logging.Logger | None = None,
) -> Planned | None:
    """The memory plan for a run, None for the fake model. loaded: what the model is loaded with now.

    Raises ModelError or RecipeError. Where planning itself fails, there is no plan, and the model is loaded as it is.
    """
    from pusa_app import testing

    if testing.enabled() and model == testing.FAKE:
        return None
    from pusa_app.models import fitting, get_card

    card = get_card(model)
    try:
        machine, memory = machine_here(), fitting.Memory()
        run = (
            fitting.work_for(card, machine, memory=memory)
            if work is None
            else fitting.work_of_run(work, card, machine, memory)
        )
        return Planned(card, run, fitting.plan_of_run(run, model, lean, loaded, memory), memory, work)
    except UserError:
        raise
    except Exception:  # noqa: BLE001 - a plan makes things better, and its lack must not make them impossible
        (log or logging.getLogger(__name__)).exception("planning %s", model)
        return None


def machine_here() -> Machine:
    """This machine as torch sees it: a GPU that torch cannot use is none."""
    import torch

    from pusa_app.models.machine import this_machine

    machine = this_machine()
    if not torch.cuda.is_available():
        return machine.model_copy(update={"gpu_kind": "cpu", "gpu_name": "", "gpu_bytes": 0, "compute": (0, 0)})
    known = torch.cuda.get_device_properties(0)
    return machine.model_copy(
        update={
            "gpu_kind": "cuda",
            "gpu_name": known.name,
            "gpu_bytes": int(known.total_memory),
            "compute": (known.major, known.minor),
        }
    )


def save_beside(
    out: Path,
    work: Recipe | Sweep,
    log: logging.Logger | None = None,
    frame: Any = None,
    made_with: dict[str, Any] | None = None,
) -> None:
    """Write the poster and the recipe beside a video. Their lack is no reason to lose it: never raises.

    frame: uint8 (H, W, 3), the poster where it is at hand; else it is read from the video. made_with: how it was made,
    kept with the recipe and without meaning for what it is.
    """
    log = log or logging.getLogger(__name__)
    try:
        _save_poster(out, frame)
    except (UserError, OSError):
        log.exception("poster of %s", out.name)
    try:
        _save_sidecar(out, work, made_with)
    except (UserError, OSError):
        log.exception("sidecar of %s", out.name)


def _save_poster(out: Path, frame: Any) -> None:
    """The frame in the middle, for lists."""
    from pusa_app import media

    if frame is None:
        info = media.check_clip(out)
        middle = info.num_frames // 2
        frame = media.load_clip(out, info.width, info.height, fps=info.fps, start=middle, num_frames=1)[0]
    media.save_poster(frame, poster_of(out))


def _save_sidecar(out: Path, work: Recipe | Sweep, made_with: dict[str, Any] | None = None) -> None:
    """The recipe beside the video, which keeps it when the video is re-encoded or holds none."""
    from pusa_app import media

    path = sidecar_of(out)
    with media.atomic_output(path) as part, media.writing(path.name):
        text = seen_from(work, out.parent).to_json()
        if made_with is not None:
            text = json.dumps({**json.loads(text), "made_with": made_with}, indent=2, ensure_ascii=False)
        part.write_text(text, encoding="utf-8")


def seen_from(work: Work, folder: Path) -> Work:
    """A recipe or a sweep with paths relative to a folder: a shared video must not tell where it was made.

    They lead from where the folder really is to where the source's really is: `..` does not lead back out of a link.
    """

    def seen(path: str) -> str:
        try:
            source_folder, name = os.path.split(path)
            return os.path.relpath(os.path.join(os.path.realpath(source_folder), name), os.path.realpath(folder))
        except ValueError:  # Windows: no relative path leads to another drive
            return os.path.abspath(path)

    return work.with_paths(seen).with_bare_loras()


def _nothing(work: Recipe | Sweep, folder: Path) -> None:
    """What a video holds inside whose recipe is nobody's business."""


def memory_held() -> int:
    """Bytes that this process holds: the most on the GPU since the run began, else its resident size, 0 if unknown."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        with contextlib.suppress(Exception):  # a GPU that is lost
            return int(torch.cuda.max_memory_reserved())
    with contextlib.suppress(Exception):  # no psutil, or a system that does not tell
        import psutil

        return int(psutil.Process().memory_info().rss)
    return 0


def _count_memory_from_here() -> None:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        with contextlib.suppress(Exception):
            torch.cuda.reset_peak_memory_stats()


def sidecar_of(result: Path) -> Path:
    """Where the recipe of a result lies."""
    return result.with_suffix(".json")


def poster_of(result: Path) -> Path:
    """Where the poster of a result lies."""
    return result.with_suffix(".jpg")


def load_backbone(model: str, lean: int = 0, plan: MemoryPlan | None = None) -> Any:
    """The loaded model; the fake one only where a test asked for it. plan: how; without one, lean 1 is the smaller
    memory plan."""
    from pusa_app import testing

    if testing.enabled() and model == testing.FAKE:
        return testing.backbone(lean)
    from pusa_app.models import load_backbone as load

    return load(model, lean=lean, plan=plan)


class _Log(logging.handlers.RotatingFileHandler):
    """A log that a full disk cuts short, without a word about it in the user's terminal."""

    def handleError(self, record: logging.LogRecord) -> None:
        """What cannot be written is lost."""


def open_log(path: Path) -> logging.Logger:
    """The log of what makes videos; everything that this program says while it renders goes there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = _Log(path, maxBytes=MAX_LOG_BYTES, backupCount=1, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    everything = logging.getLogger("pusa_app")  # rendering has things to say too
    everything.setLevel(logging.INFO)
    everything.addHandler(handler)
    return logging.getLogger("pusa_app.worker")


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
