"""Tables of workers: the tokens they register with, and which backend's row is whose."""

from sqlalchemy import BigInteger
from sqlmodel import Field, SQLModel


class WorkerToken(SQLModel, table=True):
    """One token; the token itself is not stored."""

    __tablename__ = "worker_tokens"

    id: int | None = Field(default=None, primary_key=True)
    name: str
    token_hash: str = Field(unique=True)
    prefix: str = Field(description="The first characters, to recognise it by.")
    created_ms: int = Field(sa_type=BigInteger)
    revoked_ms: int | None = Field(default=None, sa_type=BigInteger)


class Worker(SQLModel, table=True):
    """A backend that has the worker pack; `id` is the installation's own, and stays when its address changes."""

    __tablename__ = "workers"

    id: str = Field(primary_key=True)
    backend_id: int = Field(foreign_key="backends.id", ondelete="CASCADE", unique=True)
    token_id: int = Field(foreign_key="worker_tokens.id")


class AgentInstance(SQLModel, table=True):
    """A backend that an agent keeps; `id` is the agent's id and the instance's name, whatever its address."""

    __tablename__ = "agent_instances"

    id: str = Field(primary_key=True)
    backend_id: int = Field(foreign_key="backends.id", ondelete="CASCADE", unique=True)
    token_id: int = Field(foreign_key="worker_tokens.id")
