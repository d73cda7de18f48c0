"""Which models there are, and how to open one.

A model is a diffusers folder. `card.json` in it holds a ModelCard without `folder`; a folder without a card is read
from the configs of its parts. catalogue.json lists the folders that are known by a short id. No torch at import.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pydantic import ValidationError

from pusa_app.errors import ModelError
from pusa_app.models.card import BackboneSpec, ModelCard
from pusa_app.models.infer_wan import WAN_PIPELINES, infer_wan
from pusa_app.timeline import ScheduleSpec, TaskName

if TYPE_CHECKING:
    from pusa_app.backbones.base import Backbone

ROOT = Path(__file__).parents[2]
CATALOGUE_FILE = Path(__file__).with_name("catalogue.json")
CARD_FILE = "card.json"
INDEX_FILE = "model_index.json"


def list_cards() -> list[ModelCard]:
    """The cards of the catalogue's models that are on this machine and readable; `get_card` says what ails another."""
    cards = []
    for entry in _entries():
        with suppress(ModelError):
            cards.append(get_card(entry["id"]))
    return cards


def get_card(model_id: str) -> ModelCard:
    """The card of a model: an id of the catalogue, or the path of a diffusers Mochi folder.

    Raises ModelError with one line that names the known ids.
    """
    entries = {entry["id"]: entry for entry in _entries()}
    if entry := entries.get(model_id):
        folder = ROOT / entry["folder"]
        if not folder.is_dir():
            raise ModelError(f"The model {model_id} is not on this machine: {entry['missing']}.")
        return _read_card(folder, model_id)
    folder = Path(model_id).expanduser()
    if _is_folder(folder):
        return _read_card(folder, model_id)
    raise ModelError(f"There is no model {model_id[:100]!r}: choose {', '.join(entries)}, or give a model folder.")


def load_backbone(card: ModelCard | str, device: str | None = None, lean: int = 0) -> Backbone:
    """Open a model for rendering. device: "cpu", "cuda", ...; None takes the GPU when there is one. lean 1 is slower
    and needs less memory.

    Raises ModelError with one line when it is not on this machine or its files are damaged.
    """
    if isinstance(card, str):
        card = get_card(card)
    if card.folder is None or not card.folder.is_dir():
        raise ModelError(f"The model {card.id} is not on this machine.")

    import torch

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return _family(card.spec.family).from_folder(card.folder, card.spec, device, lean=bool(lean))


def _family(name: str) -> Any:
    """The class that opens folders of a family."""
    if name in ("wan", "skyreels"):
        from pusa_app.backbones.wan import SkyReelsBackbone, WanBackbone

        return WanBackbone if name == "wan" else SkyReelsBackbone
    from pusa_app.backbones.mochi import MochiBackbone

    return MochiBackbone


def _entries() -> list[dict[str, str]]:
    entries: list[dict[str, str]] = json.loads(CATALOGUE_FILE.read_text(encoding="utf-8"))
    return entries


def _read_card(folder: Path, model_id: str) -> ModelCard:
    if not (folder / INDEX_FILE).is_file():
        raise ModelError(f"{folder} is not a diffusers model folder: it has no {INDEX_FILE}.")
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
    if kind not in ("MochiPipeline", *WAN_PIPELINES):
        raise ModelError(f"{folder} is not a Mochi or Wan model: {INDEX_FILE} says {kind!r}.")
    transformer, vae = (_read_json(folder / part / "config.json") for part in ("transformer", "vae"))
    if kind != "MochiPipeline":
        return infer_wan(folder, index, transformer, vae)
    temporal, spatial = (vae.get(f"{kind}_expansions") for kind in ("temporal", "spatial"))
    try:
        spec = BackboneSpec(
            family="mochi",
            temporal_stride=_product(temporal or (1, 2, 3)),
            spatial_stride=_product(spatial or (2, 2, 2)),
            patch=transformer.get("patch_size", 2),
            latent_channels=transformer.get("in_channels", 12),
            fps=30,
            width=848,
            height=480,
            num_frames=85,
            max_frames=163,
            steps=40,
            guidance=4.5,
            schedule=ScheduleSpec(kind="linear-quadratic"),
            max_text_tokens=transformer.get("max_sequence_length", 256),
        )
    except (ValidationError, TypeError) as error:
        raise ModelError(
            f"The configs in {folder} are not those of a Mochi model ({str(error).split(chr(10))[0]})."
        ) from None
    return {
        "title": folder.name,
        "summary": "A Mochi model from a folder.",
        "licence": "see its folder",
        "spec": spec,
        "tasks": get_args(TaskName),
    }


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


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name that no file system takes
        return False


def _product(values: list[int] | tuple[int, ...]) -> int:
    product = 1
    for value in values:
        product *= value
    return product
