from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.motion.style import (
    ANGLES,
    GAZE,
    LIVEPORTRAIT_LIDS,
    LIVEPORTRAIT_LIPS,
    MotionStylePrior,
    TransferConfig,
    TransferWeights,
    apply_style,
    load_motion_style,
    mix_styles,
    offset_style,
    save_motion_style,
    style_of,
    style_of_motion,
)
from svp_portrait.svp_models.types import LIVEPORTRAIT, SVP, Motion

WIDE = TransferConfig(lowest=0, highest=1e3)
OTHERS = [column for column in range(63) if column not in LIVEPORTRAIT_LIPS]


def motion(frames: int, seed: int, space: str = LIVEPORTRAIT, spread: float = 1.0) -> Motion:
    """Random movements around a random mean."""
    generator = torch.Generator().manual_seed(seed)
    size = 63 if space == LIVEPORTRAIT else 64

    def rows(columns: int, scale: float) -> torch.Tensor:
        steps = torch.randn(frames, columns, generator=generator)
        return scale * (spread * steps + torch.randn(columns, generator=generator))

    return Motion(
        angles=rows(3, 5.0),
        shift=rows(2, 0.02),
        scale=1 + rows(1, 0.02)[:, 0],
        expression=rows(size, 0.02),
        fps=25.0,
        space=space,
        lids=rows(2, 0.1).abs() if space == SVP else None,
        gaze=rows(2, 0.2) if space == SVP else None,
    )


def std(rows: torch.Tensor) -> torch.Tensor:
    return rows.double().std(0, correction=0)


def test_a_clip_has_its_mean_and_spread():
    clip = motion(100, 1, SVP)
    style = style_of_motion(clip)
    rows = torch.cat([clip.expression, clip.angles, clip.gaze], dim=1).double()
    assert torch.allclose(style.mean[0].double(), rows.mean(0), atol=1e-6)
    assert torch.allclose(style.spread[0].double(), std(rows), atol=1e-6)
    assert not style.own_mean.any() and not style.own_spread.any()


def test_a_motion_reaches_the_mean_and_spread_of_the_style():
    clip, spoken = motion(80, 1), motion(211, 2, spread=0.5)
    moved = apply_style(spoken, style_of(clip), LIVEPORTRAIT_LIPS, config=WIDE)
    for ours, theirs in ((moved.expression[:, OTHERS], clip.expression[:, OTHERS]), (moved.angles, clip.angles)):
        assert (ours.double().mean(0) - theirs.double().mean(0)).abs().max() < 1e-5
        assert (std(ours) - std(theirs)).abs().max() < 1e-5


def test_lips_take_the_mean_and_keep_their_spread():
    clip, spoken = motion(80, 1), motion(211, 2, spread=0.5)
    moved = apply_style(spoken, style_of(clip), LIVEPORTRAIT_LIPS, config=WIDE)
    ours, own, theirs = (item.expression[:, LIVEPORTRAIT_LIPS].double() for item in (moved, spoken, clip))
    assert (ours.mean(0) - theirs.mean(0)).abs().max() < 1e-5
    assert torch.allclose(ours - ours.mean(0), own - own.mean(0), atol=1e-7)
    kept = apply_style(spoken, style_of(clip), LIVEPORTRAIT_LIPS, TransferWeights(lips_weight=0))
    assert torch.equal(kept.expression[:, LIVEPORTRAIT_LIPS], spoken.expression[:, LIVEPORTRAIT_LIPS])


@pytest.mark.parametrize("space", [LIVEPORTRAIT, SVP])
def test_weight_0_changes_no_bit(space):
    spoken = motion(50, 2, space)
    style = style_of(motion(80, 1, space))
    moved = apply_style(spoken, style, LIVEPORTRAIT_LIPS, TransferWeights(weight=0, temperature=2), seed=3)
    for name in ("angles", "shift", "scale", "expression", "lids", "gaze"):
        ours, own = getattr(moved, name), getattr(spoken, name)
        assert own is None and ours is None or torch.equal(ours, own), name
    turned = apply_style(spoken, style, LIVEPORTRAIT_LIPS, TransferWeights(pose_weight=0))
    assert torch.equal(turned.angles, spoken.angles) and not torch.equal(turned.expression, spoken.expression)


