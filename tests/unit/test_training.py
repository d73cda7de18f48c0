"""Procedural clips, captions, noise draws, resumable runs, and a whole training of a minute."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pusa_app.bench import geometry
from pusa_app.training import captions, timesteps
from pusa_app.training.clips import (
    BACKGROUNDS,
    COLORS,
    MOTIONS,
    NUM_FRAMES,
    ROUND,
    SHAPES,
    SIDE,
    draw,
    sample_spec,
)
from pusa_app.training.latents import LatentSet, visibility
from pusa_app.training.mochi import flow_loss
from pusa_app.training.muon import Muon, Optimizers, orthogonal
from pusa_app.training.run import Budget, TrainingRun
from pusa_app.training.timesteps import Mixture


@given(seed=st.integers(0, 2**32 - 1), motion=st.sampled_from(MOTIONS))
@settings(max_examples=60, deadline=None)
def test_objects_stay_in_the_picture(seed: int, motion: str) -> None:
    spec = sample_spec(np.random.default_rng(seed), motion=motion)
    assert spec.num_frames == NUM_FRAMES
    assert spec.shape in SHAPES
    assert spec.color in COLORS
    assert spec.background in BACKGROUNDS
    assert not (motion == "spins" and spec.shape in ROUND)
    reach = spec.radius * 0.85  # every shape covers most of this
    for centre in (spec.x, spec.y):
        assert (centre - reach > -1).all()
        assert (centre + reach < SIDE + 1).all()


def test_a_seed_names_a_clip() -> None:
    clips = [draw(sample_spec(np.random.default_rng(seed))) for seed in (5, 5, 6)]
    assert np.array_equal(clips[0], clips[1])
    assert not np.array_equal(clips[0], clips[2])


@pytest.mark.parametrize("motion", ["bounces", "orbits clockwise", "sways", "pulses"])
def test_cyclic_motions_close(motion: str) -> None:
    frames = draw(sample_spec(np.random.default_rng(3), motion=motion))
    first, middle, last = (frames[i].astype(int) for i in (0, 15, NUM_FRAMES - 1))
    assert np.abs(first - last).max() <= 1
    assert np.abs(first - middle).max() > 50


def test_a_cut_is_the_same_clip_later() -> None:
    spec = sample_spec(np.random.default_rng(8))
    assert np.array_equal(draw(spec.cut(12, 25)), draw(spec)[12:25])


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=200, deadline=None)
def test_captions_use_known_words(seed: int) -> None:
    rng = np.random.default_rng(seed)
    spec = sample_spec(rng)
    vocabulary = set(captions.vocabulary())
    for caption in (captions.plain_caption(spec), captions.sample_caption(rng, spec)):
        words = captions.words(caption)
        assert set(words) <= vocabulary
        assert len(words) < captions.MAX_TOKENS


def test_plain_captions_tell_clips_apart() -> None:
    rng = np.random.default_rng(0)
    specs = [sample_spec(rng, motion=motion) for motion in MOTIONS]
    for spec in specs:
        caption = captions.plain_caption(spec)
        assert spec.color in caption
        assert spec.shape in caption
        assert spec.background in caption
    assert len({captions.plain_caption(spec) for spec in specs}) == len(MOTIONS)


def test_tokenizer_knows_every_word() -> None:
    from pusa_app.training.text import make_tokenizer

    tokenizer = make_tokenizer()
    ids = tokenizer("A RED circle moves up, right").input_ids
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.convert_ids_to_tokens(ids) == ["a", "red", "circle", "moves", "up", ",", "right", "</s>"]
    assert tokenizer.unk_token_id in tokenizer("a red elephant").input_ids


def test_geometry_is_right_on_ground_truth() -> None:
    rng = np.random.default_rng(11)
    specs = [sample_spec(rng, motion=MOTIONS[i % len(MOTIONS)]) for i in range(2 * len(MOTIONS))]
    right = []
    for spec in specs:
        seen = geometry.look(draw(spec))
        right += [
            geometry.color_of(seen) == spec.color,
            seen.background == spec.background,
            geometry.shape_of(seen, (8, 30)) == spec.shape,
            geometry.motion_of(seen) == spec.motion,
        ]
    assert np.mean(right) >= 0.98


def test_geometry_sees_nothing_on_an_empty_clip() -> None:
    seen = geometry.look(np.full((NUM_FRAMES, SIDE, SIDE, 3), 12, np.uint8))
    assert geometry.color_of(seen) == "none"
    assert geometry.motion_of(seen) == "none"
    assert geometry.shape_of(seen, (8,)) == "none"


def test_geometry_tells_a_frozen_clip_from_a_moving_one() -> None:
    frames = draw(sample_spec(np.random.default_rng(2), motion="right"))
    assert geometry.motion_of(geometry.look(frames)) == "right"
    assert geometry.motion_of(geometry.look(np.repeat(frames[:1], NUM_FRAMES, 0))) == "still"
    assert geometry.motion_of(geometry.look(frames[::-1])) == "left"


@given(batch=st.integers(1, 20), slots=st.integers(1, 28), seed=st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_noise_draws_are_rows_of_noise_matrices(batch: int, slots: int, seed: int) -> None:
    torch.manual_seed(seed)
    noise = timesteps.Mixture(timesteps.shifted(2.0)).draw(batch, slots)
    assert noise.sigma.shape == noise.weight.shape == noise.still.shape == (batch, slots)
    assert ((noise.sigma >= 0) & (noise.sigma <= 1)).all()
    assert (noise.weight[noise.sigma > 0] == 1).all()
    clean = noise.weight == 0
    assert (noise.sigma[clean] == 0).all()
    assert not noise.still[:, 0].any()
    assert (noise.weight.sum(1) > 0).all() or slots < 3


def test_the_parts_of_a_mixture() -> None:
    torch.manual_seed(0)
    together = timesteps.Mixture(timesteps.uniform, independent=0, tasks=0).draw(50, 7).sigma
    assert (together == together[:, :1]).all()
    apart = timesteps.Mixture(timesteps.uniform, independent=1, tasks=0).draw(50, 7).sigma
    assert (apart.std(1) > 0).all()
    ptss = timesteps.ptss(timesteps.uniform, 0.2).draw(1000, 7).sigma
    assert 0.15 < (ptss.std(1) > 0).float().mean() < 0.25
    tasks = timesteps.Mixture(timesteps.uniform, independent=0, tasks=1, clean=1.0).draw(400, 7)
    assert (tasks.weight == 0).any(1).all()
    assert 0.3 < (tasks.weight[:, 0] == 0).float().mean() < 1


@pytest.mark.parametrize("name", timesteps.PLACES)
@pytest.mark.parametrize("slots", [3, 4, 5, 7, 28])
def test_places_leave_something_to_make(name: str, slots: int) -> None:
    torch.manual_seed(slots)
    found = [timesteps.draw_keyframes(slots, ((name, 1.0),)) for _ in range(60)]
    assert {pictures for _, pictures in found} == {timesteps.PLACES[name][1]}
    for keyframes, _ in found:
        assert keyframes == sorted(set(keyframes)) and 0 < len(keyframes) < max(slots, 4)
        assert keyframes[0] >= 0 and keyframes[-1] < slots
    if name == "bridged far" and slots > 4:
        gaps = [slots - len(keyframes) for keyframes, _ in found]
        assert min(gaps) >= 2 and max(slots - 1 - max(set(range(slots)) - {*k}) for k, _ in found) == min(3, slots - 3)


def test_clips_are_tied_as_the_tasks_tie_them() -> None:
    torch.manual_seed(0)
    found = {tuple(timesteps.draw_keyframes(7, (("tied", 1.0),))[0]) for _ in range(60)}
    assert found == {(0, 1, 5, 6), (0, 1, 2, 5, 6)}
    assert timesteps.draw_keyframes(5, (("tied", 1.0),))[0] == [0, 3, 4]


@given(seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_free_pictures_have_room_after_the_first_slot(seed: int) -> None:
    torch.manual_seed(seed)
    places = (("in the middle", 1.0), ("start", 1.0), ("tied", 1.0))
    mixture = timesteps.Mixture(
        timesteps.uniform, independent=0, tasks=1, clean=1.0, free_pictures=1.0, most_noise=0.6, places=places
    )
    noise = mixture.draw(20, 7)
    for sigma, weight, still in zip(noise.sigma, noise.weight, noise.still, strict=True):
        if not still.any():  # a picture at the start alone, or clips
            assert set(sigma[weight == 0].tolist()) == {0.0}
            continue
        now = sigma.max()
        assert sigma[0] == 0
        shares = sigma[still] / now
        assert (shares == pytest.approx(float(shares[0]))) and 0.2 <= shares[0] <= 0.6


def test_joints_weigh_more_where_it_is_asked_for() -> None:
    torch.manual_seed(0)
    bridge = timesteps.Mixture(
        timesteps.uniform, independent=0, tasks=1, clean=1.0, places=(("bridged far", 1.0),), joint=2.0
    )
    noise = bridge.draw(200, 7)
    for weights in noise.weight.tolist():
        made = [weight for weight in weights if weight]
        assert made == [2.0, *[1.0] * (len(made) - 2), 2.0]


def test_sigma_densities() -> None:
    torch.manual_seed(0)
    assert timesteps.uniform((4000,)).mean() == pytest.approx(0.5, abs=0.03)
    assert timesteps.shifted(1.0)((4000,)).mean() == pytest.approx(0.5, abs=0.03)
    assert timesteps.shifted(3.0)((4000,)).mean() > 0.6
    grid = timesteps.linear_quadratic_grid((1.0, 0.5, 0.0))((300,))
    assert set(grid.tolist()) == {1.0, 0.5, 0.0}


def test_the_learning_rate_rises_stays_and_falls() -> None:
    budget = Budget(samples=1000, learning_rate=2.0, warmup=100, decay_from=0.5, floor=0.1)
    assert budget.rate(0) == pytest.approx(0.02)
    assert budget.rate(300) == 2.0
    assert 0.2 < budget.rate(800) < 2.0
    assert budget.rate(1000) == pytest.approx(0.2)


def _adamw(module: torch.nn.Linear) -> torch.optim.Optimizer:
    return torch.optim.AdamW(module.parameters(), lr=1.0)


def _muon(module: torch.nn.Linear) -> torch.optim.Optimizer:
    return Optimizers(Muon([module.weight], lr=1.0), torch.optim.AdamW([module.bias], lr=1.0))


def _run(folder, samples: int = 40, make_optimizer=_adamw) -> TrainingRun:
    torch.manual_seed(0)
    module = torch.nn.Linear(3, 1)
    optimizer = make_optimizer(module)
    budget = Budget(samples=samples, learning_rate=0.01, warmup=4)
    return TrainingRun("line", folder, module, budget, optimizer, ema_decay=0.9)


def _train(run: TrainingRun, stop_at: int | None = None) -> bool:
    def loss_of(step: int):
        if step == stop_at:
            raise KeyboardInterrupt
        x = torch.randn(4, 3)
        return (run.module(x) - x.sum(1, keepdim=True)).pow(2).mean(), 4

    return run.train(loss_of)


@pytest.mark.parametrize("make_optimizer", [_adamw, _muon])
def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(tmp_path, make_optimizer) -> None:
    whole = _run(tmp_path / "whole", make_optimizer=make_optimizer)
    assert _train(whole)

    part = _run(tmp_path / "part", make_optimizer=make_optimizer)
    part.save_every = 0.0
    with pytest.raises(KeyboardInterrupt):
        _train(part, stop_at=5)
    again = _run(tmp_path / "part", make_optimizer=make_optimizer)
    assert 0 < again.seen < 40
    assert _train(again)
    assert again.seen == whole.seen == 40
    assert torch.equal(again.module.weight, whole.module.weight)
    assert torch.equal(again.average.values[0], whole.average.values[0])
    assert (tmp_path / "part" / "line.csv").read_text().startswith("seconds,samples,step,loss,rate")


@pytest.mark.parametrize("shape", [(24, 8), (8, 24), (16, 16)])
def test_an_orthogonal_matrix_keeps_its_directions(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    found = torch.linalg.svdvals(orthogonal(matrix))
    assert found.min() > 0.5 and found.max() < 1.4
    assert ((u.T @ orthogonal(matrix) @ v.T).diagonal() > 0.5).all()


def test_muon_steps_as_torchs_own() -> None:
    torch.manual_seed(0)
    ours, theirs = (torch.nn.Parameter(torch.ones(6, 20)) for _ in range(2))
    torchs = torch.optim.Muon([theirs], lr=0.1, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    own = Muon([ours], lr=0.1)
    for _ in range(4):
        theirs.grad = torch.randn(6, 20)
        ours.grad = theirs.grad.clone()
        own.step()
        torchs.step()
    assert (ours - 1).abs().mean() > 0.03
    assert torch.allclose(ours, theirs, atol=0.01)


def test_a_channel_that_shows_more_weighs_more() -> None:
    class Vae:
        def decode(self, latents: torch.Tensor) -> SimpleNamespace:
            return SimpleNamespace(sample=latents[:, :1] * 3 + latents[:, 1:2])  # channel 2 is never seen

    clips = torch.randn(4, 3, 2, 2, 2)
    data = LatentSet(clips, clips, clips, [], torch.zeros(3), torch.ones(3))
    weights = visibility(Vae(), data)
    assert weights.tolist() == pytest.approx([2.25, 0.75, 0], abs=1e-4)
    (weights * torch.ones(3, requires_grad=True)).sum().backward()  # a loss can be weighed with them


def test_the_loss_weighs_channels() -> None:
    clips = torch.zeros(1, 2, 1, 1, 1)
    noise = Mixture(independent=0, tasks=0).draw(1, 1)
    eps = torch.tensor([1.0, 2.0]).view(clips.shape)
    tokens = torch.zeros(1, 1, dtype=torch.long)

    def still(z: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(z)

    def loss(channels: torch.Tensor | None) -> float:
        return float(flow_loss(still, clips, clips, None, noise, tokens, tokens.bool(), eps, channels))

    assert loss(None) == loss(torch.ones(2)) == 2.5
    assert loss(torch.tensor([2.0, 0.0])) == 1.0


def test_muon_takes_matrices_alone() -> None:
    with pytest.raises(ValueError, match="matrices"):
        Muon([torch.nn.Parameter(torch.ones(3))], lr=0.1)


def test_averages_swap_back(tmp_path) -> None:
    run = _run(tmp_path)
    _train(run)
    weight = run.module.weight.detach().clone()
    run.average.swap()
    assert not torch.equal(run.module.weight, weight)
    run.average.swap()
    assert torch.equal(run.module.weight, weight)


def test_the_decoder_goes_on_alone(tmp_path) -> None:
    """What the transformer was trained on must not move under it."""
    from pusa_app.training.vae import make_vae, train_decoder

    torch.manual_seed(0)
    vae = make_vae()
    encoder, decoder = ({k: v.clone() for k, v in part.state_dict().items()} for part in (vae.encoder, vae.decoder))
    optimizer = torch.optim.AdamW(vae.decoder.parameters(), lr=1.0)
    budget = Budget(samples=6, learning_rate=1e-3, warmup=1)
    run = TrainingRun("decoder", tmp_path, vae.decoder, budget, optimizer, ema_decay=0.9)
    assert train_decoder(run, vae, batch=2, seed=0, stop_after=None)
    assert run.seen == 6
    assert all(torch.equal(value, encoder[name]) for name, value in vae.encoder.state_dict().items())
    assert not any(torch.equal(value, decoder[name]) for name, value in vae.decoder.state_dict().items())


@pytest.mark.slow
def test_train_mini_goes_from_nothing_to_a_model_that_renders(tmp_path) -> None:
    from pusa_app.models import load_backbone
    from pusa_app.render import render
    from pusa_app.timeline import Recipe
    from pusa_app.training.cli import main

    out = tmp_path / "model"
    assert main(["mini", "--smoke", "--run", str(tmp_path / "run"), "--out", str(out)]) == 0
    assert json.loads((out / "card.json").read_text())["id"] == "mini"
    sizes = [file.stat().st_size for file in out.rglob("*") if file.is_file()]
    assert max(sizes) < 10_000_000
    backbone = load_backbone(str(out))
    recipe = Recipe(
        task="text-to-video",
        model=str(out),
        prompt="a red circle moves up over a black background",
        timeline=backbone.spec.timeline(13),
        steps=2,
        guidance=3.0,
        seed=1,
    )
    clip = render(recipe, backbone)
    assert clip.frames.shape == (13, SIDE, SIDE, 3)
    # A finished training starts no second one: the same command only writes the model again.
    before = (out / "transformer" / "diffusion_pytorch_model.safetensors").read_bytes()
    assert main(["mini", "--smoke", "--run", str(tmp_path / "run"), "--out", str(out)]) == 0
    assert (out / "transformer" / "diffusion_pytorch_model.safetensors").read_bytes() == before


def test_without_a_compiler_training_says_so_and_goes_on(monkeypatch, capsys) -> None:
    from pusa_app.training import mochi

    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    assert not mochi._has_compiler()
    assert "uncompiled" in capsys.readouterr().err
