"""The one exception a user is meant to read: it says what is wrong, with numbers, and how to mend it."""


def printable(text: str) -> str:
    """Text as one line that a terminal shows and does not obey: what files hold may be meant to move the cursor, to write
    backwards or to look like another name."""
    return "".join(each if each.isprintable() else _escaped(each) for each in text)


def _escaped(character: str) -> str:
    return " " if character == "\n" else character.encode("unicode_escape").decode("ascii")


class PortraitError(ValueError):
    """Input or file that cannot be used; the message names the cure."""

    def __init__(self, message: str = ""):
        super().__init__(printable(str(message)))


class Cancelled(Exception):
    """Raised by a progress callback to stop long work."""
