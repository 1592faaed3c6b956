"""What nodes of custom packs say about their own inputs (VALIDATE_INPUTS), which object_info does not show. Pure.

A stock backend judges nothing but what it also queues. So it is asked with a prompt that it must refuse whatever those
nodes say: before each output something required is left out. The `node_errors` of its refusal are the answer. ComfyUI
checks a node's links before it checks the node (execution.py validate_inputs), so every node upstream is judged.
"""

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from backend_pool.model import JsonDict
from backend_pool.prompts.node_info import UPLOADS, ObjectInfo, config, grouped_specs, input_specs, kind_of
from backend_pool.prompts.reach import reached

CUSTOM = "custom_nodes"
"""`python_module` of a node that came with a pack; ComfyUI's own say all they check in object_info, but for files."""
OWN = ("nodes", "comfy_extras.")
FAILED = "prompt_outputs_failed_validation"

Opinions = Mapping[str, list[JsonDict]]
"""Node id -> the errors that the node itself, at a backend, has with its inputs; [] for none."""


def with_opinions(prompt: Any, info: ObjectInfo, is_file: Callable[[str], bool]) -> set[str]:
    """Nodes to ask: a pack's, with no file of the user's among their inputs, since a backend has not got it yet."""
    found = set()
    for node_id, node in prompt.items() if isinstance(prompt, dict) else ():
        known = info.get(str(node.get("class_type")), {}) if isinstance(node, dict) else {}
        inputs = node.get("inputs") if isinstance(node, dict) else None
        if not isinstance(inputs, dict) or not _module(known).startswith(CUSTOM):
            continue
        uploads = any(config(spec).get(flag) for _, spec in input_specs(known) for flag in UPLOADS)
        if not uploads and not any(isinstance(value, str) and is_file(value) for value in inputs.values()):
            found.add(node_id)
    return found


def question(prompt: JsonDict, outputs: Iterable[str], asked: set[str], info: ObjectInfo) -> JsonDict | None:
    """A prompt that no backend accepts and in which all of `asked` that these outputs need are judged; None when there
    is no such prompt."""
    sent: JsonDict = {}
    for output in outputs:
        above = reached(prompt, [output])
        if above & asked:
            sent |= {node_id: copy.deepcopy(prompt[node_id]) for node_id in above if node_id not in sent}
    if not sent or not all(isinstance(node.get("inputs"), dict) for node in sent.values()):
        return None
    ends = [node_id for node_id, node in sent.items() if info.get(node["class_type"], {}).get("output_node") is True]
    # A version that ignores partial targets runs every output it finds valid, those in the middle too.
    return sent if all(_spoil(sent, node_id, info, may_starve=node_id not in asked) for node_id in ends) else None


def answer(body: Any, sent: JsonDict, asked: set[str]) -> Opinions | None:
    """What a refusal says of the nodes that were asked; None when it is no such refusal."""
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict) or error.get("type") != FAILED or not isinstance(body.get("node_errors"), dict):
        return None
    found: dict[str, list[JsonDict]] = {node_id: [] for node_id in asked & sent.keys()}
    for node_id in found.keys() & body["node_errors"].keys():
        entry = body["node_errors"][node_id]
        errors = entry.get("errors") if isinstance(entry, dict) else None
        if not isinstance(errors, list) or not all(_is_error(reason) for reason in errors):
            return None
        found[node_id] = errors
    return found


def _spoil(sent: JsonDict, node_id: str, info: ObjectInfo, *, may_starve: bool) -> bool:
    """Make an output fail: by a node without what it needs before one of its links, else without an input of its own,
    which spoils its own opinion too."""
    node = sent[node_id]
    known = info[node["class_type"]]
    for name, spec in input_specs(known):
        link = node["inputs"].get(name)
        carried = _carried(sent, link, info)
        if carried is None or kind_of(spec) not in (carried, "*"):
            continue
        broken = _broken_before(carried, info)
        if broken is not None:
            kind, entrance, slot = broken
            extra = f"{node_id} unasked"
            while extra in sent:
                extra += "."
            sent[extra] = {"class_type": kind, "inputs": {entrance: link}}
            node["inputs"][name] = [extra, slot]
            return True
    for group, name, _ in grouped_specs(known.get("input")) if may_starve else ():
        if group == "required" and name in node["inputs"] and not isinstance(node["inputs"][name], list):
            del node["inputs"][name]
            return True
    return False


def _broken_before(carried: str, info: ObjectInfo) -> tuple[str, str, int] | None:
    """One of ComfyUI's own classes that passes this type on and needs something more: class, input, output slot."""
    for kind, node in info.items():
        outputs = node.get("output") or ()
        if not _module(node).startswith(OWN) or node.get("output_node") or carried not in outputs:
            continue
        required = [(name, kind_of(spec)) for group, name, spec in grouped_specs(node.get("input")) if group[0] == "r"]
        plain = [name for name, wanted in required if isinstance(wanted, list) or wanted in ("INT", "FLOAT", "BOOLEAN")]
        entrance = next((name for name, wanted in required if wanted == carried), None)
        if entrance is not None and any(name != entrance for name in plain):
            return kind, entrance, list(outputs).index(carried)
    return None


def _carried(sent: JsonDict, link: Any, info: ObjectInfo) -> str | None:
    """Type of what a link brings."""
    match link:
        case [str(source), int(slot)] if source in sent and slot >= 0:
            outputs = info.get(sent[source]["class_type"], {}).get("output") or ()
            found = outputs[slot] if slot < len(outputs) else None
            return found if isinstance(found, str) and found.isupper() else None
    return None


def _is_error(reason: Any) -> bool:
    return isinstance(reason, dict) and {"type", "message", "details", "extra_info"} <= reason.keys()


def _module(node: Mapping[str, Any]) -> str:
    return str(node.get("python_module"))
