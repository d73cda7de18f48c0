"""Which LoRAs a person may choose for a model without giving a path, and what is known of them. No torch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pusa_app.errors import ModelError
from pusa_app.models.card import Lora, ModelCard
from pusa_app.models.entry import Entry, entries
from pusa_app.models.home import Home
from pusa_app.models.lora import find_loras, loras_dir
from pusa_app.models.lora_fit import fits, shapes_of
from pusa_app.models.lora_names import read_entries
from pusa_app.timeline import LoraChoice

SUFFIX = ".safetensors"
MOST = 200  # of the folder of LoRAs


@dataclass(frozen=True)
class KnownLora:
    """A LoRA by the name under which `find_loras` finds it.

    strength: how strongly it is applied as a rule; low, high: between which strengths it is known to work. steps,
    guidance: what a distilled one wants. own: it belongs to the model and is always on; choosing it changes its
    strength.
    """

    name: str
    title: str
    note: str = ""
    strength: float = 1.0
    low: float | None = None
    high: float | None = None
    steps: int | None = None
    guidance: float | None = None
    own: bool = False


def known_loras(card: ModelCard, home: Home | None = None) -> list[KnownLora]:
    """Those that belong to the model, those of the catalogue and of the hub that are here and are for it, and those in
    the folder of LoRAs, of which nobody knows what they are for. Empty for a model that takes none."""
    if card.spec.family == "fake":
        return []
    home = home or Home.here()
    found = [_own(lora) for lora in card.loras]
    for entry in entries(home.data_dir).values():
        folder = home.folder(entry.id) if entry.kind == "lora" else None
        if folder is not None and (_is_for(folder, card) if entry.hub else card.id in entry.base):
            found.append(_of_catalogue(entry))
    taken = {one.name for one in found}
    return [*found, *(KnownLora(name, name) for name in _in_folder() if name not in taken)]


def checked_lora(place: str) -> str:
    """What to call the LoRA at a path, or of a name, once it is sure to be one; raises ModelError with one line."""
    from safetensors import SafetensorError, safe_open

    for path in find_loras(place):
        try:
            with safe_open(path, framework="np") as file:
                names, _ = read_entries(file.keys(), path.name)
        except (SafetensorError, OSError):
            raise ModelError(f"{path.name} is not a safetensors file, or it is damaged: get it again.") from None
        if not names:
            raise ModelError(f"{path.name} is no LoRA: it has no lora_A or lora_down in it.")
    return place if LoraChoice(path=place).named else str(Path(place).expanduser().absolute())


def _own(lora: Lora) -> KnownLora:
    stem = Path(lora.file).stem
    return KnownLora(stem, stem, strength=lora.strength, low=lora.low, high=lora.high, own=True)


def _is_for(folder: Path, card: ModelCard) -> bool:
    """Whether a LoRA of the hub is for a model, which may have come after it."""
    with contextlib.suppress(ModelError):
        files = list((folder / "loras").glob(f"*{SUFFIX}"))
        return all(fits(shapes_of(path), path.name, card.spec, card.folder) for path in files)
    return False


def _of_catalogue(entry: Entry) -> KnownLora:
    lora = next((part.lora for part in entry.parts if part.lora is not None), None) or Lora(file="")
    return KnownLora(
        entry.hub or entry.id,
        entry.title,
        entry.summary,
        lora.strength,
        lora.low,
        lora.high,
        entry.steps,
        entry.guidance,
    )


def _in_folder() -> Iterator[str]:
    """The names of files and of folders with such in the folder of LoRAs."""
    with contextlib.suppress(OSError):
        for path in sorted(loras_dir().iterdir(), key=lambda path: path.name.lower())[:MOST]:
            if path.name.startswith("."):
                continue
            if path.is_dir() and any(path.glob(f"*{SUFFIX}")):
                yield path.name
            elif path.suffix == SUFFIX:
                yield path.stem
