"""The scales on which generators work: what their numbers are in LivePortrait's space."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

# Parts of a generator's motion vector, in order, and how many numbers each has; names as in `motion.keypoints`.
KDTALKER_ORDER = {"scale": 1, "yaw": 1, "pitch": 1, "roll": 1, "t": 3, "exp": 63}
JOYVASA_ORDER = {"exp": 63, "scale": 1, "t": 3, "pitch": 1, "yaw": 1, "roll": 1}


@dataclass(frozen=True)
class MotionScale:
    """How a generator's numbers relate to LivePortrait's: value = number x spread + offset.

    offset, spread: name -> as many numbers as the name has (`KDTALKER_ORDER`, `JOYVASA_ORDER`; KDTalker also has `kp`).
    """

    offset: dict[str, Tensor]
    spread: dict[str, Tensor]

    def values(self, name: str, numbers: Tensor) -> Tensor:
        return numbers * self.spread[name] + self.offset[name]

    def numbers(self, name: str, values: Tensor) -> Tensor:
        return (values - self.offset[name]) / self.spread[name]


def scaled_parts(numbers: Tensor, scale: MotionScale, order: dict[str, int]) -> dict[str, Tensor]:
    """What a generator's numbers n c mean: pitch, yaw, roll and scale, n each; t, n 3; exp, n points 3.

    order: names and sizes of the parts, from the front; the number of points follows from c.
    """
    rest = numbers.shape[1] - sum(size for name, size in order.items() if name != "exp")
    parts = dict(
        zip(order, numbers.split([rest if name == "exp" else size for name, size in order.items()], 1), strict=True)
    )
    values = {name: scale.values(name, part) for name, part in parts.items()}
    flat = {name: values[name].flatten() for name in ("pitch", "yaw", "roll", "scale")}
    return {**flat, "t": values["t"], "exp": values["exp"].unflatten(1, (-1, 3))}
