"""`jobs` and `generate --queue`: the queue of the data folder, in the running program or without one."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pusa_app.pace import clock

if TYPE_CHECKING:
    from pusa_app.control import Own, Remote
    from pusa_app.timeline import Recipe

OK, BROKEN = 0, 1
POLL_SECONDS = 0.2
ACTIONS = {
    "list": "what runs and waits, and what was interrupted",
    "cancel": "end a job",
    "retry": "make the video of an ended job again",
    "pause": "start no more jobs",
    "resume": "go on after a pause or a restart; without a running program, until all is done",
    "clear": "cancel all jobs that wait",
}


def add_parser(commands: Any) -> None:
    """Add the command to a parser's commands."""
    jobs = commands.add_parser("jobs", help="the queue: list, cancel, pause, resume", allow_abbrev=False)
    actions = jobs.add_subparsers(title="actions", metavar="ACTION", required=True)
    for name, words in ACTIONS.items():
        action = actions.add_parser(name, help=words, allow_abbrev=False)
        action.set_defaults(run=globals()[f"_{name}"])
        if name in ("cancel", "retry"):
            action.add_argument("id", help="the id, or enough of its beginning")
        if name == "list":
            action.add_argument("--all", action="store_true", help="the ones that have ended too")


def submit(recipe: Recipe) -> int:
    """Queue a recipe; prints its id and, last, where its video will be."""
    with _reached() as program:
        job = program.ask("submit", recipe=_in_full(recipe).to_json())
        if _is_own(program):
            print("No Pusa Studio runs: the video waits for `python app.py` or `jobs resume`.", file=sys.stderr)
    print(job["id"])
    print(job["out"])
    return OK


def _in_full(recipe: Recipe) -> Recipe:
    """The recipe with full paths: the program that reads its files may run in another folder."""
    loras = (
        lora if lora.named else lora.model_copy(update={"path": os.path.abspath(os.path.expanduser(lora.path))})
        for lora in recipe.loras
    )
    return recipe.with_paths(os.path.abspath).model_copy(update={"loras": tuple(loras)})


def _list(options: argparse.Namespace) -> int:
    with _reached() as program:
        said = program.ask("list", all=options.all)
    for job in said["jobs"]:
        print(_line(job))
    if said["paused"]:
        print("The queue is paused: `jobs resume` goes on.", file=sys.stderr)
    return OK


def _line(job: dict[str, Any]) -> str:
    words = " ".join(str(job["prompt"] or job["task"]).split())[:60]
    step = f" {job['step']}/{job['steps']}" if job["steps"] else ""
    left = f"  about {clock(job['seconds_left'])}" if job["seconds_left"] is not None else ""
    why = f"  {job['message']}" if job["message"] else ""
    return f"{job['id'][:8]}  {job['state'] + step:<16} {job['task']:<15} {job['model']:<8} {words}{left}{why}"


def _cancel(options: argparse.Namespace) -> int:
    with _reached() as program:
        ends = program.ask("cancel", id=options.id)
    print("It ends." if ends else "It had ended already.", file=sys.stderr)
    return OK


def _retry(options: argparse.Namespace) -> int:
    with _reached() as program:
        print(program.ask("retry", id=options.id)["id"])
    return OK


def _pause(options: argparse.Namespace) -> int:
    with _reached() as program:
        program.ask("pause")
    return OK


def _clear(options: argparse.Namespace) -> int:
    with _reached() as program:
        print(f"{program.ask('clear')} cancelled.", file=sys.stderr)
    return OK


def _resume(options: argparse.Namespace) -> int:
    with _reached(idle=False) as program:
        count = program.ask("resume")
        print(f"{count} waiting.", file=sys.stderr)
        return _finish(program) if _is_own(program) else OK


def _finish(program: Own | Remote) -> int:
    """Make what waits in this process's studio; prints every video that comes of it."""
    waiting = {job["id"] for job in program.ask("list")["jobs"] if job["state"] in ("queued", "running")}
    code, last = OK, ""
    while waiting:
        time.sleep(POLL_SECONDS)
        for job in program.ask("list", all=True)["jobs"]:
            if job["id"] not in waiting:
                continue
            line = f"{job['id'][:8]} {job['state']} {job['step']}/{job['steps']}"
            if job["state"] == "running" and job["steps"] and line != last:
                last = line
                print(line, file=sys.stderr, flush=True)
            elif job["state"] not in ("queued", "running"):
                waiting.discard(job["id"])
                if job["state"] == "done":
                    print(job["out"], flush=True)
                else:
                    code = BROKEN
                    print(_line(job), file=sys.stderr, flush=True)
    return code


@contextlib.contextmanager
def _reached(idle: bool = True) -> Iterator[Own | Remote]:
    """Whoever has the data folder, for as long as a block takes."""
    from pusa_app.control import reach
    from pusa_app.settings import Settings

    with contextlib.closing(reach(Settings(), idle=idle)) as program:
        yield program


def _is_own(program: Own | Remote) -> bool:
    from pusa_app.control import Own

    return isinstance(program, Own)
