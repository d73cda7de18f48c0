"""From a model's id to its memory plan on this machine, and what this machine has shown so far. No torch.

data_dir/plans.json remembers, by machine and by model and size, the plan that worked and how long its steps took.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock
from pydantic import ValidationError

from pusa_app.errors import ModelError
from pusa_app.models.card import BackboneSpec, ModelCard
from pusa_app.models.entry import entries
from pusa_app.models.machine import Machine, this_machine
from pusa_app.models.plan import best, ladder
from pusa_app.models.plan_choices import SMALL_TOKENS, blocked, clash
from pusa_app.models.plan_cost import predicted
from pusa_app.models.plan_types import LOADED, PROCESS, MemoryPlan, Work, work_of
from pusa_app.models.sizes import Architecture, architecture_of
from pusa_app.settings import default_data_dir
from pusa_app.timeline import Recipe, Sweep, plan_of

PLANS_FILE = "plans.json"
BY_HAND = "PUSA_PLAN"
ONLY_FASTER = ("compile", "batched")  # and change nothing
MAX_REMEMBERED = 200  # of one machine
# After memory ran out the next plan needs so much of what the one before needed, or less.
STEP_DOWN = 0.8
# A model that is loaded stays so for a clip that would rather have another plan, if it is no slower than so many times.
STAYS = 1.2


def architecture_for(model: ModelCard | str) -> tuple[BackboneSpec, Architecture]:
    """Geometry and architecture of a card, of a model of the catalogue whether it is here or not, or of a folder.

    Raises ModelError when there is no such model.
    """
    if isinstance(model, str):
        entry = entries(default_data_dir()).get(model)
        if entry is not None and entry.kind == "lora":
            raise ModelError(f"{entry.title} is a LoRA: ask for a model that it goes on, such as {entry.base[0]}.")
        if entry is not None and entry.spec is not None:
            loras = sum(part.size or 0 for part in entry.parts if part.use == "lora")
            return entry.spec, architecture_of(entry.spec, lora_bytes=loras)
        from pusa_app.models.catalogue import get_card

        model = get_card(model)
    loras = 0
    for lora in model.loras if model.folder is not None else ():
        with contextlib.suppress(OSError):
            loras += (model.folder / lora.file).stat().st_size  # type: ignore[operator]
    return model.spec, architecture_of(model.spec, model.folder, lora_bytes=loras)


def work_for(
    model: ModelCard | str,
    machine: Machine | None = None,
    size: tuple[int, int] | None = None,
    num_frames: int | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    *,
    clip_frames: int = 1,
    cached: bool = False,
    guided_steps: int | None = None,
    memory: Memory | None = None,
) -> Work:
    """What a plan is made for; see plan.plan and plan.Work. memory: what was measured here; None knows nothing."""
    spec, architecture = architecture_for(model)
    machine = machine or this_machine()
    return work_of(
        machine,
        spec,
        size,
        num_frames,
        steps,
        guidance,
        architecture=architecture,
        clip_frames=clip_frames,
        cached=cached,
        guided_steps=guided_steps,
        pace=memory.pace(machine) if memory else 1.0,
    )


def plan_for(
    model_id: str, work: Work, memory: Memory | None = None, override: Mapping[str, Any] | None = None
) -> MemoryPlan:
    """The plan that worked for such a clip here, if it is as gentle as what would be chosen now, else that.

    A plan that worked after memory had run out is smaller than what would be chosen; it is preferred, since the
    prediction was wrong once. Raises ModelError for an override that cannot be.
    """
    chosen = best(work, override)
    known = memory.plan(model_id, work) if memory and not override else None
    if known is None:
        return chosen
    return known.model_copy(update={"reason": f"It worked here before. {known.reason}".strip()})


def by_hand(text: str | None = None) -> dict[str, Any]:
    """Choices for every run, from the variable PUSA_PLAN: "attention=cudnn, compile=on". Raises ModelError."""
    text = os.environ.get(BY_HAND, "") if text is None else text
    return dict(choice_of(part.strip()) for part in text.split(",") if part.strip())


def choice_of(text: str) -> tuple[str, Any]:
    """ "offload=group" -> ("offload", "group"); raises ModelError."""
    name, _, value = text.partition("=")
    if not value:
        raise ModelError(f"A choice looks like quantization=nf4, not {text[:40]!r}.")
    if value.isdecimal():
        return name, int(value)
    words: dict[str, Any] = {"on": True, "off": False}
    if name.endswith("_tile"):
        words["none"] = None
    return name, words.get(value, value)


def work_of_run(recipe: Recipe | Sweep, card: ModelCard, machine: Machine, memory: Memory | None = None) -> Work:
    """What a plan for a run is made for: the largest of its parts. Raises RecipeError."""
    one = recipe.recipe if isinstance(recipe, Sweep) else recipe
    parts = plan_of(one).parts
    stride = card.spec.temporal_stride
    clips = [k.num_frames(stride) + stride for part in parts for k in part.keyframes if not k.still]
    return work_for(
        card,
        machine,
        (one.timeline.width, one.timeline.height),
        max(part.grid.num_frames for part in parts),
        one.steps,
        2.0 if one.guided else 1.0,
        clip_frames=max(clips, default=1),
        cached=one.cache > 0,
        guided_steps=_guided_steps(one, card.spec),
        memory=memory,
    )


def _guided_steps(recipe: Recipe, spec: BackboneSpec) -> int:
    """In how many steps both texts are asked: those inside the guidance interval."""
    sigmas = (recipe.schedule or spec.schedule).sigmas(recipe.steps)
    return sum(guidance != 1 for guidance in recipe.guidances(sigmas, spec.boundary))


def plan_of_run(
    work: Work, model_id: str, lean: int = 0, loaded: MemoryPlan | None = None, memory: Memory | None = None
) -> MemoryPlan:
    """The plan for a run. lean: how many times memory ran out in it. loaded: the plan that the model is loaded with,
    which stays when it does as well. Raises ModelError for a choice by hand that cannot be; what is only to be faster
    is left out of a run that it does not suit."""
    fixed = {n: v for n, v in by_hand().items() if not (n in ONLY_FASTER and v is True and blocked(work, n, v))}
    chosen = plan_for(model_id, work, memory, fixed)
    for _ in range(lean):
        chosen = _step_down(work, chosen)
    if loaded is None or lean:
        return chosen
    kept = predicted(work, chosen.choice | {name: getattr(loaded, name) for name in LOADED})
    if not kept.fits or (kept.exact, chosen.exact) == (False, True):
        return chosen
    slower = kept.step_seconds and chosen.step_seconds and kept.step_seconds > STAYS * chosen.step_seconds
    return chosen if slower else kept


def _step_down(work: Work, plan: MemoryPlan) -> MemoryPlan:
    """The first plan below one that needs clearly less; the same one when there is none below it.

    What changes the result is taken only when nothing is left that does not.
    """
    rungs = ladder(work, plan)
    exact = [rung for rung in rungs if rung.exact] if plan.exact else []

    def need(found: MemoryPlan) -> float:
        return found.vram if work.on_gpu else found.ram - PROCESS

    clearly = (rung for rung in exact or rungs if need(rung) <= STEP_DOWN * need(plan))
    return next(clearly, exact[-1] if exact else rungs[0] if rungs else plan)


def worth_remembering(work: Work, lean: int) -> bool:
    """Small clips say nothing of a machine's pace, and every write is time that somebody waits."""
    return lean > 0 or work.tokens >= SMALL_TOKENS


