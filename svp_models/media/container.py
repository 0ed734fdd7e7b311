"""Opening a media file and naming what is wrong with it: shared by the audio and the video reader."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ..errors import PortraitError
from ..optional_deps import av

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.video.stream import VideoStream

# Containers that hold audio and video themselves. Playlists (hls, dash, concat, image2 ...) would open further files, and a file
# from an unknown source could name any.
CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,vvc,av1,obu,ivf,flv,live_flv,asf,ogg,mxf,gxf,dv,rm,"
    "nut,mjpeg,mjpeg_2000,gif,apng,yuv4mpegpipe,wtv,nsv,film_cpk,swf,h263,h261,cavsvideo,vc1,vc1test,dirac,"
    "wav,w64,rf64,aiff,au,caf,mp3,mp2,aac,ac3,eac3,ac4,flac,amr,amrnb,amrwb,ape,wv,tta,tak,dts,dtshd,truehd,mlp,mpc,mpc8,oma,voc,spdif,"
    "loas,latm,gsm,sbc,aptx,aptx_hd,dsf,iff,sox,aea,shn,xwma,bit,codec2,ircam,nistsphere,ico,"
    "png_pipe,jpeg_pipe,webp_pipe,bmp_pipe,tiff_pipe"
)
OPTIONS = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS}
Track = TypeVar("Track", "AudioStream", "VideoStream")
Source = str | Path | BytesIO
MAX_JUMP_SECONDS = 600.0  # a longer gap between two time stamps is a broken file, not a pause


@contextmanager
def open_media(path: Source) -> Iterator[InputContainer]:
    """The opened container. Errors of libav in the block become a PortraitError that names the file and the cure."""
    if isinstance(path, BytesIO):
        path.seek(0)
    try:
        # Absolute, so that it cannot be taken for a URL.
        with av.open(path if isinstance(path, BytesIO) else os.path.abspath(path), options=OPTIONS) as container:
            yield container
    except (av.error.FileNotFoundError, av.error.PermissionError, av.error.IsADirectoryError) as error:
        raise PortraitError(f"{path}: cannot be opened ({error.strerror}): check the path") from error
    except av.error.FFmpegError as error:
        raise PortraitError(
            f"{path}: cannot be decoded ({error.strerror}): the file is damaged, incomplete or no audio or video file; "
            "copy or export it again, or convert it to MP4 (H.264 + AAC)"
        ) from error


def audio_stream(container: InputContainer) -> AudioStream | None:
    """The audio track that libav deems the best, None without one."""
    best = container.streams.best("audio")
    return _decodable(best, container) if isinstance(best, av.AudioStream) else None


def video_stream(container: InputContainer) -> VideoStream | None:
    """The video track, None without one; the cover art of a music file does not count."""
    best = container.streams.best("video")
    if not isinstance(best, av.VideoStream) or best.disposition & best.disposition.attached_pic:
        tracks = (track for track in container.streams.video if not track.disposition & track.disposition.attached_pic)
        best = next(tracks, None)
    return _decodable(best, container)


def _decodable(stream: Track | None, container: InputContainer) -> Track | None:
    """The same track; one with an unknown codec raises PortraitError."""
    if stream is not None and stream.codec_context is None:
        raise PortraitError(
            f"{container.name}: the codec of its {stream.type} track is unknown: convert the file to MP4 (H.264 + AAC)"
        )
    return stream
