"""Which values of a prompt's node name files of its user, at whatever depth they stand. Pure apart from `resolve`.

An input takes files by its flag (`image_upload`), by its type (a camera, a microphone, a 3D scene), because its value
is none that a backend lists, or because the value says so itself: `x.png [output]`. Free text is never looked into.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from backend_pool.files.user_files import annotated, safe_subfolder
from backend_pool.prompts.dynamic_inputs import live_inputs
from backend_pool.prompts.node_info import kind_of, options, upload_folder, upload_kind

NO_FILE = frozenset({"", "none"})
"""Values of file inputs that mean no file."""

PLAIN_TYPES = frozenset({"STRING", "INT", "FLOAT", "BOOLEAN", "COMFY_DYNAMICCOMBO_V3"})
RECORDED_TYPES = frozenset({"WEBCAM", "AUDIO_RECORD"})
"""Widgets whose value is the annotated name of what the browser uploaded."""
SCENE_TYPE = "LOAD_3D"
"""A 3D scene's value: texts of its own name uploaded pictures and a recording, the rest is its camera."""


@dataclass(frozen=True)
class Named:
    """One value that may name a file. `must` when the node reads nothing else from it."""

    text: str
    folder: str
    """Where the name is looked for when it does not say so itself."""
    must: bool
    key: str = ""
    """The input it stands in."""


Visit = Callable[[Named], str]
"""What to put in the place of a value; may raise."""


class NotHere(Exception):
    """An input that takes a file has something that is none, such as a link."""

    def __init__(self, key: str) -> None:
        super().__init__(f"{key}: choose the file in this node itself; it cannot come from another node.")


def rewrite(inputs: dict[str, Any], node: Mapping[str, Any], visit: Visit) -> None:
    """Let `visit` replace every value of `inputs`, in place, that may name a file. Raises NotHere."""
    declared = {name: spec for _group, name, spec in live_inputs(node, inputs)}
    for key, value in list(inputs.items()):
        spec = declared.get(key)
        if isinstance(value, list):  # a link, as every backend reads bare lists
            if _takes_files(spec):
                raise NotHere(key)
        elif value is not None and _type(spec) not in PLAIN_TYPES:
            inputs[key] = _rewritten(key, value, spec, _in_input(key, visit))


def _in_input(key: str, visit: Visit) -> Visit:
    return lambda named: visit(replace(named, key=key))


def _rewritten(key: str, value: Any, spec: Any, visit: Visit) -> Any:
    if _takes_files(spec):
        folder = upload_folder(spec) if upload_kind(spec) is not None else "input"
        names = value["__value__"] if _is_wrapped_list(value) else [value]
        if not all(isinstance(name, str) for name in names):
            raise NotHere(key)
        done = [visit(Named(name, folder, must=True)) for name in names]
        return {"__value__": done} if _is_wrapped_list(value) else done[0]
    if _type(spec) == SCENE_TYPE and isinstance(value, dict):
        return {part: _scene_part(part, held, visit) for part, held in value.items()}
    listed = options(spec) if spec is not None else None
    if listed is not None:
        return _each(value, lambda text: text if text in listed else visit(Named(text, "input", must=_strange(text))))
    return _each(value, lambda text: _maybe(text, visit, declared=spec is not None))


def _maybe(text: str, visit: Visit, *, declared: bool) -> str:
    """A text inside a widget that is nobody's standard: it may name a file when it says so, or has a suffix."""
    name, _ = annotated(text)
    said = name != text
    if said or (declared and "." in text.strip(".") and len(text) < 1024):
        return visit(Named(text, "input", must=said))
    return text


def _strange(text: str) -> bool:
    """Whether a backend might find a file by it that is not its user's: another directory's, or out of all of them."""
    name, _ = annotated(text)
    return name != text or safe_subfolder(name) is None


def _takes_files(spec: Any) -> bool:
    return upload_kind(spec) is not None or _type(spec) in RECORDED_TYPES


def _type(spec: Any) -> str:
    """The name of an input's type, nothing for a list of choices; some nodes declare the bare name."""
    kind = spec if isinstance(spec, str) else kind_of(spec)
    return kind if isinstance(kind, str) else ""


def _scene_part(part: str, held: Any, visit: Visit) -> Any:
    if isinstance(held, str):
        return visit(Named(held, "input", must=True))
    if held is None or isinstance(held, list | dict):
        return _each(held, lambda text: _maybe(text, visit, declared=True))
    raise NotHere(part)


def _is_wrapped_list(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("__value__"), list)


def _each(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_each(item, change) for item in value]
    if isinstance(value, dict):
        return {key: _each(item, change) for key, item in value.items()}
    return value
