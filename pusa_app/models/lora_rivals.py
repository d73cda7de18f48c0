"""Models of other programs whose modules are called like those of ours, and of which a LoRA could pass for one of ours.

What tells them apart: modules that only one of the two has, then how many blocks each has, since a LoRA trains all of
them as a rule. Sizes are those of the published configs in diffusers. No torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pusa_app.models.sizes import Architecture

DOUBLE, SINGLE, PLAIN = "transformer_blocks", "single_transformer_blocks", "blocks"
_STACK = re.compile(
    r"(?:lora_unet_|lora_transformer_|lycoris_)?(single_transformer_|transformer_|double_|single_|)blocks[._](\d+)[._].*"
)
_STACKS = {"double_": DOUBLE, "single_": SINGLE, "transformer_": DOUBLE, "single_transformer_": SINGLE, "": PLAIN}


@dataclass(frozen=True)
class Rival:
    """A model that is not ours. blocks: how many it has of each kind. its, ours: what a module is called that only it
    has, or only our family. said: what its name is in notes and on pages."""

    title: str
    width: int
    blocks: Mapping[str, int]
    its: str = r"(?!)"
    ours: str = r"(?!)"
    said: str = r"(?!)"

    def has(self, depths: Mapping[str, int], width: int) -> bool:
        """Whether it has all these blocks, at this width."""
        return width == self.width and bool(depths) and all(last < self.blocks.get(s, 0) for s, last in depths.items())


FLUX = Rival(
    "Flux",
    3072,
    {DOUBLE: 19, SINGLE: 38},
    its=r"(?:img|txt)_mlp[._][02]|(?:img|txt)_mod[._]lin|modulation[._]lin|x_embedder|context_embedder",
    ours=r".*_mlp[._]fc[12]|.*_mod[._]linear|modulation[._]linear|.*refiner.*|txt_in[._].+",
    said=r"flux|black-forest",
)
COGVIDEO = Rival(
    "CogVideoX-5B",
    3072,
    {DOUBLE: 42},
    its=r"norm2[._]linear|patch_embed[._].+",
    ours=r".*add_[qkv]_proj|.*to_add_out|norm1_context[._].+|ff_context[._].+",
    said=r"cogvideo",
)
RIVALS = {
    "hunyuan": (
        FLUX,
        Rival("Stable Diffusion 3", 1536, {DOUBLE: 24}),
        Rival("Stable Diffusion 3.5 Large", 2432, {DOUBLE: 38}),
    ),
    "mochi": (COGVIDEO, Rival("CogVideoX-2B", 1920, {DOUBLE: 30}), Rival("PixArt", 1152, {DOUBLE: 28})),
    "ltx": (Rival("PixArt", 1152, {DOUBLE: 28}),),
}
_SAID = {"hunyuan": r"hunyuan", "mochi": r"mochi|pusa", "ltx": r"ltx"}


def depths_of(modules: Iterable[str]) -> dict[str, int]:
    """Kind of blocks -> the number of the last one, from 0, that has a module."""
    found: dict[str, int] = {}
    for module in modules:
        if match := _STACK.fullmatch(module):
            stack = _STACKS[match[1]]
            found[stack] = max(found.get(stack, 0), int(match[2][:9]))
    return found


def verdict(family: str, model: Architecture, modules: list[str], hint: str) -> tuple[bool, str]:
    """Whether a LoRA that fits a model by names and widths is for it, and the title of the rival that it is for, or
    may be for. hint: what its file and its page say that it is for, which counts where its blocks leave a doubt."""
    depths = depths_of(modules)
    blocks = {DOUBLE: model.layers, PLAIN: model.layers}
    if family == "hunyuan":
        blocks = {DOUBLE: model.doubles, SINGLE: model.layers - model.doubles}
    if any(last >= blocks.get(stack, last + 1) for stack, last in depths.items()):
        return False, next((r.title for r in RIVALS.get(family, ()) if r.has(depths, model.width)), "")
    doubt = ""
    for rival in RIVALS.get(family, ()):
        if rival.width != model.width:
            continue
        parts = [_part(module) for module in modules]
        if any(re.fullmatch(rival.its, part) for part in parts):
            return False, rival.title
        reaches_end = any(last == blocks.get(stack, 0) - 1 for stack, last in depths.items())
        if reaches_end or not rival.has(depths, model.width) or any(re.fullmatch(rival.ours, part) for part in parts):
            continue
        said_its, said_ours = (bool(re.search(words, hint, re.I)) for words in (rival.said, _SAID[family]))
        ends_with_it = any(last == rival.blocks[stack] - 1 for stack, last in depths.items())
        if ends_with_it or (said_its and not said_ours):
            return False, rival.title
        if not said_ours or said_its:
            doubt = rival.title
    return True, doubt


def _part(module: str) -> str:
    """A module without the block that it is in."""
    module = re.sub(r"^(?:lora_unet_|lora_transformer_|lycoris_)", "", module)
    return re.sub(r"^(?:\w+_)?blocks[._]\d+[._]", "", module)
