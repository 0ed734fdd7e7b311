"""Widgets on the real host: lists that are read again, flags that reach the web page, and refusals before anything runs."""

from __future__ import annotations

import pytest

from .server import Server, talking

LISTS = {
    "SVPLoadModel": ("model", "models/svp/later.safetensors", "later.safetensors"),
    "SVPStyleLoad": ("style", "models/svp_styles/later.safetensors", "later.safetensors"),
    "SVPLoadStyleLayer": ("style_layer", "output/svp_style_layers/later.safetensors", "later.safetensors"),
    "SVPLoadAudioEncoder": ("audio_encoder", "models/audio_encoders/later/model.safetensors", "later"),
}


def options(server: Server, node: str) -> list[str]:
    given = server.get(f"/object_info/{node}")[node]["input"]["required"][LISTS[node][0]]
    return given[1]["options"]


@pytest.mark.parametrize("node", LISTS)
def test_lists_are_read_again(server: Server, node: str):
    """What the web page asks for at R: a new file is in the list, one that is gone is not."""
    _, file, choice = LISTS[node]
    before = options(server, node)
    assert choice not in before
    path = server.base / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    assert set(options(server, node)) >= {choice}
    path.unlink()
    assert options(server, node) == before


def test_the_web_page_is_told_what_to_fold_away(server: Server):
    given = server.get("/object_info/SVPSampler")["SVPSampler"]["input"]["required"]
    assert given["scheduler"][1]["advanced"] is True and "advanced" not in given["steps"][1]
    assert given["seed"][1]["control_after_generate"] is True
    data = server.get("/object_info/SVPPrepareDataset")["SVPPrepareDataset"]["input"]["required"]
    assert data["seed"][1]["control_after_generate"] is False
    assert "/extensions/svp-portrait/js/advanced.js" in server.get("/extensions")


def test_numbers_out_of_bounds_are_refused_with_their_bounds(server: Server):
    wrong = talking(server, sampler={"width": 100, "steps": 201, "cfg": -2.0})
    told = " ".join(server.refusal(wrong)["sampler"])
    assert "width is 100 pixels" in told and "the nearest is 104" in told
    assert "steps" in told and "cfg" in told


def test_what_is_left_to_the_model_runs(server: Server):
    left_open = {"width": 0, "height": 0, "cfg": -1.0, "fps": 0.0}
    run = server.run(talking(server, sampler=left_open))
    assert not run.error
