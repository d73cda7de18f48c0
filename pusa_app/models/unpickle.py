"""A pickle of tensors to a safetensors file, in a process of its own that runs none of the pickle's code.

Run as a script by `convert_pickle`: it imports nothing of this program, so nothing of it is at risk.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

SECONDS = 1800


def convert_pickle(src: Path, out: Path) -> Path:
    """Write the tensors of a `.pt` file (a LoRA, `{name: tensor}`) to the new safetensors file `out`.

    `out` appears only when it is complete. Raises ModelError with one line when the file holds anything but tensors,
    is damaged, or `out` is there already.
    """
    from pusa_app.errors import ModelError

    src, out = Path(src), Path(out)
    if not src.is_file():
        raise ModelError(f"There is no file {src}.")
    if out.exists():
        raise ModelError(f"{out} already exists: choose a new name for the converted file.")
    if out.suffix != ".safetensors":
        raise ModelError(f"{out.name} must end in .safetensors.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        descriptor, part = tempfile.mkstemp(prefix=f".{out.name}-", dir=out.parent)
        os.close(descriptor)
    except OSError as error:
        raise ModelError(f"{out} cannot be written: {error.strerror or error}.") from None
    # -I: neither the folder that we are in nor the user's own packages are looked at.
    command = [sys.executable, "-I", __file__, str(src.absolute()), part]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        if ended.returncode:
            reason = (ended.stdout.strip() or f"exit code {ended.returncode}").splitlines()[-1][:200]
            raise ModelError(f"{src.name} cannot be converted ({reason}): get it as a .safetensors file.")
        os.chmod(part, 0o644)
        os.replace(part, out)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ModelError(f"{src.name} cannot be converted ({type(error).__name__}).") from None
    finally:
        with contextlib.suppress(OSError):
            os.unlink(part)
    return out


def _main(src: str, out: str) -> int:
    import torch
    from safetensors.torch import save_file

    try:
        # weights_only: tensors, numbers, strings and their containers; every other class or function is refused.
        found = torch.load(src, map_location="cpu", weights_only=True)
        for name in ("state_dict", "module", "model"):
            if isinstance(found, dict) and isinstance(found.get(name), dict):
                found = found[name]
        tensors = {k: v for k, v in found.items() if isinstance(v, torch.Tensor)} if isinstance(found, dict) else {}
        if not tensors or not all(isinstance(name, str) for name in tensors):
            print("it holds no named tensors")
            return 1
        save_file({name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}, out)
    except Exception as error:  # noqa: BLE001 - a foreign file may fail in any way, and all of them are one sentence
        kind = type(error).__name__
        refused = "Weights only" in str(error)
        print("it holds more than tensors, which might be code" if refused else f"it is damaged: {kind}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:3]))
