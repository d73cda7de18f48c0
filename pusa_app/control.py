"""The running program's ear for the command line of the same machine: one question, one answer, as JSON.

The program that holds a data folder listens on this machine only; who can read the folder's secret may ask. A question
is {"verb": ..., ...}, an answer {"ok": ...} or {"error": one sentence}.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import threading
from collections.abc import Callable
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener, answer_challenge, deliver_challenge
from pathlib import Path
from typing import Any

from pusa_app.errors import RecipeError, StoreError, UserError, in_words
from pusa_app.jobs import Job
from pusa_app.settings import LOCAL, Settings
from pusa_app.studio import Studio, secret_of
from pusa_app.timeline import Recipe, Sweep, is_sweep

MAX_BYTES = 8_000_000
TIMEOUT = 30.0


def answer(studio: Studio, question: dict[str, Any]) -> Any:
    """What a studio says to a question; raises UserError."""
    verbs: dict[str, Callable[..., Any]] = {
        "list": _list,
        "submit": _submit,
        "cancel": _cancel,
        "pause": lambda studio: studio.pause(LOCAL),
        "resume": lambda studio: studio.resume_all(LOCAL),
        "retry": lambda studio, id: _shown(studio, studio.retry(_whole(studio, id), LOCAL)),
        "clear": lambda studio: studio.clear(LOCAL),
    }
    verb = question.pop("verb", None)
    if verb not in verbs:
        raise RecipeError(f"There is no command {str(verb)[:40]!r}.")
    return verbs[verb](studio, **question)


def _list(studio: Studio, all: bool = False) -> dict[str, Any]:
    jobs = studio.jobs() if all else [*studio.interrupted(LOCAL), *studio.queue()]
    return {"jobs": [_shown(studio, job) for job in jobs], "paused": studio.paused(LOCAL)}


def _submit(studio: Studio, recipe: str, embed: bool = True) -> dict[str, Any]:
    if is_sweep(recipe):
        return _shown(studio, studio.submit_sweep(Sweep.from_json(recipe), LOCAL, embed=embed))
    return _shown(studio, studio.submit(Recipe.from_json(recipe), LOCAL, embed=embed))


def _cancel(studio: Studio, id: str) -> bool:
    return studio.cancel(_whole(studio, id))


def _whole(studio: Studio, start: str) -> str:
    """The id of the one job whose id begins so."""
    found = [job.id for job in studio.jobs() if start and job.id.startswith(start)]
    if len(found) != 1:
        raise RecipeError(f"{'No job' if not found else 'More than one job'} has an id that begins with {start[:40]}.")
    return found[0]


def _shown(studio: Studio, job: Job) -> dict[str, Any]:
    """What is told of a job."""
    progress, left = studio.progress(job.id)
    keys = ("id", "state", "task", "model", "prompt", "seed", "message", "out", "created", "attempt")
    return {key: value for key, value in dataclasses.asdict(job).items() if key in keys} | {
        "step": progress.step if progress and progress.phase == "sampling" else 0,
        "steps": progress.steps if progress and progress.phase == "sampling" else 0,
        "seconds_left": left if left is not None else studio.expected(job),
    }


class Control:
    """Listens for a studio until it is closed."""

    def __init__(self, studio: Studio) -> None:
        self._studio, self._file = studio, _address_file(studio.settings)
        # Who asks is asked for the secret in a thread of his own: one who says nothing keeps nobody else waiting.
        self._listener, self._key = Listener(("127.0.0.1", 0)), secret_of(studio.settings).encode()
        part = self._file.with_suffix(".part")
        part.write_text(json.dumps({"port": self._listener.address[1], "pid": os.getpid()}), encoding="utf-8")
        os.replace(part, self._file)
        self._closed = False
        threading.Thread(target=self._serve, name="control", daemon=True).start()

    def close(self) -> None:
        self._closed = True
        self._file.unlink(missing_ok=True)
        self._listener.close()

    def _serve(self) -> None:
        while not self._closed:
            try:
                connection = self._listener.accept()
            except (OSError, EOFError):  # somebody who left
                continue
            threading.Thread(target=self._answer, args=(connection,), name="control", daemon=True).start()

    def _answer(self, connection: Connection) -> None:
        with connection, contextlib.suppress(OSError, EOFError, AuthenticationError):
            deliver_challenge(connection, self._key)
            answer_challenge(connection, self._key)
            if not connection.poll(TIMEOUT):
                return
            try:
                said: dict[str, Any] = {"ok": answer(self._studio, json.loads(connection.recv_bytes(MAX_BYTES)))}
            except UserError as error:
                said = {"error": in_words(error)}
            except (ValueError, TypeError, AttributeError, RecursionError):
                said = {"error": "This question was not understood: the program that runs may be of another version."}
            except Exception as error:
                logging.getLogger(__name__).exception("control")
                said = {"error": in_words(error)}
            connection.send_bytes(json.dumps(said).encode())


class Remote:
    """The studio of a running program, asked from another process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def ask(self, verb: str, **more: Any) -> Any:
        """The answer; raises RecipeError with what the studio said, StoreError when nobody answers."""
        try:
            port = json.loads(_address_file(self._settings).read_text(encoding="utf-8"))["port"]
            with Client(("127.0.0.1", port), authkey=secret_of(self._settings).encode()) as connection:
                connection.send_bytes(json.dumps({"verb": verb, **more}).encode())
                if not connection.poll(TIMEOUT):
                    raise OSError("no answer")
                said = json.loads(connection.recv_bytes(MAX_BYTES))
        except (OSError, EOFError, ValueError, KeyError, AuthenticationError):
            raise StoreError(
                f"The program that uses the data folder {self._settings.data_dir} does not answer: close it, or wait."
            ) from None
        if "error" in said:
            raise RecipeError(said["error"])
        return said["ok"]

    def close(self) -> None:
        """Nothing is held."""


class Own:
    """A studio in this process, where no other program uses the data folder."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    def ask(self, verb: str, **more: Any) -> Any:
        return answer(self.studio, {"verb": verb, **more})

    def close(self) -> None:
        self.studio.close()


def reach(settings: Settings, *, idle: bool = True) -> Remote | Own:
    """Whoever has the data folder: the running program, or this one, which starts jobs unless it is idle."""
    from pusa_app.studio import InUse

    try:
        return Own(Studio(settings, idle=idle))
    except InUse:
        return Remote(settings)


def _address_file(settings: Settings) -> Path:
    return settings.data_dir / "control.json"
