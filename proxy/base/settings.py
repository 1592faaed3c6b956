"""Every setting, in one frozen object. Flags win over `COMFY_CLUSTER_<SETTING>` variables, those over the TOML file.

Each field's description is its documentation; a test compares `docs/settings.md` with this file.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from proxy.base.backend_url import clean_url
from proxy.base.errors import BadInput

ENV_PREFIX = "COMFY_CLUSTER_"


class Settings(BaseSettings):
    """Settings of one proxy. Units are in the names: `_s` seconds, `_mb` mebibytes."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", description="Address to listen on. `0.0.0.0` serves the network.")
    port: int = Field(8188, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    data_dir: Path = Field(Path("data"), description="Where the database, keys and users' files live.")
    run_dir: Path | None = Field(
        None,
        description="Where sockets live. Default: `run` in the data directory, or a private directory in the system's "
        "temporary folder when that path would be too long for a Unix socket (107 bytes).",
    )
    database_url: str | None = Field(None, description="SQLAlchemy URL. Default: SQLite in the data directory.")
    free_space_mb: int = Field(
        64, ge=0, description="The server is not ready when the data directory's disk has less room than this."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="How much to log.")
    log_format: Literal["text", "json"] = Field("text", description="Log lines for people or for machines.")

    admin_name: str = Field("admin", description="Name of the administrator created on the first start.")
    admin_password: str | None = Field(
        None, description="That administrator's first password. Default: generated and printed once.", repr=False
    )
    login_days: float = Field(14.0, gt=0, description="A login ends after this many days without use.")
    login_attempts: int = Field(
        10,
        ge=1,
        description="Wrong passwords allowed per user name and address within `login_window_s`; ten times as many per "
        "user name from all addresses together.",
    )
    login_address_attempts: int = Field(
        60, ge=1, description="Wrong passwords allowed per address within `login_window_s`; a classroom shares one."
    )
    login_window_s: float = Field(300.0, gt=0, description="Over how many seconds wrong passwords are counted.")
    cookie_secure: bool | None = Field(
        None, description="Whether the login cookie is sent over HTTPS only. Default: when the request came by HTTPS."
    )
    trusted_proxies: str = Field(
        "127.0.0.1", description="Addresses whose X-Forwarded-* headers are believed, comma-separated; `*` for all."
    )
    allowed_origins: list[str] = Field(
        [],
        description="Origins besides our own that may send unsafe requests and open WebSockets, such as "
        "`https://studio.example`.",
    )

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

    backends: list[str] = Field([], description="URLs of ComfyUI instances, added to the registered ones.")
    engines: int | None = Field(
        None, ge=0, description="Embedded engines to start. Default: one when no backend is known, else none."
    )
    engine_args: list[str] = Field([], description="Further arguments for embedded engines, such as `--step-ms 50`.")
    probe_interval_s: float = Field(5.0, gt=0, description="Seconds between health probes of a backend, with jitter.")
    probe_timeout_s: float = Field(5.0, gt=0, description="How long a probe may take.")
    models_interval_s: float = Field(
        10.0,
        gt=0,
        description="How often the model lists of a backend are looked at; a file that was added or taken away shows "
        "after this long.",
    )
    heartbeat_interval_s: float = Field(
        3.0,
        ge=0.2,
        le=60,
        description="How often backends with the worker pack say that they live; four missing heartbeats count as a "
        "failed probe.",
    )
    backend_down_after_s: float = Field(
        20.0, gt=0, description="A backend that fails its probes for this long is down and loses its job to another."
    )
    job_attempts: int = Field(3, ge=1, description="How often a job is tried on backends that vanish before it fails.")
    job_poll_s: float = Field(2.0, gt=0, description="How often the queue is looked at when nothing rings.")
    cancel_grace_s: float = Field(
        10.0, gt=0, description="A cancelled job that its backend has not ended after this long ends without it."
    )
    sweep_backends: bool = Field(
        True,
        description="Whether output files that have come home are emptied at stock backends, and inputs above "
        "`backend_inputs_mb`. No: all of it stays there.",
    )
    backend_inputs_mb: int = Field(
        4096, ge=0, description="What input files may hold at one stock backend; the longest unused are emptied first."
    )
    queue_limit: int = Field(1000, ge=1, description="Waiting jobs one user may have.")
    history_limit: int = Field(10_000, ge=1, description="Finished jobs kept per user, as in ComfyUI.")
    denied_nodes: list[str] = Field(
        [
            "LoadImageDataSetFromFolder",
            "LoadImageTextDataSetFromFolder",
            "LoadTrainingDataset",
            "SaveImageDataSetToFolder",
            "SaveImageTextDataSetToFolder",
            "SaveTrainingDataset",
        ],
        description="Node classes nobody may use. The default ones read or write whole folders of a backend by name.",
    )
    hidden_models: list[str] = Field(
        [],
        description="Model files nobody sees or may use, as patterns such as `secret-*` or `loras/clients/*`, compared "
        "with the file's name, its path in its folder, and `folder/path`.",
    )
    history_mb: int = Field(
        256,
        ge=1,
        description="Size of the finished jobs' workflows and results kept per user, the oldest go first; and of the "
        "waiting ones.",
    )
    upstream_timeout_s: float = Field(30.0, gt=0, description="How long a backend or session may take to answer.")
    transfer_timeout_s: float = Field(
        120.0, gt=0, description="How long a file transfer or a forwarded request may stand still."
    )

    max_upload_mb: int = Field(100, ge=1, description="Largest request body, as ComfyUI's --max-upload-size.")
    max_prompt_mb: int = Field(16, ge=1, description="Largest body of a `POST /prompt`, its workflow included.")
    max_frame_mb: int = Field(
        128,
        ge=1,
        description="Largest WebSocket message of a session or backend; a browser may send at most 16 MB of it.",
    )
    ping_interval_s: float = Field(20.0, gt=0, description="WebSocket pings on both legs, against idle time-outs.")
    replay_buffer: int = Field(256, ge=16, description="Frames kept for a slow browser before previews are dropped.")
    drain_timeout_s: float = Field(10.0, gt=0, description="How long a stop waits for open requests.")

    @model_validator(mode="before")
    @classmethod
    def _comfyui_is_run(cls, given: Any) -> Any:
        """Whoever names a ComfyUI wants it to run."""
        if isinstance(given, dict) and given.get("comfyui"):
            return {"runtime": "comfyui"} | given
        return given

    @field_validator("backends")
    @classmethod
    def _backends_are_addresses(cls, urls: list[str]) -> list[str]:
        try:
            return [clean_url(url) for url in urls]
        except BadInput as error:
            raise ValueError(error.message) from error

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, environment, and the TOML file where a subclass names one, as `settings_file.load` does."""
        return (init_settings, env_settings, TomlConfigSettingsSource(settings_cls))

    @property
    def database(self) -> str:
        """The database URL in force."""
        return self.database_url or f"sqlite:///{(self.data_dir / 'cluster.db').resolve()}"
