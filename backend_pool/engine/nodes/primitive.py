"""Values and text: primitives, concatenation, and showing any value as text."""

import json
import sys
from typing import Any

from backend_pool.engine.job import Job
from backend_pool.engine.nodes.registry import Node, Shown, Spec


def _same(_job: Job, value: Any) -> tuple[Any]:
    return (value,)


def _concatenate(_job: Job, string_a: str, string_b: str, delimiter: str) -> tuple[str]:
    return (delimiter.join((string_a, string_b)),)


def _show(_job: Job, source: Any = None) -> Shown:
    if isinstance(source, str):
        text = source
    elif source is None or isinstance(source, int | float):
        text = str(source)
    else:
        try:
            text = json.dumps(source, indent=4)
        except (TypeError, ValueError):
            text = str(source)
    return Shown({"text": [text]})


def _primitive(name: str, shown: str, kind: str, **options: Any) -> Node:
    return Node(
        name,
        _same,
        {"value": (kind, options)},
        outputs=(kind,),
        category="utils/primitive",
        display_name=shown,
        module="comfy_extras.nodes_primitive",
        v3=True,
    )


WIDE = {"min": -sys.maxsize, "max": sys.maxsize}
TEXT: Spec = ("STRING", {"multiline": True})

NODES = (
    _primitive("PrimitiveString", "String", "STRING", multiline=False),
    _primitive("PrimitiveStringMultiline", "String (Multiline)", "STRING", multiline=True),
    _primitive("PrimitiveInt", "Int", "INT", **WIDE, control_after_generate=True),
    _primitive("PrimitiveFloat", "Float", "FLOAT", **WIDE, step=0.1),
    _primitive("PrimitiveBoolean", "Boolean", "BOOLEAN"),
    Node(
        "StringConcatenate",
        _concatenate,
        {"string_a": TEXT, "string_b": TEXT, "delimiter": ("STRING", {"default": "", "multiline": False})},
        outputs=("STRING",),
        category="utils/string",
        display_name="Concatenate",
        module="comfy_extras.nodes_string",
        v3=True,
    ),
    Node(
        "PreviewAny",
        _show,
        {"source": ("*", {})},
        category="utils",
        display_name="Preview as Text",
        module="comfy_extras.nodes_preview_any",
        output_node=True,
    ),
)
