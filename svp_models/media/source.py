"""Opening a media file and naming what is wrong with it: shared by the audio and the video reader."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import PortraitError
from ..libraries import av

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.video.stream import VideoStream

MAX_JUMP_SECONDS = 600.0  # a longer hole between two time stamps is a broken file, not a pause


@contextmanager
def open_media(path: str | Path) -> Iterator[InputContainer]:
    """The opened container. What libav raises meanwhile becomes a PortraitError naming the file and the cure."""
    try:
        with av.open(str(path)) as container:
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
    return container.streams.best("audio")


def video_stream(container: InputContainer) -> VideoStream | None:
    """The moving picture, None without one; the cover art of a music file does not count."""
    best = container.streams.best("video")
    if best is not None and not best.disposition & best.disposition.attached_pic:
        return best
    return next(
        (each for each in container.streams.video if not each.disposition & each.disposition.attached_pic), None
    )
