"""Opening ONNX models; onnxruntime is imported with the first one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import PortraitError
from ..libraries import onnxruntime

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


def open_session(
    model: bytes | str, what: str, cure: str, providers: Sequence[str], threads: int = 0
) -> InferenceSession:
    """A session of a model: its path or its content. providers: the wanted ones, best first; what is not there is left out.

    what, cure: how a message calls a model that cannot be used, and what to do then. threads: 0 for as many as there are cores.
    """
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors are raised anyway
    if threads:
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    available = ort.get_available_providers()
    try:
        return ort.InferenceSession(model, options, providers=[each for each in providers if each in available])
    except (*_load_errors(), OSError) as error:
        raise PortraitError(f"{what} is no usable ONNX model: {cure}") from error


def _load_errors() -> tuple[type[Exception], ...]:
    """What onnxruntime raises for a model that it cannot use."""
    from onnxruntime.capi import onnxruntime_pybind11_state as errors

    names = (
        "Fail",
        "InvalidArgument",
        "InvalidGraph",
        "InvalidProtobuf",
        "NotImplemented",
        "NoSuchFile",
        "RuntimeException",
    )
    return tuple(getattr(errors, name) for name in names)
