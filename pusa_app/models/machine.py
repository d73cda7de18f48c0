"""What this machine has: GPU, memory, disk and the packages that a memory plan may use. Never imports torch.

PUSA_TEST_MACHINE holds the JSON of a Machine that is believed instead, for tests.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from pusa_app.models.home import Home
from pusa_app.models.room import Disks

GIB = 1024**3
NVIDIA_SMI_SECONDS = 10.0
# Packages that options need, by the name under which they are imported.
PACKAGES = ("bitsandbytes", "torchao", "flash_attn", "flash_attn_interface", "sageattention", "triton")


class Gpu(BaseModel):
    """A kind of GPU: dense bf16 operations a second with fp32 accumulation, in tera, and bytes of memory a second."""

    model_config = ConfigDict(frozen=True)

    teraflops: float
    bandwidth: float


# Dense bf16 rates (without sparsity, fp32 accumulation) and bandwidths as they are commonly given for each card. A few
# of the RTX 40 and the RTX 3090 were compared with published tables; the others are unverified.
GPUS: dict[str, Gpu] = {
    name: Gpu(teraflops=teraflops, bandwidth=bandwidth * 1e9)
    for name, teraflops, bandwidth in (
        ("RTX 3060", 25.5, 360),
        ("RTX 3060 Ti", 32.4, 448),
        ("RTX 3070", 40.6, 448),
        ("RTX 3080", 59.5, 760),
        ("RTX 3090", 71.0, 936),
        ("RTX 4060", 30.2, 272),
        ("RTX 4060 Ti", 44.1, 288),
        ("RTX 4070", 58.3, 504),
        ("RTX 4070 Ti", 80.2, 504),
        ("RTX 4080", 97.5, 717),
        ("RTX 4090", 165.2, 1008),
        ("RTX 5070", 61.7, 672),
        ("RTX 5070 Ti", 87.9, 896),
        ("RTX 5080", 112.6, 960),
        ("RTX 5090", 209.5, 1792),
        ("RTX A6000", 154.8, 768),
        ("RTX 6000 Ada", 364.2, 960),
        ("A10G", 70.0, 600),
        ("A10", 125.0, 600),
        ("A40", 149.7, 696),
        ("L4", 121.0, 300),
        ("L40S", 362.0, 864),
        ("A100", 312.0, 1935),
        ("H100 PCIe", 756.0, 2000),
        ("H100", 989.4, 3350),
        ("H200", 989.4, 4800),
    )
}


class Machine(BaseModel):
    """What a plan is made for. Bytes; gpu_kind "cpu" is a machine without a GPU that this program can use.

    gpu_bytes: of one GPU, as its driver says. compute: CUDA compute capability, (0, 0) when not known. disk_bytes: free
    where the data folder is, 0 when not known. cache_bytes: free where downloads go, None when that is the same disk.
    packages: those of PACKAGES that are installed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    gpu_name: str = ""
    gpu_kind: Literal["cuda", "mps", "cpu"] = "cpu"
    gpu_bytes: int = Field(default=0, ge=0)
    compute: tuple[int, int] = (0, 0)
    ram_bytes: int = Field(default=0, ge=0)
    free_ram_bytes: int = Field(default=0, ge=0)
    disk_bytes: int = Field(default=0, ge=0)
    cache_bytes: int | None = Field(default=None, ge=0)
    packages: tuple[str, ...] = ()
    platform: str = sys.platform

    @property
    def gpu(self) -> Gpu | None:
        """What is known of its kind of GPU, None when nothing is. Of a laptop's GPU nothing: its power varies."""
        if re.search(r"laptop|mobile|max-q", self.gpu_name, re.IGNORECASE):
            return None
        name = re.sub(r"[^a-z0-9]+", " ", self.gpu_name.lower())
        fitting = [known for known in GPUS if f" {known.lower()} " in f" {name} "]
        found = max(fitting, key=len, default=None)
        if found is None or re.search(rf"{found.lower()} (ti|super)\b", name):
            return None
        return GPUS[found]

    @property
    def disks(self) -> Disks:
        """Where a download would go."""
        own, two = self.disk_bytes or None, self.cache_bytes is not None
        return Disks(self.cache_bytes, own, two) if two else Disks(own)

    @property
    def mark(self) -> str:
        """What tells machines apart for which plans and paces are remembered."""
        return (
            f"{self.gpu_name or self.gpu_kind} {round(self.gpu_bytes / GIB)} GB, {round(self.ram_bytes / GIB)} GB RAM"
        )


