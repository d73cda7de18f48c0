"""`python -m pusa_app bench queue`: what the queue costs, how soon the page is there, and whether memory stays flat.

All in one run, in turns, since a busy machine slows both sides alike.
A job: `render` called directly in a warm process, against the same recipe through the queue with a warm worker, from
handing it in until it is told to be done. The page: its start against that of a bare Gradio page. Memory: the process
that serves the page, its resident size at the start and after some jobs, and its worker's, with the fake model, whose
jobs are short. The documented figures are those of --jobs 200 --repetitions 20.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pusa_app.bench.outputs import check_outputs
from pusa_app.bench.start import APP, MAX_MEGABYTES, MAX_RATIO, BarePage, resident, running, start_seconds, wait_until
from pusa_app.cli import Parser, integer
from pusa_app.errors import UserError

MAX_OVERHEAD, MAX_OVERHEAD_SECONDS = 0.03, 0.1  # of the direct time; whichever is larger
# What is filled once, such as caches and logs of a bounded size, is no growth: the first jobs do not count, and of what
# comes after them this much is noise of the allocator.
WARM_JOBS = 10
MAX_GROWTH = 12.0  # MB
PROMPT = "a red ball moves to the right"
PATIENCE_SECONDS = 600.0


@dataclass(frozen=True)
class Goal:
    """A figure, in its unit, and what it may be at most; no goal is None."""

    name: str
    value: float
    unit: str
    goal: float | None = None

    @property
    def met(self) -> bool:
        return self.goal is None or self.value <= self.goal


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 0 when all goals are met, 1 when not."""
    parser = Parser(prog="python -m pusa_app bench queue", description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--jobs", type=integer(1, 10_000), default=30, help="how many jobs of the fake model")
    parser.add_argument("--repetitions", type=integer(1, 1000), default=7, help="of a run, of a start")
    parser.add_argument("--model", default="mini", help="what is run directly and through the queue")
    parser.add_argument("--only", choices=("overhead", "start", "memory"), help="one of the three")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures as JSON")
    options = parser.parse_args(argv)
    check_outputs(options.json)
    parts: dict[str, Callable[[], list[Goal]]] = {
        "overhead": lambda: overhead(options.model, options.repetitions),
        "start": lambda: start(options.repetitions),
        "memory": lambda: memory(options.jobs),
    }
    goals = [goal for name, part in parts.items() if options.only in (None, name) for goal in part()]
    print(table(goals))
    if options.json:
        figures = {"jobs": options.jobs, "repetitions": options.repetitions, "model": options.model}
        rows = [asdict(goal) | {"met": goal.met} for goal in goals]
        options.json.write_text(json.dumps(figures | {"figures": rows}, indent=2) + "\n", encoding="utf-8")
    return 0 if all(goal.met for goal in goals) else 1


def table(goals: Sequence[Goal]) -> str:
    """Figures, goals, and whether they are met, as lines of text."""
    rows = [("figure", "value", "goal", "")]
    for goal in goals:
        value = f"{goal.value:.{3 if goal.unit == 's' else 2 if goal.unit == 'x' else 0}f} {goal.unit}"
        most = "" if goal.goal is None else f"at most {goal.goal:.3g} {goal.unit}"
        rows.append((goal.name, value, most, "" if goal.goal is None else "pass" if goal.met else "FAIL"))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


# --- what the queue costs --------------------------------------------------------------------------------------------


def overhead(model: str, repetitions: int) -> list[Goal]:
    """A recipe rendered directly and through the queue, in turns, each in a process that has the model loaded."""
    from pusa_app.settings import Settings
    from pusa_app.studio import Studio, card_of, new_recipe

    recipe = new_recipe(card_of(model), "text-to-video", prompt=PROMPT)
    direct, queued = [], []
    with tempfile.TemporaryDirectory() as folder, _Direct() as direct_process:
        studio = Studio(Settings(data_dir=Path(folder) / "data"))
        try:
            for repetition in range(repetitions + 1):
                out = Path(folder) / f"direct-{repetition}.mp4"
                seconds = [
                    direct_process.seconds(recipe.to_json(), str(out)),
                    _through(studio, recipe.model_copy(update={"seed": repetition})),
                ]
                if repetition == 0:
                    continue  # both load their model
                direct.append(seconds[0])
                queued.append(seconds[1])
                print(f"{repetition}: direct {seconds[0]:.3f} s, through the queue {seconds[1]:.3f} s", flush=True)
        finally:
            studio.close()
    extra = statistics.median(b - a for a, b in zip(direct, queued, strict=True))
    usual = statistics.median(direct)
    return [
        Goal(f"{model}, render called directly", usual, "s"),
        Goal(f"{model}, through the queue", statistics.median(queued), "s"),
        Goal("what the queue adds", extra, "s", max(MAX_OVERHEAD * usual, MAX_OVERHEAD_SECONDS)),
    ]


class _Direct:
    """A process that renders recipes with no queue around."""

    def __enter__(self) -> _Direct:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_render_direct, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def seconds(self, recipe: str, out: str) -> float:
        """How long it takes there; the first time with loading the model."""
        self._pipe.send((recipe, out))
        return float(self._pipe.recv())


def _render_direct(pipe: Connection) -> None:
    from pusa_app.render import render
    from pusa_app.timeline import Recipe
    from pusa_app.worker import load_backbone

    backbone: Any = None
    while True:
        try:
            text, out = pipe.recv()
        except EOFError:
            return
        started = time.perf_counter()
        recipe = Recipe.from_json(text)
        backbone = backbone or load_backbone(recipe.model)
        render(recipe, backbone, lambda event: None, out=Path(out))
        pipe.send(time.perf_counter() - started)


def _through(studio: Any, recipe: Any) -> float:
    """Seconds from handing a recipe in until its end is told; raises UserError when it was not made."""
    started = time.perf_counter()
    job = studio.submit(recipe, "bench")
    for _ in studio.run(job.id):
        pass
    ended = time.perf_counter()
    done = studio.job(job.id)
    if done.state != "done":
        raise UserError(f"The job was not made: it is {done.state}. {done.message}")
    return ended - started


# --- the page --------------------------------------------------------------------------------------------------------


def start(repetitions: int) -> list[Goal]:
    """The start of the program to its first page against that of a bare Gradio page, in turns."""
    ours, bares = [], []
    with tempfile.TemporaryDirectory() as folder:
        bare_page = BarePage(Path(folder))
        for repetition in range(repetitions + 1):
            bare = start_seconds(bare_page.command)[0]
            own = start_seconds([str(APP), "--data-dir", f"{folder}/data", "--port"])[0]
            if repetition == 0:
                continue  # the first start of each fills the disk's cache
            bares.append(bare)
            ours.append(own)
            print(f"{repetition}: page {own:.2f} s, bare page {bare:.2f} s", flush=True)
    ratio = statistics.median(a / b for a, b in zip(ours, bares, strict=True))
    return [
        Goal("start to the first page", statistics.median(ours), "s"),
        Goal("start of a bare page", statistics.median(bares), "s"),
        Goal("start, times a bare page", ratio, "x", MAX_RATIO),
    ]


# --- memory ----------------------------------------------------------------------------------------------------------


def memory(jobs: int) -> list[Goal]:
    """The process that serves the page and its worker, over jobs of the fake model that the command line hands in."""
    from pusa_app import testing
    from pusa_app.control import Remote
    from pusa_app.settings import Settings
    from pusa_app.studio import new_recipe

    recipe = new_recipe(testing.card(), "text-to-video", prompt="blue", num_frames=13, steps=4).to_json()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        environment = {**os.environ, "PUSA_TEST_FAKE": "1", "GRADIO_TEMP_DIR": f"{folder}/cache"}
        with running([str(APP), "--data-dir", str(data), "--port"], environment) as page:
            program = Remote(Settings(data_dir=data))
            at_start = resident(page.pid)

            def make(count: int) -> None:
                ids = {program.ask("submit", recipe=recipe)["id"] for _ in range(count)}
                wait_until(lambda: not ids & {job["id"] for job in program.ask("list")["jobs"]}, PATIENCE_SECONDS)
                states = {job["state"] for job in program.ask("list", all=True)["jobs"]}
                if states != {"done"}:
                    raise UserError(f"Not all jobs were made: {', '.join(sorted(states))}.")

            make(min(jobs, WARM_JOBS))
            worker = _worker_of(page.pid)
            warm = resident(page.pid), resident(worker)
            left = jobs - min(jobs, WARM_JOBS)
            while left:
                make(min(left, 20))
                left -= min(left, 20)
                print(f"{jobs - left}: page {resident(page.pid):.0f} MB, worker {resident(worker):.0f} MB", flush=True)
            ended = resident(page.pid), resident(worker)
    return [
        Goal("page's process at the start", at_start, "MB", MAX_MEGABYTES),
        Goal(f"page's process after {jobs} jobs", ended[0], "MB", MAX_MEGABYTES),
        Goal(f"worker after {jobs} jobs", ended[1], "MB"),
        Goal("its growth since the first jobs", ended[0] - warm[0], "MB", MAX_GROWTH),
        Goal("worker's growth since the first jobs", ended[1] - warm[1], "MB", MAX_GROWTH),
    ]


def _worker_of(page: int) -> int:
    """The process id of the worker; beside it a program has a small process that minds its shared resources."""
    import psutil

    return next(c.pid for c in psutil.Process(page).children() if any("spawn_main" in word for word in c.cmdline()))
