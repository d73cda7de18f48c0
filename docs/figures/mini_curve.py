"""The training curve of mini as SVG, from the rows that the trainer wrote. Run: python docs/figures/mini_curve.py"""

from __future__ import annotations

import csv
from pathlib import Path

HERE = Path(__file__).parent
STAGES = ("transformer", "refined", "polished", "settled", "deepened", "tied")
SOURCES = [HERE.parents[1] / "assets" / "mini" / f"{stage}.csv" for stage in STAGES]
WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 720, 300, 50, 40, 20
LINES = {
    "loss": ("training", "#9aa5b1"),
    "text": ("held out, text to video", "#126a66"),
    "tasks": ("held out, keyframes", "#c2571a"),
}


def main() -> None:
    stages, before = [], 0.0
    for source in SOURCES:
        with source.open(newline="") as file:
            rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
        stages.append([row | {"samples": row["samples"] + before} for row in rows if row["loss"] < 1])
        before = most = stages[-1][-1]["samples"]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="system-ui, sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
    ]

    def at(samples: float, loss: float) -> str:
        x = LEFT + samples / most * (WIDTH - LEFT - 20)
        return f"{x:.1f},{HEIGHT - BOTTOM - loss * (HEIGHT - BOTTOM - TOP):.1f}"

    for tick in (0, 0.25, 0.5, 0.75, 1):
        x, y = at(0, tick).split(",")
        parts.append(f'<path d="M{x} {y}H{WIDTH - 20}" stroke="#e4e7eb"/><text x="12" y="{float(y) + 4}">{tick}</text>')
    for tick in range(0, int(most) + 1, 100_000):
        x, y = at(tick, 0).split(",")
        parts.append(f'<text x="{x}" y="{float(y) + 18}" text-anchor="middle">{tick // 1000}k</text>')
    for number, (column, (label, color)) in enumerate(LINES.items()):
        for stage in stages:
            points = " ".join(at(row["samples"], row[column]) for row in stage)
            parts.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts.append(f'<text x="{WIDTH - 200}" y="{TOP + 18 + 18 * number}" fill="{color}">{label}</text>')
    parts.append(f'<text x="{LEFT}" y="{HEIGHT - 4}">samples seen; loss of the velocity, mean squared</text></svg>')
    (HERE / "mini-curve.svg").write_text("\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
