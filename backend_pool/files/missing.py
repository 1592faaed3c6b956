"""Files that a prompt names and its user does not have, told at once in the shape of ComfyUI's refusals.

ComfyUI itself finds out about some of them (scenes, recordings, names in widgets) only when the node runs.
"""

from dataclasses import replace
from typing import Any

from backend_pool.files.staging import missing_files
from backend_pool.files.user_files import UserDirs
from backend_pool.model import JsonDict
from backend_pool.prompts.node_info import ObjectInfo
from backend_pool.prompts.validation import Verdict
from backend_pool.prompts.validation_values import make_error

REASON = "Custom validation failed for node"


def with_files(verdict: Verdict, prompt: JsonDict, info: ObjectInfo, dirs: UserDirs) -> Verdict:
    """The verdict, turned into a refusal that names every file that is missing from what would run."""
    missing = missing_files(prompt, info, dirs, verdict.outputs) if verdict.ok else []
    if not missing:
        return verdict
    node_errors: dict[str, Any] = {}
    for node_id, named in missing:
        shape = {"errors": [], "dependent_outputs": verdict.outputs, "class_type": prompt[node_id]["class_type"]}
        details = f"{named.key} - Invalid file: {named.text}"
        error = make_error("custom_validation_failed", REASON, details, input_name=named.key)
        node_errors.setdefault(node_id, shape)["errors"].append(error)
    names = ", ".join(dict.fromkeys(named.text for _, named in missing))
    details = f"These files are gone, choose them again: {names}"
    whole = make_error("prompt_outputs_failed_validation", "Prompt outputs failed validation", details)
    return replace(verdict, ok=False, error=whole, outputs=[], node_errors=node_errors)
