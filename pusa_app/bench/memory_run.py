"""One memory plan, carried out and measured: the process that `bench memory` starts for every row.

    python -m pusa_app.bench.memory_run REQUEST.json OUTCOME.json

As the worker does it: the prompts are encoded alone where the text encoder does not stay, the model is loaded as
planned with its own LoRAs, a picture is encoded, some steps are made, the clip is decoded. Before each phase the
outcome so far is written, so that it is there when the process is not any more.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from pydantic import BaseModel

from pusa_app.errors import UserError, in_words, is_memory
from pusa_app.models.card import BackboneSpec
from pusa_app.models.machine import gpu_bytes_used
from pusa_app.models.plan_types import MemoryPlan


class Request(BaseModel):
    """folder: of the model. width, height: pixels. limit: bytes of GPU memory for the process, CUDA's own included (see
    CudaMeter). device: as torch names it."""

    folder: Path
    plan: MemoryPlan
    width: int
    height: int
    num_frames: int
    limit: int
    device: str = "cuda"


class Outcome(BaseModel):
    """What became of a request. Bytes and seconds.

    status: "running" of a process that ended without a word. phase: where it got to. phases: the most that tensors took
    in each, with what CUDA takes; taken: the most that the process took from the GPU, with the holes between tensors.
    ram: the most that the process had in the machine's memory, mapped files included. step_seconds: of a step when
    everything is where it belongs.
    """

    status: Literal["running", "done", "memory", "failed"] = "running"
    phase: str = "start"
    phases: dict[str, int] = {}
    taken: int = 0
    ram: int = 0
    step_seconds: float | None = None
    words: str = ""

    @property
    def vram(self) -> int:
        """The most of all phases."""
        return max(self.phases.values(), default=0)


class Peak(NamedTuple):
    """Bytes: allocated: of tensors; taken: from the device."""

    allocated: int
    taken: int


class Meter(Protocol):
    """Measures the memory of a device."""

    def reset(self) -> None:
        """Count from here."""

    def peak(self) -> Peak:
        """The most since then, with what the device's library takes for itself."""

    def wait(self) -> None:
        """Until the device has done what it was given."""


class CudaMeter:
    """The first GPU, of which tensors may take what is left of `limit` bytes beside CUDA's own. What CUDA loads in the
    midst of a phase is on top of it, and tightens the room of the next one."""

    def __init__(self, limit: int, need: int = 0) -> None:
        """need: bytes that must be free, or there is nothing to measure; raises UserError when they are not."""
        import torch

        others = gpu_bytes_used()
        torch.zeros(1, device="cuda")  # CUDA is there from here on
        self._cuda = torch.cuda
        free, self._total = torch.cuda.mem_get_info()
        # Where nobody tells what others took before, it is all CUDA's; a GPU for measuring has no others.
        self._others = 0 if others is None else min(others, self._total - free)
        if free < need:
            raise UserError(
                f"Only {free / 1e9:.1f} GB of the GPU's memory are free, and the plan needs {need / 1e9:.1f} GB: "
                "close other programs that use it."
            )
        self._limit, self._beside = limit, 0
        self._tighten()

    def _tighten(self) -> None:
        """Tensors have what CUDA leaves of the limit now: kernels are loaded as they are needed."""
        self._beside = max(self._beside, self._library())
        room = max(1, self._limit - self._beside)
        self._cuda.set_per_process_memory_fraction(min(1.0, room / self._total))

    def _library(self) -> int:
        """Bytes that CUDA took beside torch's allocator: its context, and the kernels it has loaded."""
        free, _ = self._cuda.mem_get_info()
        return max(0, self._total - free - self._others - int(self._cuda.memory_reserved()))

    def reset(self) -> None:
        self.wait()
        self._cuda.empty_cache()
        self._tighten()
        self._cuda.reset_peak_memory_stats()

    def peak(self) -> Peak:
        self.wait()
        self._beside = max(self._beside, self._library())
        taken = int(self._cuda.max_memory_reserved())
        return Peak(int(self._cuda.max_memory_allocated()) + self._beside, taken + self._beside)

    def wait(self) -> None:
        self._cuda.synchronize()


