from __future__ import annotations

import pytest
import torch

from pusa_app.backbones.base import Text
from pusa_app.backbones.fake import FAKE_SPEC, FakeBackbone
from pusa_app.errors import RunCancelled
from pusa_app.sampling import SamplerState, draw_noise, may_go_on_from, sample
from pusa_app.sampling.sampler import CACHE_SPAN
from pusa_app.timeline import NoiseSchedule, ScheduleSpec

SHAPE = (3, 4, 2, 2)
NOISE = draw_noise(5, SHAPE)
RED, NONE = Text(torch.tensor([[1.0, -1.0, -1.0]])), Text(torch.zeros(0, 3))


class Wavy(FakeBackbone):
    """A velocity field that is not straight, so that every step matters."""

    def velocity(self, z, sigma, texts):
        self.calls += 1
        level = sigma[:, None, None]
        return [torch.sin(3 * z + level) - z + text.embeds.sum() * 0.1 for text in texts]


def matrix(multipliers=(1.0, 1.0, 1.0, 1.0), steps=6):
    sigmas = ScheduleSpec(kind="linear-quadratic").sigmas(steps)
    return NoiseSchedule(sigmas=sigmas, multipliers=multipliers).matrix()


def test_noise_is_that_of_diffusers_pipelines():
    from diffusers.utils.torch_utils import randn_tensor

    expected = randn_tensor((1, *SHAPE), generator=torch.Generator().manual_seed(5), dtype=torch.float32)[0]
    assert torch.equal(NOISE, expected)


def test_straight_field_ends_at_its_target():
    z = sample(FakeBackbone(), matrix(), torch.zeros(SHAPE), NOISE, RED, NONE)
    torch.testing.assert_close(z, torch.tensor([1.0, -1, -1]).view(3, 1, 1, 1).expand(SHAPE), atol=1e-5, rtol=0)


def test_clean_slot_is_kept_to_the_last_bit():
    z0 = torch.zeros(SHAPE)
    z0[:, 1] = torch.rand(3, 2, 2)
    z = sample(Wavy(), matrix((1.0, 0.0, 0.5, 1.0)), z0, NOISE, RED, NONE, guidance=4.5)
    assert torch.equal(z[:, 1], z0[:, 1])
    assert not torch.equal(z[:, 0], z0[:, 0])


def test_first_latents_mix_keyframe_and_noise():
    seen = []

    class Watch(Wavy):
        def velocity(self, z, sigma, texts):
            seen.append((z.clone(), sigma.clone()))
            return super().velocity(z, sigma, texts)

    z0 = torch.rand(SHAPE)
    multipliers = (0.0, 0.3, 0.7, 1.0)
    sample(Watch(), matrix(multipliers), z0, NOISE, RED, NONE)
    m = torch.tensor(multipliers)[:, None, None]
    torch.testing.assert_close(seen[0][0], (1 - m) * z0 + m * NOISE)
    torch.testing.assert_close(seen[0][1], torch.tensor(multipliers))


def test_guidance_one_asks_for_one_text_and_others_extrapolate():
    asked = []

    class Watch(FakeBackbone):
        def velocity(self, z, sigma, texts):
            asked.append(len(texts))
            return super().velocity(z, sigma, texts)

    sample(Watch(), matrix(steps=2), torch.zeros(SHAPE), NOISE, RED, NONE, guidance=1)
    z = sample(Watch(), matrix(steps=2), torch.zeros(SHAPE), NOISE, RED, NONE, guidance=3)
    assert asked == [1, 1, 2, 2]
    # v_null + 3 * (v_text - v_null) leads to grey + 3 * (red - grey)
    torch.testing.assert_close(z[:, 0, 0, 0], torch.tensor([3.0, -3.0, -3.0]), atol=1e-5, rtol=0)


def test_steps_are_told_with_the_estimate_of_the_clean_clip():
    told = []
    sample(
        FakeBackbone(),
        matrix(steps=3),
        torch.zeros(SHAPE),
        NOISE,
        RED,
        NONE,
        on_step=lambda i, steps, z, x0: told.append((i, steps, x0[:, 0, 0, 0].clone())),
    )
    assert [(i, steps) for i, steps, _ in told] == [(1, 3), (2, 3), (3, 3)]
    for _, _, x0 in told:
        torch.testing.assert_close(x0, torch.tensor([1.0, -1.0, -1.0]), atol=1e-5, rtol=0)


def test_cancel_stops_between_steps():
    backbone = Wavy()
    with pytest.raises(RunCancelled):
        sample(backbone, matrix(), torch.zeros(SHAPE), NOISE, RED, NONE, cancelled=lambda: backbone.calls == 2)
    assert backbone.calls == 2


