"""What LoRAs call the modules of a model, by the names in their files: see lora.py for the formats. No torch."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pusa_app.errors import ModelError
from pusa_app.models.convert import MOCHI
from pusa_app.models.convert_wan import WAN
from pusa_app.models.native import Cut
from pusa_app.models.native_names import hunyuan_mapping, ltx_mapping

SECOND = "transformer_2."  # what is for the second expert where one file holds both
# Of each family, diffusers' names and where they are in the authors' files.
NATIVE = {
    "wan": WAN.mapping,
    "skyreels": WAN.mapping,
    "mochi": MOCHI.mapping,
    "ltx": ltx_mapping,
    "hunyuan": hunyuan_mapping,
}
# What a key ends with, and what it is then.
_ENDINGS = (
    (re.compile(r"(.+)\.lora_A(?:\.[^.]+)?\.weight"), "A"),
    (re.compile(r"(.+)\.lora_B(?:\.[^.]+)?\.weight"), "B"),
    (re.compile(r"(.+)\.lora_B(?:\.[^.]+)?\.bias"), "diff_b"),
    (re.compile(r"(.+)\.lora[._]down(?:\.weight)?"), "A"),
    (re.compile(r"(.+)\.lora[._]up(?:\.weight)?"), "B"),
    (re.compile(r"(.+)\.lora_(A)"), "A"),
    (re.compile(r"(.+)\.lora_(B)"), "B"),
    (re.compile(r"(.+)\.alpha"), "alpha"),
    (re.compile(r"(.+)\.diff"), "diff"),
    (re.compile(r"(.+)\.diff_b"), "diff_b"),
)
_PREFIXES = ("base_model.model.", "model.diffusion_model.", "diffusion_model.", "transformer.", "model.")
_UNDERSCORED = ("lora_unet_", "lora_transformer_", "lycoris_")
_OTHERS = (("dora_scale", "a DoRA"), ("lora_magnitude", "a DoRA"), ("lokr_", "a LoKr"), ("hada_", "a LoHa"))


@dataclass
class Entry:
    """What a file says of one module: keys of its tensors by kind."""

    keys: dict[str, str] = field(default_factory=dict)


def read_entries(keys: Iterable[str], name: str) -> tuple[dict[tuple[int, str], Entry], list[str]]:
    """(expert, module as the file names it) -> Entry, and the keys that are of no known kind.

    Raises ModelError for what is no LoRA at all.
    """
    entries: dict[tuple[int, str], Entry] = defaultdict(Entry)
    odd = []
    for key in keys:
        for mark, what in _OTHERS:
            if mark in key:
                raise ModelError(f"{name} is {what}, which this program cannot use: get it as a plain LoRA.")
        for pattern, kind in _ENDINGS:
            if match := pattern.fullmatch(key):
                entries[_module(match[1])].keys[kind] = key
                break
        else:
            odd.append(key)
    return dict(entries), odd


def _module(path: str) -> tuple[int, str]:
    """(0 or 1 for the expert, the name without what other programs put in front)."""
    path = path.removeprefix("base_model.model.")
    if path.startswith(SECOND):
        return 1, path.removeprefix(SECOND)
    for prefix in _PREFIXES:
        path = path.removeprefix(prefix)
    return 0, path


def shown(text: str, most: int = 80) -> str:
    """What a file says, for a message: on a terminal it does nothing but stand there."""
    return "".join(c if c.isprintable() else "?" for c in text[:most])


class Names:
    """Where in a model the modules are that LoRAs name.

    own: its modules as diffusers calls them. config: of its transformer.
    """

    def __init__(self, own: Iterable[str], config: Mapping[str, Any], family: str) -> None:
        own, places = set(own), defaultdict(list)
        if native := NATIVE.get(family):
            for target, cut in native(dict(config)).items():
                module, _, kind = target.rpartition(".")
                source, _, source_kind = cut.source.rpartition(".")
                if kind == source_kind == "weight" and module in own and source not in own:
                    places[source].append((module, cut))
        for module in own:
            places[module].append((module, Cut(module)))
        self._places: dict[str, list[tuple[str, Cut]]] = dict(places)
        self._flat = {name.replace(".", "_"): found for name, found in self._places.items()}

    def find(self, module: str) -> list[tuple[str, Cut]]:
        """Our modules that a name in a file stands for, and which rows of it each is; none for a strange name."""
        for prefix in _UNDERSCORED:
            if module.startswith(prefix):
                return self._flat.get(module.removeprefix(prefix), [])
        return self._places.get(module, [])
