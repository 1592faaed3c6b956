"""All nodes the engine has, by class, and their object_info."""

import mimetypes
from collections.abc import Mapping
from typing import Any

from backend_pool.engine.files import Directories
from backend_pool.engine.models import Models
from backend_pool.engine.nodes import filters, image, latent, load, loaders, mask, primitive, save
from backend_pool.engine.nodes.registry import Node

MODULES = (loaders, latent, load, image, filters, mask, primitive, save)
NODES: dict[str, Node] = {node.name: node for module in MODULES for node in module.NODES}


class Catalogue:
    """The Shelf of this engine and what it makes of the nodes' declarations. Blocking: it lists directories."""

    def __init__(self, directories: Directories, models: Models, nodes: Mapping[str, Node] = NODES) -> None:
        self._directories = directories
        self._models = models
        self._nodes = nodes

    def object_info(self) -> dict[str, Any]:
        """Every class."""
        return {name: node.info(self) for name, node in self._nodes.items()}

    def one(self, name: str) -> dict[str, Any]:
        """One class, or nothing when there is none of that name, as ComfyUI answers."""
        return {name: self._nodes[name].info(self)} if name in self._nodes else {}

    def invalid_file(self, _kind: str, _name: str, value: Any, _spec: Any) -> str | None:
        """The custom check of inputs that name an uploaded file."""
        if isinstance(value, str) and self._directories.find(value) is not None:
            return None
        return f"Invalid image file: {value}"

    def models(self, folder: str) -> list[str]:
        """Model names of a folder."""
        return self._models.names(folder)

    def input_images(self) -> list[str]:
        """Image files directly in the input directory."""
        return [name for name in self.input_files() if (mimetypes.guess_type(name)[0] or "").startswith("image/")]

    def input_files(self) -> list[str]:
        """All files directly in the input directory."""
        return self._directories.listing("input")