def test_half_the_weight_goes_half_the_way():
    spoken, style = motion(50, 2), style_of(motion(80, 1))
    whole, half = (apply_style(spoken, style, LIVEPORTRAIT_LIPS, TransferWeights(weight=weight)) for weight in (1, 0.5))
    assert torch.allclose(half.expression, (whole.expression + spoken.expression) / 2, atol=1e-6)


def test_framing_lids_and_what_no_style_knows_stay():
    spoken = motion(50, 2, SVP)
    moved = apply_style(spoken, style_of(motion(80, 1, SVP)), ())
    for name in ("shift", "scale", "lids"):
        assert torch.equal(getattr(moved, name), getattr(spoken, name))
    assert not torch.equal(moved.gaze, spoken.gaze)
    blind = replace(motion(80, 1, SVP), gaze=None)
    assert torch.equal(apply_style(spoken, style_of(blind), ()).gaze, spoken.gaze)
    assert apply_style(replace(spoken, gaze=None), style_of(blind), ()).gaze is None


def test_still_motions_are_not_amplified_and_ratios_are_bounded():
    still = replace(motion(60, 2), expression=motion(1, 2).expression.expand(60, -1).clone())
    clip = motion(80, 1)
    moved = apply_style(still, style_of(clip), ())
    assert torch.allclose(moved.expression, clip.expression.mean(0).expand(60, -1), atol=1e-6)
    faint = motion(200, 3, spread=1e-3)
    for highest in (2.0, 4.0):
        moved = apply_style(faint, style_of(clip), (), config=TransferConfig(highest=highest))
        assert torch.allclose(std(moved.expression), highest * std(faint.expression), rtol=1e-3)


def test_one_frame_takes_the_mean_and_gives_a_mean_alone():
    clip, spoken = motion(80, 1), motion(50, 2)
    one = apply_style(motion(1, 2), style_of(clip), LIVEPORTRAIT_LIPS)
    assert torch.allclose(one.expression[0], clip.expression.mean(0), atol=1e-6)
    picture = motion(1, 4)
    moved = apply_style(spoken, style_of(picture), LIVEPORTRAIT_LIPS)
    assert torch.allclose(moved.expression.mean(0), picture.expression[0], atol=1e-5)
    assert torch.allclose(std(moved.expression), std(spoken.expression), atol=1e-6)


def test_the_drawn_mean_varies_as_that_of_four_passages():
    """Four passages of one second: their means' covariance over four is that of the mean of a clip of four seconds."""
    clip = motion(100, 1)
    style = style_of_motion(clip)
    means = torch.stack([part.double().mean(0) for part in clip.expression.split(25)])
    rows = style.variations[:, 0, :63].double()
    assert torch.allclose(rows.T @ rows, torch.cov(means.T) / 4, atol=1e-9)
    assert len(style.variations) == 3


def test_seeds_differ_only_with_temperature():
    spoken, style = motion(50, 2), style_of(motion(200, 1))

    def means(temperature: float, seed: int) -> torch.Tensor:
        return apply_style(
            spoken, style, LIVEPORTRAIT_LIPS, TransferWeights(temperature=temperature), seed
        ).expression.mean(0)

    assert torch.equal(means(0, 1), means(0, 2))
    assert torch.equal(means(1, 1), means(1, 1)) and not torch.equal(means(1, 1), means(1, 2))
    shift = means(1, 1) - means(0, 1)
    assert torch.allclose(means(2, 1) - means(0, 1), 2 * shift, atol=1e-6)


