"""Settings of backends whose processes are the server's own. Part of `settings.Settings`; an agent has the same."""

import re
from pathlib import Path
from typing import Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings

GPU = re.compile(r"[0-9A-Za-z/:._-]{1,80}")


class ManagedSettings(BaseSettings):
    """Units are in the names: `_s` seconds."""

    gpus: str | None = Field(
        None,
        description="GPUs to start a ComfyUI on, one each: `auto` for all that nvidia-smi or rocm-smi shows, or ids "
        "such as `0,1`; `cpu` starts one without a GPU. Default: none.",
    )
    backend_comfyui: Path | None = Field(None, description="Directory of the ComfyUI they run. Default: `comfyui`.")
    backend_python: Path | None = Field(
        None, description="Python that runs it. Default: `comfyui_python` where the directory is the same, else found."
    )
    backend_args: list[str] = Field(
        [],
        description="Further arguments for them, such as `--highvram`; directories and addresses are the server's.",
    )
    backend_pack: bool = Field(
        True, description="Whether they have the worker pack, where it knows their ComfyUI; else they are stock ones."
    )
    managed_min: int = Field(0, ge=0, description="How many of them stay awake when there is nothing to do.")
    managed_max: int | None = Field(None, ge=1, description="How many may be awake at once. Default: all.")
    managed_idle_s: float = Field(
        0.0,
        ge=0,
        description="One that has had nothing to do for this long is stopped, and started again when a job needs it; "
        "0 never stops one.",
    )
    managed_cooldown_s: float = Field(
        20.0, ge=0, description="After some were woken because jobs wait: they may do for those that come meanwhile."
    )
    managed_start_timeout_s: float = Field(
        600.0, gt=0, description="How long one may take until it answers before it is ended and tried again."
    )
    engines_min: int | None = Field(
        None,
        ge=0,
        description="How many embedded engines stay awake; the others sleep after `managed_idle_s` as managed ComfyUIs "
        "do. Default: all of them.",
    )

    @field_validator("gpus")
    @classmethod
    def _gpus_are_ids(cls, given: str | None) -> str | None:
        wanted = [name.strip() for name in (given or "").split(",") if name.strip()]
        if len(wanted) != len(set(wanted)) or not all(GPU.fullmatch(name) for name in wanted):
            raise ValueError("GPUs are `auto`, `cpu`, or ids with commas between them, each once, such as 0,1")
        if len(wanted) > 1 and "auto" in wanted:
            raise ValueError("`auto` stands alone: it is all GPUs there are")
        return ",".join(wanted) or None

    @model_validator(mode="after")
    def _least_is_not_above_most(self) -> Self:
        for name in ("managed_min", "engines_min"):
            least = getattr(self, name)
            if None not in (least, self.managed_max) and least > self.managed_max:
                raise ValueError(f"`{name}` is more than `managed_max`")
        return self
