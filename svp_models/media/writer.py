"""Writing a video frame by frame: H.264 + AAC, complete or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ..errors import PortraitError
from ..io.files import reason, whole_file
from ..optional_deps import av, reformatter
from ..types import Audio
from .audio import check_audio, to_mono
from .video import as_rate

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
AAC_RATES = (16000, 22050, 24000, 32000, 44100, 48000)  # Hz that every player supports
AAC_BITS_PER_SAMPLE = 4  # bit rate per channel and Hz: 192 kbit/s for 48 kHz mono
MAX_AAC_BIT_RATE = 192_000
BEST_CRF = 1  # below, x264 writes the profile High 4:4:4 Predictive, which phones and televisions do not support


class VideoWriter:
    """Context manager that writes frames as they come and leaves either a complete file or none.

    The file appears under its name only when the block ends without an error; an exception in the block, a full disk or a
    cancellation leaves nothing behind. Frame i is at i / fps seconds, exactly; the audio begins with frame 0 (the delay of the
    AAC encoder is removed by the edit list of the container) and is cut or padded with silence to frames / fps seconds.
    Odd sizes grow by one repeated column or row, because yuv420p halves the colours. Audio beyond +-1 is clipped; more
    than two channels are mixed to one. crf: 0 (best) to 51 (worst) in the profile High, which every player supports; None is
    lossless after the conversion to yuv420p, for files that are not played. x264: further options of the encoder, for example
    {"g": "12"}. metadata: texts by name, stored in the container.
    """

    def __init__(
        self,
        path: str | Path,
        width: int,
        height: int,
        fps: float | Fraction,
        audio: Audio | None = None,
        crf: int | None = 18,
        x264: Mapping[str, str] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        self.path = Path(path)
        self.width, self.height, self.rate, self.metadata = width, height, as_rate(fps), dict(metadata or {})
        quality = {"crf": "0"} if crf is None else {"crf": str(max(crf, BEST_CRF)), "profile": "high"}
        self._x264 = {**(x264 or {}), **quality}
        self.frames_written = 0
        if self.path.suffix.lower() not in CONTAINERS:
            raise PortraitError(f"{path}: the ending must be one of {', '.join(CONTAINERS)}: rename the output")
        if width < 1 or height < 1:
            raise PortraitError(f"{path}: the frames are {width} x {height} pixels: both must be at least 1")
        if crf is not None and not 0 <= crf <= 51:
            raise PortraitError(f"{path}: crf is {crf}: it must be between 0 (best) and 51 (worst)")
        if audio is not None:
            check_audio(audio, f"audio for {path}")
        silent: tuple[np.ndarray, int] = (np.zeros((0, 0), np.float32), 0)
        self._samples, self._sample_rate = _playable(audio) if audio is not None else silent
        self._samples_written = 0
        self._reformatter = reformatter.VideoReformatter()  # reused: a new one costs more than a small frame

    def __enter__(self) -> VideoWriter:
        if not self.path.parent.is_dir():
            raise PortraitError(f"{self.path}: the folder {self.path.parent} does not exist: create it first")
        kind = CONTAINERS[self.path.suffix.lower()]
        flags = "+faststart" + ("+use_metadata_tags" if self.metadata else "")  # a flag alone changes the file
        options = {"movflags": flags} if kind != "matroska" else {}
        with ExitStack() as stack:  # whatever fails or is cancelled on the way leaves no file
            try:
                temporary = stack.enter_context(whole_file(self.path))
                self._container = av.open(str(temporary), "w", format=kind, options=options)
            except (av.error.FFmpegError, OSError) as error:
                raise self._failure(error) from error
            stack.callback(self._close)
            self._container.metadata.update(self.metadata)
            self._video = self._add_video()
            self._audio = self._add_audio() if len(self._samples) else None
            self._file = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._file.__exit__(kind, error, trace)  # removes the file
            return
        try:
            with self._file:
                self._finish()
        except OSError as failure:  # the complete file cannot replace the target
            raise self._failure(failure) from failure

    def write(self, frames: np.ndarray) -> None:
        """Append frames: n h w 3, uint8 RGB."""
        expected = (self.height, self.width, 3)
        if frames.ndim != 4 or frames.shape[1:] != expected or frames.dtype != np.uint8:
            raise PortraitError(
                f"{self.path}: frames are {frames.dtype} of shape {tuple(frames.shape)}: they must be uint8 of shape "
                f"n x {self.height} x {self.width} x 3"
            )
        odd = ((0, 0), (0, self.height % 2), (0, self.width % 2), (0, 0))
        for image in np.pad(frames, odd, mode="edge") if self.height % 2 or self.width % 2 else frames:
            frame = self._reformatter.reformat(
                av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24"),
                format="yuv420p",
                dst_colorspace=reformatter.Colorspace.ITU709,
                dst_color_range=reformatter.ColorRange.MPEG,
                dst_color_primaries=reformatter.ColorPrimaries.BT709,
                dst_color_trc=reformatter.ColorTrc.BT709,
                interpolation="BICUBIC",
                threads=1,  # one frame is too little work to share
            )
            frame.pts, frame.time_base = self.frames_written, 1 / self.rate
            self._mux(self._video, frame)
            self.frames_written += 1
            if self._audio is not None and self._samples_due() - self._samples_written >= self._sample_rate:
                self._write_audio(self._audio)  # a second at a time, so that neither stream waits long for the other

    def _add_video(self) -> av.VideoStream:
        stream = self._container.add_stream("libx264", rate=self.rate, options=self._x264)
        stream.width, stream.height = self.width + self.width % 2, self.height + self.height % 2
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.time_base = 1 / self.rate
        context.color_primaries, context.color_trc = reformatter.ColorPrimaries.BT709, reformatter.ColorTrc.BT709
        context.colorspace, context.color_range = reformatter.Colorspace.ITU709, reformatter.ColorRange.MPEG
        return stream

    def _add_audio(self) -> av.AudioStream:
        channels = len(self._samples)
        stream = self._container.add_stream("aac", rate=self._sample_rate, layout="mono" if channels == 1 else "stereo")
        stream.bit_rate = channels * min(MAX_AAC_BIT_RATE, AAC_BITS_PER_SAMPLE * self._sample_rate)
        return stream

    def _samples_due(self) -> int:
        """Samples for the frames written so far."""
        return round(self.frames_written / self.rate * self._sample_rate)

    def _write_audio(self, stream: av.AudioStream) -> None:
        due = self._samples_due()
        samples = np.zeros((len(self._samples), due - self._samples_written), np.float32)
        stored = self._samples[:, self._samples_written : due]
        samples[:, : stored.shape[1]] = stored.clip(-1, 1)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono" if len(samples) == 1 else "stereo")
        frame.sample_rate, frame.pts, frame.time_base = (
            self._sample_rate,
            self._samples_written,
            Fraction(1, self._sample_rate),
        )
        self._mux(stream, frame)
        self._samples_written = due

    def _mux(self, stream: av.VideoStream | av.AudioStream, frame: Any) -> None:
        """Encode a frame of the kind of the stream (None: flush the encoder) and write the packets."""
        try:
            for packet in stream.encode(frame):
                self._container.mux(packet)
        except (av.error.FFmpegError, OSError) as error:
            raise self._failure(error) from error

    def _finish(self) -> None:
        if self.frames_written == 0:
            raise PortraitError(f"{self.path}: 0 frames were written: a video needs at least one")
        if self._audio is not None:
            if self._samples_due() > self._samples_written:
                self._write_audio(self._audio)
            self._mux(self._audio, None)
        self._mux(self._video, None)
        try:
            self._container.close()  # writes the index, so a full disk may show only here
        except (av.error.FFmpegError, OSError) as error:
            raise self._failure(error) from error

    def _close(self) -> None:
        with suppress(av.error.FFmpegError, OSError):  # the file is removed, or was closed before
            self._container.close()

    def _failure(self, error: Exception) -> PortraitError:
        return PortraitError(
            f"{self.path}: the video cannot be written ({reason(error)}) after {self.frames_written} frames: free disk space "
            "or choose another folder; nothing was left behind"
        )


def _playable(audio: Audio) -> tuple[np.ndarray, int]:
    """channels x samples and the sample rate, both supported by AAC; no copy where nothing has to change."""
    if audio.waveform.shape[0] <= 2 and audio.sample_rate in AAC_RATES:
        return audio.waveform.float().numpy(), audio.sample_rate
    rate = audio.sample_rate if audio.sample_rate in AAC_RATES else AAC_RATES[-1]
    rows = [audio.waveform] if audio.waveform.shape[0] > 2 else audio.waveform[:, None]
    channels = [to_mono(Audio(row, audio.sample_rate), rate).numpy() for row in rows]
    return np.stack(channels), rate
