"""Captions for procedural clips: a small grammar with synonyms, and the words that it can say."""

from __future__ import annotations

import re

import numpy as np

from pusa_app.training.clips import BACKGROUNDS, COLORS, DIRECTIONS, MOTIONS, SHAPES, SIZES, ClipSpec

SYNONYMS = {
    "circle": ("circle", "circle", "disc", "dot"),
    "square": ("square", "square", "box"),
    "triangle": ("triangle",),
    "star": ("star",),
    "cross": ("cross", "cross", "plus"),
    "ring": ("ring", "ring", "hoop", "donut"),
    "cyan": ("cyan", "cyan", "turquoise"),
    "pink": ("pink", "pink", "magenta"),
    "gray": ("gray", "gray", "grey"),
    "dark blue": ("dark blue", "dark blue", "navy"),
    "dark purple": ("dark purple", "dark purple", "purple", "violet"),
    "tan": ("tan", "tan", "beige"),
    "small": ("small", "small", "little", "tiny"),
    "medium": ("", "", "", "medium"),
    "big": ("big", "big", "large", "huge"),
    "bounces": ("bounces", "bounces", "is bouncing", "hops", "bounces up and down"),
    "orbits clockwise": ("orbits clockwise", "is orbiting clockwise", "goes around clockwise"),
    "orbits counterclockwise": (
        "orbits counterclockwise",
        "is orbiting counterclockwise",
        "goes around counterclockwise",
        "orbits anticlockwise",
    ),
    "spins": ("spins", "spins", "rotates", "is spinning", "is rotating", "turns"),
    "sways": ("sways", "sways", "is swaying", "swings", "swings left and right"),
    "pulses": ("pulses", "pulses", "is pulsing", "beats"),
    "grows": ("grows", "grows", "is growing", "gets bigger", "expands"),
    "shrinks": ("shrinks", "shrinks", "is shrinking", "gets smaller"),
    "still": ("stays still", "stands still", "does not move"),
}
MOVE_VERBS = ("moves", "moves", "is moving", "slides", "drifts", "glides", "flies")
OVER = ("over", "on", "against", "in front of")
MAX_TOKENS = 24


def plain_caption(spec: ClipSpec) -> str:
    """The one caption in the plainest words; prompts of the benches are made of these."""
    motion = f"moves {spec.motion}" if spec.motion in DIRECTIONS else spec.motion
    if motion == "still":
        motion = "stays still"
    size = f"{spec.size} " if spec.size in ("small", "big") else ""
    ground = f"{spec.background} gradient" if spec.gradient else spec.background
    return f"a {size}{spec.color} {spec.shape} {motion} over a {ground} background"


def sample_caption(rng: np.random.Generator, spec: ClipSpec) -> str:
    """A caption with synonyms and word order at random; a few leave something out, as people do."""

    def say(word: str) -> str:
        return str(rng.choice(SYNONYMS.get(word, (word,))))

    size = say(spec.size) if spec.size and rng.random() < 0.7 else ""
    color = say(spec.color) if rng.random() < 0.98 else ""
    thing = " ".join(w for w in ("a", size, color, say(spec.shape)) if w)
    if spec.motion in DIRECTIONS:
        verb = str(rng.choice(MOVE_VERBS))
        motion = f"{verb} to the {spec.motion}" if rng.random() < 0.12 else f"{verb} {spec.motion}"
    else:
        motion = say(spec.motion)
    if rng.random() < 0.02:
        motion = ""
    ground = ""
    if rng.random() < 0.96:
        gradient = " gradient" if spec.gradient else ""
        ground = f"{rng.choice(OVER)} a {say(spec.background)}{gradient}"
        if gradient == "" or rng.random() < 0.5:
            ground += " background"
    parts = [ground + ",", thing, motion] if ground and rng.random() < 0.15 else [thing, motion, ground]
    return " ".join(part for part in parts if part)


def words(text: str) -> list[str]:
    """Lower-case words and commas of a text, as the tokenizer splits them."""
    return re.findall(r"\w+|[^\w\s]", text.lower())


def vocabulary() -> list[str]:
    """Every word that a caption can hold, sorted."""
    texts = [*COLORS, *BACKGROUNDS, *SHAPES, *SIZES, *MOTIONS, *OVER, *MOVE_VERBS]
    texts += [synonym for group in SYNONYMS.values() for synonym in group]
    texts += ["a an the to at background gradient , . and with of"]
    return sorted({word for text in texts for word in words(text)})
