"""Getting a model: ask the hub what it consists of, see that there is room, download, check, put together."""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pusa_app.errors import ModelError, StoreError
from pusa_app.models.entry import Entry, entries, write_entry
from pusa_app.models.home import Home
from pusa_app.models.room import Disks, existing, shortage
from pusa_app.models.weights.asked import settle
from pusa_app.models.weights.assemble import assemble, cost_of
from pusa_app.models.weights.hub import Gone, Hub, Stopped, is_there, storage_of
from pusa_app.models.weights.shelf import Wanted, alone, chosen, drop, held, is_complete, known_files, needed_elsewhere
from pusa_app.models.weights.words import size_words

EVERY = 0.25  # seconds between two reports
WINDOW = 10.0  # seconds over which speed is measured
Phase = Literal["checking", "looking", "downloading", "converting", "done"]


@dataclass(frozen=True)
class Step:
    """How far a download is: bytes here and in all, bytes a second, seconds left as far as they can be told."""

    phase: Phase
    done: int = 0
    total: int = 0
    speed: float = 0.0
    left: float | None = None


Tell = Callable[[Step], None]


def fetch(
    home: Home,
    entry: Entry,
    *,
    token: str | None = None,
    check: bool = False,
    tell: Tell = lambda step: None,
    stop: Callable[[], bool] = lambda: False,
) -> Path:
    """Have a model on this machine; returns its folder. What is here already is used, without the network if that is
    all of it. An interrupted call goes on where the last one stopped. check: what is here is hashed again, and what is
    damaged comes anew. A LoRA of the hub that turns out to be for no model goes again.

    Raises ModelError or StoreError with one line, Stopped on request.
    """
    folder = _fetch(home, entry, token, check, tell, stop)
    if entry.hub:
        settle(home, entry, folder)
    return folder


def _fetch(home: Home, entry: Entry, token: str | None, check: bool, tell: Tell, stop: Callable[[], bool]) -> Path:
    if not entry.parts:
        raise ModelError(f"{entry.title} belongs to the program: there is nothing to download.")
    with alone(home, entry):
        if entry.hub and entry.id not in entries(home.data_dir):
            write_entry(home.data_dir, entry)  # taken off the list since: what comes must be on it, to be removed
        with home.change() as record:
            record["asked"][entry.id] = True
            record["own"].pop(entry.id, None)
        hub = Hub(home, token, stop)
        if check:
            tell(Step("checking"))
            _check(home, hub, entry)
        if (folder := home.folder(entry.id)) is not None and _is_intact(home, entry):
            return folder
        tell(Step("looking"))
        try:
            wanted = _bring(home, hub, entry, tell, stop)
        except Gone:
            # What was begun is of a commit that the hub no longer has: its files as they are now.
            with home.change() as record:
                for part in entry.parts:
                    record["lists"].pop(f"{part.repo}@{part.revision}", None)
            wanted = _bring(home, hub, entry, tell, stop)
        total = sum(file.size for one in wanted for file in one.files)
        tell(Step("converting", total, total))
        folder = assemble(home, entry, wanted, stop)
        _drop_converted(home, entry, wanted)
        tell(Step("done", total, total))
        return folder


def _is_intact(home: Home, entry: Entry) -> bool:
    """Whether no file of a model that was put together is shorter or longer than it was. What was converted may be gone
    from the cache."""
    record = home.record()
    pairs = [pair for part in entry.parts for pair in known_files(home, entry, part, record).pointers(home)]
    return all(is_there(pointer, file) for file, pointer in pairs if pointer.exists())


def _check(home: Home, hub: Hub, entry: Entry) -> None:
    record = home.record()
    for part in entry.parts:
        wanted = known_files(home, entry, part, record)
        listing = wanted.listing
        if listing is None:
            continue
        if not wanted.exact:
            listing = hub.listing(part.repo, listing.commit)
            wanted = chosen(part, listing, exact=True)
        for file in wanted.files:
            hub.check(listing, file)


def _bring(home: Home, hub: Hub, entry: Entry, tell: Tell, stop: Callable[[], bool]) -> list[Wanted]:
    """Have all files of a model in the cache."""
    wanted = [_look(home, hub, entry, number) for number in range(len(entry.parts))]
    _check_room(home, entry, wanted)
    _download(home, hub, wanted, tell, stop)
    return wanted


