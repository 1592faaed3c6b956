"""`python -m proxy.base.settings_doc > docs/settings.md` makes the page about settings from the settings themselves."""

import json
import sys
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from proxy.base.settings import ENV_PREFIX, Settings

HEAD = f"""# Settings

Three places, the first that names a setting wins:

1. a flag of `comfy-cluster up` (`--data-dir`, [operations.md](operations.md) lists them);
2. a variable `{ENV_PREFIX}<SETTING>`, such as `{ENV_PREFIX}PORT=80`; lists are JSON, `["http://10.0.0.5:8188"]`;
3. the TOML file named with `--config`: `port = 80`.

Every verb reads them, so give `--data-dir` or `--config` to each, or set the variables. A name or value that is not
known is refused with exit code 2; `comfy-cluster doctor` also finds misspelt variables. Units are in the names: `_s`
seconds, `_mb` mebibytes.

<!-- Made by `python -m proxy.base.settings_doc`; a test compares it. -->

| setting | default | what it is |
|---|---|---|
"""


def page() -> str:
    """The whole page."""
    return HEAD + "".join(_row(name, field) for name, field in Settings.model_fields.items())


def _row(name: str, field: FieldInfo) -> str:
    description = " ".join((field.description or "").split()).replace("|", "\\|")
    return f"| `{name}` | {_default(field.default)} | {description} |\n"


def _default(value: Any) -> str:
    if value is None:
        return ""
    return f"`{value}`" if isinstance(value, str | Path) else f"`{json.dumps(value)}`"


if __name__ == "__main__":
    sys.stdout.write(page())
