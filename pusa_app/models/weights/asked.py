"""LoRAs that a person asks the hub for: found by repository, looked at before they are downloaded, put on the list.

On the list they are entries of the user's own catalogue, so all that is done with those of the catalogue, from the
download to deleting, is done with them as well.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import TypeVar
from urllib.parse import urlsplit

from pusa_app.errors import ModelError
from pusa_app.models.entry import SHARD, Entry, Part, entries, write_entry
from pusa_app.models.home import CARD_FILE, Home
from pusa_app.models.hub_lora import PICKLE, SUFFIX, HubLora
from pusa_app.models.lora_fit import Fit, look, read_notes, shapes_of
from pusa_app.models.lora_names import shown
from pusa_app.models.weights.hub import File, Gone, Hub, Listing
from pusa_app.models.weights.shelf import alone, remove

# As PEFT calls its file, and the one beside it with the scale; as it and diffusers call every LoRA.
PEFT_STEM, PEFT_NOTE = "adapter_model", "adapter_config.json"
USUAL_STEMS = (PEFT_STEM, "pytorch_lora_weights", "diffusion_pytorch_model", "model", "lora")
T = TypeVar("T")
SHOWN = 8  # files that a message names
FIRST = 512 * 1024  # bytes, in which most headers are
PATIENCE = 60.0  # seconds for all that the hub is asked before a download


def ask(home: Home, text: str, token: str | None = None) -> Entry:
    """The entry of a LoRA of the hub, new on the list or there already. text: OWNER/REPO, OWNER/REPO:FILE, with
    @REVISION, or an address. Only the header of its file is read. What is here is not asked for again, whatever the
    hub has under its name now.

    Raises ModelError or StoreError with one line: no such repository, not one .safetensors file, no LoRA, one for none
    of the models that are known, or a hub that does not say all that in a minute.
    """
    asked = HubLora.asked(text, urlsplit(home.hub_endpoint).netloc)
    entry = listed(home, text)
    if entry is not None and (asked.file or home.folder(entry.id) is not None):
        return entry
    new, listing = _in_time(home, lambda stop: _look(home, Hub(home, token, stop), asked))
    if home.folder(new.id) is not None and (entry := entries(home.data_dir).get(new.id)):
        return entry
    file = listing.files[new.parts[0].files[0]]
    with home.change() as record:
        key = f"{asked.repo}@{asked.revision}"
        known = Listing.from_json(asked.repo, record["lists"].get(key))
        # A list that knows this file is kept: by it the repository's other LoRAs that are here are found.
        if known is None or known.files.get(file.name) != file:
            record["lists"][key] = listing.to_json()
    write_entry(home.data_dir, new)
    return new


def _look(home: Home, hub: Hub, asked: HubLora) -> tuple[Entry, Listing]:
    """What the hub says of a LoRA."""
    try:
        listing = hub.listing(asked.repo, asked.revision)
    except Gone:
        raise ModelError(
            f"{asked.repo} has no revision {asked.revision[:100]}: leave it out, or give another."
        ) from None
    file = _chosen(asked, listing)
    lora = HubLora(asked.repo, file.name, asked.revision)
    fit = Fit(()) if file.name.endswith(PICKLE) else _fit(home, hub, listing, file, lora)
    return _entry(home, lora, listing, fit), listing


def _in_time(home: Home, work: Callable[[Callable[[], bool]], T]) -> T:
    """What the hub is asked, or ModelError when that takes too long: a connection that drips is never silent for so
    long that its client gives up. work: gets what says that nobody waits for it any more."""
    over = threading.Event()
    made: list[T] = []
    failed: list[Exception] = []

    def run() -> None:
        try:
            made.append(work(over.is_set))
        except Exception as error:  # noqa: BLE001 - raised again where it is waited for
            failed.append(error)

    thread = threading.Thread(target=run, name="look", daemon=True)
    thread.start()
    thread.join(PATIENCE)
    over.set()
    if failed:
        raise failed[0]
    if not made:
        host = urlsplit(home.hub_endpoint).netloc
        raise ModelError(f"{host} answers too slowly ({PATIENCE:g} seconds have passed): try again later.")
    return made[0]


def listed(home: Home, text: str) -> Entry | None:
    """The entry of a LoRA that is on the list, by its name or its repository, if that has only one there."""
    found = listed_of(home, text)
    return found[0] if len(found) == 1 else None


def listed_of(home: Home, text: str) -> list[Entry]:
    """Those on the list that have a name, or are of a repository."""
    try:
        asked = HubLora.asked(text, urlsplit(home.hub_endpoint).netloc)
    except ModelError:
        return []
    known = entries(home.data_dir)
    if asked.file:
        return [known[asked.id]] if asked.id in known else []
    named = {entry.id: HubLora.named(entry.hub) for entry in known.values() if entry.hub}
    found = [i for i, lora in named.items() if lora and (lora.repo, lora.revision) == (asked.repo, asked.revision)]
    return [known[one] for one in found]


def settle(home: Home, entry: Entry, folder: Path) -> None:
    """Look into a LoRA that came: as a pickle, whose header could not be read before, or as another file than the one
    that was looked at, where its owner put a new one since. The entry says which came. What is for no model is removed.

    Raises ModelError with one line.
    """
    problem = None
    with alone(home, entry, patience=5.0):
        came, said = _card(folder), entries(home.data_dir).get(entry.id)
        if came is None or said is None or (said.base and said.etag == came.etag):
            return
        (path,) = sorted((folder / "loras").glob(f"*{SUFFIX}"))
        try:
            write_entry(home.data_dir, _with_fit(home, came, look(home, shapes_of(path), shown(entry.hub, 400))))
        except ModelError as error:
            problem = error
    if problem is not None:
        remove(home, entry.id)
        raise problem


def _card(folder: Path) -> Entry | None:
    """What was written down of a LoRA when its folder was made."""
    try:
        return Entry.model_validate_json((folder / CARD_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _chosen(asked: HubLora, listing: Listing) -> File:
    """The file that is meant; raises ModelError when that is not clear, or it cannot be used."""
    file = _named(asked, listing)
    if not HubLora(asked.repo, file.name, asked.revision).is_sound:
        raise ModelError(
            f"{asked.repo} has a file {shown(file.name)}, whose name this program cannot take: get it yourself, under "
            "another name, and put it into the folder loras of the data folder."
        )
    if match := SHARD.fullmatch(file.name):
        raise ModelError(
            f"{shown(file.name, 200)} is one of {int(match['count'])} pieces, and a LoRA must be one file: look for "
            "another repository of this LoRA."
        )
    if not file.size:
        raise ModelError(f"{_called(asked.repo, file.name)} is empty: look for another repository of this LoRA.")
    return file


def _named(asked: HubLora, listing: Listing) -> File:
    if asked.file:
        if (file := listing.files.get(asked.file)) is not None:
            return file
        raise ModelError(f"{asked.repo} has no file {asked.file[:200]}{_instead(listing)}.")
    names = _of_kind(listing, SUFFIX)
    if len(names) == 1:
        return listing.files[names[0]]
    if names:
        raise ModelError(
            f"{asked.repo} has {len(names)} files: {_some(names)}. Say which, as in {asked.repo}:{shown(names[0], 200)}"
            f"{'' if asked.revision == 'main' else '@' + asked.revision}."
        )
    if pickles := _of_kind(listing, PICKLE):
        raise ModelError(
            f"{asked.repo} has no .safetensors file, only pickles ({_some(pickles)}): name one, as in "
            f"{asked.repo}:{shown(pickles[0], 200)}, and it is converted where its code is not run."
        )
    raise ModelError(f"{asked.repo} has no .safetensors file: look for another repository of this LoRA.")


def _instead(listing: Listing) -> str:
    names = _of_kind(listing, SUFFIX)
    return f": it has {_some(names)}" if names else ", nor any other .safetensors file"


def _of_kind(listing: Listing, suffix: str) -> list[str]:
    return sorted(name for name in listing.files if name.endswith(suffix))


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(shown(name, 100) for name in names[:SHOWN]) + more


def _called(repo: str, file: str) -> str:
    """A file in a message."""
    return f"{shown(file.rpartition('/')[2], 200)} of {repo}"


def _fit(home: Home, hub: Hub, listing: Listing, file: File, lora: HubLora) -> Fit:
    """What a file is for, of which only the header comes."""
    begin = hub.begin(listing, file, FIRST)

    def read(count: int) -> bytes:
        return begin[:count] if count <= len(begin) or len(begin) >= file.size else hub.begin(listing, file, count)

    name = _called(listing.repo, file.name)
    shapes, notes = read_notes(read, name)
    return look(home, shapes, name, f"{notes} {listing.base_model}")


def _entry(home: Home, lora: HubLora, listing: Listing, fit: Fit) -> Entry:
    # Some digits, such as those above a line, are none for the check of paths.
    kept = (c if c.isalpha() or c.isdecimal() or c in "._-" else "-" for c in lora.stem)
    into = "".join(kept).strip(".-")[:100] or "lora"
    page = f"{home.hub_endpoint}/{lora.repo}"
    names = [lora.file]
    note = str(PurePosixPath(lora.file).with_name(PEFT_NOTE))
    if lora.stem == PEFT_STEM and note in listing.files:
        names.append(note)
    part = Part(
        repo=lora.repo,
        revision=lora.revision,
        files=tuple(names),
        literal=True,
        use="lora",
        into=into,
        size=sum(listing.files[name].size for name in names),
        pickle=lora.file.endswith(PICKLE),
    )
    entry = Entry(
        id=lora.id,
        kind="lora",
        title=lora.repo.partition("/")[2] if lora.stem in ("", *USUAL_STEMS) else lora.stem,
        summary="",
        licence=shown(listing.licence, 200) or "licence not said",
        licence_link=page if listing.licence else "",
        page=page,
        hub=lora.name,
        commit=listing.commit,
        etag=listing.files[lora.file].etag,
        parts=(part,),
    )
    return _with_fit(home, entry, fit)


def _with_fit(home: Home, entry: Entry, fit: Fit) -> Entry:
    known = entries(home.data_dir)
    titles = [known[model_id].title if model_id in known else model_id for model_id in fit.base]
    *others, last = titles or [""]
    which = f" for {', '.join(others)} and {last}" if others else f" for {last}" if last else ""
    summary = f"A LoRA of {entry.parts[0].repo}{which}."
    if fit.doubt:
        summary += f" It may be for {fit.doubt} instead: what it changes is called the same in both."
    return entry.model_copy(update={"base": fit.base, "summary": summary})
