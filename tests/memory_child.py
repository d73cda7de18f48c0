"""What `bench memory` starts for a row, on a machine without a GPU: the same run with a meter of the process's memory,
and of the plan what a CPU can do. An argument before the two files says what goes wrong."""

from __future__ import annotations

import os
import signal
import sys

from pusa_app.bench import memory_run
from pusa_app.bench.memory_run import Peak, Request, peak_ram
from pusa_app.models.plan_types import MemoryPlan


class ResidentMeter:
    """Memory of this process; the most since its start."""

    def reset(self) -> None: ...

    def wait(self) -> None: ...

    def peak(self) -> Peak:
        return Peak(peak_ram(), peak_ram())


class NoMemory(ResidentMeter):
    """A device whose memory runs out in the third phase."""

    phases = 0

    def reset(self) -> None:
        self.phases += 1
        if self.phases == 3:
            raise MemoryError


def on_cpu(plan: MemoryPlan) -> MemoryPlan:
    """The same with what a CPU can do."""
    choices = {"dtype": "fp32", "quantization": "none", "text_quantization": "none", "streams": False, "batched": False}
    return plan.model_copy(update=choices)


def meter_of(request: Request) -> ResidentMeter:
    if sys.argv[1] == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    request.plan, request.device = on_cpu(request.plan), "cpu"
    return NoMemory() if sys.argv[1] == "memory" else ResidentMeter()


if __name__ == "__main__":
    sys.exit(memory_run.main(sys.argv[2:], meter_of))