def test_a_mixture_moves_between_its_styles():
    a, b, spoken = style_of(motion(80, 1)), style_of(motion(90, 3)), motion(200, 2)
    half = mix_styles(a, b, 0.5, 0.5)
    assert len(half.mean) == 1 and torch.allclose(half.mean, (a.mean + b.mean) / 2)
    assert torch.equal(mix_styles(a, b, 0, 0).mean, a.mean) and torch.equal(mix_styles(a, b, 1, 1).mean, b.mean)
    first, last = (apply_style(spoken, style, LIVEPORTRAIT_LIPS) for style in (a, b))
    over = apply_style(spoken, mix_styles(a, b, 0, 1, "ease_in"), LIVEPORTRAIT_LIPS)
    assert torch.allclose(over.expression[0], first.expression[0], atol=1e-5)
    assert torch.allclose(over.expression[-1], last.expression[-1], atol=1e-5)
    middle = first.expression[100] + (100 / 199) ** 2 * (last.expression[100] - first.expression[100])
    assert torch.allclose(over.expression[100], middle, atol=2e-3)
    nested = mix_styles(mix_styles(a, b), a, 1, 1)
    assert torch.allclose(
        apply_style(spoken, nested, LIVEPORTRAIT_LIPS).expression, apply_style(spoken, a, LIVEPORTRAIT_LIPS).expression
    )


def test_blinks_still_close_the_eyes_in_the_style_of_a_clip_without():
    """A blink moves the lids by 0.025 down and 0.0075 up, in LivePortrait's units."""
    blinking, clip = motion(100, 2, spread=0.1), motion(80, 1, spread=0.02)
    travel = torch.zeros(63)
    travel[list(LIVEPORTRAIT_LIDS)] = torch.tensor([0.025, -0.0075, 0.025, -0.0075])
    still = blinking.expression.mean(0)
    blinking = replace(blinking, expression=still.expand(100, -1).clone())
    blinking.expression[40:44] += travel
    kept, squeezed = (
        apply_style(blinking, style_of(clip), LIVEPORTRAIT_LIPS, lids=lids) for lids in (LIVEPORTRAIT_LIDS, ())
    )
    assert torch.allclose(kept.expression[41] - kept.expression[0], travel, atol=1e-6)
    assert torch.allclose(
        kept.expression[:, LIVEPORTRAIT_LIDS].mean(0), clip.expression[:, LIVEPORTRAIT_LIDS].mean(0), atol=1e-5
    )
    assert (squeezed.expression[41] - squeezed.expression[0]).abs().max() < 0.5 * travel.max()


def test_relative_driving_shows_the_style():
    """Every frame is compared with the first one from before the style, whatever comes later."""
    spoken, style = motion(50, 2), style_of(motion(80, 1))
    moved = apply_style(spoken, style, LIVEPORTRAIT_LIPS)
    assert torch.equal(moved.compared.expression, spoken.expression[:1])
    assert torch.equal(moved.compared.angles, spoken.angles[:1])
    again = apply_style(moved, offset_style(torch.full((1, 63), 0.1), torch.zeros(5), 0.1, LIVEPORTRAIT), ())
    assert torch.equal(again.compared.expression, spoken.expression[:1])
    assert apply_style(spoken, style, LIVEPORTRAIT_LIPS, TransferWeights(weight=0)).reference is None


def test_an_offset_moves_the_mean_alone():
    parts, pose = torch.full((2, 63), 0.01), torch.tensor([1.0, 2, 3, 0, 0])
    spoken = motion(50, 2)
    moved = apply_style(spoken, offset_style(parts, pose, 0.1, LIVEPORTRAIT), LIVEPORTRAIT_LIPS)
    assert torch.allclose(moved.expression, spoken.expression + 0.02, atol=1e-6)
    assert torch.allclose(moved.angles, spoken.angles + torch.tensor([1.0, 2, 3]), atol=1e-5)