class Memory:
    """data_dir/plans.json; a damaged file is nothing remembered."""

    def __init__(self, data_dir: Path | None = None) -> None:
        self._file = (data_dir or default_data_dir()) / PLANS_FILE

    def plan(self, model_id: str, work: Work) -> MemoryPlan | None:
        """The plan that worked last for a model at a size on this machine, if it had to be a smaller one than the
        first and can still be had."""
        entry = self._of(work.machine).get(_kind(model_id, work))
        if not isinstance(entry, dict) or not entry.get("stepped_down"):
            return None
        try:
            known = MemoryPlan.model_validate(entry.get("plan"))
        except ValidationError:
            return None
        wrong = [name for name, value in known.choice.items() if blocked(work, name, value)]
        if wrong or clash(known.quantization, known.offload):
            return None
        return predicted(work, known.choice)

    def pace(self, machine: Machine) -> float:
        """Measured seconds of a step by predicted ones: the median of what ran here, 1 when nothing did."""
        found = [e["pace"] for e in self._of(machine).values() if isinstance(e, dict) and _is_pace(e.get("pace"))]
        return statistics.median(found) if found else 1.0

    def remember(
        self,
        model_id: str,
        work: Work,
        plan: MemoryPlan,
        *,
        step_seconds: float | None = None,
        peak: int = 0,
        stepped_down: bool = False,
    ) -> None:
        """Keep that a plan worked. step_seconds: measured, of this plan; peak: bytes, measured. A disk that refuses
        only means that nothing is remembered."""
        entry: dict[str, Any] = {"plan": plan.model_dump(), "stepped_down": stepped_down, "peak": peak}
        plain = work_of(
            work.machine,
            work.spec,
            work.size,
            work.num_frames,
            work.steps,
            2.0 if work.guided else 1.0,
            architecture=work.architecture,
        )
        expected = predicted(plain, plan.choice).step_seconds
        if step_seconds and expected:
            entry["pace"] = step_seconds / expected
        with contextlib.suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self._file.with_suffix(".lock"), timeout=10):
                data = self._read()
                mine = data.setdefault(work.machine.mark, {})
                kind = _kind(model_id, work)
                before = mine.pop(kind, None)
                if isinstance(before, dict) and before.get("stepped_down"):
                    entry["stepped_down"] = True
                mine[kind] = entry
                for old in list(mine)[:-MAX_REMEMBERED]:
                    del mine[old]
                part = self._file.with_suffix(".part")
                part.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
                os.replace(part, self._file)

    def _of(self, machine: Machine) -> dict[str, Any]:
        return self._read().get(machine.mark, {})

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            data = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        if not isinstance(data, dict):
            return {}
        return {mark: plans for mark, plans in data.items() if isinstance(plans, dict)}


def _is_pace(value: Any) -> bool:
    return isinstance(value, float) and 0.01 < value < 1000


def _kind(model_id: str, work: Work) -> str:
    guided = "guided" if work.guided else "plain"
    cached = " cached" if work.cached else ""
    return f"{model_id} {work.size[0]}x{work.size[1]}x{work.slots} {guided} {work.clip_frames}{cached}"
