"""The table `sessions`: one row per user, written before the deed so that a crash leaves a name to look for."""

from sqlalchemy import BigInteger, Column, Text
from sqlmodel import Field, SQLModel

from user_sessions.state import Desired, SessionState


class SessionRow(SQLModel, table=True):
    """A user's session. Times are milliseconds since the epoch; `history` is JSON (state.transitions)."""

    __tablename__ = "sessions"

    user_id: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    slug: str
    generation: int = 0
    """Counts starts; every change compares it, so that a late one cannot touch a newer process."""
    session_id: str = Field(default="", index=True)
    state: str = SessionState.STOPPED.value
    desired: str = Desired.STOPPED.value
    socket: str = ""
    secret: str = Field(default="", repr=False)
    pid: int | None = None
    host: str = ""
    """Which session host runs it; empty for the one of this machine."""
    started_ms: int | None = Field(default=None, sa_column=Column(BigInteger))
    active_ms: int = Field(default=0, sa_column=Column(BigInteger, nullable=False))
    error: str = Field(default="", sa_column=Column(Text, nullable=False))
    history: str = Field(default="[]", sa_column=Column(Text, nullable=False))
