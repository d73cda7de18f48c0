"""Procedural clips: one coloured shape that moves over a background, and the truth about it.

A clip is described by a `ClipSpec` (what is seen, and where the shape is in each frame), drawn by `draw` with
signed-distance functions. All randomness comes from one numpy Generator, so a seed names a clip.

Sizes are in pixels of a 64x64 picture. Shapes are big on purpose: an 8x8 VAE cannot keep the identity of smaller ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np

SIDE = 64
NUM_FRAMES = 37
PERIOD = 36  # cyclic motions have a whole number of periods in a clip, so that a true loop exists

COLORS = {
    "red": (226, 38, 38),
    "orange": (245, 140, 25),
    "yellow": (250, 225, 40),
    "green": (40, 190, 70),
    "cyan": (40, 215, 225),
    "blue": (50, 95, 240),
    "pink": (245, 90, 190),
    "white": (245, 245, 245),
}
BACKGROUNDS = {
    "black": (12, 12, 14),
    "gray": (112, 114, 118),
    "dark blue": (16, 28, 84),
    "dark green": (14, 66, 40),
    "dark purple": (62, 22, 92),
    "tan": (205, 178, 138),
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
DIRECTIONS = {
    "right": (1, 0),
    "left": (-1, 0),
    "up": (0, -1),
    "down": (0, 1),
    "up right": (1, -1),
    "up left": (-1, -1),
    "down right": (1, 1),
    "down left": (-1, 1),
}
CYCLIC = ("bounces", "orbits clockwise", "orbits counterclockwise", "spins", "sways", "pulses")
MOTIONS = (*DIRECTIONS, "grows", "shrinks", *CYCLIC, "still")
SIZES = {"small": (11.0, 12.0), "medium": (13.0, 15.0), "big": (16.5, 18.5)}
ROUND = ("circle", "ring")  # a turn of these cannot be seen
GRADIENT_RANGE = 60.0  # levels between the top and the bottom of a gradient


@dataclass(frozen=True)
class ClipSpec:
    """One clip. x, y, radius (pixels) and angle (radians) are arrays over the frames."""

    shape: str
    color: str
    background: str
    gradient: bool
    size: str | None  # None where the motion itself is the size
    motion: str
    x: np.ndarray = field(repr=False)
    y: np.ndarray = field(repr=False)
    radius: np.ndarray = field(repr=False)
    angle: np.ndarray = field(repr=False)

    @property
    def num_frames(self) -> int:
        return len(self.x)

    def cut(self, start: int, stop: int) -> ClipSpec:
        """The frames start..stop-1 as a clip of their own."""
        part = slice(start, stop)
        return replace(self, x=self.x[part], y=self.y[part], radius=self.radius[part], angle=self.angle[part])


def sample_spec(
    rng: np.random.Generator, num_frames: int = NUM_FRAMES, *, motion: str | None = None, shape: str | None = None
) -> ClipSpec:
    """Draw a clip at random; `motion` and `shape` fix these two."""
    if motion is None:
        group = rng.random()
        if group < 0.45:
            motion = str(rng.choice(list(DIRECTIONS)))
        elif group < 0.97:
            motion = str(rng.choice(["grows", "shrinks", *CYCLIC]))
        else:
            motion = "still"
    if shape is None:
        shape = str(rng.choice([s for s in SHAPES if motion != "spins" or s not in ROUND]))
    sized = motion not in ("grows", "shrinks", "pulses")
    sizes = ["small", "medium"] if motion.startswith("orbits") else list(SIZES)
    size = str(rng.choice(sizes)) if sized else None
    radius = rng.uniform(*SIZES[size]) if size else 12.0
    x, y, radii, angles = _path(rng, motion, shape, radius, num_frames)
    return ClipSpec(
        shape=shape,
        color=str(rng.choice(list(COLORS))),
        background=str(rng.choice(list(BACKGROUNDS))),
        gradient=bool(rng.random() < 0.25),
        size=size,
        motion=motion,
        x=x.astype(np.float32),
        y=y.astype(np.float32),
        radius=radii.astype(np.float32),
        angle=angles.astype(np.float32),
    )


def _path(
    rng: np.random.Generator, motion: str, shape: str, radius: float, num_frames: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Where the shape is: x, y, radius, angle over the frames."""
    n = np.arange(num_frames, dtype=np.float64)
    turn = 2 * math.pi * n / PERIOD
    phase = rng.uniform(0, 2 * math.pi)
    still = np.zeros(num_frames)
    margin = radius * 1.05 + 0.5
    middle = SIDE / 2
    x, y = still + rng.uniform(margin, SIDE - margin), still + rng.uniform(margin, SIDE - margin)
    radii, angles = still + radius, still.copy()

    if motion in DIRECTIONS:
        dx, dy = DIRECTIONS[motion]
        room = SIDE - 2 * margin
        # At least 16 pixels in 36 frames, so that the direction can be seen; never out of the picture.
        slowest, fastest = 16 / PERIOD, min(1.6, room / (num_frames - 1))
        speed = rng.uniform(slowest, max(slowest, fastest)) if num_frames <= NUM_FRAMES else min(slowest, fastest)
        way = speed * (num_frames - 1)
        x = _start(rng, margin, way, dx) + dx * speed * n
        y = _start(rng, margin, way, dy) + dy * speed * n
    elif motion == "bounces":
        height = (SIDE - 2 * margin) * rng.uniform(0.65, 0.95)
        y = SIDE - margin - height * np.abs(np.sin(turn / 2 + phase))
    elif motion.startswith("orbits"):
        reach = (middle - margin) * rng.uniform(0.7, 1.0)
        way = 1 if motion == "orbits clockwise" else -1
        x = middle + reach * np.cos(phase + way * turn)
        y = middle + reach * np.sin(phase + way * turn)
    elif motion == "sways":
        x = middle + (middle - margin) * rng.uniform(0.75, 1.0) * np.sin(turn + phase)
    elif motion == "spins":
        # A half turn brings a square or a cross back, a whole one any shape: a period ends where it began.
        angles = phase + turn * (1.0 if shape in ("triangle", "star") else 0.5)
    elif motion in ("grows", "shrinks"):
        rate = rng.uniform(0.2, 0.27) if num_frames <= NUM_FRAMES else 0.17
        smallest = 7.5 + rng.uniform(0, max(0.0, 11.0 - rate * (num_frames - 1)))
        radii = smallest + rate * n
        if motion == "shrinks":
            radii = radii[::-1].copy()
        x, y = still + rng.uniform(22, 42), still + rng.uniform(22, 42)
    elif motion == "pulses":
        radii = 13.0 - 5.0 * np.cos(turn + phase)
        x, y = still + rng.uniform(20, 44), still + rng.uniform(20, 44)
    return x, y, radii, angles


