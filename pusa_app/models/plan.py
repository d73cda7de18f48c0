"""How a model is fitted to a machine: which dtype, quantization, offload, tiles, and what that takes. No torch.

`best` looks at every combination that can work on a machine, predicts the memory of its four phases (text, encoding
of keyframes, denoising, decoding) and its time, and takes the best: one that gives the exact result if there is one and
it is not much slower than what changes the result a little, else the gentlest change. `options` says of every choice
whether it can be had, and if not why. `ladder` has the ever smaller plans for when memory runs out after all.

Everything here is predicted: `docs/memory.md` holds the table, and says what was measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pusa_app.models.plan_choices import (
    blocked,
    candidates,
    checked_override,
    clash,
    values_of,
)
from pusa_app.models.plan_cost import (
    predicted,
    times,
    worst,
)
from pusa_app.models.plan_types import (
    CHOICES,
    PROCESS,
    MemoryPlan,
    Work,
    distance,
)
from pusa_app.models.plan_words import how, reason, too_large

# An exact plan may take so many times the time of one that changes the result.
PATIENCE = 1.5
MOVING = {"none": 1.0, "model": 1.03, "group": 1.05, "disk": 1.15}


def best(work: Work, override: Mapping[str, Any] | None = None) -> MemoryPlan:
    """The plan for a clip.

    override: choices by hand, by the names of MemoryPlan; the rest is fitted to them. When nothing fits, the plan that
    needs least comes with fits=False. Raises ModelError with one sentence when a choice does not exist or cannot be had
    on this machine.
    """
    fixed = checked_override(work, override or {})
    fastest: dict[float, tuple[float, dict[str, Any]]] = {}  # by how far the result is from the exact one
    least: tuple[float, dict[str, Any]] | None = None
    for choice in candidates(work, fixed):
        vram, ram = worst(work, choice)
        if vram <= work.room and ram <= work.room_ram:
            # Where it makes no difference, what moves less.
            loss, seconds = distance(choice), times(work, choice)[1] * MOVING[choice["offload"]]
            if loss not in fastest or seconds < fastest[loss][0]:
                fastest[loss] = seconds, choice
        excess = max(vram / work.room, ram / work.room_ram)
        if least is None or excess < least[0]:
            least = excess, choice
    if fastest:
        found = predicted(work, _gentlest(fastest))
        return found.model_copy(update={"reason": reason(work, found, fixed)})
    assert least is not None, "there is always a candidate"
    found = predicted(work, least[1])
    return found.model_copy(update={"reason": too_large(work, found)})


def _gentlest(fastest: dict[float, tuple[float, dict[str, Any]]]) -> dict[str, Any]:
    """The one nearest to the exact result that takes no more than PATIENCE times as long as any that is farther."""
    losses = sorted(fastest)
    for number, loss in enumerate(losses):
        if all(fastest[loss][0] <= PATIENCE * fastest[other][0] for other in losses[number + 1 :]):
            break
    return fastest[loss][1]


def text_beside(work: Work, plan: MemoryPlan) -> bool:
    """Whether the machine's memory holds a text encoder that is loaded for a prompt beside the transformer that waits
    there; where not, the transformer goes first."""
    model = work.architecture
    if plan.text == "load" or plan.offload not in ("model", "group"):
        return True
    weights = model.experts * model.weights(plan.quantization, 4 if plan.dtype == "fp32" else 2)
    return PROCESS + weights + model.vae.bytes + model.encoder.bytes(plan.text_quantization) <= work.room_ram


@dataclass(frozen=True)
class Option:
    """One value of one choice: whether it can be had, and if not, why in words."""

    name: str
    value: Any
    available: bool
    reason: str = ""


def options(work: Work) -> list[Option]:
    """Every value of every choice, so that none is hidden without a reason."""
    found = []
    for name in CHOICES:
        for value in values_of(name):
            why = blocked(work, name, value)
            if not why:
                fitted = best(work, {name: value})
                why = "" if fitted.fits else fitted.reason
            found.append(Option(name, value, not why, why))
    return found


def ladder(work: Work, start: MemoryPlan) -> list[MemoryPlan]:
    """Ever smaller plans, from the next one below `start`: first what costs only time, then what changes the result.

    Each rung keeps the savings of those before it. What this machine cannot have is left out, and so is what would not
    need less in any phase.
    """
    rungs: list[MemoryPlan] = []
    now = start.choice
    for change in _rungs(work):
        then = now | {name: value for name, value in change.items() if _is_smaller(name, value, now[name])}
        if then == now or clash(then["quantization"], then["offload"]):
            continue
        if any(blocked(work, name, value) for name, value in then.items() if value != now[name]):
            continue
        found = predicted(work, then)
        below = rungs[-1] if rungs else predicted(work, now)
        if not _saves(found, below, work):
            continue
        now = then
        rungs.append(found.model_copy(update={"reason": f"Memory ran out before: {how(work, found)}."}))
    return rungs


def _rungs(work: Work) -> Iterator[dict[str, Any]]:
    streams = work.machine.gpu_kind == "cuda"
    yield {"batched": False, "decode_slots": 1}
    yield {"offload": "model", "text": "load"}
    yield {"offload": "group", "streams": streams, "text": "stream"}
    yield {"text": "cpu"}
    for tile in (512, 256, 128):
        yield {"decode_tile": tile, "encode_tile": tile}
    yield {"offload": "disk", "streams": streams}
    yield {"quantization": "fp8-layerwise"}


# From the one that needs most memory on.
_ORDER: dict[str, tuple[Any, ...]] = {
    "batched": (True, False),
    "offload": ("none", "model", "group", "disk"),
    "text": ("resident", "turns", "load", "stream", "cpu"),
    "quantization": ("none", "fp8-layerwise"),
    "streams": (False, True),
}


def _is_smaller(name: str, value: Any, now: Any) -> bool:
    if name in _ORDER:
        order = _ORDER[name]
        return value in order and now in order and order.index(value) > order.index(now)
    return now is None or value < now


def _saves(found: MemoryPlan, below: MemoryPlan, work: Work) -> bool:
    if not work.on_gpu:
        return found.ram < below.ram
    less = any(found.phases[name] < 0.99 * below.phases[name] for name in found.phases)
    return (less or found.ram < below.ram) and found.ram <= max(work.room_ram, below.ram)
