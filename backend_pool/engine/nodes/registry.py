"""What a node is: its declaration in ComfyUI's object_info shape, and the function that runs it.

Lists that depend on the machine (models, files) are functions of the `Shelf`, asked anew each time as by ComfyUI.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

MAX_RESOLUTION = 16384

Spec = tuple[Any, ...]
"""`(type,)` or `(type, options)`; a combo's list, or its `options`, may be a function of the Shelf."""
Inputs = Mapping[str, Spec]


class Shelf(Protocol):
    """What combos list."""

    def models(self, folder: str) -> list[str]:
        """Model names of a folder."""

    def input_images(self) -> list[str]:
        """Image files directly in the input directory."""

    def input_files(self) -> list[str]:
        """All files directly in the input directory."""


@dataclass(frozen=True)
class Shown:
    """A node's return value with something for the user: `ui` goes into `executed` and the history."""

    ui: dict[str, Any]
    values: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Node:
    """One class. `run(ctx, **inputs)` returns a tuple with one value per output, or `Shown`."""

    name: str
    run: Callable[..., tuple[Any, ...] | Shown]
    required: Inputs = field(default_factory=dict)
    optional: Inputs = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    output_names: tuple[str, ...] | None = None
    category: str = "sd"
    display_name: str | None = None
    description: str = ""
    module: str = "nodes"
    output_node: bool = False
    hidden: Mapping[str, str] = field(default_factory=dict)
    fingerprint: Callable[..., Any] | None = None
    """ComfyUI's IS_CHANGED: called with (ctx, **constants)."""
    output_tooltips: tuple[str, ...] | None = None
    deprecated: bool = False
    experimental: bool = False
    v3: bool = False
    """Declared through ComfyUI's newer API, whose object_info spells out every key."""
    input_is_list: bool = False
    output_is_list: tuple[bool, ...] | None = None

    def info(self, shelf: Shelf) -> dict[str, Any]:
        """The object_info entry."""
        groups: dict[str, dict[str, Any]] = {"required": {k: _resolve(v, shelf) for k, v in self.required.items()}}
        if self.optional:
            groups["optional"] = {k: _resolve(v, shelf) for k, v in self.optional.items()}
        if self.hidden:
            groups["hidden"] = {k: [v] for k, v in self.hidden.items()} if self.v3 else dict(self.hidden)
        entry: dict[str, Any] = {
            "input": groups,
            "input_order": {name: list(group) for name, group in groups.items()},
            "output": list(self.outputs),
            "output_is_list": list(self.output_is_list or (False,) * len(self.outputs)),
            "output_name": list(self.output_names or self.outputs),
            "name": self.name,
            "display_name": self.display_name or self.name,
            "description": self.description,
            "python_module": self.module,
            "category": self.category,
            "output_node": self.output_node,
        }
        if self.v3:
            tips = list(self.output_tooltips or (None,) * len(self.outputs))
            return entry | {
                "output_tooltips": tips,
                "output_matchtypes": None,
                "deprecated": self.deprecated,
                "experimental": self.experimental,
                "api_node": False,
            }
        if self.output_tooltips:
            entry["output_tooltips"] = list(self.output_tooltips)
        if self.deprecated:
            entry["deprecated"] = True
        if self.experimental:
            entry["experimental"] = True
        return entry

    def declares(self, name: str) -> bool:
        """Whether the input is passed to `run`; others only count for the cache key, as in ComfyUI."""
        return name in self.required or name in self.optional


def integer(default: int, low: int, high: int, step: int | None = None, **more: Any) -> Spec:
    """An INT widget."""
    spread = {"default": default, "min": low, "max": high} | ({} if step is None else {"step": step})
    return ("INT", spread | more)


def number(default: float, low: float, high: float, step: float = 0.01, **more: Any) -> Spec:
    """A FLOAT widget."""
    return ("FLOAT", {"default": default, "min": low, "max": high, "step": step} | more)


def combo(options: list[str], **more: Any) -> Spec:
    """A list as the newer API declares it."""
    return ("COMBO", {"multiselect": False, "options": options} | more)


def link(kind: str, **more: Any) -> Spec:
    """A socket as the newer API declares it."""
    return (kind, more)


def _resolve(spec: Spec, shelf: Shelf) -> list[Any]:
    first = spec[0](shelf) if callable(spec[0]) else spec[0]
    return [first, *spec[1:]]
