"""Where jobs are kept: one SQLite file, opened by one process."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import sqlite3
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pusa_app.errors import StoreError
from pusa_app.jobs.job import MOVES, Job, State

MIGRATIONS = Path(__file__).with_name("migrations")
FIELDS = tuple(field.name for field in dataclasses.fields(Job))
FLAGS = ("embed", "held", "favourite")
# What a waiting job may be changed to.
EDITABLE = ("recipe", "folder", "out", "task", "model", "prompt", "seed", "embed", "source")


class JobStore:
    """Every method is atomic and may be called from any thread. Raises StoreError when the disk refuses.

    A file that is no database is put aside and a new one begun; `broken` then says where the old one is.
    """

    def __init__(self, path: Path | str) -> None:
        self._path = path
        self._lock = threading.RLock()
        self.broken: Path | None = None
        with _in_words():
            try:
                self._connection = self._open()
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError) or path == ":memory:":
                    raise
                self.broken = Path(f"{os.fspath(path)}.broken-{time.strftime('%Y%m%d-%H%M%S')}")
                os.replace(path, self.broken)
                Path(f"{os.fspath(path)}-journal").unlink(missing_ok=True)
                self._connection = self._open()

    @classmethod
    def in_memory(cls) -> JobStore:
        """A store that forgets when the program ends."""
        return cls(":memory:")

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=10)
        try:
            connection.row_factory = sqlite3.Row
            connection.create_function("folded", 1, lambda text: str(text).casefold(), deterministic=True)
            # A rollback journal: SQLite before 3.51.3 can lose a write-ahead log when it is reset.
            connection.execute("PRAGMA journal_mode = DELETE")
            connection.execute("PRAGMA synchronous = EXTRA")
            if connection.execute("PRAGMA quick_check").fetchone()[0] != "ok":
                raise sqlite3.DatabaseError("the database is damaged")
            _migrate(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock, _in_words():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                # A full disk has rolled back already, and then there is nothing to undo.
                with contextlib.suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
                raise

    def _query(self, query: str, values: Sequence[Any] = ()) -> list[Job]:
        with self._lock, _in_words():
            return [_job(row) for row in self._connection.execute(query, values).fetchall()]

    def _one(self, query: str, values: Sequence[Any] = ()) -> Job | None:
        found = self._query(query, values)
        return found[0] if found else None

    # --- jobs --------------------------------------------------------------------------------------------------------

    def add(self, *jobs: Job) -> list[Job]:
        """Keep new jobs, all or none; returns them with their numbers, behind all that wait."""
        with self._writing() as connection:
            return [_insert(connection, job) for job in jobs]

    def add_again(self, job: Job, old: Job) -> Job:
        """Keep a new job that is made in place of an ended one, before all others of its owner that wait.

        In the same moment the old one leaves the lists, unless it has a video.
        """
        with self._writing() as connection:
            job = _insert(connection, job)
            _order(connection, job.owner, [job.id])
            if old.state != "done":
                connection.execute("UPDATE job SET deleted = ? WHERE id = ? AND deleted IS NULL", (time.time(), old.id))
            return _job(connection.execute("SELECT * FROM job WHERE id = ?", (job.id,)).fetchone())

    def get(self, job_id: str) -> Job | None:
        """The job as it is now."""
        return self._one("SELECT * FROM job WHERE id = ?", (job_id,))

    def jobs(self, owner: str | None = None, state: State | None = None) -> list[Job]:
        """Jobs in order of arrival, waiting ones in order of their turn; of one owner and in one state where given."""
        order = "position" if state == "queued" else "number"
        return self._query(
            f"SELECT * FROM job WHERE (?1 IS NULL OR owner = ?1) AND (?2 IS NULL OR state = ?2) ORDER BY {order}",
            (owner, state),
        )

    def latest(self, owner: str, limit: int) -> list[Job]:
        """The owner's jobs, newest first, without those that were deleted."""
        return self._query(
            "SELECT * FROM job WHERE owner = ? AND deleted IS NULL ORDER BY number DESC LIMIT ?", (owner, limit)
        )

    def claim(self, among: Collection[str] | None = None) -> Job | None:
        """Take the first queued job whose owner has not paused and make it running; None when nothing may start.

        among: the ids of the jobs that may be taken; None is any.
        """
        marks = "" if among is None else f"AND id IN ({', '.join('?' for _ in among)}) "
        return self._changed(
            "UPDATE job SET state = 'running', started = ? WHERE state = 'queued' AND id = (SELECT id FROM job "
            f"WHERE state = 'queued' AND NOT held AND owner NOT IN (SELECT owner FROM paused) {marks}"
            "ORDER BY position LIMIT 1) RETURNING *",
            (time.time(), *(among or ())),
        )

    def move(self, job_id: str, expected: State, state: State, message: str | None = None) -> Job | None:
        """Change the state of a job that is in `expected`; None when it is not, or when no such move exists."""
        if state not in MOVES.get(expected, ()):
            return None
        return self._changed(
            "UPDATE job SET state = ?, message = coalesce(?, message), finished = ? "
            "WHERE id = ? AND state = ? RETURNING *",
            (state, message, None if state == "running" else time.time(), job_id, expected),
        )

    def again(self, job_id: str, message: str) -> Job | None:
        """Count another attempt of a running job, with the smaller memory plan."""
        return self._changed(
            "UPDATE job SET attempt = attempt + 1, lean = 1, message = ? "
            "WHERE id = ? AND state = 'running' RETURNING *",
            (message, job_id),
        )

    def replace(self, job: Job, back: Job | None = None) -> Job | None:
        """Give a waiting job what `job` says of its EDITABLE fields, in its place; None when it waits no more.

        back: an ended job that is in the lists again in the same moment, as if it had ended now.
        """
        changes = ", ".join(f"{name} = ?" for name in EDITABLE)
        with self._writing() as connection:
            row = connection.execute(
                f"UPDATE job SET {changes}, held = 0 WHERE id = ? AND state = 'queued' RETURNING *",
                (*(getattr(job, name) for name in EDITABLE), job.id),
            ).fetchone()
            if row is not None and back is not None:
                connection.execute("UPDATE job SET deleted = NULL, finished = ? WHERE id = ?", (time.time(), back.id))
            return None if row is None else _job(row)

    def hold(self, job_id: str, held: bool) -> Job | None:
        """Keep a waiting job from being started, or let it go; None when it waits no more."""
        return self._changed(
            "UPDATE job SET held = ? WHERE id = ? AND state = 'queued' RETURNING *", (int(held), job_id)
        )

    def _changed(self, update: str, values: Sequence[Any]) -> Job | None:
        with self._writing() as connection:
            row = connection.execute(update, values).fetchone()
            return None if row is None else _job(row)

    # --- the queue ---------------------------------------------------------------------------------------------------

    def reorder(self, owner: str, ids: Sequence[str]) -> None:
        """The owner's waiting jobs take, in the order of `ids`, the places that they hold among all.

        Those that `ids` leaves out keep their order behind them; names of other jobs are passed over.
        """
        with self._writing() as connection:
            _order(connection, owner, ids)

    def pause(self, owner: str, reason: str = "user") -> None:
        """Start none of an owner's waiting jobs."""
        with self._writing() as connection:
            connection.execute("INSERT OR REPLACE INTO paused VALUES (?, ?)", (owner, reason))

    def unpause(self, owner: str) -> None:
        with self._writing() as connection:
            connection.execute("DELETE FROM paused WHERE owner = ?", (owner,))

    def paused(self, owner: str) -> str:
        """Why an owner's jobs are not started: "user", "restart", or "" when they are."""
        with self._lock, _in_words():
            row = self._connection.execute("SELECT reason FROM paused WHERE owner = ?", (owner,)).fetchone()
            return "" if row is None else str(row["reason"])

    def recover(self, message: str) -> list[Job]:
        """After a start: what was running is interrupted, and whoever has jobs that wait finds them paused."""
        with self._writing() as connection:
            rows = connection.execute(
                "UPDATE job SET state = 'interrupted', message = ?, finished = ? WHERE state = 'running' RETURNING *",
                (message, time.time()),
            ).fetchall()
            connection.execute("UPDATE job SET held = 0 WHERE held")
            connection.execute(
                "INSERT OR IGNORE INTO paused SELECT DISTINCT owner, 'restart' FROM job WHERE state = 'queued'"
            )
            return [_job(row) for row in rows]

    # --- the library -------------------------------------------------------------------------------------------------

    def search(
        self,
        owner: str,
        *,
        text: str = "",
        task: str = "",
        model: str = "",
        favourite: bool = False,
        deleted: bool = False,
        newest: bool = True,
        limit: int = 60,
        offset: int = 0,
    ) -> list[Job]:
        """Finished jobs of an owner whose prompt, task, model or seed hold every word of `text`."""
        where, values = ["owner = ?", "state = 'done'"], [owner]
        where.append("deleted IS NOT NULL" if deleted else "deleted IS NULL")
        for column, value in (("task", task), ("model", model)):
            if value:
                where.append(f"{column} = ?")
                values.append(value)
        if favourite:
            where.append("favourite")
        for word in text.split()[:20]:
            where.append("instr(folded(prompt || ' ' || task || ' ' || model || ' ' || seed), ?)")
            values.append(word.casefold())
        order = "DESC" if newest else "ASC"
        return self._query(
            f"SELECT * FROM job WHERE {' AND '.join(where)} ORDER BY finished {order}, number {order} LIMIT ? OFFSET ?",
            [*values, limit, offset],
        )

    def mark(
        self, owner: str, ids: Iterable[str], *, favourite: bool | None = None, deleted: bool | None = None
    ) -> int:
        """Mark ended jobs of an owner; returns how many were changed."""
        changes: list[tuple[str, Any]] = []
        if favourite is not None:
            changes.append(("favourite", int(favourite)))
        if deleted is not None:
            changes.append(("deleted", time.time() if deleted else None))
        with self._writing() as connection:
            return sum(
                connection.execute(
                    f"UPDATE job SET {column} = ?1 WHERE id = ?2 AND owner = ?3 "
                    f"AND state NOT IN ('queued', 'running') AND {column} IS NOT ?1",
                    (value, job_id, owner),
                ).rowcount
                for column, value in changes
                for job_id in ids
            )

    def expired(self, before: float) -> list[Job]:
        """Jobs that were deleted before a time."""
        return self._query("SELECT * FROM job WHERE deleted < ? ORDER BY number", (before,))

    def forget(self, job_id: str) -> None:
        """Remove an ended job for good."""
        with self._writing() as connection:
            connection.execute("DELETE FROM job WHERE id = ? AND state NOT IN ('queued', 'running')", (job_id,))

    def of_folder(self, folder: str) -> list[Job]:
        """The jobs whose sources lie in a folder."""
        return self._query("SELECT * FROM job WHERE folder = ? ORDER BY number", (folder,))

    def of_out(self, out: str) -> list[Job]:
        """The jobs whose video is, or would have been, a file."""
        return self._query("SELECT * FROM job WHERE out = ? ORDER BY number", (out,))

    # --- how long things take ----------------------------------------------------------------------------------------

    def pace(self, kind: str) -> float | None:
        """Seconds that a step of such a run took of late."""
        with self._lock, _in_words():
            row = self._connection.execute("SELECT seconds FROM pace WHERE kind = ?", (kind,)).fetchone()
            return None if row is None else float(row["seconds"])

    def set_pace(self, kind: str, seconds: float) -> None:
        with self._writing() as connection:
            connection.execute("INSERT OR REPLACE INTO pace VALUES (?, ?)", (kind, seconds))


