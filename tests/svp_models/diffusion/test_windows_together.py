"""Windows of a clip in one batch: the result is that of one after another, and fewer batches are computed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from svp_portrait.svp_models.diffusion.acceleration import EXACT, Acceleration
from svp_portrait.svp_models.diffusion.guidance import MemoryPlan
from svp_portrait.svp_models.diffusion.inputs import ClipInputs
from svp_portrait.svp_models.diffusion.pipeline import PortraitPipeline
from svp_portrait.svp_models.io.memory_map import IN_MEMORY, Storage
from svp_portrait.svp_models.model import build_networks

from .conftest import STEPS, encoded, fill, sample

LONG = 16  # frames: windows at 0, 3, 6, 9 and 12
TOGETHER = {
    "exact": (EXACT, {}, MemoryPlan()),
    "without guidance": (EXACT, {"cfg": 1.0}, MemoryPlan()),
    "halves apart": (EXACT, {}, MemoryPlan(halves_together=False)),
    "keys made in every step": (EXACT, {}, MemoryPlan(key_bytes=0)),
    "without the portrait": (EXACT, {"reference_weight": 0.0}, MemoryPlan()),
    "one step": (EXACT, {"steps": 1}, MemoryPlan()),
    "cache": (Acceleration(cache_every=3, taylor_order=1, guidance_start=0.2, guidance_end=0.8), {}, MemoryPlan()),
    "similarity": (Acceleration(guidance_similarity=0.9, drop_reference="up", even_windows=True), {}, MemoryPlan()),
}


@pytest.fixture(params=["style", "still style", "no style", "in files", "as built in"])
def long_clip(request, model, clip, tmp_path):
    """Models and conditions of all kinds."""
    if request.param == "as built in":  # the portrait warped, no reference latent, expressions, a guided voice alone
        unet = replace(
            model.config.unet, reference_concat=False, reference_warp=True, condition_embedding=True, expression_size=68
        )
        config = replace(model.config, unet=unet, residual=True, guide_portrait=False)
        drawn = torch.Generator().manual_seed(5)
        warped = torch.randn(LONG, *clip.latent.shape[1:], generator=drawn)
        expression = 0.3 * torch.randn(LONG, 68, generator=drawn)
        pipeline = PortraitPipeline(replace(model, config=config, networks=fill(build_networks(config), 1)))
        given = clip.latent, clip.audio, clip.motion(LONG), clip.style, LONG, 25.0, clip.size, warped, expression
        return pipeline, ClipInputs(*given), pipeline.encode_conditions(ClipInputs(*given))
    storage = Storage(str(tmp_path), budget=0) if request.param == "in files" else IN_MEMORY
    pipeline, inputs, conditions = encoded(model, clip, LONG, storage)
    styles = {"still style": conditions.style[:1], "no style": None}
    return pipeline, inputs, replace(conditions, style=styles.get(request.param, conditions.style))


@pytest.mark.parametrize("name", TOGETHER)
def test_windows_in_one_batch_give_the_same(long_clip, name):
    pipeline, inputs, conditions = long_clip
    acceleration, changes, plan = TOGETHER[name]
    batches: list[int] = []
    denoiser = pipeline.model.networks.denoiser
    hook = denoiser.register_forward_pre_hook(lambda module, args: batches.append(len(args[0])))

    def latents(together: int, plan: MemoryPlan) -> torch.Tensor:
        batches.clear()
        fast = replace(acceleration, windows_together=together)
        return pipeline.denoise(inputs, conditions, 7, replace(STEPS, acceleration=fast, **changes), plan=plan)

    expected, alone = latents(1, plan), list(batches)
    for together in (2, 3, 8):
        found = latents(together, plan)
        assert float((found - expected).norm() / expected.norm()) < 1e-5
        assert sum(batches) == sum(alone) and len(batches) == len(alone) // 5 * -(-5 // together)
    assert torch.equal(found, latents(0, replace(plan, windows=8))) and torch.equal(expected, latents(0, plan))
    hook.remove()


def test_windows_in_one_batch_are_reported_one_by_one(model, clip):
    pipeline, inputs, conditions = encoded(model, clip, LONG)
    reports, previews = {}, {}
    for together in (1, 3):
        options = replace(STEPS, steps=2, acceleration=Acceleration(windows_together=together))
        seen, shown = reports.setdefault(together, []), previews.setdefault(together, [])
        pipeline.denoise(
            inputs, conditions, 7, options, lambda done, total, seen=seen: seen.append((done, total)),
            lambda step, first, x0, shown=shown: shown.append((step, first, len(x0))),
        )  # fmt: skip
    assert reports[1] == reports[3] == [(done, 10) for done in range(1, 11)]
    assert previews[1] == previews[3]


def test_steps_in_one_batch_and_regions_of_the_face_take_windows_one_by_one(model, clip, calls):
    given = encoded(model, clip, LONG)
    for acceleration in (Acceleration(2, parallel_steps=True), Acceleration(foreground_every=2)):
        found = [sample(given, acceleration, MemoryPlan(windows=windows))[0] for windows in (1, 4)]
        assert torch.equal(*found) and max(calls) == 2
