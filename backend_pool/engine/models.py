"""The models the engine offers, and the simulated set of loaded ones: load time by size, least recently used evicted.

Nothing is ever read from a model file except safetensors headers for /view_metadata.
"""

import json
import struct
import threading
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from backend_pool.engine.files import OutsideDirectory, inside

MB = 1024 * 1024
SUFFIXES = (".ckpt", ".pt", ".pt2", ".bin", ".pth", ".safetensors", ".pkl", ".sft")
DEFAULT_SIZE_MB = 2048
HEADER_LIMIT = MB

# Name and size in MiB. The first three are what the frontend's default graph asks for.
BUILT_IN: dict[str, dict[str, int]] = {
    "checkpoints": {"v1-5-pruned-emaonly-fp16.safetensors": 2034, "sd_xl_base_1.0.safetensors": 6617},
    "diffusion_models": {"z_image_turbo_bf16.safetensors": 11740},
    "text_encoders": {"qwen_3_4b.safetensors": 7673},
    "vae": {"ae.safetensors": 320},
    "loras": {"pixel_art_example.safetensors": 163, "watercolor_example.safetensors": 163},
    "embeddings": {"easynegative_example.safetensors": 1},
}
FOLDERS = (
    *("checkpoints", "loras", "vae", "text_encoders", "diffusion_models", "clip_vision", "style_models", "embeddings"),
    *("diffusers", "vae_approx", "controlnet", "gligen", "upscale_models", "latent_upscale_models", "hypernetworks"),
    *("photomaker", "classifiers", "model_patches", "audio_encoders"),
)


class Models:
    """Thread-safe. `use` is called by the worker thread, the rest by routes."""

    def __init__(
        self,
        root: Path,
        checkpoints: tuple[str, ...],
        vram_mb: int,
        load_ms_per_gib: float,
        without: tuple[str, ...] = (),
    ) -> None:
        self._root = root
        self._built_in = {name: {} if name in without else dict(BUILT_IN.get(name, {})) for name in FOLDERS}
        if checkpoints:
            known = BUILT_IN["checkpoints"]
            self._built_in["checkpoints"] = {name: known.get(name, DEFAULT_SIZE_MB) for name in checkpoints}
        self._load_ms_per_gib = load_ms_per_gib
        self._lock = threading.Lock()
        self._loaded: dict[str, int] = {}
        self.vram_mb = vram_mb
        self.loads = 0
        self.evictions = 0

    def names(self, folder: str) -> list[str]:
        """What a loader's list offers: built-in names and files on disk. Blocking."""
        return sorted({*self._built_in.get(folder, {}), *(name for name, _ in self._on_disk(folder))})

    def files(self, folder: str) -> list[dict[str, Any]]:
        """`/experiment/models/{folder}`: name, pathIndex, modified, created, size in bytes."""
        rows: dict[str, dict[str, Any]] = {
            name: {"name": name, "pathIndex": 0, "modified": 0.0, "created": 0.0, "size": size * MB}
            for name, size in self._built_in.get(folder, {}).items()
        }
        for name, path in self._on_disk(folder):
            stat = path.stat()
            rows[name] = {
                "name": name,
                "pathIndex": 0,
                "modified": stat.st_mtime,
                "created": stat.st_ctime,
                "size": stat.st_size,
            }
        return [rows[name] for name in sorted(rows)]

    def metadata(self, folder: str, name: str) -> dict[str, Any] | None:
        """`__metadata__` of a safetensors file on disk; None when there is none to show. Blocking."""
        try:
            with inside(self._root / folder, name).open("rb") as file:
                (length,) = struct.unpack("<Q", file.read(8))
                header = json.loads(file.read(length)) if length <= HEADER_LIMIT else {}
        except (OSError, ValueError, OutsideDirectory, struct.error, RecursionError):
            return None
        found = header.get("__metadata__") if isinstance(header, dict) else None
        return found if isinstance(found, dict) else None

    def preview(self, folder: str, name: str) -> bytes | None:
        """The picture beside a model file as WebP, None when there is none. Blocking."""
        try:
            stem = inside(self._root / folder, name).with_suffix("")
            pictures = (stem.with_name(f"{stem.name}{end}") for end in (".png", ".preview.png"))
            found = next((picture for picture in pictures if picture.is_file()), None)
            if found is None:
                return None
            packed = BytesIO()
            with Image.open(found) as picture:
                picture.save(packed, "WEBP")
        except (OSError, OutsideDirectory):
            return None
        return packed.getvalue()

    def use(self, folder: str, name: str, wait: Callable[[float], None]) -> None:
        """Make a model resident, taking `wait(seconds)` when it was not; `wait` may raise to stop the job."""
        key = f"{folder}/{name}"
        with self._lock:
            if key in self._loaded:
                self._loaded[key] = self._loaded.pop(key)  # most recently used last
                return
            size = self._size(folder, name)
            while self._loaded and sum(self._loaded.values()) + size > self.vram_mb:
                del self._loaded[next(iter(self._loaded))]
                self.evictions += 1
        wait(size / 1024 * self._load_ms_per_gib / 1000)
        with self._lock:
            self._loaded[key] = min(size, self.vram_mb)
            self.loads += 1

    def unload_all(self) -> None:
        """Free the simulated memory."""
        with self._lock:
            self._loaded.clear()

    def loaded(self) -> dict[str, int]:
        """Resident models and their size in MiB, least recently used first."""
        with self._lock:
            return dict(self._loaded)

    def _size(self, folder: str, name: str) -> int:
        size = self._built_in.get(folder, {}).get(name)
        if size is not None:
            return size
        try:
            return max(1, inside(self._root / folder, name).stat().st_size // MB)
        except (OSError, OutsideDirectory):
            return DEFAULT_SIZE_MB

    def _on_disk(self, folder: str) -> list[tuple[str, Path]]:
        root = self._root / folder
        if not root.is_dir():
            return []
        return [
            (path.relative_to(root).as_posix(), path)
            for path in sorted(root.rglob("*"))
            if path.suffix.lower() in SUFFIXES and path.is_file()
        ]
