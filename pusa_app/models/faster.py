"""Which of the choices of a run a model does not have, most of them ways to be faster, and why. No torch."""

from __future__ import annotations

from pusa_app.models.card import BackboneSpec


def no_cache(spec: BackboneSpec) -> str:
    """Why First Block Cache cannot be had, in a sentence; "" where it can."""
    return "This model has no blocks to cache." if spec.family == "fake" else ""


def no_interval(spec: BackboneSpec) -> str:
    """The same of a guidance interval."""
    if spec.distilled:
        return "This model reads its guidance as a number: leaving it out of steps would save nothing."
    return ""


def no_negative(spec: BackboneSpec) -> str:
    """The same of a negative prompt."""
    if spec.distilled:
        return "This model reads its guidance as a number: it takes no negative prompt."
    return ""


def no_second(spec: BackboneSpec) -> str:
    """The same of a guidance for a second expert."""
    return "" if spec.boundary is not None else "This model has no second expert to guide."