def imagined(vram: float, ram: float, gpu_name: str = "", compute: tuple[int, int] = (8, 9)) -> Machine:
    """A machine with so many GiB, on which nothing else runs than an operating system of 4 GB, and a large disk."""
    total = round(ram * GIB)
    return Machine(
        gpu_name=gpu_name or (f"a GPU of {vram:g} GB" if vram else ""),
        gpu_kind="cuda" if vram else "cpu",
        gpu_bytes=round(vram * GIB),
        compute=compute if vram else (0, 0),
        ram_bytes=total,
        free_ram_bytes=max(0, total - 4_000_000_000),
        disk_bytes=200_000_000_000,
        packages=("bitsandbytes", "torchao", "triton"),
        platform="linux",
    )


def this_machine() -> Machine:
    """The machine that this program runs on, as it is now."""
    if said := os.environ.get("PUSA_TEST_MACHINE"):
        return Machine.model_validate_json(said)
    total, free = _ram()
    gpu = _nvidia()
    return Machine.model_validate(
        {
            **gpu,
            "ram_bytes": total,
            "free_ram_bytes": free,
            **_disks(Home.here()),
            "packages": tuple(name for name in PACKAGES if _installed(name)),
        }
    )


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


@functools.lru_cache(maxsize=1)
def _nvidia() -> dict[str, object]:
    """The first GPU that the worker will see, asked once per process: nvidia-smi takes a second."""
    visible = _visible()
    return parse_nvidia(_nvidia_smi("name", "memory.total", "compute_cap"), visible) if visible else {}


def gpu_bytes_used() -> int | None:
    """Bytes that all programs take of the first GPU that this one may use, of which CUDA_DEVICE_ORDER must say that it
    is counted in the order of the PCI bus; None where nvidia-smi does not tell."""
    visible = _visible()
    try:
        return int(float(_named(_rows(_nvidia_smi("memory.used"), 3), visible)[0][2]) * 1024 * 1024)
    except (IndexError, ValueError):
        return None


def _visible() -> str:
    """The number or the UUID of the first GPU that this program may use; "" for none."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    return "" if visible == "-1" else visible


def _nvidia_smi(*fields: str) -> str:
    """A line for each GPU: its index, its UUID and these fields. "" where nvidia-smi does not tell."""
    executable = shutil.which("nvidia-smi")
    if executable is None:
        return ""
    command = [executable, f"--query-gpu={','.join(('index', 'uuid', *fields))}", "--format=csv,noheader,nounits"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=NVIDIA_SMI_SECONDS, check=True).stdout
    except (OSError, subprocess.SubprocessError, ValueError):
        return ""


def _rows(answer: str, count: int) -> list[list[str]]:
    """The lines of an answer that have so many fields."""
    rows = [[part.strip() for part in line.split(",")] for line in answer.splitlines()]
    return [row for row in rows if len(row) == count]


def _named(rows: list[list[str]], visible: str) -> list[list[str]]:
    return [row for row in rows if visible and (row[0] == visible or row[1].startswith(visible))]


def parse_nvidia(answer: str, visible: str = "0") -> dict[str, object]:
    """What nvidia-smi's answer says, as fields of a Machine; {} when it makes no sense. visible: an index or a UUID."""
    rows = _rows(answer, 5)
    chosen = _named(rows, visible) or rows[:1]
    try:
        _, _, name, megabytes, compute = chosen[0]
        major, _, minor = compute.partition(".")
        return {
            "gpu_name": name,
            "gpu_kind": "cuda",
            "gpu_bytes": round(float(megabytes) * 1024 * 1024),
            "compute": (int(major), int(minor or 0)),
        }
    except (IndexError, ValueError):
        return {}


def _ram() -> tuple[int, int]:
    """Bytes of memory, and how many of them can be had."""
    try:
        import psutil  # type: ignore[import-untyped]

        memory = psutil.virtual_memory()
        total, free = int(memory.total), int(memory.available)
    except ImportError:
        total, free = _meminfo()
    limit = _cgroup_limit()
    return (min(total, limit), min(free, limit)) if limit else (total, free)


def _meminfo() -> tuple[int, int]:
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return 0, 0
    found = {key: int(value) * 1024 for key, value in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}
    return found.get("MemTotal", 0), found.get("MemAvailable", found.get("MemFree", 0))


def _cgroup_limit() -> int:
    """What a container may take, 0 when it is not limited."""
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(name).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdigit() and int(text) < 1 << 60:
            return int(text)
    return 0


def _disks(home: Home) -> dict[str, int]:
    """Where a plan keeps a transformer's blocks, and where downloads go if that is another disk."""
    try:
        disks = Disks.of(home)
    except OSError:
        return {}
    own = disks.own if disks.two else disks.cache
    return {"disk_bytes": own or 0} | ({"cache_bytes": disks.cache or 0} if disks.two else {})
