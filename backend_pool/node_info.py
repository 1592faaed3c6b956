"""ComfyUI's object_info documents over a pool: one union to show, and which backend can run a prompt. No I/O.

An input's spec is `[[options], {...}]` or `["COMBO", {"options": [...]}]` or `[type, {...}]` (protocol §1). Inputs
whose spec carries an upload flag name the user's own files, so their options say nothing about a backend.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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


WORDS = {
    "ckpt_name": "checkpoint",
    "unet_name": "diffusion model",
    "lora_name": "LoRA",
    "vae_name": "VAE",
    "clip_name": "text encoder",
    "control_net_name": "ControlNet",
}
"""What people call the models that ComfyUI's own loaders list."""


@dataclass(frozen=True)
class Needs:
    """What a prompt asks of a backend: node classes, and (class, input, value) choices from lists."""

    classes: frozenset[str]
    choices: frozenset[tuple[str, str, str]]


def input_specs(node: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Name and spec of each required and optional input of a node class."""
    for group in ("required", "optional"):
        inputs = node.get("input", {}).get(group)
        if isinstance(inputs, Mapping):
            yield from inputs.items()


def config(spec: Any) -> Mapping[str, Any]:
    """The second part of a spec, {} when it has none."""
    if isinstance(spec, Sequence) and len(spec) > 1 and isinstance(spec[1], Mapping):
        return spec[1]
    return {}


def options(spec: Any) -> list[Any] | None:
    """The choices of a list input, None for other types."""
    if not isinstance(spec, Sequence) or isinstance(spec, str) or not spec:
        return None
    if isinstance(spec[0], list):
        return spec[0]
    if spec[0] == "COMBO":
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


def merge(infos: Sequence[ObjectInfo]) -> dict[str, Any]:
    """The union over backends: every class, and in each list every choice some backend offers, in first-seen order."""
    merged: dict[str, Any] = {}
    for info in infos:
        for name, node in info.items():
            merged[name] = _with_choices(merged[name], node) if name in merged else node
    return merged


def _with_choices(known: Mapping[str, Any], other: Mapping[str, Any]) -> Mapping[str, Any]:
    theirs = dict(input_specs(other))
    changed: dict[str, Any] = {}
    for name, spec in input_specs(known):
        ours, more = options(spec), options(theirs.get(name))
        if ours is None or not more or upload_kind(spec) is not None:
            continue
        seen = set(map(repr, ours))
        extra = [choice for choice in more if repr(choice) not in seen]
        if extra:
            changed[name] = with_options(spec, [*ours, *extra])
    if not changed:
        return known
    groups = {
        group: {name: changed.get(name, spec) for name, spec in inputs.items()}
        if isinstance(inputs, Mapping)
        else inputs
        for group, inputs in known.get("input", {}).items()
    }
    return {**known, "input": groups}


def needs(prompt: Mapping[str, Any], info: ObjectInfo) -> Needs:
    """What a validated prompt asks for. Choices that no backend lists are left to the backend's own judgement."""
    classes: set[str] = set()
    choices: set[tuple[str, str, str]] = set()
    for node in prompt.values():
        name = node["class_type"]
        classes.add(name)
        given = node.get("inputs", {})
        for key, spec in input_specs(info.get(name, {})):
            value = given.get(key)
            if isinstance(value, str) and value in (options(spec) or ()) and upload_kind(spec) is None:
                choices.add((name, key, value))
    return Needs(frozenset(classes), frozenset(choices))


def lacks(wanted: Needs, info: ObjectInfo) -> str | None:
    """What a backend with this object_info cannot give, in words; None when it can run the prompt."""
    missing = sorted(wanted.classes - info.keys())
    if missing:
        return f"node {missing[0]}"
    for name, key, value in sorted(wanted.choices):
        spec = dict(input_specs(info[name])).get(key)
        if "remote" in config(spec):  # filled at run time; the backend itself will judge
            continue
        listed = options(spec) if spec is not None else []
        if listed is not None and value not in listed:
            return f"{WORDS.get(key, key)} {value}"
    return None


def refused_needs(body: Any, prompt: Mapping[str, Any]) -> Needs | None:
    """The choices and classes that a 400 of /prompt says a backend lacks; None when it names any other mistake."""
    body = body if isinstance(body, Mapping) else {}
    error, node_errors = body.get("error"), body.get("node_errors")
    if isinstance(error, Mapping) and error.get("type") == "missing_node_type":
        missing = (error.get("extra_info") or {}).get("class_type")
        return Needs(frozenset({missing}), frozenset()) if isinstance(missing, str) else None
    choices: set[tuple[str, str, str]] = set()
    for node_id, entry in node_errors.items() if isinstance(node_errors, Mapping) else ():
        name = (prompt.get(node_id) or {}).get("class_type")
        for reason in entry.get("errors") or () if isinstance(entry, Mapping) else ():
            extra = reason.get("extra_info") if isinstance(reason, Mapping) else None
            key = extra.get("input_name") if isinstance(extra, Mapping) else None
            value = extra.get("received_value") if isinstance(extra, Mapping) else None
            if not (isinstance(name, str) and isinstance(key, str) and isinstance(value, str)):
                return None
            if reason.get("type") != "value_not_in_list":
                return None
            choices.add((name, key, value))
    return Needs(frozenset(name for name, _, _ in choices), frozenset(choices)) if choices else None
