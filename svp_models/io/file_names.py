"""What users name files: `filename_prefix` with subfolders and %date% fields, and text of any origin shown on a terminal."""

from __future__ import annotations

import os
import time
import unicodedata
from pathlib import Path

from .files import longest_name, reason, writable_problem

SUFFIXES = len("_00001_.safetensors") + len("..part") + 32  # bytes that the names of a file and its temporary one add
LARGEST_FIELD = 99999  # stands for width and height while they are not known
REDIRECTING = frozenset("\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # turn the text around


def printable(text: object, keep: str = "") -> str:
    """Text that can do nothing to a terminal: control characters, broken ones and those that turn the writing around are
    shown as escapes, except those in `keep`."""
    return "".join(_escaped(letter) if _acts(letter) and letter not in keep else letter for letter in str(text))


def folder_name(text: str) -> str:
    """A name that is a folder everywhere, another one for every text: other characters than letters, digits, blank, `_`, `-`
    and `.` are written as %XX of their UTF-8 bytes, as in addresses."""
    usual = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 _-.")
    return "".join(chr(byte) if byte in usual else f"%{byte:02X}" for byte in text.encode("utf-8"))


def fill_fields(prefix: str, width: int, height: int) -> str:
    """The fields that the host fills: %width%, %height%, %year%, %month%, %day%, %hour%, %minute% and %second%."""
    now = time.localtime()
    fields = {
        "width": width,
        "height": height,
        "year": now.tm_year,
        "month": f"{now.tm_mon:02}",
        "day": f"{now.tm_mday:02}",
        "hour": f"{now.tm_hour:02}",
        "minute": f"{now.tm_min:02}",
        "second": f"{now.tm_sec:02}",
    }
    for name, value in fields.items():
        prefix = prefix.replace(f"%{name}%", str(value))
    return prefix


def prefix_problem(root: Path | str, prefix: str) -> str | None:
    """Why no file of this prefix can be written below `root`, before there is one; None if it can be."""
    if strange := next((letter for letter in prefix if _acts(letter)), None):
        return f"filename_prefix {printable(prefix)!r} holds the character {_escaped(strange)}: leave it out"
    if not prefix.strip():
        return "filename_prefix is empty: write a name, for example svp/portrait"
    try:
        root = Path(root).resolve()
        target = (root / os.path.normpath(fill_fields(prefix, LARGEST_FIELD, LARGEST_FIELD))).resolve()
        if not target.name or target == root or not target.parent.is_relative_to(root):
            return f"filename_prefix {prefix!r} leads outside the output folder {root}: use a name inside it"
        return _too_long(target, root) or writable_problem(target.parent)
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: links that lead to each other
        return f"filename_prefix {_short(prefix)} cannot be used ({reason(error)}): write another name"


def _too_long(target: Path, root: Path) -> str | None:
    most = longest_name(root)
    parts = target.relative_to(root).parts
    for part, room in zip(parts, [most] * (len(parts) - 1) + [most - SUFFIXES], strict=True):
        if len(os.fsencode(part)) > room:
            return f"filename_prefix {_short(part)} has {len(os.fsencode(part))} bytes, at most {room} fit: shorten it"
    return None


def _short(text: str) -> str:
    return repr(text) if len(text) <= 60 else repr(text[:57] + "...")


def _acts(letter: str) -> bool:
    return unicodedata.category(letter) in ("Cc", "Cs") or letter in REDIRECTING


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape", "surrogatepass").decode("ascii")
