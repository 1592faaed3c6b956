"""What a worker's heartbeat says, checked: it comes from another machine. And what of it is remembered."""

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

SHORT, LONG = 128, 2048


class Beat(BaseModel):
    """The body of a heartbeat; newer packs may say more."""

    model_config = ConfigDict(extra="ignore")

    protocol: int = Field(ge=1)
    pack: str = Field(max_length=SHORT)
    worker_id: str = Field(min_length=8, max_length=SHORT, pattern=r"^[0-9A-Za-z-]+$")
    instance: str = Field(max_length=SHORT)
    name: str = Field(max_length=SHORT)
    port: int | None = Field(None, ge=1, le=65535)
    url: str | None = Field(None, max_length=LONG)
    open: bool = False
    job: str | None = Field(None, max_length=SHORT)
    queue: int = Field(0, ge=0)
    shelf: int = Field(0, ge=0)
    """Jobs whose files it keeps while later ones run; packs before 1.1 keep one, until the next one comes."""
    inventory: str | None = Field(None, max_length=SHORT)
    shared_proof: str | None = Field(None, max_length=SHORT)
    comfyui: str = Field("", max_length=SHORT)
    torch: str = Field("", max_length=SHORT)
    python: str = Field("", max_length=SHORT)
    gpu: str = Field("", max_length=SHORT)
    vram_total: int | None = Field(None, ge=0, lt=2**63)
    vram_free: int | None = Field(None, ge=0, lt=2**63)


@dataclass(frozen=True)
class Heard:
    """The last heartbeat of a backend. Times are monotonic seconds."""

    beat: Beat
    at_s: float
    shared: bool
    """Whether it has the users' directories on shared storage."""
    url: str = ""
    """Where it is."""


def problem(error: Any) -> str:
    """A validation error in one line, without the values that were sent."""
    return "; ".join(f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['msg']}" for e in error.errors())[:500]
