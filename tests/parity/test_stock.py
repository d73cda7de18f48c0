"""What every transformer with a time per slot has in common with diffusers' own, over the families that have one."""

from __future__ import annotations

import pytest
import torch

from tests.vectorized import SLOTS, hunyuan_inputs, pair

pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast")  # stock Mochi's


@pytest.fixture(params=SLOTS)
def both(request):
    return pair(request.param)


@pytest.mark.parametrize("per_slot", [False, True])
@pytest.mark.parametrize(
    ("family", "more"),
    [*((name, None) for name in SLOTS), ("hunyuan", hunyuan_inputs)],
    ids=[*SLOTS, "hunyuan-unmasked"],
)
def test_equal_times_give_the_stock_output(family, more, per_slot):
    both = pair(family)
    data = (more or both.inputs)()
    with torch.no_grad():
        expected = both.stock(**data).sample
        if per_slot:
            data["timestep"] = data["timestep"][:, None].expand(-1, both.slots)
        output = both.ours(**data).sample
    assert expected.std() > 0.1
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["wan", "ltx"])
def test_broadcast_equals_the_stock_model_fed_a_time_per_token(family):
    both = pair(family)
    data, times = both.inputs(), both.times()
    with torch.no_grad():
        output = both.ours(**{**data, "timestep": times}).sample
        expected = both.stock(**{**data, "timestep": times.repeat_interleave(2 * 3, dim=1)}).sample
    assert (output - both.ours(**data).sample).abs().max() > 1e-2, "the times matter"
    torch.testing.assert_close(output, expected, atol=1e-4, rtol=0)


def test_a_wrong_number_of_times_is_refused(both):
    data = both.inputs()
    with pytest.raises(ValueError, match="one per slot"):
        both.ours(**{**data, "timestep": torch.zeros(len(data["timestep"]), both.slots + 1)})


def test_folders_go_both_ways(both, tmp_path):
    both.stock.save_pretrained(tmp_path / "stock")
    both.ours.save_pretrained(tmp_path / "ours")
    vectorized = type(both.ours).from_pretrained(tmp_path / "stock")
    plain = type(both.stock).from_pretrained(tmp_path / "ours")
    assert type(plain) is type(both.stock)
    for model in (vectorized, plain):
        assert dict(model.config)["num_layers"] == both.stock.config.num_layers
        state = model.state_dict()
        assert state.keys() == both.stock.state_dict().keys()
        assert all(torch.equal(state[name], tensor) for name, tensor in both.stock.state_dict().items())


def test_gradients_flow_and_checkpointing_changes_nothing(both):
    ours, data = both.copy().train(), both.inputs()
    data["timestep"] = both.times(len(data["timestep"]))

    def gradients() -> dict[str, torch.Tensor]:
        ours.zero_grad()
        ours(**data).sample.square().mean().backward()
        return {name: p.grad.clone() for name, p in ours.named_parameters() if p.grad is not None}

    plain = gradients()
    assert sum(gradient.abs().max() > 0 for gradient in plain.values()) > 0.9 * len(plain)
    ours.enable_gradient_checkpointing()
    again = gradients()
    assert again.keys() == plain.keys()
    for name, gradient in again.items():
        torch.testing.assert_close(gradient, plain[name])


def test_repeated_blocks_compile(both):
    ours, data = both.copy(), both.inputs()
    data["timestep"] = both.times(len(data["timestep"]))
    with torch.no_grad():
        expected = ours(**data).sample
        ours.compile_repeated_blocks(fullgraph=True, dynamic=False, backend="eager")
        output = ours(**data).sample
    torch._dynamo.reset()
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)
