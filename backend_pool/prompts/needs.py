"""What a prompt asks of a backend, and what of it a backend's object_info does not offer. Pure."""

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from backend_pool.prompts.dynamic_inputs import choices, live_inputs, specs_at
from backend_pool.prompts.node_info import ObjectInfo, config, upload_kind
from backend_pool.prompts.spelling import spelled

Scalar = str | int | float | bool


class ModelList(NamedTuple):
    """What people call a kind of model, and the folder that ComfyUI's loaders list."""

    word: str
    folder: str


MODEL_INPUTS = {
    "ckpt_name": ModelList("checkpoint", "checkpoints"),
    "unet_name": ModelList("diffusion model", "diffusion_models"),
    "lora_name": ModelList("LoRA", "loras"),
    "vae_name": ModelList("VAE", "vae"),
    "clip_name": ModelList("text encoder", "text_encoders"),
    "clip_name1": ModelList("text encoder", "text_encoders"),
    "clip_name2": ModelList("text encoder", "text_encoders"),
    "clip_name3": ModelList("text encoder", "text_encoders"),
    "clip_name4": ModelList("text encoder", "text_encoders"),
    "control_net_name": ModelList("ControlNet", "controlnet"),
    "clip_vision_name": ModelList("CLIP vision model", "clip_vision"),
    "style_model_name": ModelList("style model", "style_models"),
    "gligen_name": ModelList("GLIGEN model", "gligen"),
    "hypernetwork_name": ModelList("hypernetwork", "hypernetworks"),
}
"""Inputs by whose name ComfyUI's own loaders and most others ask for a model."""

MODEL_SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pt2", ".pth", ".bin", ".sft", ".gguf", ".onnx", ".pkl")


class Choice(NamedTuple):
    """A value that a prompt chose from a list; a path is spelled with slashes."""

    node: str
    input: str
    value: Scalar

    @property
    def words(self) -> str:
        """As people call it."""
        known = MODEL_INPUTS.get(self.input.rpartition(".")[2])
        return f"{known.word if known else self.input} {self.value}"

    @property
    def is_model(self) -> bool:
        """Whether it names a file that a machine has or lacks, unlike a sampler's name."""
        known = self.input.rpartition(".")[2] in MODEL_INPUTS
        return isinstance(self.value, str) and (known or self.value.lower().endswith(MODEL_SUFFIXES))


@dataclass(frozen=True)
class Needs:
    """Node classes, and choices from lists."""

    classes: frozenset[str]
    choices: frozenset[Choice]


def needs(prompt: Mapping[str, Any], info: ObjectInfo, run: Container[str] | None = None) -> Needs:
    """What a validated prompt asks for, nested inputs included; the user's own files are no backend's lack. ComfyUI
    must know every class, but judges only the inputs of the nodes that `run`: all, unless ids are given."""
    classes: set[str] = set()
    wanted: set[Choice] = set()
    for node_id, node in prompt.items():
        name = node["class_type"]
        classes.add(name)
        if run is None or node_id in run:
            wanted.update(_choices(name, info.get(name, {}), node.get("inputs")))
    return Needs(frozenset(classes), frozenset(wanted))


def missing(wanted: Needs, info: ObjectInfo) -> tuple[list[str], list[Choice]]:
    """The classes and choices that a backend with this object_info cannot give."""
    classes = sorted(wanted.classes - info.keys())
    lacking = [choice for choice in wanted.choices if choice.node in info and not offers(info, choice)]
    return classes, sorted(lacking, key=str)


def lacks(wanted: Needs, info: ObjectInfo) -> str | None:
    """The first thing a backend with this object_info cannot give, in words; None when it can run the prompt."""
    classes, lacking = missing(wanted, info)
    if classes:
        return f"node {classes[0]}"
    return lacking[0].words if lacking else None


def offers(info: ObjectInfo, choice: Choice) -> bool:
    """Whether a list of this object_info has the choice; a list that is filled at run time may have anything."""
    return any(_accepts(spec, choice.value) for spec in specs_at(info.get(choice.node, {}), choice.input))


def refused_needs(body: Any, prompt: Mapping[str, Any]) -> Needs | None:
    """The choices and classes that a 400 of /prompt says a backend lacks; None when it names any other mistake."""
    body = body if isinstance(body, Mapping) else {}
    error, node_errors = body.get("error"), body.get("node_errors")
    if isinstance(error, Mapping) and error.get("type") == "missing_node_type":
        absent = (error.get("extra_info") or {}).get("class_type")
        return Needs(frozenset({absent}), frozenset()) if isinstance(absent, str) else None
    found: set[Choice] = set()
    for node_id, entry in node_errors.items() if isinstance(node_errors, Mapping) else ():
        name = (prompt.get(node_id) or {}).get("class_type")
        for reason in entry.get("errors") or () if isinstance(entry, Mapping) else ():
            extra = reason.get("extra_info") if isinstance(reason, Mapping) else None
            key = extra.get("input_name") if isinstance(extra, Mapping) else None
            value = extra.get("received_value") if isinstance(extra, Mapping) else None
            if not (isinstance(name, str) and isinstance(key, str) and isinstance(value, Scalar)):
                return None
            if reason.get("type") != "value_not_in_list":
                return None
            found.add(Choice(name, key, spelled(value)))
    return Needs(frozenset(choice.node for choice in found), frozenset(found)) if found else None


def _choices(name: str, node: Mapping[str, Any], given: Any) -> Iterator[Choice]:
    if not isinstance(given, Mapping):
        return
    for _, key, spec in live_inputs(node, given):
        if key not in given or choices(spec) is None or upload_kind(spec) is not None or "remote" in config(spec):
            continue
        value = given[key]
        while isinstance(value, Mapping) and "__value__" in value:
            value = value["__value__"]
            if isinstance(value, list):  # several of a list; bare it would be a link
                yield from (Choice(name, key, spelled(item)) for item in value if isinstance(item, Scalar))
        if isinstance(value, Scalar):
            yield Choice(name, key, spelled(value))


def _accepts(spec: Any, value: Scalar) -> bool:
    listed = choices(spec)
    if listed is None or "remote" in config(spec):
        return True
    return value in listed or (isinstance(value, str) and "/" in value and value in map(spelled, listed))
