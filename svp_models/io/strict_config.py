"""Frozen dataclasses read from files: every value has a type and a range, and what is wrong is said in one line.

    @dataclass(frozen=True)
    class Sizes(Checked):
        layers: int = limited(2, 1, 16)
        kind: str = one_of("small", "small", "large")

    config_from_dict(Sizes, {"layers": 100}, "FILE: config")   # FILE: config.layers is 100: 1 to 16 is allowed

Values are checked whenever such a dataclass is made, so that those from files of other makers are too.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from functools import lru_cache
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from ..errors import PortraitError

LONGEST_TEXT = 100_000  # characters
LARGEST_SEED = 2**63 - 1
SHOWN = 60  # characters of a value in a message
NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


@dataclass(frozen=True)
class Checked:
    """Base of frozen dataclasses whose values are checked when they are made; PortraitError begins with the field's name."""

    def __post_init__(self) -> None:
        own: type = type(self)
        hints = _hints(own)
        for item in fields(self):
            _check(item.name, getattr(self, item.name), hints[item.name], item.metadata)


def limited(
    default: Any = MISSING, low: float = 0, high: float = 0, *, below: bool = False, least: int = 1, most: int = 0
) -> Any:
    """A field of numbers from `low` to `high` (below: without `high` itself), or of a list of `least` to `most` of them; of
    text, the number of its characters is limited."""
    limits: dict[str, Any] = {"below": below, "least": least, "most": most}
    if low < high:
        limits |= {"low": low, "high": high}
    return field(default=default, metadata=limits)


def required() -> Any:
    """A field without a default, behind fields of `limited` and `one_of` too."""
    return field()


def one_of(default: Any, *choices: str) -> Any:
    """A field of text that has to be one of the choices; in a list of texts, every one."""
    return field(default=default, metadata={"choices": choices})


def config_from_dict(cls: type, values: Any, where: str = "config") -> Any:
    """Builds a frozen config (nested ones too) from plain values; PortraitError names the key that is unknown, missing, of
    another type or out of its range, after `where`, which may end in a colon where it is no section itself."""
    title = where.removesuffix(":")
    if not isinstance(values, Mapping):
        raise PortraitError(f"{title} is {shown(values)}: names and values are needed")
    hints = _hints(cls)
    unknown = sorted(str(name) for name in set(values) - set(hints))
    if unknown:
        some = ", ".join(shown(name)[1:-1] for name in unknown[:5])
        raise PortraitError(f"{title}: unknown key {some}; known are {', '.join(sorted(hints))}")
    needed = [item.name for item in fields(cls) if item.default is MISSING and item.default_factory is MISSING]
    missing = [name for name in needed if name not in values]
    if missing:
        raise PortraitError(f"{title}: missing {len(missing)} required: {', '.join(map(repr, missing))}")
    built = {name: _converted(hints[name], value, _joined(where, name)) for name, value in values.items()}
    try:
        return cls(**built)
    except PortraitError as error:
        raise PortraitError(_joined(where, str(error))) from error


def with_current_names(values: Any, aliases: Mapping[str, str], where: str = "config", depth: int = 4) -> Any:
    """Plain values with the keys of earlier versions (aliases: old -> new) renamed in the sections down to `depth`; a section
    that has a key under both names raises PortraitError."""
    if not isinstance(values, Mapping) or not depth:
        return values
    renamed: dict[str, Any] = {}
    for key, value in values.items():
        name = aliases.get(key, key)
        if name in renamed:
            raise PortraitError(
                f"{where.removesuffix(':')}: {name} is given twice, once under an earlier name: give one"
            )
        renamed[name] = with_current_names(value, aliases, _joined(where, str(key)), depth - 1)
    return renamed


def _joined(where: str, name: str) -> str:
    return f"{where}{' ' if where.endswith(':') else '.'}{name}"


def config_to_json(config: Any) -> str:
    """A config as one line of JSON, keys in the order of declaration."""
    return json.dumps(asdict(config))


