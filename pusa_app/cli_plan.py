"""`models plan`: how a model would be fitted to this machine, or to one that you think of."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from pusa_app.arguments import integer, number
from pusa_app.errors import UserError
from pusa_app.pace import clock

if TYPE_CHECKING:
    from pusa_app.models.machine import Machine
    from pusa_app.models.plan_types import MemoryPlan, Work

OK = 0


def add_parser(actions: Any) -> None:
    """Add the action to those of `models`."""
    make = actions.add_parser(
        "plan", help="how a model fits a GPU: memory, time, and why", allow_abbrev=False, description=__doc__
    )
    make.add_argument("id", help="a model of the catalogue, which need not be here, or a folder")
    make.add_argument("--vram", type=number(0, 1000), metavar="GB", help="of a GPU that you think of; 0 is none")
    make.add_argument("--ram", type=number(1, 10_000), metavar="GB", help="of that machine; 32 without it")
    make.add_argument("--gpu", default="", metavar="NAME", help='its name, for the time: "RTX 4090"')
    make.add_argument("--size", metavar="WxH", help="of the clip, in pixels")
    make.add_argument("--frames", type=integer(1, 100_000))
    make.add_argument("--steps", type=integer(1, 1000))
    make.add_argument("--guidance", type=number(0, 100))
    make.add_argument("--clip-frames", type=integer(1, 100_000), default=1, help="of the longest clip that is given")
    make.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        dest="choices",
        help="a choice by hand: quantization=nf4, offload=group, decode_tile=256, ...",
    )
    make.add_argument("--options", action="store_true", help="also every option, and why it cannot be had")
    make.add_argument("--json", action="store_true", help="the plan as JSON")
    make.set_defaults(run=_plan)


def _plan(options: argparse.Namespace) -> int:
    from pusa_app.models.fitting import Memory, choice_of, plan_for, work_for
    from pusa_app.models.plan import ladder

    machine, memory = _machine(options), Memory()
    work = work_for(
        options.id,
        machine,
        _size(options.size),
        options.frames,
        options.steps,
        options.guidance,
        clip_frames=options.clip_frames,
        memory=memory,
    )
    if (work.num_frames - 1) % work.spec.temporal_stride or any(side % work.spec.size_multiple for side in work.size):
        raise UserError(
            f"{options.id} makes sizes that divide by {work.spec.size_multiple}, and lengths of "
            f"{work.spec.temporal_stride}*n + 1 frames."
        )
    found = plan_for(options.id, work, memory, dict(map(choice_of, options.choices)))
    if options.json:
        print(found.model_dump_json(indent=2))
        return OK
    for line in told(work, found):
        print(line)
    before = found
    for number_, rung in enumerate(ladder(work, found), 1):
        print(f"  if memory runs out, {number_}: {_changes(before, rung)}")
        before = rung
    if options.options:
        from pusa_app.models.plan import options as all_options

        for option in all_options(work):
            print(f"  {option.name}={_word(option.value)}: {'can be had' if option.available else option.reason}")
    return OK


def told(work: Work, found: MemoryPlan) -> list[str]:
    """A plan in a few lines."""
    width, height = work.size
    lines = [
        f"{width}x{height}, {work.num_frames} frames, {work.steps} steps: "
        f"{'fits' if found.fits else 'does not fit'} (predicted, not measured). {found.reason}",
    ]
    if work.on_gpu:
        phases = ", ".join(f"{name} {count / 1e9:.1f} GB" for name, count in found.phases.items())
        lines.append(f"  GPU memory {found.vram / 1e9:.1f} GB ({phases})")
    lines.append(f"  memory {found.ram / 1e9:.1f} GB")
    if found.seconds is not None and found.step_seconds is not None:
        lines.append(f"  time about {clock(found.seconds)}, {found.step_seconds:.1f} s a step")
    else:
        why = "this GPU is not in the table, and nothing" if work.on_gpu else "nothing"
        lines.append(f"  time unknown: {why} was measured here yet")
    chosen = ", ".join(f"{name}={value}" for name, value in found.choice.items() if value not in (None, False))
    lines.append(f"  {chosen}")
    return lines


def _changes(before: MemoryPlan, after: MemoryPlan) -> str:
    """What one plan does otherwise than another: "offload model -> group, text turns -> cpu"."""
    was, now = before.choice, after.choice
    return ", ".join(
        f"{name} {_word(was.get(name))} -> {_word(now.get(name))}"
        for name in {**was, **now}
        if was.get(name) != now.get(name)
    )


def _word(value: object) -> str:
    return "none" if value is None else {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)


def _machine(options: argparse.Namespace) -> Machine:
    from pusa_app.models.machine import imagined, this_machine

    if options.vram is None:
        if options.ram is not None or options.gpu:
            raise UserError("Give --vram too: the memory of the GPU in GB, or 0 for none.")
        return this_machine()
    return imagined(options.vram, options.ram or 32, options.gpu)


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and 0 < int(width) < 10_000 and 0 < int(height) < 10_000):
        raise UserError(f"A size looks like 848x480, not {text[:40]!r}.")
    return int(width), int(height)
