"""The vectorized Wan transformer against the authors' own outputs, and what is its own beside stock diffusers.

What it has in common with the other families is in test_stock.py."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from pusa_app.backbones.wan import VectorizedWanTransformer3DModel
from pusa_app.models import convert_native
from tests.conftest import PARITY_DATA
from tests.vectorized import Pair, pair, wan_inputs

DATA = PARITY_DATA / "wan"


@pytest.fixture(scope="module")
def reference() -> dict[str, torch.Tensor]:
    return load_file(DATA / "reference.safetensors")


@pytest.fixture(scope="module")
def pusa(tmp_path_factory: pytest.TempPathFactory) -> VectorizedWanTransformer3DModel:
    out = tmp_path_factory.mktemp("wan") / "transformer"
    convert_native(DATA / "wan_t2v_native.safetensors", out)
    return VectorizedWanTransformer3DModel.from_pretrained(out).eval()


@pytest.fixture(scope="module")
def both() -> Pair:
    return pair("wan")


def test_one_forward_equals_the_authors(pusa, reference):
    with torch.no_grad():
        output = pusa(reference["z"], reference["timestep"], reference["text_embeds"]).sample
    torch.testing.assert_close(output, reference["output.base"], atol=1e-4, rtol=0)


def test_modulation_is_never_made_per_token(both):
    """What the time becomes has one row per slot, and no tensor of a block is as large as six rows per token."""
    stock, ours = both.stock, both.ours
    rows, sizes = [], []
    tokens, width = 4 * 6, 48
    data = {**wan_inputs(), "hidden_states": torch.randn(2, 16, both.slots, 8, 12)}
    per_token = 2 * both.slots * tokens * 6 * width
    hook = ours.condition_embedder.time_proj.register_forward_hook(
        lambda _, args, __: rows.append(args[0].shape[:-1].numel())
    )
    with torch.no_grad(), _Sizes(sizes):
        ours(**{**data, "timestep": both.times()})
    hook.remove()
    assert rows == [2 * both.slots]
    assert max(sizes) < per_token
    sizes.clear()
    with torch.no_grad(), _Sizes(sizes):
        stock(**{**data, "timestep": both.times().repeat_interleave(tokens, dim=1)})
    assert max(sizes) >= per_token, "the stock model does"


class _Sizes(torch.utils._python_dispatch.TorchDispatchMode):
    """Notes how many numbers every operation makes."""

    def __init__(self, sizes):
        super().__init__()
        self.sizes = sizes

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor):
            self.sizes.append(made.numel())
        return made


def test_time_is_read_in_full_precision(both):
    """999.3 and 999.7 are one number in bf16; a bf16 model must still tell them apart."""
    ours = both.copy().to(torch.bfloat16)
    seen = []
    hook = ours.condition_embedder.timesteps_proj.register_forward_hook(lambda _, args, out: seen.append(out))
    data = {name: value.bfloat16() for name, value in wan_inputs().items()}
    with torch.no_grad():
        output = ours(**{**data, "timestep": torch.tensor([[999.3, 999.7, 1, 0], [0, 0, 0, 0]])}).sample
    hook.remove()
    assert output.dtype == torch.bfloat16
    assert (seen[0][0] - seen[0][1]).abs().max() > 0.1


def test_the_first_block_cache_knows_the_blocks(both):
    from diffusers import FirstBlockCacheConfig

    ours, times = both.copy(), both.times()
    data = {**wan_inputs(), "timestep": times}
    with torch.no_grad():
        expected = ours(**data).sample
        ours.enable_cache(FirstBlockCacheConfig(threshold=1e9))
        with ours.cache_context("cond"):
            first = ours(**data).sample
            second = ours(**{**data, "timestep": times * 0.99}).sample
        ours.disable_cache()
    torch.testing.assert_close(first, expected)
    assert not torch.equal(second, first)