def _look(home: Home, hub: Hub, entry: Entry, number: int) -> Wanted:
    """The files of a part: as they are here if that is all, else as the hub says now."""
    record, part = home.record(), entry.parts[number]
    wanted = known_files(home, entry, part, record)
    if wanted.own is not None and not wanted.own.is_file():
        raise ModelError(f"{wanted.own} is gone: add it again, or remove {entry.title} and download it.")
    if is_complete(home, wanted):
        return wanted
    if wanted.exact and held(home, wanted):
        return wanted  # a download goes on at the commit at which it began
    listing = hub.listing(part.repo, part.revision)
    with home.change() as record:
        record["lists"][f"{part.repo}@{part.revision}"] = listing.to_json()
    wanted = chosen(part, listing, exact=True)
    if lacks := part.missing([file.name for file in wanted.files]):
        where = f"see {entry.page}" if entry.hub else "look for a newer version of this program"
        raise ModelError(f"{part.repo} has no {lacks} any more: {where}.")
    return wanted


def _check_room(home: Home, entry: Entry, wanted: list[Wanted]) -> None:
    """Raises StoreError when a disk has not the room for what is to come."""
    remaining = sum(file.size for one in wanted for file in one.files) - sum(held(home, one) for one in wanted)
    short = shortage(Disks.of(home), max(0, remaining), cost_of(entry, wanted))
    if short is not None:
        need, free, more = short.words(size_words)
        place = existing(home.models_dir if short.own else home.hub_cache)
        another = "PUSA_DATA_DIR" if short.own else "HF_HOME"
        raise StoreError(
            f"{entry.title} needs {need} of room on the disk of {place}, and {free} are free: make {more} more, or set "
            f"{another} to another disk."
        )


def _download(home: Home, hub: Hub, wanted: list[Wanted], tell: Tell, stop: Callable[[], bool]) -> None:
    files = sum(len(one.files) for one in wanted)
    if not files:
        return
    total = sum(file.size for one in wanted for file in one.files)
    meter = _Meter(sum(held(home, one) for one in wanted), total, tell)
    for one in wanted:
        if one.listing is None or is_complete(home, one):
            continue
        got = []
        for file in sorted(one.files, key=lambda file: file.size):
            if stop():
                raise Stopped("The download was stopped.")
            if hub.fetch(one.listing, file, meter.add):
                got.append(file.etag)
        if got:
            with home.change() as record:
                mine = record["got"].setdefault(one.part.repo, [])
                mine.extend(etag for etag in got if etag not in mine)
        _refer(home, one)
    meter.report()


def _refer(home: Home, one: Wanted) -> None:
    """Let the revision's name lead to what came, unless other programs know another snapshot by it."""
    assert one.listing is not None
    ref = storage_of(home, one.part.repo) / "refs" / one.part.revision
    if one.part.revision == one.listing.commit or ref.exists():
        return
    with contextlib.suppress(OSError):
        ref.parent.mkdir(parents=True, exist_ok=True)
        part = ref.with_name(f"{ref.name}.{os.getpid()}.tmp")
        part.write_text(one.listing.commit, encoding="utf-8")
        os.replace(part, ref)


def _drop_converted(home: Home, entry: Entry, wanted: list[Wanted]) -> None:
    """A native file that was downloaded for its conversion has done its work; what others need, or brought, stays."""
    got, needed = home.record()["got"], needed_elsewhere(home, entry.id)
    pointers = [
        pointer
        for one in wanted
        if one.part.use == "convert" or (one.part.use == "lora" and one.part.pickle)
        for file, pointer in one.pointers(home)
        # The note beside a LoRA is linked as it is.
        if (one.part.use == "convert" or not file.name.endswith(".json"))
        and file.etag in got.get(one.part.repo, [])
        and pointer not in needed
    ]
    with contextlib.suppress(OSError):
        drop(home, tuple(pointers))


class _Meter:
    """Counts bytes and says how fast they come."""

    def __init__(self, done: int, total: int, tell: Tell) -> None:
        self._done, self._total, self._tell = done, total, tell
        self._marks: deque[tuple[float, int]] = deque([(time.monotonic(), done)])
        self._told = 0.0
        self.report()

    def add(self, count: int) -> None:
        self._done += count
        if time.monotonic() - self._told >= EVERY:
            self.report()

    def report(self) -> None:
        now = self._told = time.monotonic()
        self._marks.append((now, self._done))
        while len(self._marks) > 2 and now - self._marks[0][0] > WINDOW:
            self._marks.popleft()
        (since, before) = self._marks[0]
        span = now - since
        speed = max(0.0, (self._done - before) / span) if span > EVERY else 0.0
        left = (self._total - self._done) / speed if speed else None
        self._tell(Step("downloading", self._done, self._total, speed, left))
