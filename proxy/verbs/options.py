"""Flags that several verbs of the command line have, in the same words."""

from pathlib import Path
from typing import Annotated

import typer

ConfigOption = Annotated[Path | None, typer.Option("--config", help="TOML file with settings.")]
DataDirOption = Annotated[Path | None, typer.Option("--data-dir", help="Where everything is kept. Default: ./data")]
LogFormat = Annotated[str | None, typer.Option(help="text or json.")]
Runtime = Annotated[str | None, typer.Option(help="What sessions run: light or comfyui.")]
SessionComfyUI = Annotated[
    Path | None, typer.Option(help="Directory of the ComfyUI that sessions run, and GPUs with --gpus.")
]
ComfyUIPython = Annotated[Path | None, typer.Option(help="Python that runs it; found where it can be.")]
Gpus = Annotated[
    str | None, typer.Option(help="GPUs to run a ComfyUI on, one process each: auto, ids such as 0,1, or cpu.")
]
WhichGroup = Annotated[str, typer.Argument(metavar="NAME_OR_ID", help="As `group list` shows it.")]