def test_an_offset_and_a_clip_mix():
    style, offset = style_of(motion(80, 1)), offset_style(torch.full((1, 63), 0.02), torch.zeros(5), 0.1, LIVEPORTRAIT)
    spoken = motion(50, 2)
    moved = apply_style(spoken, mix_styles(style, offset, 0.5, 0.5), (), config=WIDE)
    wanted = (style.mean[0, :63] + spoken.expression.mean(0) + 0.02) / 2
    assert torch.allclose(moved.expression.mean(0), wanted, atol=1e-5)


def test_long_motions_are_moved_at_once():
    spoken = motion(15000, 2)
    moved = apply_style(spoken, mix_styles(style_of(motion(80, 1)), style_of(motion(80, 3))), LIVEPORTRAIT_LIPS)
    assert len(moved) == 15000 and torch.isfinite(moved.expression).all()


@pytest.mark.parametrize("constant", [True, False])
def test_files_keep_everything(tmp_path, constant):
    style = style_of(motion(100, 1, SVP))
    style = style if constant else mix_styles(style, style_of(motion(1, 2, SVP)))
    save_motion_style(tmp_path / "style.safetensors", style)
    loaded = load_motion_style(tmp_path / "style.safetensors")
    for name in ("mean", "spread", "own_mean", "own_spread", "variations"):
        assert torch.equal(getattr(loaded, name), getattr(style, name)), name
    assert loaded.space == SVP


def test_a_style_without_variations_is_saved_too(tmp_path):
    save_motion_style(tmp_path / "style.safetensors", style_of(motion(1, 1)))
    assert load_motion_style(tmp_path / "style.safetensors").variations.shape == (0, 1, 63 + ANGLES + GAZE)


def test_wrong_spaces_say_so():
    spoken, style = motion(50, 2), style_of(motion(80, 1, SVP))
    with pytest.raises(PortraitError, match="space liveportrait with 63 numbers, the style in svp with 64"):
        apply_style(spoken, style, ())
    with pytest.raises(PortraitError, match="different spaces cannot be mixed"):
        mix_styles(style, style_of(spoken))
    with pytest.raises(PortraitError, match="unknown easing 'bounce'"):
        mix_styles(style, style, easing="bounce")
    with pytest.raises(PortraitError, match=r"lips_weight of a motion style is 1.5: choose 0 to 1"):
        TransferWeights(lips_weight=1.5)
    broken = replace(spoken, expression=spoken.expression.clone())
    broken.expression[3] = float("nan")
    with pytest.raises(PortraitError, match="1 of 50 frames of the motion hold numbers that are not finite"):
        style_of(broken)


def test_damaged_files_say_what_is_wrong(tmp_path):
    from svp_portrait.svp_models.checkpoints.safetensors_io import write_safetensors

    path, style = tmp_path / "style.safetensors", style_of(motion(80, 1))
    tensors = {name: getattr(style, name) for name in ("mean", "spread", "own_mean", "own_spread")}
    write_safetensors(path, "motion_style", {**tensors, "spread": -style.spread}, {"space": LIVEPORTRAIT})
    with pytest.raises(PortraitError, match="cannot be negative"):
        load_motion_style(path)
    write_safetensors(path, "motion_style", {"mean": style.mean}, {"space": LIVEPORTRAIT})
    with pytest.raises(PortraitError, match="own_mean is missing"):
        load_motion_style(path)
    write_safetensors(path, "motion_style", {**tensors, "spread": style.spread[:, 1:]}, {"space": LIVEPORTRAIT})
    with pytest.raises(PortraitError, match=r"spread of a motion style has shape"):
        load_motion_style(path)
    write_safetensors(path, "style_prior", tensors, {"space": LIVEPORTRAIT})
    with pytest.raises(PortraitError, match="a motion_style is needed"):
        load_motion_style(path)


def test_shapes_of_a_style_are_checked():
    rows = torch.zeros(1, 68)
    with pytest.raises(PortraitError, match="b x 1 x 68 is needed"):
        MotionStylePrior(rows, rows, rows, rows, torch.zeros(2, 68), SVP)
