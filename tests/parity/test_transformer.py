"""The vectorized transformer against the authors' own outputs, and what is its own beside stock diffusers.

What it has in common with the other families is in test_stock.py."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.attention_dispatch import attention_backend
from safetensors.torch import load_file

from pusa_app.backbones.mochi import VectorizedMochiTransformer3DModel
from pusa_app.backbones.mochi import transformer as module
from pusa_app.bench.speed_families import forward_repeated_per_token
from pusa_app.models import convert_native
from tests.conftest import PARITY_DATA
from tests.vectorized import Pair, mochi_inputs, pair


@pytest.fixture(scope="module")
def reference() -> dict[str, torch.Tensor]:
    return load_file(PARITY_DATA / "reference.safetensors")


@pytest.fixture(scope="module")
def pusa(tmp_path_factory: pytest.TempPathFactory) -> VectorizedMochiTransformer3DModel:
    out = tmp_path_factory.mktemp("pusa") / "transformer"
    convert_native(PARITY_DATA / "pusa_dit_native.safetensors", out)
    return VectorizedMochiTransformer3DModel.from_pretrained(out).eval()


@pytest.fixture(scope="module")
def both() -> Pair:
    return pair("mochi")


@pytest.mark.parametrize(("text", "expected"), [("t5", "output"), ("null", "output_null")])
@pytest.mark.parametrize("trimmed", [False, True])
def test_one_forward_equals_the_authors(pusa, reference, text, expected, trimmed):
    feat, mask = reference[f"forward.{text}_feat"], reference[f"forward.{text}_mask"]
    if trimmed:
        feat, mask = feat[:, : int(mask.sum())], None
    with torch.no_grad():
        output = pusa(reference["forward.z"], feat, (1 - reference["forward.sigma"]) * 1000, mask).sample
    torch.testing.assert_close(output, reference[f"forward.{expected}"], atol=1e-4, rtol=0)


def test_slots_of_other_times_change_the_output(both):
    ours = both.ours
    data = mochi_inputs()
    data["timestep"] = data["timestep"][:, None].repeat(1, 4)
    with torch.no_grad():
        before = ours(**data).sample
        data["timestep"][:, 0] = 1000.0
        after = ours(**data).sample
    assert (after - before).abs().max() > 1e-3


def test_trimmed_text_equals_masked_text(both):
    ours = both.ours
    data = mochi_inputs()
    data["timestep"] = torch.rand(3, 4, generator=torch.Generator().manual_seed(2)) * 1000
    with torch.no_grad():
        batched = ours(**data).sample
        for i, length in enumerate((5, 0, 8)):
            alone = ours(
                data["hidden_states"][i : i + 1],
                data["encoder_hidden_states"][i : i + 1, :length],
                data["timestep"][i : i + 1],
            ).sample
            torch.testing.assert_close(alone[0], batched[i], atol=1e-5, rtol=1e-5)
    assert batched.isfinite().all()


def test_padding_does_not_leak(both):
    ours = both.ours
    data = mochi_inputs()
    with torch.no_grad():
        before = ours(**data).sample
        data["encoder_hidden_states"][~data["encoder_attention_mask"]] = 50.0
        torch.testing.assert_close(ours(**data).sample, before, atol=1e-5, rtol=1e-5)


def test_broadcast_equals_repetition_per_token(both):
    """A slot is nothing but its tokens: give every token a slot of its own with its slot's time, RoPE unchanged."""
    ours = both.ours
    data = mochi_inputs(batch=2, lengths=(5, 8))
    times = torch.rand(2, 4, generator=torch.Generator().manual_seed(3)) * 1000
    with torch.no_grad():
        expected = ours(**{**data, "timestep": times}).sample
        output = forward_repeated_per_token(ours, **{**data, "timestep": times})
    torch.testing.assert_close(output, expected, atol=1e-4, rtol=0)


def test_modulation_is_never_made_per_token(both):
    """Every linear layer that reads temb must see one row per slot, however many tokens a slot has."""
    ours = both.ours
    rows = []
    hooks = [
        block.norm1.linear.register_forward_hook(lambda _, args, __: rows.append(args[0].shape[:-1].numel()))
        for block in ours.transformer_blocks
    ]
    data = mochi_inputs()
    with torch.no_grad():
        ours(**{**data, "timestep": torch.rand(3, 4) * 1000})
    for hook in hooks:
        hook.remove()
    assert rows == [3 * 4] * 3


def test_attention_backend_is_honoured(both, monkeypatch):
    ours = both.copy()
    used = []
    real = module.dispatch_attention_fn

    def spy(*args, **kwargs):
        used.append(kwargs["backend"])
        return real(*args, **kwargs)

    monkeypatch.setattr(module, "dispatch_attention_fn", spy)
    data = mochi_inputs()
    with attention_backend("native"), torch.no_grad():  # restores the process-wide default afterwards
        before = ours(**data).sample
        ours.set_attention_backend("_native_math")
        after = ours(**data).sample
    assert [getattr(b, "value", b) for b in used] == [None] * 3 + ["_native_math"] * 3
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-5)


def test_training_step_with_autocast(both):
    ours = both.copy().train()
    data = mochi_inputs()
    data["timestep"] = torch.rand(3, 4) * 1000

    def gradients() -> dict[str, torch.Tensor]:
        ours.zero_grad()
        ours(**data).sample.square().mean().backward()
        return {name: p.grad.clone() for name, p in ours.named_parameters() if p.grad is not None}

    plain = gradients()
    with torch.autocast("cpu", torch.bfloat16):
        rough = gradients()
    assert rough.keys() == plain.keys()
    assert all(gradient.isfinite().all() for gradient in rough.values())


def test_time_is_read_in_full_precision(both):
    """999.3 and 999.7 are one number in bf16; a bf16 model must still tell them apart."""
    ours = both.copy()
    seen = []
    hook = ours.time_embed.time_proj.register_forward_hook(lambda _, args, out: seen.append((args[0], out)))
    data = {**mochi_inputs(), "timestep": torch.tensor([999.3, 999.7, 1.0])}
    with torch.no_grad():
        ours(**data)
    hook.remove()
    times, waves = seen[0]
    assert times.dtype == waves.dtype == torch.float32
    assert (waves[0] - waves[1]).abs().max() > 0.1


def test_compiles_without_graph_breaks(both):
    ours = both.copy()
    data = mochi_inputs()
    explained = torch._dynamo.explain(ours)(**data)
    torch._dynamo.reset()
    assert explained.graph_break_count == 0