def peak_ram() -> int:
    """Bytes that this process had in memory at the most; what it has now where the system does not tell."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))
    except (OSError, ValueError, StopIteration):
        import psutil

        memory = psutil.Process().memory_info()
        return int(getattr(memory, "peak_wset", memory.rss))


# --- the run ----------------------------------------------------------------------------------------------------------


def measure(request: Request, meter: Meter, tell: Callable[[Outcome], None] = lambda _: None) -> Outcome:
    """Carry out a plan phase by phase. Never raises: an Outcome says what went wrong."""
    outcome = Outcome()
    try:
        for phase, work in _phases(request, meter, outcome):
            outcome.phase = phase
            tell(outcome)
            meter.reset()
            try:
                work()
            finally:
                _see(outcome, phase, meter)
        outcome.status = "done"
    except UserError as error:
        outcome.status, outcome.words = "failed", in_words(error)
    except Exception as error:  # noqa: BLE001 - whatever a model does is a row of the table
        outcome.status = "memory" if is_memory(error) else "failed"
        outcome.words = "" if is_memory(error) else " ".join(f"{type(error).__name__}: {error}".split())[:200]
        traceback.print_exc()  # to the log
    tell(outcome)
    return outcome


def _see(outcome: Outcome, phase: str, meter: Meter) -> None:
    peak = meter.peak()
    outcome.phases[phase] = max(peak.allocated, outcome.phases.get(phase, 0))
    outcome.taken = max(outcome.taken, peak.taken)
    outcome.ram = peak_ram()


def _phases(request: Request, meter: Meter, outcome: Outcome) -> list[tuple[str, Callable[[], None]]]:
    """What is done, in its order, by the names of MemoryPlan.phases where the planner has one."""
    import numpy as np

    from pusa_app.backbones.fit import LATE_TEXTS
    from pusa_app.models.catalogue import encode_alone, get_card, load_backbone
    from pusa_app.sampling import draw_noise, sample

    plan, card = request.plan, get_card(str(request.folder))
    spec, prompts = card.spec, long_prompts(card.spec)
    have: dict[str, Any] = {}

    def encode_late() -> None:
        encode_alone(card, plan, prompts, request.device)

    def load() -> None:
        have["backbone"] = load_backbone(card, request.device, plan=plan)
        have["backbone"].set_loras([])  # its own

    def encode_text() -> None:
        have["texts"] = [have["backbone"].encode_text(prompt) for prompt in prompts]

    def encode_picture() -> None:
        have["backbone"].encode_frames(np.zeros((1, request.height, request.width, 3), np.uint8))

    def denoise() -> None:
        sigmas, ends = levels(spec), []
        grid, stride = spec.grid(request.num_frames), spec.spatial_stride
        shape = (spec.latent_channels, grid.num_slots, request.height // stride, request.width // stride)
        noise = draw_noise(0, shape)

        def on_step(*_: object) -> None:
            meter.wait()
            ends.append(time.perf_counter())
            # The first step of each expert finds its weights, or the order of its blocks; the second is as all others.
            warm = [b - a for number, (a, b) in enumerate(itertools.pairwise(ends)) if number % 2 == 0]
            outcome.step_seconds = statistics.median(warm) if warm else None

        matrix = [[sigma] * grid.num_slots for sigma in sigmas]
        text, null = have["texts"]
        have["z"] = sample(have["backbone"], matrix, noise, noise, text, null, spec.guidance, on_step, sigmas=sigmas)

    def decode() -> None:
        for chunk in have["backbone"].decode(have["z"]):
            del chunk

    late = [("text", encode_late)] if plan.text in LATE_TEXTS else []
    rest = [("text", encode_text), ("encoding", encode_picture), ("denoising", denoise), ("decoding", decode)]
    return [*late, ("loading", load), *rest]


def long_prompts(spec: BackboneSpec) -> tuple[str, str]:
    """A prompt and a negative one, of as many tokens as the model takes."""
    return " ".join(["word"] * spec.max_text_tokens), " ".join(["other"] * spec.max_text_tokens)


def levels(spec: BackboneSpec) -> tuple[float, ...]:
    """Sigmas of two steps for each of the model's transformers."""
    if spec.boundary is None:
        return 1.0, 0.5, 0.0
    return 1.0, (1 + spec.boundary) / 2, spec.boundary / 2, spec.boundary / 4, 0.0


def main(argv: Sequence[str], meter_of: Callable[[Request], Meter] | None = None) -> int:
    """Read a request and write its outcome. meter_of: instead of CUDA's."""
    request = Request.model_validate_json(Path(argv[0]).read_text(encoding="utf-8"))

    def tell(outcome: Outcome) -> None:
        Path(argv[1]).write_text(outcome.model_dump_json(), encoding="utf-8")

    try:
        meter = (meter_of or (lambda _: CudaMeter(request.limit, request.plan.vram)))(request)
    except UserError as error:
        tell(Outcome(status="failed", words=in_words(error)))
        return 0
    measure(request, meter, tell)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
