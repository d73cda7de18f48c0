"""A model without weights, which stands in for a real one in tests of the queue, the worker and the page.

It exists only where PUSA_TEST_FAKE=1. Two more variables shape it:
    PUSA_TEST_FAKE_DELAY   seconds that each step takes, 0 by default
    PUSA_TEST_FAKE_FAIL    what the first step does instead: user, error, memory, kill, segv or hang;
                           a path after a colon (kill:PATH) makes it do so only while that file exists
"""

from __future__ import annotations

import os
import signal
import time
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


def backbone() -> Any:
    """The FakeBackbone, slowed down or broken as the environment asks. Imports torch."""
    from pusa_app.backbones.fake import FakeBackbone

    class Staged(FakeBackbone):
        def velocity(self, *args: Any, **kwargs: Any) -> Any:
            time.sleep(float(os.environ.get("PUSA_TEST_FAKE_DELAY", "0")))
            _stage_fault()
            return super().velocity(*args, **kwargs)

    return Staged(card().spec)


def _stage_fault() -> None:
    fault, _, switch = os.environ.get("PUSA_TEST_FAKE_FAIL", "").partition(":")
    if not fault or (switch and not Path(switch).exists()):
        return
    if fault == "user":
        raise ModelError("The fake model was told to refuse.")
    if fault == "error":
        raise RuntimeError("a secret of the machine")
    if fault == "memory":
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
    if fault == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "segv":
        os.kill(os.getpid(), signal.SIGSEGV)
    if fault == "hang":
        time.sleep(3600)
