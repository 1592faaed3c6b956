"""How long one job may run on a backend, and whose rule that is. Pure."""

from dataclasses import dataclass

from backend_pool.books.share import Share


@dataclass(frozen=True)
class RunLimit:
    """A job that runs longer is interrupted and fails; it is not tried again."""

    seconds: float
    whose: str

    @property
    def words(self) -> str:
        """What its user is told."""
        return f"The job ran longer than {spelled(self.seconds)}, the limit of {self.whose}. It was stopped."


def limit_of(share: Share) -> RunLimit | None:
    """The limit for a user with this share."""
    if share.run_limit_s is None:
        return None
    return RunLimit(share.run_limit_s, "your group" if share.group else "this server")


def spelled(seconds: float) -> str:
    """`30 minutes`, `90 seconds`, `2 hours`."""
    for size, unit in ((3600, "hour"), (60, "minute")):
        if seconds >= size and seconds % size == 0:
            count = round(seconds / size)
            return f"{count} {unit}" if count == 1 else f"{count} {unit}s"
    return f"{seconds:g} second" if seconds == 1 else f"{seconds:g} seconds"
