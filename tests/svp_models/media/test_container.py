"""Files that name other files are not followed, whatever they are called."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.media.audio import load_audio
from svp_portrait.svp_models.media.video import load_video
from svp_portrait.svp_models.media.writer import CONTAINERS, VideoWriter
from svp_portrait.svp_models.types import Audio

PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:10\n#EXTINF:1.0,\nother.mp4\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile other.mp4\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT1S" '
    'profiles="urn:mpeg:dash:profile:isoff-main:2011"><Period><AdaptationSet><Representation id="1" bandwidth="1">'
    "<BaseURL>other.mp4</BaseURL></Representation></AdaptationSet></Period></MPD>",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
}


@pytest.fixture
def other(tmp_path):
    path = tmp_path / "other.mp4"
    with VideoWriter(path, 32, 32, 25, Audio(torch.rand(1, 16000) - 0.5, 16000)) as writer:
        writer.write(np.full((25, 32, 32, 3), 90, np.uint8))
    return path


@pytest.mark.parametrize("kind", PLAYLISTS)
@pytest.mark.parametrize("suffix", [".m3u8", ".mp4", ".wav", ".txt"])
def test_playlists_open_no_other_file(other, kind, suffix):
    path = other.with_name(f"list{suffix}")
    path.write_text(PLAYLISTS[kind])
    for load in (load_video, load_audio):
        with pytest.raises(PortraitError, match=f"list{suffix}: cannot be (decoded|opened)"):
            load(path)


@pytest.mark.parametrize("name", ["concat:other.mp4|other.mp4", "subfile,,start,0,end,0,,:other.mp4", "frame%03d.png"])
def test_a_name_is_a_file_and_no_address(other, monkeypatch, name):
    monkeypatch.chdir(other.parent)
    with pytest.raises(PortraitError, match="cannot be (opened|decoded)"):
        load_video(name)


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_the_usual_containers_open(tmp_path, suffix):
    path = tmp_path / f"clip{suffix}"
    with VideoWriter(path, 32, 32, 25, Audio(torch.rand(1, 16000) - 0.5, 16000)) as writer:
        writer.write(np.full((25, 32, 32, 3), 90, np.uint8))
    video = load_video(path)
    assert len(video) == 25 and abs(int(video.frames.mean()) - 90) <= 2 and video.audio.seconds >= 1


def test_an_unknown_codec_is_named(other):
    data = bytearray(other.read_bytes().replace(b"mp4a", b"zzzz"))
    data[data.index(b"\x40\x15", data.index(b"esds"))] = 0xFE  # MPEG-4's own number of the codec
    other.write_bytes(data)
    with pytest.raises(PortraitError, match="other.mp4: the codec of its audio track is unknown: convert"):
        load_audio(other)