@pytest.mark.parametrize("stop", [1, 3, 6])
def test_resumed_run_is_the_same_to_the_last_bit(tmp_path, stop):
    path = tmp_path / "state.safetensors"

    def keep(i, steps, z, x0):
        if i == stop:
            SamplerState(i, z, run="one").save(path)

    whole = sample(Wavy(), matrix(), torch.zeros(SHAPE), NOISE, RED, NONE, 4.5, keep)
    state = SamplerState.load(path)
    assert (state.step, state.run) == (stop, "one")
    backbone = Wavy()
    resumed = sample(backbone, matrix(), torch.zeros(SHAPE), NOISE, RED, NONE, 4.5, state=state)
    assert torch.equal(resumed, whole)
    assert backbone.calls == 6 - stop
    assert [p.name for p in tmp_path.iterdir()] == ["state.safetensors"]


def test_foreign_file_is_not_a_state(tmp_path):
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="not a sampler state"):
        SamplerState.load(tmp_path / "x.safetensors")


def test_fake_round_trip_and_faults():
    import numpy as np

    frames = np.full((7, 16, 16, 3), 200, np.uint8)
    backbone = FakeBackbone(fail_at=2)
    back = np.concatenate(list(backbone.decode(backbone.encode_frames(frames))))
    assert back.shape == frames.shape
    assert np.abs(back.astype(int) - 200).max() <= 1
    assert FAKE_SPEC.size_multiple == 16
    with pytest.raises(RuntimeError, match="call 2"):
        sample(backbone, matrix(), torch.zeros(SHAPE), NOISE, RED, NONE)


def test_guidance_per_step_asks_for_the_null_text_only_where_it_is_not_one():
    asked = []

    class Watch(Wavy):
        def velocity(self, z, sigma, texts):
            asked.append(len(texts))
            return super().velocity(z, sigma, texts)

    z = sample(Watch(), matrix(steps=4), torch.zeros(SHAPE), NOISE, RED, NONE, (1, 3, 3, 1))
    assert asked == [1, 2, 2, 1]
    same = sample(Watch(), matrix(steps=4), torch.zeros(SHAPE), NOISE, RED, NONE, (3, 3, 3, 3))
    assert torch.equal(same, sample(Watch(), matrix(steps=4), torch.zeros(SHAPE), NOISE, RED, NONE, 3.0))
    assert not torch.equal(same, z)


class Remembers(Wavy):
    """A backbone with a cache: with it on, every second call since it was told to forget gives the first's again."""

    threshold, held, told = 0.0, None, ()

    def set_cache(self, threshold):
        self.threshold, self.held = threshold, None
        self.told = (*self.told, threshold)

    def velocity(self, z, sigma, texts):
        made = super().velocity(z, sigma, texts)
        if self.threshold == 0:
            return made
        found, self.held = self.held or made, None if self.held else made
        return found


def test_a_cache_forgets_after_a_span_and_is_off_in_the_end():
    backbone = Remembers()
    sample(backbone, matrix(steps=CACHE_SPAN + 2), torch.zeros(SHAPE), NOISE, RED, NONE, cache=0.1)
    assert backbone.told == (0.1, 0.1, 0.0)
    backbone = Remembers(fail_at=None)
    sample(backbone, matrix(), torch.zeros(SHAPE), NOISE, RED, NONE)
    assert backbone.told == ()


def test_a_cache_is_off_after_a_cancelled_run():
    backbone = Remembers()
    with pytest.raises(RunCancelled):
        sample(
            backbone, matrix(), torch.zeros(SHAPE), NOISE, RED, NONE, cache=0.1, cancelled=lambda: backbone.calls == 2
        )
    assert backbone.threshold == 0.0


def test_a_cached_run_goes_on_as_if_it_had_not_stopped():
    steps, kept = CACHE_SPAN * 2 + 1, {}

    def keep(i, steps, z, x0):
        if may_go_on_from(i, steps, 0.1):
            kept[i] = z

    given = matrix(steps=steps), torch.zeros(SHAPE), NOISE, RED, NONE, 4.5
    whole = sample(Remembers(), *given, keep, cache=0.1)
    assert sorted(kept) == [CACHE_SPAN, 2 * CACHE_SPAN, steps]
    assert not torch.equal(whole, sample(Remembers(), *given))
    for step, z in kept.items():
        assert torch.equal(sample(Remembers(), *given, state=SamplerState(step, z), cache=0.1), whole)
