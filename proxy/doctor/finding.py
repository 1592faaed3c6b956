"""One line of `comfy-cluster doctor`: what was looked at, what was found, and what to do when it is not well."""

from dataclasses import dataclass

OK, NOTE, BAD = "ok  ", "note", "BAD "


@dataclass(frozen=True)
class Finding:
    """`bad` means that something must be done; a note is worth knowing."""

    what: str
    detail: str
    mark: str = OK

    @property
    def bad(self) -> bool:
        """Whether something must be done."""
        return self.mark == BAD


def note(what: str, detail: str) -> Finding:
    """Works, but somebody should know."""
    return Finding(what, detail, NOTE)


def bad(what: str, detail: str) -> Finding:
    """Has to be mended; the detail says how."""
    return Finding(what, detail, BAD)
