"""The one exception a user is meant to read: it says what is wrong, with numbers, and how to mend it."""


class PortraitError(ValueError):
    """Input or file that cannot be used; the message names the cure."""


class Cancelled(Exception):
    """Raised by a progress callback to stop long work."""