def json_value(text: str | bytes, where: str) -> Any:
    """What a JSON text holds; one that is damaged, or nested too deeply to be read, raises PortraitError."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise PortraitError(
            f"{where}: not JSON that can be read (nested too deeply): it is damaged, get it again"
        ) from error
    except ValueError as error:  # no JSON, no UTF-8, or a number of thousands of digits
        raise PortraitError(f"{where}: not JSON ({error}): it is damaged, get it again") from error


def shown(value: Any) -> str:
    """A value in a message: short, on one line."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**SHOWN:
        return "a number of too many digits"
    if isinstance(value, (Mapping, list, tuple)) and len(value) > SHOWN:
        return f"a {'list' if isinstance(value, (list, tuple)) else 'section'} of {len(value)} values"
    try:
        return _cut("null" if value is None else repr(value))
    except (RecursionError, ValueError):  # nested deeply, or a number of thousands of digits inside
        return f"a {type(value).__name__}"


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


@lru_cache(maxsize=256)
def _hints(cls: type) -> dict[str, Any]:
    known = get_type_hints(cls)
    return {item.name: known[item.name] for item in fields(cls)}


def _converted(hint: Any, value: Any, where: str) -> Any:
    """Plain values as the types of a config have them: lists become tuples, whole numbers floats, mappings configs."""
    kinds = [each for each in get_args(hint) if each is not NoneType] if get_origin(hint) is not tuple else []
    config = next((each for each in (hint, *kinds) if isinstance(each, type) and is_dataclass(each)), None)
    if config is not None and (value is not None or config is hint):
        return config_from_dict(config, value, where)
    if isinstance(value, list):
        return tuple(_converted(float if float in get_args(hint) else Any, each, where) for each in value)
    if hint is float and type(value) is int and abs(value) < 2**1000:
        return float(value)
    return value


def _check(name: str, value: Any, hint: Any, limits: Mapping[str, Any]) -> None:
    options = [hint] if get_origin(hint) is tuple or not get_args(hint) else list(get_args(hint))
    if value is None and NoneType in options:
        return
    options = [option for option in options if option is not NoneType]
    fitting = next((option for option in options if _is_of(value, option)), None)
    if fitting is None:
        raise PortraitError(f"{name} is {shown(value)}: it must be {' or '.join(map(_described, options))}")
    if get_origin(fitting) is tuple:
        _check_list(name, value, fitting, limits)
    elif fitting in NAMES:
        _check_single(name, value, limits)


def _is_of(value: Any, kind: Any) -> bool:
    if get_origin(kind) is tuple:
        inner = get_args(kind)[0]
        return isinstance(value, (tuple, list)) and all(_is_of(item, inner) for item in value)
    if kind is float:
        return type(value) in (int, float)
    if kind in NAMES:
        return type(value) is kind
    return isinstance(value, get_origin(kind) or kind)


def _described(kind: Any) -> str:
    if get_origin(kind) is tuple:
        return f"a list, each of it {_described(get_args(kind)[0])}"
    return NAMES.get(kind, "a section of its own")


def _check_list(name: str, values: Any, kind: Any, limits: Mapping[str, Any]) -> None:
    inner = get_args(kind)
    least, most = (
        (len(inner), len(inner)) if inner[-1] is not Ellipsis else (limits.get("least", 0), limits.get("most", 0))
    )
    if most and not least <= len(values) <= most:
        allowed = str(most) if least == most else f"{least} to {most}"
        raise PortraitError(f"{name} has {len(values)} values: {allowed} are allowed")
    for value in values:
        if not is_dataclass(value):  # a section is checked when it is made
            _check_single(name, value, limits)


def _check_single(name: str, value: Any, limits: Mapping[str, Any]) -> None:
    choices = limits.get("choices")
    if choices and value not in choices:
        raise PortraitError(f"{name} is {shown(value)}: it must be one of {', '.join(map(str, choices))}")
    if isinstance(value, str):
        least, most = (limits["least"], limits["most"]) if limits.get("most") else (0, LONGEST_TEXT)
        if not least <= len(value) <= most:
            raise PortraitError(f"{name} has {len(value)} characters: {least} to {most} are allowed")
        if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
            raise PortraitError(f"{name} is {shown(value)}: it holds characters that no text has")
        return
    if isinstance(value, bool):
        return
    low, high, below = limits.get("low", -math.inf), limits.get("high", math.inf), limits.get("below", False)
    inside = low <= value <= high and not (below and value == high)
    if not inside or (isinstance(value, float) and not math.isfinite(value)):
        allowed = f"{_plain(low)} to {'below ' if below else ''}{_plain(high)} is allowed"
        raise PortraitError(f"{name} is {shown(value)}: {allowed if 'high' in limits else 'a finite number is needed'}")


def _plain(limit: float) -> str:
    return f"{limit:g}" if isinstance(limit, float) else str(limit)
