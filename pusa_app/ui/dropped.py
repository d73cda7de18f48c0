"""A video that somebody drops on the page: the recipe inside it, as far as he may have what it names.

Such a recipe is whatever its maker wrote. Of the files that it names, those are found again that the visitor's own
runs hold as their sources; nothing else that it names is opened, or even looked for.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from pusa_app.errors import MediaError, ModelError, RecipeError
from pusa_app.studio import Studio, cards, check_recipe
from pusa_app.timeline import Recipe, Sweep, hub_parts, is_sweep
from pusa_app.ui import strings

MAX_SIDECAR = 4_000_000  # characters; what is longer is refused as no recipe
# As a recipe names a source: as seen from the folder of results, or from that of a sweep's cells.
SOURCE = re.compile(r"(?:\.\./)+runs/([0-9a-f]{8,64})/([A-Za-z0-9][A-Za-z0-9._-]{0,100})")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,200}")


def dropped_recipe(path: Path, studio: Studio, owner: str) -> tuple[Recipe, str]:
    """The recipe in an uploaded video (or in a JSON file) for the form, and what is to be told of it.

    Raises MediaError or RecipeError where there is none, ModelError where its model is not here.
    """
    work = _work_in(path)
    recipe, told = (work.recipe, [strings.DROP_SWEEP]) if isinstance(work, Sweep) else (work, [])
    # The catalogue takes paths too, which is for whoever sits at the machine.
    if recipe.model not in {card.id for card in cards()}:
        raise ModelError(strings.DROP_MODEL.format(name=_name(path), model=recipe.model[:60]))
    recipe, lost = found_again(named_loras(recipe), studio, owner)
    check_recipe(recipe, studio.settings.max_steps, sources=False)
    if lost:
        words = strings.DROP_LOST_ONE if len(lost) == 1 else strings.DROP_LOST
        told.append(words.format(slots=_listed(lost)))
    return recipe, " ".join(told)


def found_again(recipe: Recipe, studio: Studio, owner: str) -> tuple[Recipe, list[int]]:
    """The recipe with those of its sources that the owner's runs hold, and the slots of the keyframes left out."""
    kept, lost = [], []
    for keyframe in recipe.timeline.keyframes:
        source = keyframe.source
        path = None if source.kind == "part" else own_source(source.path, studio, owner)
        if source.kind == "part" or path is None:
            lost.append(keyframe.slot)
        else:
            kept.append(keyframe.model_copy(update={"source": source.model_copy(update={"path": str(path)})}))
    return recipe.model_copy(update={"timeline": recipe.timeline.having(*kept)}), lost


def own_source(name: str, studio: Studio, owner: str) -> Path | None:
    """The file that a recipe names, when one of the owner's runs has it among its sources; else None."""
    match = SOURCE.fullmatch(name.replace("\\", "/"))
    if match is None:
        return None
    folder, file = match.groups()
    path = studio.settings.runs_dir / folder / file
    for job in studio.jobs(owner):
        if (job.folder or job.id) == folder and str(path) in (studio.sweep(job) or studio.recipe(job)).paths:
            return path if path.is_file() and not path.is_symlink() else None
    return None


def named_loras(recipe: Recipe) -> Recipe:
    """The recipe with LoRAs that it names; never with the paths of such."""
    bare = recipe.with_bare_loras()
    kept = tuple(lora for lora in bare.loras if NAME.fullmatch(lora.path) or hub_parts(lora.path))
    return bare.model_copy(update={"loras": kept})


def _work_in(path: Path) -> Recipe | Sweep:
    """The recipe or the sweep in a file. Raises MediaError or RecipeError."""
    from pusa_app.media import check_clip, read_recipe_text

    if path.suffix.lower() == ".json":
        try:
            with path.open(encoding="utf-8-sig", errors="replace") as file:
                return _parsed(file.read(MAX_SIDECAR + 1))
        except OSError:
            raise RecipeError(strings.DROP_NO_RECIPE.format(name=_name(path))) from None
    try:
        check_clip(path)
    except MediaError:
        raise MediaError(strings.DROP_NO_VIDEO.format(name=_name(path))) from None
    try:
        text = read_recipe_text(path)
    except MediaError:
        raise MediaError(strings.DROP_NO_RECIPE.format(name=_name(path))) from None
    return _parsed(text)


def _parsed(text: str) -> Recipe | Sweep:
    return Sweep.from_json(text) if is_sweep(text) else Recipe.from_json(text)


def _name(path: Path) -> str:
    return path.name if len(path.name) <= 60 else f"{path.name[:40]}…{path.name[-12:]}"


def _listed(numbers: Sequence[int]) -> str:
    """ "1, 2 and 5" """
    words = [str(number) for number in numbers]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
