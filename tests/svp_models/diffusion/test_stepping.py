"""A clip that is stepped in blocks is stepped as a whole."""

from __future__ import annotations

import pytest
import torch

from svp_portrait.svp_models.config import SchedulerConfig
from svp_portrait.svp_models.diffusion.noise_schedule import SCHEDULERS, Euler, make_scheduler
from svp_portrait.svp_models.diffusion.samplers import BlockSteps
from svp_portrait.svp_models.io.memory_map import IN_MEMORY, Storage, blocks

SHAPE, STEPS = (7, 2, 3, 3), 5


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("size", [1, 3, 7])
@pytest.mark.parametrize("on_disk", [False, True])
def test_blocks_are_stepped_like_the_whole(name, size, on_disk, tmp_path):
    generator = torch.Generator().manual_seed(0)
    predictions = torch.randn(STEPS, *SHAPE, generator=generator)
    start = torch.randn(SHAPE, generator=generator)
    together, apart = (make_scheduler(name, SchedulerConfig(), STEPS) for _ in range(2))
    steps = BlockSteps(apart, SHAPE, Storage(str(tmp_path), budget=0) if on_disk else IN_MEMORY)
    whole, pieces = start * together.init_noise_sigma, start * apart.init_noise_sigma
    for prediction, timestep in zip(predictions, together.timesteps, strict=True):
        together.scale_model_input(whole, timestep)
        whole = together.step(prediction, timestep, whole).prev_sample
        for part in blocks(len(start), size):
            torch.testing.assert_close(
                apart.scale_model_input(pieces[part], timestep), pieces[part] / _spread(apart, timestep)
            )
            pieces[part] = steps.take(prediction[part], timestep, pieces[part], part)
    torch.testing.assert_close(pieces, whole, rtol=1e-6, atol=1e-6)


def _spread(scheduler, timestep) -> float:
    """What Euler divides its latents by at a timestep; the others take them as they are."""
    if not isinstance(scheduler, Euler):
        return 1.0
    place = scheduler.timesteps.tolist().index(float(timestep))
    return float((scheduler.sigmas[place] ** 2 + 1) ** 0.5)
