"""The noise matrix in, latents out: one sampler for all tasks."""

from pusa_app.sampling.sampler import SamplerState, draw_noise, sample

__all__ = ["SamplerState", "draw_noise", "sample"]