def _insert(connection: sqlite3.Connection, job: Job) -> Job:
    last = connection.execute("SELECT coalesce(max(number), 0), coalesce(max(position), 0) FROM job").fetchone()
    job = dataclasses.replace(job, number=last[0] + 1, position=last[1] + 1, folder=job.folder or job.id)
    marks = ", ".join("?" for _ in FIELDS)
    values = [getattr(job, name) for name in FIELDS]
    connection.execute(f"INSERT INTO job ({', '.join(FIELDS)}) VALUES ({marks})", values)
    return job


def _order(connection: sqlite3.Connection, owner: str, ids: Sequence[str]) -> None:
    rows = connection.execute(
        "SELECT id, position FROM job WHERE owner = ? AND state = 'queued' ORDER BY position", (owner,)
    ).fetchall()
    waiting = [row["id"] for row in rows]
    wanted = [job_id for job_id in dict.fromkeys(ids) if job_id in waiting]
    order = wanted + [job_id for job_id in waiting if job_id not in wanted]
    connection.executemany(
        "UPDATE job SET position = ? WHERE id = ?",
        [(row["position"], job_id) for row, job_id in zip(rows, order, strict=True)],
    )


def _job(row: sqlite3.Row) -> Job:
    fields = {name: row[name] for name in FIELDS}
    return Job(**fields | {name: bool(fields[name]) for name in FLAGS})


def _migrate(connection: sqlite3.Connection) -> None:
    """Bring the schema up to date, one numbered file after another, each whole or not at all."""
    have = connection.execute("PRAGMA user_version").fetchone()[0]
    files = sorted(path for path in MIGRATIONS.iterdir() if re.fullmatch(r"\d{4}_\w+\.sql", path.name))
    newest = int(files[-1].name[:4])
    if have > newest:
        raise StoreError("This data folder was used by a newer version: update Pusa Studio, or use another --data-dir.")
    for path in files:
        number = int(path.name[:4])
        if number > have:
            try:
                script = path.read_text(encoding="utf-8")
                connection.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {number};\nCOMMIT;")
            except sqlite3.Error:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise


@contextlib.contextmanager
def _in_words() -> Iterator[None]:
    """What the disk or the database refuses, as a StoreError."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        reason = str(error).rstrip(".")
        if "full" in reason:
            words = "The disk is full, so the queue cannot be written: make room, then try again."
        elif "readonly" in reason or "unable to open" in reason:
            words = "The queue cannot be written: see that this account may write in the data folder."
        else:
            words = f"The queue cannot be read or written ({reason})."
        raise StoreError(words) from error
