"""Which models a LoRA is for, by names and shapes in the header of its file; nothing else of it is read. No torch.

A module fits a model that has one of that name, as lora.py finds it, and where its width is known, of that width. A
LoRA fits when at least half of its modules do, for some have more, for layers that we leave out; when none has another
width, and none is of a block that the model lacks. lora_rivals.py tells models apart that are alike in all that.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pusa_app.errors import ModelError
from pusa_app.models.card import BackboneSpec
from pusa_app.models.entry import entries
from pusa_app.models.home import Home
from pusa_app.models.lora_names import NATIVE, Names, read_entries, shown
from pusa_app.models.lora_rivals import RIVALS, depths_of, verdict
from pusa_app.models.native import Cut, Shapes
from pusa_app.models.sizes import Architecture, architecture_of

MOST_HEADER = 32 * 1024**2  # bytes; those of LoRAs have some hundred thousand
TITLES = {"mochi": "Mochi", "wan": "Wan", "skyreels": "SkyReels", "ltx": "LTX-Video", "hunyuan": "HunyuanVideo"}
# What mapping wants to know of a transformer's config, as published.
PUBLISHED = {"cross_attn_norm": True, "num_refiner_layers": 2, "mlp_ratio": 4.0}
_TEXT = re.compile(r"(lora_te\d?_|text_encoder|te\d?_)")  # modules of a text encoder, which we leave alone
_BLOCK = re.compile(r"(?:single_)?(?:transformer_)?blocks\.\d+\.(?!.*(?:context|add_))(.+)")
_IN = re.compile(r"attn[12]?\.to_[qkv]|ffn?\.net\.0\.proj|proj_mlp")
_OUT = re.compile(r"attn[12]?\.(?:to_[qkv]|to_out\.0)|ffn?\.net\.2|proj_out")
_UP, _DOWN = re.compile(r"ffn?\.net\.0\.proj"), re.compile(r"ffn?\.net\.2")
_NOTES = ("modelspec.architecture", "ss_base_model_version", "base_model")  # of a header, where trainers say the model


# --- headers ----------------------------------------------------------------------------------------------------------


def read_header(read: Callable[[int], bytes], name: str) -> Shapes:
    """The shapes of the tensors in a safetensors file. read: the first so many bytes of it, or fewer where it ends.

    Raises ModelError with one line when it is none.
    """
    return read_notes(read, name)[0]


def read_notes(read: Callable[[int], bytes], name: str) -> tuple[Shapes, str]:
    """The same, and what the file itself says of the model that it was trained on: any words, or none."""
    damaged = ModelError(f"{name} is not a safetensors file, or it is damaged: get it again.")
    begin = read(8)
    length = int.from_bytes(begin, "little")
    if len(begin) < 8 or not 2 <= length <= MOST_HEADER:
        raise damaged
    data = read(8 + length)[8:]
    try:
        header = json.loads(data)
        notes = header.get("__metadata__")
        said = [str(notes.get(key, "")) for key in _NOTES] if isinstance(notes, dict) else []
        shapes = {str(key): tuple(map(int, one["shape"])) for key, one in header.items() if key != "__metadata__"}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        raise damaged from None
    return shapes, " ".join(said)


def shapes_of(path: Path) -> Shapes:
    """The shapes in a file that is here; raises ModelError with one line."""
    try:
        status = path.stat()
        return _shapes_of(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise ModelError(f"{path.name} cannot be read: {error.strerror or error}.") from None


@functools.lru_cache(maxsize=64)
def _shapes_of(path: Path, size: int, changed: int) -> Shapes:
    def read(count: int) -> bytes:
        with path.open("rb") as file:
            return file.read(count)

    return read_header(read, path.name)


# --- models -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fit:
    """base: the ids of the models that a LoRA is for. doubt: another model that it may be for instead, "" as a rule."""

    base: tuple[str, ...]
    doubt: str = ""


def fits(shapes: Shapes, name: str, spec: BackboneSpec, folder: Path | None = None) -> bool:
    """Whether a LoRA is for a model, or may be. folder: of the model, whose configs count where it is here; else it has
    the sizes that were published. Raises ModelError for what is no LoRA."""
    return _judge(_modules(shapes, name), spec, folder, "")[0]


def look(home: Home, shapes: Shapes, name: str, hint: str = "") -> Fit:
    """The models that a LoRA is for, of the catalogue and of the user's own; at least one. hint: what its file and its
    page say of that, which counts where names and shapes leave a doubt.

    Raises ModelError with one line when it is for none of them, or no LoRA.
    """
    modules = _modules(shapes, name)
    known = list(_models(home))
    found = {model_id: _judge(modules, spec, folder, hint) for model_id, spec, folder in known}
    if base := tuple(model_id for model_id, (fit, _) in found.items() if fit):
        return Fit(base, next((found[model_id][1] for model_id in base if found[model_id][1]), ""))
    ours = "LoRAs for " + ", ".join(TITLES.values())
    if others := sorted({title for _, title in found.values() if title}):
        raise ModelError(f"{name} is for {others[0]}, by what is in it; this program runs {ours} only.")
    families = {family: next((spec for _, spec, _ in known if spec.family == family), None) for family in NATIVE}
    named = [
        family
        for family, spec in families.items()
        if spec is not None and 2 * _count(modules, _names(spec, None)) >= len(modules)
    ]
    width = _width(modules)
    for rival in (rival for family in named for rival in RIVALS.get(family, ())):
        if rival.has(depths_of(modules), width):
            raise ModelError(f"{name} is for {rival.title}, by what is in it; this program runs {ours} only.")
    if named:
        raise ModelError(
            f"{name} is for a model of another size than those of {' and '.join(TITLES[one] for one in named)} that "
            "are known here, or for one of a family that this program does not run: if you have that model, try to add "
            "it with `python -m pusa_app models add FOLDER`, else look for another LoRA."
        )
    raise ModelError(
        f"{name} is for none of the model families that this program knows ({', '.join(TITLES.values())}): it has "
        f"modules such as {shown(next(iter(modules)))}."
    )


def _models(home: Home) -> Iterator[tuple[str, BackboneSpec, Path | None]]:
    """Id, geometry and folder of every model."""
    from pusa_app.models.catalogue import get_card

    known = entries(home.data_dir)
    for entry in known.values():
        if entry.spec is not None:
            yield entry.id, entry.spec, home.folder(entry.id)
    places = [entry.id for entry in known.values() if entry.kind == "model" and entry.spec is None]
    places += [model_id for model_id in home.record()["own"] if model_id not in known]
    for model_id in places:
        try:
            card = get_card(model_id if model_id in known else str(home.folder(model_id)))
        except ModelError:
            continue
        yield model_id, card.spec, card.folder


# --- modules ----------------------------------------------------------------------------------------------------------

Modules = dict[str, tuple[tuple[int, ...], tuple[int, ...]]]


def _modules(shapes: Shapes, name: str) -> Modules:
    """Modules as the file names them -> the shapes of their A and B."""
    found, _ = read_entries(shapes, name)
    pairs = {
        module: (shapes[entry.keys["A"]], shapes[entry.keys["B"]])
        for (_, module), entry in found.items()
        if "A" in entry.keys and "B" in entry.keys and not _TEXT.match(module)
    }
    if not pairs:
        raise ModelError(f"{name} is no LoRA: it has no lora_A or lora_down in it.")
    return pairs


def _judge(modules: Modules, spec: BackboneSpec, folder: Path | None, hint: str) -> tuple[bool, str]:
    """Whether a LoRA is for a model, and the title of another one that it is for, or may be for."""
    if spec.family not in NATIVE:
        return False, ""
    architecture, names = architecture_of(spec, folder), _names(spec, folder)
    ours = {module: places for module in modules if (places := names.find(module))}
    wide = all(any(_is_wide(*place, *modules[module], architecture) for place in ours[module]) for module in ours)
    if 2 * len(ours) < len(modules) or not wide:
        return False, ""
    return verdict(spec.family, architecture, list(modules), hint)


def _width(modules: Modules) -> int:
    """Of a model, as most of the modules say."""
    ins = [a[1] for a, _ in modules.values() if len(a) == 2]
    return max(sorted(set(ins)), key=ins.count, default=0)


def _count(modules: Modules, names: Names) -> int:
    """How many modules a model has, of whatever width."""
    return sum(bool(names.find(module)) for module in modules)


def _is_wide(target: str, cut: Cut, a: tuple[int, ...], b: tuple[int, ...], model: Architecture) -> bool:
    """Whether A takes in what the layer takes in, and B gives what it gives, as far as the model's widths say that."""
    if len(a) != 2 or len(b) != 2 or a[0] != b[1]:
        return len(a) == len(b) > 2  # of a convolution only the name is known
    match = _BLOCK.fullmatch(target)
    if match is None:
        return True
    part, rows = match[1], sum(stop - start for start, stop in cut.rows(b[0]))
    if (_IN.fullmatch(part) and a[1] != model.width) or (_OUT.fullmatch(part) and rows != model.width):
        return False
    halves = 2 if model.kind == "mochi" else 1  # its feed-forward has a gate
    return not (_UP.fullmatch(part) and rows != halves * model.ff) and not (_DOWN.fullmatch(part) and a[1] != model.ff)


