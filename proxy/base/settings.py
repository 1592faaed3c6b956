"""Every setting, in one frozen object. Flags win over `COMFY_CLUSTER_<SETTING>` variables, those over the TOML file.

Each field's description is its documentation; a test compares `docs/settings.md` with this file.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from proxy.base.settings_managed import ManagedSettings
from proxy.base.settings_pool import PoolSettings
from proxy.base.settings_sessions import SessionSettings

ENV_PREFIX = "COMFY_CLUSTER_"


class Settings(PoolSettings, ManagedSettings, SessionSettings):
    """Settings of one proxy. Units are in the names: `_s` seconds, `_mb` mebibytes."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="forbid", allow_inf_nan=False)

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
