"""Inputs that a node gets only for what a prompt chose: `resize_type.width`, `images.image0`. Pure.

Facts from comfy_api/latest/_io.py of 0.8.0: a dynamic combo brings the inputs of its chosen option, an autogrow input
one per name that is given, a dynamic slot those it lists once it is connected; names are joined by dots.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from backend_pool.prompts.node_info import config, grouped_specs, kind_of, options, with_options

COMBO = "COMFY_DYNAMICCOMBO_V3"
AUTOGROW = "COMFY_AUTOGROW_V3"
SLOT = "COMFY_DYNAMICSLOT_V3"
DYNAMIC_TYPES = (AUTOGROW, COMBO, SLOT)
DEEPEST = 8
"""Levels of nesting that are looked at; core nodes have two."""

Declared = tuple[str, str, Any]
"""(`required` or `optional`, full name, spec)."""
Change = Callable[[str, Any], Any]
"""(name of the input, spec) -> the spec to put in its place, the same object to leave it."""


def live_inputs(node: Mapping[str, Any], given: Mapping[str, Any]) -> Iterator[Declared]:
    """What a node declares for these inputs of a prompt, in the order of object_info. Dynamic inputs come themselves,
    after those they bring, when the prompt gives them."""
    return _expanded(node.get("input"), given, "", DEEPEST)


def choices(spec: Any) -> list[Any] | None:
    """What may be chosen: the options of a list, the keys of a dynamic combo; None for other types."""
    if kind_of(spec) == COMBO:
        return [option.get("key") for option in option_list(spec)]
    return options(spec)


def option_list(spec: Any) -> list[Mapping[str, Any]]:
    """The options of a dynamic combo: `{key, inputs}` each."""
    listed = config(spec).get("options")
    return [option for option in listed if isinstance(option, Mapping)] if isinstance(listed, list) else []


def specs_at(node: Mapping[str, Any], path: str) -> list[Any]:
    """Every spec that a node may have at a full name such as `resize_type.crop`: one per option that brings it."""
    return _at(node.get("input"), path.split("."), DEEPEST)


def with_specs(node: Mapping[str, Any], change: Change) -> Mapping[str, Any]:
    """The node with `change` made to every spec, nested ones included; the same object where nothing changed."""
    return _with_inputs(node, "input", change)


def _expanded(inputs: Any, given: Mapping[str, Any], prefix: str, depth: int) -> Iterator[Declared]:
    for group, name, spec in grouped_specs(inputs):
        kind, full = kind_of(spec), f"{prefix}{name}"
        if kind not in DYNAMIC_TYPES:
            yield group, full, spec
        elif kind == AUTOGROW:
            template = _template(spec)
            if template is not None:
                yield from ((group, key, template) for key in given if key.startswith(f"{full}."))
        elif full in given and depth:
            if kind == SLOT:
                yield from _expanded(config(spec).get("inputs"), given, f"{full}.", depth - 1)
            for option in option_list(spec) if kind == COMBO else ():
                if option.get("key") == given[full]:
                    yield from _expanded(option.get("inputs"), given, f"{full}.", depth - 1)
                    break
            yield group, full, spec


def _at(inputs: Any, path: list[str], depth: int) -> list[Any]:
    found: list[Any] = []
    for _, name, spec in grouped_specs(inputs):
        parts = name.split(".")  # a custom node may have dots in a plain name
        if path[: len(parts)] != parts or not depth:
            continue
        rest, kind = path[len(parts) :], kind_of(spec)
        if not rest:
            found.append(spec)
        elif kind == AUTOGROW:
            found += [template] if (template := _template(spec)) is not None else []
        elif kind == SLOT:
            found += _at(config(spec).get("inputs"), rest, depth - 1)
        elif kind == COMBO:
            for option in option_list(spec):
                found += _at(option.get("inputs"), rest, depth - 1)
    return found


def _template(spec: Any) -> Any:
    template = config(spec).get("template")
    inputs = template.get("input") if isinstance(template, Mapping) else None
    return next((inner for _, _, inner in grouped_specs(inputs)), None)


def _mapped(name: str, spec: Any, change: Change) -> Any:
    kind, changed = kind_of(spec), change(name, spec)
    settings = config(changed)
    if kind == COMBO:
        before = option_list(changed)
        after = [_with_inputs(option, "inputs", change) for option in before]
        return changed if all(a is b for a, b in zip(after, before, strict=True)) else with_options(changed, after)
    if kind == AUTOGROW and isinstance(settings.get("template"), Mapping):
        template = _with_inputs(settings["template"], "input", change)
        if template is not settings["template"]:
            return [changed[0], {**settings, "template": template}, *changed[2:]]
    if kind == SLOT:
        new = _with_inputs(settings, "inputs", change)
        return changed if new is settings else [changed[0], new, *changed[2:]]
    return changed


def _with_inputs(holder: Mapping[str, Any], key: str, change: Change) -> Mapping[str, Any]:
    inputs = holder.get(key) or {}
    changed = {
        (group, name): new
        for group, name, spec in grouped_specs(inputs)
        if (new := _mapped(name, spec, change)) is not spec
    }
    return {**holder, key: replaced(inputs, changed)} if changed else holder


def replaced(inputs: Mapping[str, Any], changed: Mapping[tuple[str, str], Any]) -> dict[str, Any]:
    """An `input` with other specs, by group and name, in the same order."""
    return {
        group: {name: changed.get((group, name), spec) for name, spec in specs.items()}
        if isinstance(specs, Mapping)
        else specs
        for group, specs in inputs.items()
    }
