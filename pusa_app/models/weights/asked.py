"""LoRAs that a person asks the hub for: found by repository, looked at before they are downloaded, put on the list.

On the list they are entries of the user's own catalogue, so all that is done with those of the catalogue, from the
download to deleting, is done with them as well.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from pusa_app.errors import ModelError
from pusa_app.models.entry import Entry, Part, entries, write_entry
from pusa_app.models.home import Home
from pusa_app.models.hub_lora import PICKLE, SUFFIX, HubLora
from pusa_app.models.lora_fit import bases, read_header, shapes_of
from pusa_app.models.weights.hub import File, Gone, Hub, Listing
from pusa_app.models.weights.shelf import remove

# As PEFT calls its file, and the one beside it with the scale; as it and diffusers call every LoRA.
PEFT_STEM, PEFT_NOTE = "adapter_model", "adapter_config.json"
USUAL_STEMS = (PEFT_STEM, "pytorch_lora_weights", "diffusion_pytorch_model", "model", "lora")
SHOWN = 8  # files that a message names
MOST = 400  # characters of a name
FIRST = 512 * 1024  # bytes, in which most headers are


def ask(home: Home, text: str, token: str | None = None) -> Entry:
    """The entry of a LoRA of the hub, new on the list or there already. text: OWNER/REPO, OWNER/REPO:FILE, with
    @REVISION, or an address. Only the header of its file is read.

    Raises ModelError or StoreError with one line: no such repository, not one .safetensors file, no LoRA, or one for
    none of the models that are known.
    """
    asked = HubLora.asked(text, urlsplit(home.hub_endpoint).netloc)
    if asked.file and (entry := entries(home.data_dir).get(asked.id)):
        return entry
    hub = Hub(home, token)
    try:
        listing = hub.listing(asked.repo, asked.revision)
    except Gone:
        raise ModelError(
            f"{asked.repo} has no revision {asked.revision[:100]}: leave it out, or give another."
        ) from None
    file = _chosen(asked, listing)
    lora = HubLora(asked.repo, file.name, asked.revision)
    base = () if file.name.endswith(PICKLE) else bases(home, _shapes(hub, listing, file), _called(lora))
    entry = _entry(home, lora, listing, base)
    with home.change() as record:
        key = f"{lora.repo}@{lora.revision}"
        known = Listing.from_json(lora.repo, record["lists"].get(key))
        # A list that knows this file is kept: by it the repository's other LoRAs that are here are found.
        if known is None or known.files.get(file.name) != file:
            record["lists"][key] = listing.to_json()
    write_entry(home.data_dir, entry)
    return entry


def listed(home: Home, text: str) -> Entry | None:
    """The entry of a LoRA that is on the list, by its name or its repository, if that has only one there."""
    try:
        asked = HubLora.asked(text, urlsplit(home.hub_endpoint).netloc)
    except ModelError:
        return None
    known = entries(home.data_dir)
    if asked.file:
        return known.get(asked.id)
    named = {entry.id: HubLora.named(entry.hub) for entry in known.values() if entry.hub}
    found = [i for i, lora in named.items() if lora and (lora.repo, lora.revision) == (asked.repo, asked.revision)]
    return known[found[0]] if len(found) == 1 else None


def settle(home: Home, entry: Entry, folder: Path) -> None:
    """Look into a LoRA that came as a pickle, whose header could not be read before. What is for no model is removed.

    Raises ModelError with one line.
    """
    (path,) = sorted((folder / "loras").glob(f"*{SUFFIX}"))
    try:
        base = bases(home, shapes_of(path), entry.hub)
    except ModelError:
        remove(home, entry.id)
        raise
    write_entry(home.data_dir, _with_base(home, entry, base))


def _chosen(asked: HubLora, listing: Listing) -> File:
    """The file that is meant; raises ModelError when that is not clear."""
    if asked.file:
        if (file := listing.files.get(asked.file)) is not None:
            return file
        raise ModelError(f"{asked.repo} has no file {asked.file[:200]}{_instead(listing)}.")
    names = _of_kind(listing, SUFFIX)
    if len(names) == 1:
        return listing.files[names[0]]
    if names:
        raise ModelError(
            f"{asked.repo} has {len(names)} files: {_some(names)}. Say which, as in {asked.repo}:{names[0]}"
            f"{'' if asked.revision == 'main' else '@' + asked.revision}."
        )
    if pickles := _of_kind(listing, PICKLE):
        raise ModelError(
            f"{asked.repo} has no .safetensors file, only pickles ({_some(pickles)}): name one, as in "
            f"{asked.repo}:{pickles[0]}, and it is converted where its code is not run."
        )
    raise ModelError(f"{asked.repo} has no .safetensors file: look for another repository of this LoRA.")


def _instead(listing: Listing) -> str:
    names = _of_kind(listing, SUFFIX)
    return f": it has {_some(names)}" if names else ", nor any other .safetensors file"


def _of_kind(listing: Listing, suffix: str) -> list[str]:
    return sorted(name for name in listing.files if name.endswith(suffix))


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(name[:100] for name in names[:SHOWN]) + more


def _called(lora: HubLora) -> str:
    """A file in a message."""
    return f"{lora.file.rpartition('/')[2]} of {lora.repo}"


def _shapes(hub: Hub, listing: Listing, file: File) -> dict[str, tuple[int, ...]]:
    """The shapes of a file's tensors, of which only the header comes."""
    begin = hub.begin(listing, file, FIRST)

    def read(count: int) -> bytes:
        return begin[:count] if count <= len(begin) or len(begin) >= file.size else hub.begin(listing, file, count)

    return read_header(read, f"{file.name} of {listing.repo}")


def _entry(home: Home, lora: HubLora, listing: Listing, base: tuple[str, ...]) -> Entry:
    into = "".join(c if c.isalnum() or c in "._-" else "-" for c in lora.stem).strip(".-")[:100] or "lora"
    page = f"{home.hub_endpoint}/{lora.repo}"
    names = [lora.file]
    note = str(PurePosixPath(lora.file).with_name(PEFT_NOTE))
    if lora.stem == PEFT_STEM and note in listing.files:
        names.append(note)
    part = Part(
        repo=lora.repo,
        revision=lora.revision,
        files=tuple(names),
        use="lora",
        into=into,
        size=sum(listing.files[name].size for name in names),
        pickle=lora.file.endswith(PICKLE),
    )
    entry = Entry(
        id=lora.id,
        kind="lora",
        title=lora.repo.partition("/")[2] if lora.stem in USUAL_STEMS else lora.stem,
        summary="",
        licence=listing.licence or "licence not said",
        licence_link=page if listing.licence else "",
        page=page,
        hub=lora.name,
        parts=(part,),
    )
    return _with_base(home, entry, base)


def _with_base(home: Home, entry: Entry, base: tuple[str, ...]) -> Entry:
    known = entries(home.data_dir)
    titles = [known[model_id].title if model_id in known else model_id for model_id in base]
    *others, last = titles or [""]
    which = f" for {', '.join(others)} and {last}" if others else f" for {last}" if last else ""
    summary = f"A LoRA of {entry.parts[0].repo}{which}."
    return entry.model_copy(update={"base": base, "summary": summary})
