"""The vectorized Wan transformer against the authors' own outputs and against stock diffusers."""

from __future__ import annotations

import pytest
import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import load_file

from pusa_app.backbones.wan import VectorizedWanTransformer3DModel
from pusa_app.models import convert_native
from tests.conftest import PARITY_DATA

DATA = PARITY_DATA / "wan"
CONFIG = {
    "num_attention_heads": 2,
    "attention_head_dim": 24,
    "text_dim": 32,
    "freq_dim": 64,
    "ffn_dim": 96,
    "num_layers": 2,
}
SLOTS = 4


@pytest.fixture(scope="module")
def reference() -> dict[str, torch.Tensor]:
    return load_file(DATA / "reference.safetensors")


@pytest.fixture(scope="module")
def pusa(tmp_path_factory: pytest.TempPathFactory) -> VectorizedWanTransformer3DModel:
    out = tmp_path_factory.mktemp("wan") / "transformer"
    convert_native(DATA / "wan_t2v_native.safetensors", out)
    return VectorizedWanTransformer3DModel.from_pretrained(out).eval()


@pytest.fixture(scope="module")
def models() -> tuple[WanTransformer3DModel, VectorizedWanTransformer3DModel]:
    """The stock model and ours with the same weights, large enough that every part matters."""
    torch.manual_seed(0)
    stock, ours = WanTransformer3DModel(**CONFIG).eval(), VectorizedWanTransformer3DModel(**CONFIG).eval()
    with torch.no_grad():
        for parameter in stock.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    ours.load_state_dict(stock.state_dict())
    return stock, ours


def inputs(batch: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "hidden_states": torch.randn(batch, 16, SLOTS, 4, 6, generator=generator),
        "encoder_hidden_states": torch.randn(batch, 8, 32, generator=generator),
        "timestep": torch.rand(batch, generator=generator) * 1000,
    }


def times(batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, SLOTS, generator=torch.Generator().manual_seed(3)) * 1000


def test_one_forward_equals_the_authors(pusa, reference):
    with torch.no_grad():
        output = pusa(reference["z"], reference["timestep"], reference["text_embeds"]).sample
    torch.testing.assert_close(output, reference["output.base"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("per_slot", [False, True])
def test_equal_times_give_the_stock_output(models, per_slot):
    stock, ours = models
    data = inputs()
    with torch.no_grad():
        expected = stock(**data).sample
        if per_slot:
            data["timestep"] = data["timestep"][:, None].expand(-1, SLOTS)
        output = ours(**data).sample
    assert expected.std() > 0.1
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)


def test_broadcast_equals_the_stock_model_fed_a_time_per_token(models):
    stock, ours = models
    data, tokens = inputs(), 2 * 3
    with torch.no_grad():
        output = ours(**{**data, "timestep": times()}).sample
        expected = stock(**{**data, "timestep": times().repeat_interleave(tokens, dim=1)}).sample
    assert (output - ours(**data).sample).abs().max() > 1e-2, "the times matter"
    torch.testing.assert_close(output, expected, atol=1e-4, rtol=0)


def test_modulation_is_never_made_per_token(models):
    """What the time becomes has one row per slot, and no tensor of a block is as large as six rows per token."""
    stock, ours = models
    rows, sizes = [], []
    tokens, width = 4 * 6, 48
    data = {**inputs(), "hidden_states": torch.randn(2, 16, SLOTS, 8, 12)}
    per_token = 2 * SLOTS * tokens * 6 * width
    hook = ours.condition_embedder.time_proj.register_forward_hook(
        lambda _, args, __: rows.append(args[0].shape[:-1].numel())
    )
    with torch.no_grad(), _Sizes(sizes):
        ours(**{**data, "timestep": times()})
    hook.remove()
    assert rows == [2 * SLOTS]
    assert max(sizes) < per_token
    sizes.clear()
    with torch.no_grad(), _Sizes(sizes):
        stock(**{**data, "timestep": times().repeat_interleave(tokens, dim=1)})
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


def test_a_wrong_number_of_times_is_refused(models):
    with pytest.raises(ValueError, match="one per slot"):
        models[1](**{**inputs(), "timestep": torch.zeros(2, SLOTS + 1)})


def test_folders_go_both_ways(models, tmp_path):
    stock, ours = models
    stock.save_pretrained(tmp_path / "stock")
    ours.save_pretrained(tmp_path / "ours")
    vectorized = VectorizedWanTransformer3DModel.from_pretrained(tmp_path / "stock")
    plain = WanTransformer3DModel.from_pretrained(tmp_path / "ours")
    assert type(plain) is WanTransformer3DModel
    for model in (vectorized, plain):
        assert dict(model.config)["num_layers"] == 2
        state = model.state_dict()
        assert state.keys() == stock.state_dict().keys()
        assert all(torch.equal(state[name], tensor) for name, tensor in stock.state_dict().items())


def test_training_step_with_checkpointing(models):
    ours = VectorizedWanTransformer3DModel.from_config(models[1].config).train()
    data = {**inputs(), "timestep": times()}

    def gradients() -> dict[str, torch.Tensor]:
        ours.zero_grad()
        ours(**data).sample.square().mean().backward()
        return {name: p.grad.clone() for name, p in ours.named_parameters() if p.grad is not None}

    plain = gradients()
    ours.enable_gradient_checkpointing()
    for name, gradient in gradients().items():
        torch.testing.assert_close(gradient, plain[name])


def test_time_is_read_in_full_precision(models):
    """999.3 and 999.7 are one number in bf16; a bf16 model must still tell them apart."""
    ours = VectorizedWanTransformer3DModel.from_config(models[1].config).to(torch.bfloat16)
    seen = []
    hook = ours.condition_embedder.timesteps_proj.register_forward_hook(lambda _, args, out: seen.append(out))
    data = {name: value.bfloat16() for name, value in inputs().items()}
    with torch.no_grad():
        output = ours(**{**data, "timestep": torch.tensor([[999.3, 999.7, 1, 0], [0, 0, 0, 0]])}).sample
    hook.remove()
    assert output.dtype == torch.bfloat16
    assert (seen[0][0] - seen[0][1]).abs().max() > 0.1


def test_repeated_blocks_compile(models):
    ours = VectorizedWanTransformer3DModel.from_config(models[1].config).eval()
    data = {**inputs(), "timestep": times()}
    with torch.no_grad():
        expected = ours(**data).sample
        ours.compile_repeated_blocks(fullgraph=True, dynamic=False, backend="eager")
        output = ours(**data).sample
    torch._dynamo.reset()
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)


def test_the_first_block_cache_knows_the_blocks(models):
    from diffusers import FirstBlockCacheConfig

    ours = VectorizedWanTransformer3DModel.from_config(models[1].config).eval()
    data = {**inputs(), "timestep": times()}
    with torch.no_grad():
        expected = ours(**data).sample
        ours.enable_cache(FirstBlockCacheConfig(threshold=1e9))
        with ours.cache_context("cond"):
            first = ours(**data).sample
            second = ours(**{**data, "timestep": times() * 0.99}).sample
        ours.disable_cache()
    torch.testing.assert_close(first, expected)
    assert not torch.equal(second, first)
