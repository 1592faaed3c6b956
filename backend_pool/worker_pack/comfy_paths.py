"""ComfyUI's directories as globals that can be switched, with all that hangs on them: model folders below the output
directory, cached lists of those, names that lead out of a directory, and what ComfyUI deletes when it ends.
"""

import importlib
import os
from typing import Any

from .comfy_copies import Copies
from .comfy_hooks import main_modules
from .host import Dirs

OWN_MODELS = ("checkpoints", "clip", "vae", "diffusion_models", "loras")
"""Folders below the output directory that ComfyUI adds to its model folders at the start (main.py)."""
LEGACY = {"clip": "text_encoders", "unet": "diffusion_models"}


class Paths:
    """The switch. `startup` is what ComfyUI was started with."""

    def __init__(self) -> None:
        self._fp: Any = importlib.import_module("folder_paths")
        fp = self._fp
        whole = (fp.get_input_directory(), fp.get_output_directory(), fp.get_temp_directory())
        self.startup = Dirs(*(os.path.abspath(path) for path in whole))  # noqa: PTH100
        self._now = self.startup
        self._copies = Copies(fp.get_folder_paths("custom_nodes"))
        self._guard_names()
        self._guard_exit()

    @property
    def switched(self) -> bool:
        """Whether a job's directories are on."""
        return self._now is not self.startup

    def own_model_roots(self) -> list[str]:
        """Where the models of the job's user lie that nobody else may use."""
        return [os.path.join(self._now.output, name) for name in OWN_MODELS] if self.switched else []  # noqa: PTH118

    def to(self, dirs: Dirs) -> None:
        """Switch. The output directory last: what looks at it meanwhile finds its models."""
        before, self._now = self._now, dirs
        for name in OWN_MODELS:
            self._swap(LEGACY.get(name, name), os.path.join(before.output, name), os.path.join(dirs.output, name))  # noqa: PTH118
        self._copies.to(self.startup, before, dirs)
        self._fp.set_input_directory(dirs.input)
        self._fp.set_temp_directory(dirs.temp)
        self._fp.set_output_directory(dirs.output)

    def _swap(self, folder: str, old: str, new: str) -> None:
        """Replace a path of a model folder; a cached list that knows the old one fails or tells its files."""
        paths = self._fp.folder_names_and_paths.get(folder, ([],))[0]
        for index, path in enumerate(paths):
            if os.path.abspath(path) == old:  # noqa: PTH100
                paths[index] = new
        cached = self._fp.filename_list_cache.get(folder)
        if cached is not None and any(known == old or known.startswith(old + os.sep) for known in cached[1]):
            self._fp.filename_list_cache.pop(folder, None)

    def _guard_names(self) -> None:
        """ComfyUI 0.8.0 itself loads `../../somebody/input/secret.png` (protocol §4.2)."""
        fp, find, exists = self._fp, self._fp.get_annotated_filepath, self._fp.exists_annotated_filepath

        def get_annotated_filepath(name: str, default_dir: str | None = None) -> str:
            path = str(find(name, default_dir))
            if self.switched and not self._inside(path, default_dir):
                raise FileNotFoundError(f"Invalid file: {name}")
            return path

        def exists_annotated_filepath(name: str) -> bool:
            if self.switched and not self._inside(str(find(name)), None):
                return False
            return bool(exists(name))

        fp.get_annotated_filepath = get_annotated_filepath
        fp.exists_annotated_filepath = exists_annotated_filepath

    def _inside(self, path: str, default_dir: str | None) -> bool:
        now, real = self._now, os.path.realpath(path)
        roots = [now.input, now.output, now.temp, *([default_dir] if default_dir is not None else [])]
        return any(os.path.commonpath((root, real)) == root for root in map(os.path.realpath, roots))

    def _guard_exit(self) -> None:
        """ComfyUI removes its temp directory as it ends, whatever that is by then (main.py): never a user's."""
        for main in main_modules():
            clean = getattr(main, "cleanup_temp", None)
            if clean is not None:
                main.cleanup_temp = self._and_restore_first(clean)

    def _and_restore_first(self, clean: Any) -> Any:
        def cleanup_temp() -> None:
            self._fp.set_temp_directory(self.startup.temp)
            clean()

        return cleanup_temp
