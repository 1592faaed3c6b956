"""The engine's command line, in one frozen object. Units are in the names: `_ms` milliseconds, `_mb` mebibytes."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """What an engine was started with."""

    base_dir: Path
    host: str = "127.0.0.1"
    port: int = 0
    name: str = "embedded"
    url_file: Path | None = None
    secret_file: Path | None = None
    step_ms: float = 60.0
    model_load_ms: float = 25.0
    vram_mb: int = 24576
    checkpoints: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    without_nodes: tuple[str, ...] = ()
    seed: int = 0
    previews: bool = True
    faults: bool = False
    max_upload_mb: int = 100
    worker_pack: Path | None = None


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Read the command line; wrong use ends the process with status 2, as argparse does."""
    given = _parser().parse_args(arguments)
    return Options(
        base_dir=given.base_dir.resolve(),
        host=given.host,
        port=given.port,
        name=given.name,
        url_file=given.url_file,
        secret_file=given.secret_file,
        step_ms=given.step_ms,
        model_load_ms=given.model_load_ms,
        vram_mb=given.vram_mb,
        checkpoints=_names(given.checkpoints),
        without=_names(given.without),
        without_nodes=_names(given.without_nodes),
        seed=given.seed,
        previews=given.preview_method == "auto",
        faults=given.faults,
        max_upload_mb=given.max_upload_size,
        worker_pack=given.worker_pack,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m backend_pool.engine",
        description="A ComfyUI-compatible server that needs no GPU and no model, for trying, testing and load.",
    )
    add = parser.add_argument
    add("--base-dir", type=Path, required=True, help="directory of input, output, temp and models")
    add("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    add("--port", type=int, default=0, help="port to listen on; 0 picks a free one")
    add("--name", default="embedded", help="name shown in /engine and /system_stats")
    add("--url-file", type=Path, help="file to write the URL to once it serves")
    add("--secret-file", type=Path, help="file with a secret to ask of every client; the URL file's URL holds it")
    add("--step-ms", type=_duration, default=60.0, help="time of one sampling step")
    add("--model-load-ms", type=_duration, default=25.0, help="time to load one GiB of a model")
    add("--vram-mb", type=_positive, default=24576, help="memory for loaded models; the least used are evicted")
    add("--checkpoints", default="", help="checkpoints to offer, comma-separated, instead of the built-in ones")
    add("--without", default="", help="model folders whose built-in names are not offered, comma-separated")
    add("--without-nodes", default="", help="node classes that this engine does not have, comma-separated")
    add("--seed", type=int, default=0, help="varies all pictures of this engine")
    add("--preview-method", choices=("auto", "none"), default="auto", help="previews of jobs that do not ask")
    add("--faults", action="store_true", help="allow POST /engine/faults from this machine")
    add("--max-upload-size", type=_positive, default=100, help="largest request body in MiB")
    add("--worker-pack", type=Path, help="settings of a worker pack to mount, as its installer writes them")
    return parser


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _duration(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1e9:
        raise argparse.ArgumentTypeError("must be a number of milliseconds, 0 or more")
    return value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return value
