from __future__ import annotations

import numpy as np
import pytest
import torch

from svp_portrait.svp_models.data.labels import SoundReader
from svp_portrait.svp_models.media.audio import load_audio, to_mono
from svp_portrait.svp_models.media.video import rate_and_origin
from svp_portrait.svp_models.media.writer import VideoWriter
from svp_portrait.svp_models.types import Audio


@pytest.fixture(params=[16000, 44100, 48000])
def film(request, tmp_path):
    """Three seconds of grey with stereo noise."""
    generator = torch.Generator().manual_seed(0)
    path, rate = tmp_path / "a.mp4", request.param
    with VideoWriter(path, 32, 32, 25, Audio(0.1 * torch.randn(2, 3 * rate, generator=generator), rate)) as writer:
        writer.write(np.full((75, 32, 32, 3), 90, np.uint8))
    return path


def test_pieces_are_those_of_the_whole_sound(film):
    whole = to_mono(load_audio(film), 16000).numpy()
    reader = SoundReader(film, rate_and_origin(film)[1])
    for first, count in ((0, 640), (0, 6400), (7000, 16000), (30000, 100)):
        assert np.allclose(reader.read(first, count), whole[first : first + count], atol=2e-4)
    rest = reader.read(40000, 16000)
    assert reader.end == len(rest) + 40000 and abs(reader.end - len(whole)) <= 1
    assert np.allclose(rest[:8000], whole[40000:48000], atol=2e-4)


def test_little_is_held_and_there_is_no_way_back(film):
    reader = SoundReader(film, 0.0)
    reader.read(32000, 640)
    assert len(reader._held) < 8000
    with pytest.raises(ValueError, match="those before 32000 are gone"):
        reader.read(0, 640)
