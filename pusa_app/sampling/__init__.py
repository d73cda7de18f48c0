"""The noise matrix in, latents out: one sampler for all tasks."""

from pusa_app.sampling.sampler import SamplerState, caching, draw_noise, may_go_on_from, sample

__all__ = ["SamplerState", "caching", "draw_noise", "may_go_on_from", "sample"]
