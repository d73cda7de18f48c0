"""Which models there are, and how to open one.

A model is a diffusers folder. `card.json` in it holds a ModelCard without `folder`; a folder without a card is read
from the configs of its parts. The entries of the catalogue (entry.py) say what is known by a short id and where it is
to be had; home.py where it is on this machine. No torch at import.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from pusa_app.errors import ModelError
from pusa_app.models.card import ModelCard, version_of
from pusa_app.models.entry import Entry, entries
from pusa_app.models.home import CARD_FILE, Home
from pusa_app.models.infer import PIPELINES
from pusa_app.settings import default_data_dir
from pusa_app.timeline import LoraChoice

if TYPE_CHECKING:
    from pusa_app.backbones.base import Backbone
    from pusa_app.backbones.embeddings import Embeddings
    from pusa_app.models.plan_types import MemoryPlan

ROOT = Path(__file__).parents[2]
INDEX_FILE = "model_index.json"
# Family -> where its Backbone is.
FAMILIES = {
    "mochi": ("mochi", "MochiBackbone"),
    "wan": ("wan", "WanBackbone"),
    "skyreels": ("wan", "SkyReelsBackbone"),
    "ltx": ("ltx", "LTXBackbone"),
    "hunyuan": ("hunyuan", "HunyuanBackbone"),
}


def list_cards() -> list[ModelCard]:
    """The cards of the known models that are on this machine and readable; `get_card` says what ails another."""
    cards = []
    for model_id in _known():
        with suppress(ModelError):
            cards.append(get_card(model_id))
    return cards


def get_card(model_id: str) -> ModelCard:
    """The card of a model: an id of the catalogue or of one that was added, or the path of a diffusers folder.

    Raises ModelError with one line that names the known ids, or says how to get the model.
    """
    known = _known()
    if model_id in known:
        entry = known[model_id]
        folder = ROOT / entry.here if entry is not None and entry.here else Home.here().folder(model_id)
        if folder is None or not folder.is_dir():
            raise ModelError(f"The model {model_id} is not on this machine: {_how_to_get(entry, model_id)}.")
        return (_entry_card(entry, folder) if entry is not None else None) or _read_card(folder, model_id)
    folder = _folder_at(model_id)
    if folder is not None:
        return _read_card(folder, model_id)
    at_hand = [name for name, entry in known.items() if entry is None or entry.here or Home.here().folder(name)]
    raise ModelError(f"There is no model {model_id[:100]!r}: choose {', '.join(at_hand)}, or give a model folder.")


def load_backbone(
    card: ModelCard | str, device: str | None = None, lean: int = 0, plan: MemoryPlan | None = None
) -> Backbone:
    """Open a model for rendering. device: "cpu", "cuda", ...; None takes the GPU when there is one. lean 1 is slower
    and needs less memory; plan says exactly how instead. With a plan, encoded prompts are kept on the disk where the
    text encoder does not stay.

    Raises ModelError with one line when it is not on this machine or its files are damaged.
    """
    if isinstance(card, str):
        card = get_card(card)
    if card.folder is None or not card.folder.is_dir():
        raise ModelError(f"The model {card.id} is not on this machine.")

    if not runs(card.spec.family):
        raise ModelError(f"The model {card.id} cannot be run by this version of the program yet.")
    import torch

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    backbone = _family(card.spec.family).from_folder(card.folder, card.spec, device, lean=bool(lean), plan=plan)
    if plan is not None and plan.text != "resident":
        backbone.embeddings = embeddings_of(card, plan)
    if card.loras:
        backbone.loras.own = tuple(
            LoraChoice(path=str(card.folder / lora.file), strength=lora.strength, expert=lora.expert)
            for lora in card.loras
        )
    return backbone


def embeddings_of(card: ModelCard, plan: MemoryPlan) -> Embeddings:
    """The encoded prompts that this machine has for a model, as a plan runs its text encoder."""
    from pusa_app.backbones.embeddings import Embeddings

    assert card.folder is not None
    parts = [f"{part}{number}" for part in ("tokenizer", "text_encoder") for number in ("", "_2")]
    marks = [version_of(card.folder / part) for part in parts if (card.folder / part).is_dir()]
    marks += [plan.dtype, plan.text_quantization, str(card.spec.max_text_tokens), card.spec.family]
    return Embeddings(default_data_dir() / "embeddings", " ".join(marks))


def encode_alone(card: ModelCard, plan: MemoryPlan, prompts: Sequence[str], device: str | None = None) -> None:
    """Encode prompts that are not known yet while nothing else of the model is in memory. Raises ModelError."""
    import torch

    from pusa_app.backbones.fit import Fit
    from pusa_app.backbones.parts import silent_libraries

    assert card.folder is not None
    kept = embeddings_of(card, plan)
    prompts = [prompt for prompt in dict.fromkeys(prompts) if not kept.knows(prompt)]
    if not prompts:
        return
    fit = Fit(plan, torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu")))
    with silent_libraries(), torch.inference_mode():
        reader = _family(card.spec.family).prompts_class.from_folder(card.folder, card.spec)
        hidden = fit.late_text(reader.encoder_class, card.folder / "text_encoder")
        for prompt in filter(reader.takes_encoder, prompts):
            kept.put(prompt, reader.text(prompt, hidden).to(fit.dtype))


def runs(family: str) -> bool:
    """Whether this version of the program can open models of a family."""
    return family in FAMILIES or family == "fake"


def _family(name: str) -> Any:
    """The class that opens folders of a family."""
    package, backbone = FAMILIES[name]
    return getattr(importlib.import_module(f"pusa_app.backbones.{package}"), backbone)


def _known() -> dict[str, Entry | None]:
    """The models of the catalogue, then those that a user added from a folder, which have no entry."""
    home = Home.here()
    known: dict[str, Entry | None] = {e.id: e for e in entries(home.data_dir).values() if e.kind == "model"}
    return known | {name: None for name in sorted(home.record()["own"]) if name not in known}


def _how_to_get(entry: Entry | None, model_id: str) -> str:
    if entry is not None and entry.here:
        return entry.missing
    if entry is None:
        return f"its folder is gone; add it again with `python -m pusa_app models add FOLDER --as {model_id}`"
    return f"get it on the page Models, or with `python -m pusa_app models download {model_id}`"


def _entry_card(entry: Entry, folder: Path) -> ModelCard | None:
    """The card that the catalogue has for a model's folder; None where the folder's own is to be read.

    A folder that was put together here has the card of the version that did it, so the entry knows better. A user's own
    folder may say what it was trained for, and one of an older version may lack a LoRA that the entry now has.
    """
    if not entry.parts:
        return None
    _check_folder(folder)
    card, said = entry.card(folder), (folder / CARD_FILE).is_file()
    whole = all((folder / lora.file).is_file() for lora in card.loras)
    return card if not said or (folder.parent == Home.here().models_dir and whole) else None


def _check_folder(folder: Path) -> None:
    if not (folder / INDEX_FILE).is_file():
        raise ModelError(f"{folder} is not a diffusers model folder: it has no {INDEX_FILE}.")


def _read_card(folder: Path, model_id: str) -> ModelCard:
    _check_folder(folder)
    path = folder / CARD_FILE
    data = _read_json(path) if path.is_file() else _infer(folder)
    try:
        return ModelCard.model_validate({**data, "id": model_id, "folder": folder})
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ModelError(f"{path} is not a valid model card: {where}: {first['msg']}.") from None


def _infer(folder: Path) -> dict[str, Any]:
    """A card for a folder without one: geometry from the configs, defaults of the published models."""
    index = _read_json(folder / INDEX_FILE)
    kind = index.get("_class_name")
    if (infer := PIPELINES.get(str(kind))) is None:
        raise ModelError(f"{folder} is not a Mochi, Wan, LTX-Video or HunyuanVideo model: {INDEX_FILE} says {kind!r}.")
    return infer(folder, index, *(_read_json(folder / part / "config.json") for part in ("transformer", "vae")))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}.") from None
    except (ValueError, RecursionError):
        raise ModelError(f"{path} is damaged: it is not valid JSON.") from None
    if not isinstance(data, dict):
        raise ModelError(f"{path} is damaged: it should hold a JSON object.")
    return data


def _folder_at(text: str) -> Path | None:
    try:
        path = Path(text).expanduser()
        return path if path.is_dir() else None
    except (OSError, ValueError, RuntimeError):  # a name that no file system takes, the home of nobody
        return None
