"""The temporal layer in closed form: what it adds to each cell, its positions, and where it starts."""

from __future__ import annotations

import pytest
import torch

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.networks.attention import sinusoidal_encoding
from svp_portrait.svp_models.networks.motion_module import MotionModule, set_encodings, stored_encodings

CLIPS, FRAMES, CHANNELS, POSITIONS = 2, 3, 8, 4


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.fixture
def module():
    torch.manual_seed(4)
    module = MotionModule(CHANNELS, heads=3, groups=4, positions=POSITIONS)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module.eval()


def test_it_starts_as_nothing():
    fresh, images = MotionModule(CHANNELS, heads=2, groups=4, positions=POSITIONS), draw(6, CHANNELS, 2, 5)
    assert torch.equal(fresh(images, FRAMES), images)


@torch.no_grad()
def test_every_cell_attends_along_its_own_frames(module):
    """Written out for one cell of one clip: group norm of each frame, then two attentions with positions, then the layer."""
    images = draw(CLIPS * FRAMES, CHANNELS, 2, 5)
    found = module(images, FRAMES)
    (block,) = module.transformer_blocks
    assert module.proj_in.out_features == 6, "3 heads of 2"
    table = sinusoidal_encoding(FRAMES, 6, images)
    normed = torch.nn.functional.group_norm(images, 4, module.norm.weight, module.norm.bias, eps=1e-6)
    for clip, row, column in ((0, 0, 0), (1, 1, 3), (1, 0, 4)):
        rows = slice(clip * FRAMES, (clip + 1) * FRAMES)
        hidden = module.proj_in(normed[rows, :, row, column])[None]  # 1 f c
        for norm, attend in zip(block.norms, block.attention_blocks, strict=True):
            hidden = hidden + attend(norm(hidden) + table)
        hidden = hidden + block.ff(block.ff_norm(hidden))
        expected = images[rows, :, row, column] + module.proj_out(hidden[0])
        torch.testing.assert_close(found[rows, :, row, column], expected, rtol=1e-5, atol=1e-5)
    assert len(block.attention_blocks) == 2


@torch.no_grad()
def test_the_norm_is_that_of_group_norm_with_a_small_epsilon(module):
    """So small that frames of tiny values are normed as well: an epsilon of 1e-4 would leave them at a third."""
    seen = []
    module.proj_in.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    torch.nn.init.ones_(module.norm.weight)
    torch.nn.init.zeros_(module.norm.bias)
    module(0.01 * draw(FRAMES, CHANNELS, 6, 6), FRAMES)
    assert seen[0].std().item() == pytest.approx(1, abs=0.02)


@torch.no_grad()
def test_a_window_may_be_as_long_as_there_are_positions(module):
    assert module(draw(POSITIONS, CHANNELS, 2, 2), POSITIONS).shape == (POSITIONS, CHANNELS, 2, 2)
    with pytest.raises(PortraitError, match="5 frames is longer than the 4"):
        module(draw(POSITIONS + 1, CHANNELS, 2, 2), POSITIONS + 1)


@torch.no_grad()
def test_encodings_of_a_file_replace_the_computed_ones(module):
    images = draw(FRAMES, CHANNELS, 2, 2)
    assert stored_encodings(module) == {}
    before = module(images, FRAMES)
    table = sinusoidal_encoding(POSITIONS, 6, images)
    (name,) = {f"{key}.places" for key, each in module.named_modules() if hasattr(each, "positional_encoding")}
    set_encodings(module, {name: torch.stack([table, table])}, "file")
    assert torch.equal(module(images, FRAMES), before) and list(stored_encodings(module)) == [name]
    set_encodings(module, {name: torch.stack([table, table.flip(0)])}, "file")
    assert not torch.allclose(module(images, FRAMES), before)
    with pytest.raises(PortraitError, match=r"file: .*places has shape \[2, 3, 6\], \[2, 4, 6\] is needed"):
        set_encodings(module, {name: torch.zeros(2, 3, 6)}, "file")
    with pytest.raises(PortraitError, match=r"file: other has shape \[1\], \[\] is needed"):
        set_encodings(module, {"other": torch.zeros(1)}, "file")
