"""What the `comfyui` runtime is told, as values and as the text options that travel to the process that runs it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from proxy.base.errors import ConfigError

OWNED = (
    "--base-directory", "--input-directory", "--output-directory", "--temp-directory", "--user-directory",
    "--database-url", "--listen", "--port", "--multi-user", "--auto-launch", "--tls-keyfile", "--tls-certfile",
    "--enable-cors-header", "--quick-test-for-ci", "--verbose", "--log-stdout", "--max-upload-size",
)  # fmt: skip
"""Arguments of ComfyUI that are the server's to give."""


@dataclass(frozen=True)
class Options:
    """`excluded` are packs that are left out since they ended an earlier process."""

    directory: Path
    python: Path
    version: str
    data: Path
    arguments: tuple[str, ...] = ()
    user_nodes: bool = False
    import_timeout_s: float = 120.0
    excluded: tuple[str, ...] = ()

    @property
    def public(self) -> Path:
        """The shared directories."""
        return self.data / "public"

    @property
    def frontend_cache(self) -> Path:
        """Compressed copies of the frontend's files, shared with the light runtime."""
        return self.data / "cache" / "frontend"

    @property
    def scratch(self) -> Path:
        """Stands for a user's directories while no user's session exists."""
        return self.data / "cache" / "comfyui"

    def to_text(self) -> dict[str, str]:
        """The form that travels."""
        return {
            "directory": str(self.directory),
            "python": str(self.python),
            "version": self.version,
            "data": str(self.data),
            "arguments": json.dumps(self.arguments),
            "user_nodes": "1" if self.user_nodes else "",
            "import_timeout_s": str(self.import_timeout_s),
            "excluded": json.dumps(self.excluded),
        }

    @staticmethod
    def from_text(options: Mapping[str, str]) -> "Options":
        """Read that form. Raises ConfigError."""
        try:
            return Options(
                directory=Path(options["directory"]),
                python=Path(options["python"]),
                version=options["version"],
                data=Path(options["data"]),
                arguments=tuple(json.loads(options.get("arguments") or "[]")),
                user_nodes=bool(options.get("user_nodes")),
                import_timeout_s=float(options.get("import_timeout_s") or 120.0),
                excluded=tuple(json.loads(options.get("excluded") or "[]")),
            )
        except (KeyError, ValueError, TypeError) as error:
            raise ConfigError(f"The options of the runtime `comfyui` are not complete: {error!r}.") from error


def check_arguments(arguments: tuple[str, ...]) -> None:
    """Raise ConfigError when one of them is not the operator's to give."""
    for argument in arguments:
        name = argument.partition("=")[0]
        if name in OWNED:
            raise ConfigError(f"`{name}` cannot be given in `comfyui_args`: the server sets it for each session.")
