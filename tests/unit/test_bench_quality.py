"""The quality bench gives full marks to the truth and none to clips that show something else."""

from __future__ import annotations

import numpy as np

from pusa_app.bench.quality import goals, held_out, kept, obeyed, psnr, report
from pusa_app.training.clips import MOTIONS, draw

SPECS = held_out(len(MOTIONS))
TRUTH = [draw(spec) for spec in SPECS]


def test_held_out_clips_have_every_motion_and_never_change() -> None:
    assert {spec.motion for spec in SPECS} == set(MOTIONS)
    assert all(np.array_equal(draw(a), draw(b)) for a, b in zip(SPECS, held_out(len(MOTIONS)), strict=True))


def test_the_truth_obeys_and_other_clips_do_not() -> None:
    assert obeyed(SPECS, TRUTH).all_four == 1
    others = TRUTH[1:] + TRUTH[:1]
    assert obeyed(SPECS, others).all_four == 0
    assert obeyed(SPECS, others).motion == 0


def test_frozen_and_broken_clips_do_not_pass_for_image_to_video() -> None:
    right = kept(SPECS, TRUTH, TRUTH)
    assert (right.psnr, right.color_last, right.shape_last, right.motion) == (60, 1, 1, 1)
    frozen = kept(SPECS, [np.repeat(clip[:1], len(clip), 0) for clip in TRUTH], TRUTH)
    assert frozen.jump == frozen.jump_after == 0
    assert frozen.motion <= 1 / len(MOTIONS) + 1e-9  # only the clip that stays still
    empty = kept(SPECS, [np.full_like(clip, 12) for clip in TRUTH], TRUTH)
    assert empty.color_last == empty.shape_last == 0
    assert empty.jump == 20  # a lost object has jumped
    assert empty.psnr < right.psnr


def test_psnr() -> None:
    black, grey = np.zeros((1, 4, 4, 3), np.uint8), np.full((1, 4, 4, 3), 255, np.uint8)
    assert psnr(black, grey) == 0
    assert psnr(black, black) == 60


def test_the_report_says_which_goals_are_met() -> None:
    truth, vae = obeyed(SPECS, TRUTH), kept(SPECS, TRUTH, TRUTH)
    others = obeyed(SPECS, TRUTH[1:] + TRUTH[:1])
    figures = {
        "clips": len(SPECS),
        "seconds_per_clip": 1.0,
        "vae_psnr": 30.0,
        "text_to_video": {"ground truth": truth, "VAE round trip": truth, "mini": others},
        "image_to_video": {"ground truth": vae, "VAE round trip": vae, "mini": vae},
    }
    met = {what: ok for what, _, _, ok in goals(figures)}
    assert not met["text to video: motion"]
    assert met["image to video: jump at the joint, times the VAE's (at most)"]
    assert "| text to video: motion | 0.00 | 0.95 | no |" in report(figures)
