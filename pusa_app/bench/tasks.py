"""`python -m pusa_app bench tasks`: every task of the studio beside the truth, its ceiling, and simpler answers.

Held-out procedural clips with fixed seeds go through `render`, the path that every user's run takes. Columns: the
truth; VAE, the truth through the VAE and back with the user's own frames put back where the task keeps them, which is
the best that can be reached; trivial answers; vectorized, what this program does; replacement, the same weights used
the old way. Only frames that nobody clamped are scored. All figures are means over the clips.

Rows "as truth" are best where each clip's value is its truth's: methods are compared there by the mean distance from
it, clip by clip, since clips that stand would make up in the mean for others that leap. In rows "spread as truth" what
was given does not tell the truth's value (a loop of words may be of any size), and the values of all clips, in order of
size, are compared with the truth's; loops of pictures and words have more clips for that. Frames that both methods hold
alike, as the scene that a loop of words begins with, have a dash for replacement. A row that replacement wins is marked
with <, one that it wins beyond chance with <<.

Beside what a goal asks of stands where it lies in 90 % of draws of as many clips with repetition, the same clips for
both methods of a ratio.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from pusa_app.bench.contest import (
    CHANCE,
    FREEZE,
    LINE,
    OLD,
    OPEN,
    OURS,
    RESTART,
    SOURCE,
    TRUTH,
    VAE,
    Bench,
    Contest,
)
from pusa_app.bench.contests import CONTESTS
from pusa_app.bench.outputs import check_outputs
from pusa_app.cli import Parser, integer, number
from pusa_app.timeline import MAX_STEPS
from pusa_app.training.captions import plain_caption

FEWEST, MOST = 1, 1000
COLUMNS = (TRUTH, VAE, SOURCE, FREEZE, LINE, RESTART, OPEN)  # before what the model makes for the task


def main(argv: Sequence[str]) -> int:
    """Print a table per contest and the goals; 0 when all are met, 1 when one is missed."""
    parser = Parser(prog="python -m pusa_app bench tasks", description=__doc__.splitlines()[0])
    clips = (
        "held-out clips of each contest, rounded up to whole rounds of its motions (default 34, which makes 34 to 36); "
        "three times as many for loops of pictures and words"
    )
    parser.add_argument("--clips", type=integer(FEWEST, MOST), default=34, help=clips)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--steps", type=integer(1, MAX_STEPS))
    parser.add_argument("--guidance", type=number(0, 100))
    parser.add_argument("--only", action="append", choices=tuple(CONTESTS), help="measure one task; may be repeated")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="also write contact sheets")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures as JSON")
    args = parser.parse_args(argv)
    check_outputs(args.json, args.pictures)
    contests = []
    with tempfile.TemporaryDirectory() as folder:
        bench = open_bench(args.model, Path(folder), args.clips, args.steps, args.guidance)
        for task in dict.fromkeys(args.only or CONTESTS):
            for contest in CONTESTS[task](bench):
                contests.append(contest)
                print("\r\033[K", end="", file=sys.stderr)
                print(table(contest), end="\n\n", flush=True)
                if args.pictures:
                    sheet(contest, args.pictures)
    print(goals_table(contests))
    print(f"\n{against_words(contests)}")
    if args.json:
        args.json.write_text(json.dumps(figures(contests, args.clips), indent=2) + "\n", encoding="utf-8")
    return 0 if all(line.met for line in goals(contests)) else 1


def open_bench(model: str, folder: Path, clips: int, steps: int | None, guidance: float | None) -> Bench:
    from pusa_app.models import get_card, load_backbone

    card = get_card(model)
    return Bench(card, load_backbone(card), folder, clips, steps, guidance)


# --- the report ------------------------------------------------------------------------------------------------------


class Reached(NamedTuple):
    """One goal, and how near it is; interval: see Row.interval."""

    what: str
    reached: float
    interval: tuple[float, float] | None
    asked: str
    met: bool


def goals(contests: Sequence[Contest]) -> list[Reached]:
    """The goals of the rows, and the share of rows that replacement does not win."""
    lines, held = [], []
    for contest in contests:
        for row in contest.rows:
            if goal := row.goal:
                unit = f" of {goal.of}'s" if goal.of else ""
                asked = f"at {'least' if goal.least else 'most'} {goal.asked:g}{unit}"
                what, reached, met = f"{contest.name}: {row.what}", goal.reached(row.values), goal.met(row.values)
                lines.append(Reached(what, reached, row.interval(), asked, met))
            if OLD in row.values:
                held.append(row.holds(OURS, OLD))
    if held:
        what = "rows that replacement does not win, share"
        lines.append(Reached(what, float(np.mean(held)), None, "at least 1", all(held)))
    return lines


def against(contests: Sequence[Contest]) -> dict[str, int]:
    """How many rows there are beside replacement, how many each of the two wins, and how many of them beyond chance."""
    rows = [row for contest in contests for row in contest.rows if OLD in row.values]
    return {
        "rows": len(rows),
        "vectorized": sum(row.leads(OURS, OLD) for row in rows),
        "vectorized beyond chance": sum(row.wins(OURS, OLD) for row in rows),
        "replacement": sum(row.leads(OLD, OURS) for row in rows),
        "replacement beyond chance": sum(row.wins(OLD, OURS) for row in rows),
    }


def against_words(contests: Sequence[Contest]) -> str:
    found = against(contests)
    return (
        f"Of {found['rows']} rows vectorized times win {found['vectorized']}, {found['vectorized beyond chance']} of "
        f"them beyond chance, and replacement {found['replacement']}, {found['replacement beyond chance']} of them "
        f"beyond chance: with the two swapped in clips at random such a lead comes up in at most {CHANCE:.1%} of tries."
    )


def goals_table(contests: Sequence[Contest]) -> str:
    lines = ["| goal | reached | 90 % interval | asked | met |", "|---|---|---|---|---|"]
    for what, reached, interval, asked, met in goals(contests):
        about = f"{interval[0]:.2f} to {interval[1]:.2f}" if interval else "–"
        lines.append(f"| {what} | {reached:.2f} | {about} | {asked} | {'yes' if met else 'no'} |")
    return "\n".join(lines)


def table(contest: Contest) -> str:
    """The rows of a contest as Markdown; a row that replacement wins is marked, see above."""
    methods = sorted(contest.columns, key=lambda m: COLUMNS.index(m) if m in COLUMNS else len(COLUMNS))
    lines = [f"| {contest.name}, {len(contest.specs)} clips | better | " + " | ".join(methods) + " |"]
    lines.append("|---|---|" + "---|" * len(methods))
    for row in contest.rows:
        values = [row.values.get(method, math.nan) for method in methods]
        cells = ["–" if math.isnan(value) else f"{value:.2f}" for value in values]
        lost = "" if not row.leads(OLD, OURS) else " <<" if row.wins(OLD, OURS) else " <"
        lines.append(f"| {row.what} | {row.better} | " + " | ".join(cells) + f" |{lost}")
    return "\n".join(lines)


def figures(contests: Sequence[Contest], clips: int) -> dict[str, object]:
    """All figures, for JSON."""
    return {
        "clips": clips,
        "contests": {c.name: [asdict(row) for row in c.rows] for c in contests},
        "goals": [line._asdict() for line in goals(contests)],
        "against replacement": against(contests),
    }


def sheet(contest: Contest, folder: Path) -> None:
    """A contact sheet: every third frame of each clip, the truth above the result; the prompts beside it as text."""
    folder.mkdir(parents=True, exist_ok=True)
    shown = [method for method in contest.columns if method not in COLUMNS or method == TRUTH]
    rows = []
    for i in range(min(17, len(contest.specs))):
        rows += [np.concatenate(list(contest.columns[method][i].frames[::3]), axis=1) for method in shown]
    path = folder / f"{contest.name.replace(' ', '-').replace(',', '')}.png"
    Image.fromarray(np.concatenate(rows)).save(path)
    prompts = "\n".join(plain_caption(spec) for spec in contest.specs[:17])
    path.with_suffix(".txt").write_text(f"rows: {', '.join(shown)}\n{prompts}\n", encoding="utf-8")
