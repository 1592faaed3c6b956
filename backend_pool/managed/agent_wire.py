"""What an agent and the server tell each other, checked on both ends: each comes from another machine.

An agent says what its instances do; the answer says what the server knows of each, by which the agent decides.
"""

from pydantic import BaseModel, ConfigDict, Field

from backend_pool.backends.phase import Phase

PATH = "/cluster/api/v1/agents/heartbeat"
PROTOCOL = 1
MAX_INSTANCES = 64
NAME = r"^[0-9A-Za-z][0-9A-Za-z._-]*$"


class Told(BaseModel):
    """One instance. Either `url`, or `port` at the address that the heartbeat comes from; neither before it has one."""

    model_config = ConfigDict(extra="ignore")

    name: str = Field(max_length=64, pattern=NAME)
    phase: Phase
    since_s: float = Field(0.0, ge=0, lt=1e9)
    error: str | None = Field(None, max_length=1000)
    deaths: int = Field(0, ge=0, lt=2**31)
    retry_s: float | None = Field(None, ge=0, lt=1e9)
    adopted: bool = False
    full: bool = False
    port: int | None = Field(None, ge=1, le=65535)
    url: str | None = Field(None, max_length=2048)
    worker_id: str | None = Field(None, min_length=8, max_length=128, pattern=r"^[0-9A-Za-z-]+$")


class AgentBeat(BaseModel):
    """The body of a heartbeat; newer agents may say more."""

    model_config = ConfigDict(extra="ignore")

    protocol: int = Field(ge=1)
    agent_id: str = Field(min_length=8, max_length=64, pattern=r"^[0-9A-Za-z-]+$")
    name: str = Field(max_length=40, pattern=NAME)
    instances: list[Told] = Field(max_length=MAX_INSTANCES)


class Known(BaseModel):
    """What the server knows of one."""

    model_config = ConfigDict(extra="ignore")

    backend: str = ""
    busy: bool = True
    idle_s: float | None = None
    wanted: bool = False
    known: bool = True
    restart: bool = False


class Answer(BaseModel):
    """By the instances' names."""

    model_config = ConfigDict(extra="ignore")

    every_s: float = Field(ge=0.1, le=60)
    instances: dict[str, Known]
    refused: dict[str, str] = Field(default_factory=dict)
    """Why one did not become a backend."""
