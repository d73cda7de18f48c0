"""A model without weights, which stands in for a real one in tests of the queue, the worker and the page.

It exists only where PUSA_TEST_FAKE=1. Two more variables shape it:
    PUSA_TEST_FAKE_DELAY   seconds that each step takes, 0 by default
    PUSA_TEST_FAKE_FAIL    FAULT[@WHEN][:PATH], what goes wrong:
        FAULT   user, error, memory, memory-once (only with the usual memory plan), kill, segv or hang
        @WHEN   kill@3 does so at the third step since the model was loaded, kill@decode when frames are made;
                without it every step does
        :PATH   only while that file exists
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pusa_app.errors import ModelError

if TYPE_CHECKING:
    from pusa_app.models.card import ModelCard

FAKE = "fake"


def enabled() -> bool:
    return os.environ.get("PUSA_TEST_FAKE") == "1"


def card() -> ModelCard:
    """What the catalogue would say of the fake model."""
    from pusa_app.models.card import BackboneSpec, ModelCard
    from pusa_app.timeline import TASKS, ScheduleSpec

    spec = BackboneSpec(
        family="fake",
        latent_channels=3,
        fps=12,
        width=64,
        height=64,
        num_frames=37,
        min_frames=7,
        max_frames=61,
        steps=8,
        guidance=3,
        schedule=ScheduleSpec(kind="shift", shift=2.0),
    )
    return ModelCard(
        id=FAKE,
        title="Fake",
        summary="No weights; for tests only.",
        licence="Apache-2.0",
        folder=Path("."),
        spec=spec,
        tasks=tuple(TASKS),
    )


def backbone(lean: int = 0) -> Any:
    """The FakeBackbone, slowed down or broken as the environment asks. Imports torch."""
    from pusa_app.backbones.fake import FakeBackbone

    class Staged(FakeBackbone):
        def velocity(self, *args: Any, **kwargs: Any) -> Any:
            time.sleep(float(os.environ.get("PUSA_TEST_FAKE_DELAY", "0")))
            _stage_fault(self.calls + 1, lean)
            return super().velocity(*args, **kwargs)

        def decode(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
            _stage_fault("decode", lean)
            yield from super().decode(*args, **kwargs)

    return Staged(card().spec)


def _stage_fault(place: int | str, lean: int) -> None:
    """place: the number of a step, from 1, or "decode"."""
    what, _, switch = os.environ.get("PUSA_TEST_FAKE_FAIL", "").partition(":")
    fault, _, when = what.partition("@")
    if not fault or (switch and not Path(switch).exists()):
        return
    if when != str(place) and (when or place == "decode"):
        return
    if fault == "user":
        raise ModelError("The fake model was told to refuse.")
    if fault == "error":
        raise RuntimeError("a secret of the machine")
    if fault == "memory" or (fault == "memory-once" and lean == 0):
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
    if fault == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "segv":
        os.kill(os.getpid(), signal.SIGSEGV)
    if fault == "hang":
        time.sleep(3600)