def _start(rng: np.random.Generator, margin: float, way: float, direction: int) -> float:
    """A first coordinate from which a shape can go `way` pixels without leaving the picture."""
    low = margin + (way if direction < 0 else 0)
    high = SIDE - margin - (way if direction > 0 else 0)
    return rng.uniform(low, max(low, high))


def distance(shape: str, x: np.ndarray, y: np.ndarray, radius: np.ndarray | float) -> np.ndarray:
    """Signed distance (pixels, negative inside) of points from the outline of a shape centred on 0."""
    if shape == "circle":
        return np.hypot(x, y) - radius
    if shape == "ring":
        return np.abs(np.hypot(x, y) - 0.75 * radius) - 0.27 * radius
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - 0.88 * radius
    if shape == "cross":
        across, along = np.abs(x), np.abs(y)
        arm, half = 1.0 * radius, 0.33 * radius
        return np.minimum(
            np.maximum(across - arm, along - half),
            np.maximum(across - half, along - arm),
        )
    if shape == "triangle":
        inner = 0.6 * radius  # distance of the three sides from the centroid
        s = math.sqrt(3) / 2
        return np.maximum(y, np.maximum(s * x, -s * x) - 0.5 * y) - inner
    if shape == "star":
        return _star(x, y, 1.22 * np.asarray(radius))
    raise ValueError(f"unknown shape {shape}")


def _star(x: np.ndarray, y: np.ndarray, tip: np.ndarray) -> np.ndarray:
    """Five tips: fold the plane into one half sector, then the distance from the line from tip to notch."""
    sector = 2 * math.pi / 5
    theta = np.arctan2(x, -y)
    theta = np.abs(np.remainder(theta + sector / 2, sector) - sector / 2)
    length = np.hypot(x, y)
    px, py = length * np.cos(theta), length * np.sin(theta)
    notch = 0.43 * tip
    ex, ey = notch * math.cos(sector / 2) - tip, notch * math.sin(sector / 2)
    return ((px - tip) * ey - py * ex) / np.hypot(ex, ey)


def coverage(shape: str, x: np.ndarray, y: np.ndarray, radius: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """How much of each pixel the shape covers: (frames, SIDE, SIDE) in [0, 1] for arrays over the frames."""
    rows, columns = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32) + np.float32(0.5)
    across = columns[None] - x[:, None, None]
    down = rows[None] - y[:, None, None]
    c, s = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    across, down = across * c + down * s, down * c - across * s
    return np.clip(0.5 - distance(shape, across, down, radius[:, None, None]), 0, 1)


def draw(spec: ClipSpec) -> np.ndarray:
    """uint8 frames (n, SIDE, SIDE, 3)."""
    cover = coverage(spec.shape, spec.x, spec.y, spec.radius, spec.angle)[..., None]
    ground = np.broadcast_to(np.array(BACKGROUNDS[spec.background], np.float32), (SIDE, SIDE, 3))
    if spec.gradient:
        ramp = (np.arange(SIDE, dtype=np.float32) + 0.5) / SIDE - 0.5
        ground = np.clip(ground + GRADIENT_RANGE * ramp[:, None, None], 0, 255)
    frames = ground[None] * (1 - cover) + np.array(COLORS[spec.color], np.float32) * cover
    return np.rint(frames).astype(np.uint8)
