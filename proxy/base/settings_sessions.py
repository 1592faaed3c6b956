"""Settings of sessions: what they run, what confines them. Part of `settings.Settings`."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings


class SessionSettings(BaseSettings):
    """Units are in the names: `_s` seconds, `_mb` mebibytes."""

    runtime: Literal["light", "comfyui"] = Field(
        "light",
        description="What a session runs: `light`, the WebUI without torch, or `comfyui`, a real ComfyUI with its "
        "custom nodes. Naming a `comfyui` directory chooses it.",
    )
    comfyui: Path | None = Field(None, description="Directory of the ComfyUI install that sessions run.")
    comfyui_python: Path | None = Field(
        None,
        description="Python that runs that ComfyUI. Default: its `.venv` or `venv`, else the server's own where torch "
        "is installed.",
    )
    comfyui_args: list[str] = Field(
        [],
        description="Further arguments for ComfyUI in sessions, such as `--disable-api-nodes`; directories, ports and "
        "the log are the server's to give.",
    )
    user_custom_nodes: bool = Field(
        False,
        description="Whether the custom nodes in `users/<slug>/custom_nodes` are loaded into that user's session.",
    )
    node_import_timeout_s: float = Field(
        120.0, gt=0, description="How long one pack of custom nodes may take to load before it is left out."
    )
    warm_timeout_s: float = Field(
        600.0, gt=0, description="How long preparing the process that sessions are forked from may take at a refresh."
    )
    spawner: Literal["host", "child"] = Field(
        "host",
        description="Sessions are forked from one warm process of a session host, or started as child processes of "
        "the proxy, slower and larger, where forking is not possible.",
    )
    session_start_timeout_s: float = Field(60.0, gt=0, description="How long a session may take to answer.")
    session_idle_timeout_s: float = Field(
        3600.0, ge=0, description="A session without activity or jobs for this long is stopped; 0 never stops one."
    )
    session_refresh_idle_s: float = Field(
        30.0,
        ge=0,
        description="After a refresh of custom nodes or models, a session without a job, an action or an open tab for "
        "this long is restarted by itself; the others when their users say so.",
    )
    session_limit: int = Field(200, ge=1, description="How many sessions may run at once.")
    session_stop_timeout_s: float = Field(5.0, gt=0, description="How long a session may take to end before a kill.")
    session_memory_mb: int = Field(
        4096,
        ge=64,
        description="Memory a session may use, counted by a control group; without one, address space that each of its "
        "processes may add to what it began with.",
    )
    session_file_mb: int = Field(8192, ge=1, description="Largest file a session may write.")
    session_processes: int = Field(
        512, ge=16, description="Processes and threads a session may have; needs a control group or `session_uids`."
    )
    session_cpu_percent: int = Field(
        0,
        ge=0,
        description="Processor time a session may use, in percent of one processor; 0 for any. Needs a "
        "control group; without one, sessions only have a lower priority than the server.",
    )
    session_cgroup: Literal["auto", "off"] = Field(
        "auto",
        description="A control group (version 2) for each session where we may make them: under systemd with "
        "`Delegate=yes`, or in a container with a writable tree.",
    )
    session_uids: Literal["auto", "off"] = Field(
        "auto",
        description="A user id of the machine for each user's session and files when the server runs as root, or one "
        "for all.",
    )
    session_uid_first: int = Field(
        2_000_300_000,
        ge=1000,
        le=2**32 - 3,
        description="First of those user and group ids; nothing else may use them.",
    )
    session_uid_count: int = Field(100_000, ge=1, description="How many of them there are; one is never given twice.")
    session_network: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Whether sessions may open TCP connections to `session_network_ports`. `auto`: with the `comfyui` "
        "runtime, where the kernel can keep to those ports (Landlock ABI 4).",
    )
    session_network_ports: list[int] = Field(
        [53, 80, 443],
        description="Ports sessions may connect to, of any address. 53 is for names, which are asked by TCP. Whatever "
        "listens there and trusts its callers is within reach: keep backends and the server itself off these ports.",
    )
    session_programs: Literal["auto", "on", "off"] = Field(
        "auto", description="Whether sessions may start installed programs. `auto`: with the `comfyui` runtime."
    )
    session_readable: list[Path] = Field(
        [], description="Further files and directories that every session may read, such as a shared asset library."
    )
    sandbox: Literal["auto", "off"] = Field(
        "auto", description="Confine sessions with what the kernel offers (Landlock, no_new_privs, limits), or not."
    )
    starter_workflow: Path | None = Field(
        None, description="Workflow file a newcomer's canvas opens with. Default: one this pool can run."
    )

    @model_validator(mode="before")
    @classmethod
    def _comfyui_is_run(cls, given: Any) -> Any:
        """Whoever names a ComfyUI wants it to run."""
        if isinstance(given, dict) and given.get("comfyui"):
            return {"runtime": "comfyui"} | given
        return given
