"""Style layers through the nodes."""

from __future__ import annotations

import pytest
import torch

from svp_portrait.nodes.host import NO_FILES
from svp_portrait.nodes.loaders import SVPLoadStyleLayer, SVPSaveStyleLayer
from svp_portrait.nodes.style import SVPStyleExtract, SVPStyleSample
from svp_portrait.svp_models.checkpoints.safetensors_io import read_metadata
from svp_portrait.svp_models.diffusion.checks import check_style
from svp_portrait.svp_models.errors import PortraitError


def test_saved_layers_are_listed_and_loaded(folders, loaded, clip):
    assert SVPLoadStyleLayer.define_schema().inputs[1].options == [NO_FILES]
    saved = SVPSaveStyleLayer.execute(loaded[0], "svp_style_layers/lively").args[0]
    assert saved == "svp_style_layers/lively_00001_.safetensors" and (folders / "output" / saved).is_file()
    assert SVPLoadStyleLayer.define_schema().inputs[1].options == ["lively_00001_.safetensors"]
    assert SVPLoadStyleLayer.fingerprint_inputs(style_layer="lively_00001_.safetensors") > 0
    header = read_metadata(folders / "output" / saved)
    assert header["kind"] == "style_layer" and header["seed"] == "0"  # the model's own record goes along
    half = SVPLoadStyleLayer.execute(loaded[0], "lively_00001_.safetensors", 0.5).args[0]
    names = [name for name in loaded[0].portrait.networks.state_dict() if name.endswith("style_attn.to_out.0.weight")]
    for name in names:
        before, after = (each.portrait.networks.get_parameter(name) for each in (loaded[0], half))
        torch.testing.assert_close(after, before / 2, atol=1e-3, rtol=0)
    assert names and half.portrait.vae is loaded[0].portrait.vae
    # Styles belong to the layers: what the base extracts fits the result too, as both have the same extractor.
    prior = SVPStyleExtract.execute(half, frames=clip["frames"]).args[0]
    check_style(SVPStyleSample.execute(prior, 0, 1.0).args[0], loaded[0].portrait)


def test_errors_name_file_and_folder(folders, loaded):
    with pytest.raises(PortraitError, match=r"no file 'gone.safetensors' in .*svp_style_layers"):
        SVPLoadStyleLayer.execute(loaded[0], "gone.safetensors", 1.0)
    assert "leads outside the output folder" in SVPSaveStyleLayer.validate_inputs(filename_prefix="../up")


def test_what_to_do_without_files_is_said_before_the_run(folders):
    (given,) = [each for each in SVPLoadStyleLayer.define_schema().inputs if each.id == "style_layer"]
    assert "run Save Style Layers, then press R" in SVPLoadStyleLayer.validate_inputs(given.default)
    assert "no file 'gone.safetensors'" in SVPLoadStyleLayer.validate_inputs("gone.safetensors")
    assert SVPLoadStyleLayer.validate_inputs(None) is True
