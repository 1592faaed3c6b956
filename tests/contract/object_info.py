"""Node definitions in the form in which servers are compared, and the stored facts of ComfyUI 0.8.0.

`python -m tests.contract.object_info URL` rewrites the stored facts from a running ComfyUI. They are names, types and
limits only; prose (tooltips, titles) and lists of files stay out.
"""

import json
import sys
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

STORED = Path(__file__).with_name("object_info_0_8_0.json")
PROSE = {"tooltip", "description", "output_tooltips", "display_name"}
FILES = "<files>"
FILE_INPUTS = {
    ("CheckpointLoaderSimple", "ckpt_name"),
    ("CLIPLoader", "clip_name"),
    ("DualCLIPLoader", "clip_name1"),
    ("DualCLIPLoader", "clip_name2"),
    ("LoadImage", "image"),
    ("LoadImageMask", "image"),
    ("LoraLoader", "lora_name"),
    ("LoraLoaderModelOnly", "lora_name"),
    ("UNETLoader", "unet_name"),
    ("VAELoader", "vae_name"),
}

Facts = dict[str, Any]


def facts(class_type: str, entry: Mapping[str, Any]) -> Facts:
    """An /object_info entry without prose, and with file lists replaced by a mark."""
    kept: Facts = _without_prose(entry)
    for inputs in kept["input"].values():
        for name, spec in inputs.items():
            bare = _without_files(spec) if (class_type, name) in FILE_INPUTS else spec
            inputs[name] = [part for part in bare if part != {}]  # options that were all prose
    return kept


def stored() -> dict[str, Facts]:
    """The facts of ComfyUI 0.8.0 by class."""
    loaded = json.loads(STORED.read_text())
    assert isinstance(loaded, dict)
    return loaded


def _without_prose(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_prose(item) for key, item in value.items() if key not in PROSE}
    return [_without_prose(item) for item in value] if isinstance(value, list) else value


def _without_files(spec: list[Any]) -> list[Any]:
    kind, *options = spec
    if isinstance(kind, list):
        return [[FILES], *options]
    return [kind, *({key: value for key, value in option.items() if key != "options"} for option in options)]


def _store(url: str, classes: Iterable[str]) -> None:
    with urllib.request.urlopen(f"{url}/object_info", timeout=60) as answer:
        entries = json.load(answer)
    found = {name: facts(name, entries[name]) for name in sorted(classes) if name in entries}
    lines = (f"  {json.dumps(name)}: {json.dumps(entry)}" for name, entry in found.items())
    STORED.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    _store(sys.argv[1], sys.argv[2:] or stored())
