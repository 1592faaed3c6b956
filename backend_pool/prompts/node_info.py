"""The pieces of ComfyUI's object_info: nodes, inputs, specs and their choices. Pure.

An input's spec is `[[options], {...}]` or `["COMBO", {"options": [...]}]` or `[type, {...}]` (protocol §1). Inputs
whose spec carries an upload flag name the user's own files, so their options say nothing about a backend.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

ObjectInfo = Mapping[str, Any]

UPLOADS = {
    "image_upload": "image/",
    "animated_image_upload": "image/",
    "video_upload": "video/",
    "audio_upload": "audio/",
    "file_upload": "",
}
"""Upload flags and the kind of file each input takes (a prefix of the media type)."""

GROUPS = ("required", "optional")


def input_specs(node: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Name and spec of each required and optional input of a node class."""
    for _, name, spec in grouped_specs(node.get("input", {})):
        yield name, spec


def grouped_specs(inputs: Any) -> Iterator[tuple[str, str, Any]]:
    """(`required` or `optional`, name, spec) of an `input`, a node's or an option's, whatever a custom node wrote."""
    for group in GROUPS:
        found = inputs.get(group) if isinstance(inputs, Mapping) else None
        if isinstance(found, Mapping):
            for name, spec in found.items():
                yield group, name, spec


def config(spec: Any) -> Mapping[str, Any]:
    """The second part of a spec, {} when it has none."""
    if isinstance(spec, Sequence) and len(spec) > 1 and isinstance(spec[1], Mapping):
        return spec[1]
    return {}


def kind_of(spec: Any) -> Any:
    """The first part of a spec: a type's name, or a list of choices."""
    return spec[0] if isinstance(spec, Sequence) and not isinstance(spec, str) and spec else None


def options(spec: Any) -> list[Any] | None:
    """The choices of a list input, None for other types."""
    kind = kind_of(spec)
    if isinstance(kind, list):
        return kind
    if kind == "COMBO":
        listed = config(spec).get("options")
        return listed if isinstance(listed, list) else []
    return None


def upload_kind(spec: Any) -> str | None:
    """Prefix of the media type of an input that takes a user's file, None for others."""
    settings = config(spec)
    return next((kind for flag, kind in UPLOADS.items() if settings.get(flag) is True), None)


def upload_folder(spec: Any) -> str:
    """Which of the user's directories such an input lists: input unless the spec says otherwise."""
    return str(config(spec).get("image_folder", "input"))


def with_options(spec: Any, choices: list[Any]) -> list[Any]:
    """The same spec with other choices."""
    if isinstance(spec[0], list):
        return [choices, *spec[1:]]
    return [spec[0], {**config(spec), "options": choices}, *spec[2:]]


def usable(info: Mapping[str, Any]) -> dict[str, Any]:
    """The node classes that have the shape ComfyUI gives them; a broken custom node must not hide the others."""
    return {
        name: node
        for name, node in info.items()
        if isinstance(node, Mapping) and isinstance(node.get("input", {}), Mapping)
    }