def _names(spec: BackboneSpec, folder: Path | None) -> Names:
    architecture = architecture_of(spec, folder)
    config: dict[str, Any] = PUBLISHED | {"num_layers": architecture.layers} | _config(folder)
    if spec.family == "hunyuan":
        doubles = architecture.doubles
        config |= {"num_layers": doubles, "num_single_layers": architecture.layers - doubles}
    cuts = NATIVE[spec.family](config)
    own = {name.rpartition(".")[0] for name in cuts if name.endswith((".weight", ".bias"))}
    if spec.family == "ltx":  # whose table has only what is called differently
        parts = list(_ltx_block_parts())
        own |= {f"transformer_blocks.{i}.{part}" for i in range(architecture.layers) for part in parts}
        own |= {"caption_projection.linear_1", "caption_projection.linear_2", "proj_out"}
    return Names(own, config, spec.family)


def _ltx_block_parts() -> Iterator[str]:
    for attention in ("attn1", "attn2"):
        yield from (f"{attention}.{part}" for part in ("to_q", "to_k", "to_v", "to_out.0"))
    yield from ("ff.net.0.proj", "ff.net.2")


def _config(folder: Path | None) -> dict[str, Any]:
    """Those of the numbers that a mapping reads which the config of a model that is here says."""
    try:
        data = json.loads((folder / "transformer" / "config.json").read_text(encoding="utf-8")) if folder else {}
    except (OSError, ValueError):
        data = {}
    return {name: data[name] for name in PUBLISHED if isinstance(data, dict) and data.get(name) is not None}
