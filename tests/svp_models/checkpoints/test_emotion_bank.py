from __future__ import annotations

import pytest
import torch

from svp_portrait.svp_models.checkpoints.emotion_bank import (
    BUILT_IN_BANK,
    find_emotion_bank,
    load_emotion_bank,
    save_emotion_bank,
)
from svp_portrait.svp_models.checkpoints.model_file import BUILTIN_MODEL
from svp_portrait.svp_models.checkpoints.safetensors_io import read_metadata, write_safetensors
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.networks.emotion_bank import EmotionBank, EmotionBankConfig
from svp_portrait.svp_models.synthetic.performance import EMOTIONS


@pytest.fixture
def bank() -> EmotionBank:
    torch.manual_seed(0)
    made = EmotionBank(EmotionBankConfig(("neutral", "happy"), 4, 3, 8))
    made.start(torch.randn(20, 4), torch.Generator().manual_seed(0))
    return made.half().float().eval()


def test_a_bank_comes_back_as_it_was_saved(tmp_path, bank):
    save_emotion_bank(tmp_path / "a.safetensors", bank, "space", {"seed": "3"})
    again, space = load_emotion_bank(tmp_path / "a.safetensors")
    assert space == "space" and again.config == bank.config
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in bank.state_dict().items())
    assert read_metadata(tmp_path / "a.safetensors")["seed"] == "3"


def test_the_bank_of_a_style_space_is_found(tmp_path, bank):
    paths = [tmp_path / f"{name}.safetensors" for name in "abcd"]
    write_safetensors(paths[0], "style", {"codes": torch.zeros(1, 4)}, {"style_space": "mine"})
    paths[1].write_text("no safetensors")
    save_emotion_bank(paths[2], bank, "other", {})
    save_emotion_bank(paths[3], bank, "mine", {})
    assert find_emotion_bank("mine", paths).config == bank.config
    assert find_emotion_bank("mine", paths[:3]) is None
    assert find_emotion_bank("") is None


def test_what_is_wrong_with_a_file_is_said(tmp_path, bank):
    save_emotion_bank(tmp_path / "a.safetensors", bank, "", {})
    with pytest.raises(PortraitError, match="it names no style space"):
        load_emotion_bank(tmp_path / "a.safetensors")
    bank.unit.zero_()
    save_emotion_bank(tmp_path / "b.safetensors", bank, "space", {})
    with pytest.raises(PortraitError, match="its unit is 0, above 0 is needed"):
        load_emotion_bank(tmp_path / "b.safetensors")


def test_the_pack_s_bank_is_of_the_built_in_model_and_small():
    found = find_emotion_bank(read_metadata(BUILTIN_MODEL)["style_space"])
    assert found is not None and found.config.emotions == EMOTIONS
    about = read_metadata(BUILT_IN_BANK)
    assert BUILT_IN_BANK.stat().st_size < 200e3 and float(about["test_share"]) > 0.95
    assert int(about["step"]) > 0 and about["data_version"] and about["seed"]
