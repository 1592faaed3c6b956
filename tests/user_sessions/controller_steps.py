"""The loop of the controller by hand, and rows as the past would have left them."""

from typing import Any

from tests.user_sessions.studio import Studio, ask
from user_sessions.controller import Sessions
from user_sessions.live import Address
from user_sessions.model import SessionRow
from user_sessions.reconcile import Reconciler
from user_sessions.state import SessionState

ANN, BOB = 1, 2


def nobody() -> set[int]:
    """No user has a job."""
    return set()


def reconciler(studio: Studio, sessions: Sessions | None = None, spawner: Any = None) -> Reconciler:
    """The loop's body, to be stepped by hand."""
    return Reconciler(studio.settings, studio.db, spawner or studio.spawner, sessions or studio.sessions, studio.tasks)


async def pid_of(address: Address) -> int:
    """The process that answers there."""
    return int((await ask(address, "pid"))["ok"])


async def set_row(studio: Studio, user_id: int, **values: object) -> None:
    """Put a row into a state of the past, as a crash or the passing of time would have left it."""

    def work(session: Any) -> None:
        row = session.get(SessionRow, user_id)
        for name, value in values.items():
            setattr(row, name, value)
        session.add(row)

    await studio.db.write(work)


async def set_state(studio: Studio, user_id: int, state: str) -> None:
    await set_row(studio, user_id, state=SessionState(state).value)
