"""The workflow a newcomer's canvas opens with: the operator's, or one that this pool can run.

Chosen once per user, at the first visit, and written into their own workflows; `/?workflows=FOLDER` makes the official
frontend open that folder (seen with 1.58.1). When the pool can run the frontend's own default graph, that one is left.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from backend_pool.backends.pool import Pool
from backend_pool.prompts.needs import Choice, Needs
from backend_pool.prompts.node_info import input_specs, options
from proxy.base.errors import ConfigError
from proxy.base.file_owner import as_owner_of
from proxy.base.logs import events
from proxy.base.settings import Settings
from proxy.base.user_file_open import create_file
from user_sessions.directories import Directories, prepare_user

log = events(__name__)

STARTERS = Path(__file__).parent.parent / "templates" / "starters"
FOLDER = "Getting started"
FILE = "Start here.json"
MARKER = ".first-visit"

FRONTEND_DEFAULT = Needs(
    frozenset({"UNETLoader", "CLIPLoader", "VAELoader", "ModelSamplingAuraFlow", "EmptySD3LatentImage", "KSampler"}),
    frozenset(
        {
            Choice("UNETLoader", "unet_name", "z_image_turbo_bf16.safetensors"),
            Choice("CLIPLoader", "clip_name", "qwen_3_4b.safetensors"),
            Choice("VAELoader", "vae_name", "ae.safetensors"),
        }
    ),
)
"""What the graph that comfyui-frontend-package 1.58 opens by default asks of a backend."""

CHECKPOINT = frozenset({"CheckpointLoaderSimple", "CLIPTextEncode", "EmptyLatentImage", "KSampler", "VAEDecode"})


@dataclass(frozen=True)
class Starter:
    """Chooses and places starter workflows."""

    pool: Pool
    settings: Settings

    def first_visit(self, slug: str) -> str | None:
        """Where a first visit should go instead of `/`, None when there is nothing to do. Blocking."""
        union = self.pool.info.union
        if not union and self.settings.starter_workflow is None:
            return None  # no backend has answered yet: choose at the next visit
        dirs = prepare_user(self.settings.data_dir, slug)
        marker = dirs.user / MARKER
        try:
            create_file(dirs.user, marker, replace=False).close()
        except FileExistsError:  # whatever it is
            return None
        workflow = self.workflow()  # the operator's file: read as ourselves
        if workflow is None:
            return None
        return _place(dirs, workflow)

    def workflow(self, default: Sequence[str] = ()) -> dict[str, Any] | None:
        """What a new canvas should show, None for the frontend's own default graph. Blocking.

        `default` is what that graph needs, each a node class, or one and a model file: `VAELoader/ae.safetensors`.
        """
        return operators(self.settings.starter_workflow) or fitting(self.pool.info.union, default)


def operators(path: Path | None) -> dict[str, Any] | None:
    """The operator's workflow; one that became unreadable after the start is left out, and the log says so."""
    if path is None:
        return None
    try:
        return read_workflow(path)
    except ConfigError as error:
        log.error("starter workflow left out", error=error.message)
        return None


def read_workflow(path: Path) -> dict[str, Any]:
    """A workflow file in the frontend's format. Raises ConfigError."""
    try:
        workflow = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"The starter workflow {path} cannot be read: {error}") from error
    if not isinstance(workflow, dict) or not isinstance(workflow.get("nodes"), list):
        raise ConfigError(f"{path} is not a workflow. Save one with Ctrl+S in the WebUI, not in API format.")
    return workflow


def fitting(union: dict[str, Any], default: Sequence[str] = ()) -> dict[str, Any] | None:
    """A workflow the pool can run; None when it can run the frontend's own default, or nothing is known of it yet."""
    if not union or (all(_has(union, need) for need in default) if default else _offers(union, FRONTEND_DEFAULT)):
        return None
    listed = options(dict(input_specs(union.get("CheckpointLoaderSimple", {}))).get("ckpt_name"))
    if listed and union.keys() >= CHECKPOINT:
        workflow = read_workflow(STARTERS / "checkpoint.json")
        loader = next(node for node in workflow["nodes"] if node["type"] == "CheckpointLoaderSimple")
        loader["widgets_values"] = [listed[0]]
        return workflow
    return read_workflow(STARTERS / "model_free.json")


def _offers(union: dict[str, Any], wanted: Needs) -> bool:
    """Whether each class and choice is there. Stricter than `lacks`, which lets a backend judge what is not listed:
    a pool without any model of a kind lists none, and the default graph could not run on it."""
    return wanted.classes <= union.keys() and all(
        value in (options(dict(input_specs(union[name])).get(key)) or ()) for name, key, value in wanted.choices
    )


def _has(union: dict[str, Any], need: str) -> bool:
    name, _, model = need.partition("/")
    found = union.get(name)
    return found is not None and (not model or any(model in (options(spec) or ()) for _, spec in input_specs(found)))


def _place(dirs: Directories, workflow: dict[str, Any]) -> str | None:
    folder = dirs.user / "default" / "workflows" / FOLDER
    try:
        with as_owner_of(dirs.user):
            folder.mkdir(parents=True, exist_ok=True)
        with create_file(dirs.user, folder / FILE) as out:
            out.write(json.dumps(workflow).encode())
    except OSError as error:
        log.error("starter workflow not placed", error=repr(error))
        return None
    return f"/?workflows={quote(FOLDER)}"
