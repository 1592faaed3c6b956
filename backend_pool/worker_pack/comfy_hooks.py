"""What of ComfyUI the pack hooks into, looked for before anything is touched: known versions, and every name it needs.

What is missing is said in words; the pack then does nothing at all.
"""

import importlib
import inspect
import re
import sys
from typing import Any

OLDEST, NEWEST = (0, 3, 64), (0, 8)
"""Tested: 0.3.64 and 0.8.0. Anything up to 0.8.x that has the names below is taken."""

NEEDED = {
    "folder_paths": (
        "set_input_directory",
        "set_output_directory",
        "set_temp_directory",
        "get_input_directory",
        "get_output_directory",
        "get_temp_directory",
        "get_annotated_filepath",
        "exists_annotated_filepath",
        "folder_names_and_paths",
        "filename_list_cache",
        "get_filename_list",
        "get_user_directory",
    ),
    "execution": ("PromptExecutor.execute", "validate_prompt"),
    "comfy_execution.caching": (
        "CacheKeySetInputSignature.get_immediate_node_signature",
        "CacheKeySetID.add_keys",
    ),
    "nodes": ("NODE_CLASS_MAPPINGS",),
    "server": ("PromptServer.instance.routes", "PromptServer.instance.app", "PromptServer.instance.send_sync"),
}
QUEUE = ("put", "get_tasks_remaining", "get_current_queue", "delete_queue_item", "delete_history_item", "set_flag")


def version_problem(version: str) -> str | None:
    """Why a version is not taken, None when it is."""
    numbers = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", version)
    if numbers is None:
        return f"ComfyUI's version {version!r} cannot be read"
    found = tuple(int(part or 0) for part in numbers.groups())
    if found < OLDEST or found[:2] > NEWEST:
        known = f"{'.'.join(map(str, OLDEST))} to {'.'.join(map(str, NEWEST))}.x"
        return f"ComfyUI {version} is not one this pack knows ({known})"
    return None


def missing() -> list[str]:
    """Every hook that this ComfyUI lacks, and every one that has another shape than the pack relies on."""
    lacking = []
    for module_name, names in NEEDED.items():
        try:
            module: Any = importlib.import_module(module_name)
        except ImportError:
            lacking.append(module_name)
            continue
        lacking += [f"{module_name}.{name}" for name in names if not _has(module, name)]
    if not lacking:
        queue = importlib.import_module("server").PromptServer.instance.prompt_queue
        lacking += [f"prompt_queue.{name}" for name in QUEUE if not hasattr(queue, name)]
        lacking += _shapes()
    if not any(hasattr(module, "cleanup_temp") for module in main_modules()):
        lacking.append("main.cleanup_temp")
    return lacking


def main_modules() -> list[Any]:
    """ComfyUI's main.py under either of its names."""
    return [module for name in ("__main__", "main") if (module := sys.modules.get(name)) is not None]


def stock_route(method: str, path: str) -> Any:
    """ComfyUI's own handler of a route, None when it has none."""
    routes = importlib.import_module("server").PromptServer.instance.routes
    for route in routes:
        if getattr(route, "method", None) == method and getattr(route, "path", None) == path:
            return route.handler
    return None


def _shapes() -> list[str]:
    caching = importlib.import_module("comfy_execution.caching")
    wrong = []
    for owner, name in (("CacheKeySetInputSignature", "get_immediate_node_signature"), ("CacheKeySetID", "add_keys")):
        if not inspect.iscoroutinefunction(getattr(getattr(caching, owner), name)):
            wrong.append(f"{owner}.{name} as a coroutine")
    if inspect.iscoroutinefunction(importlib.import_module("execution").PromptExecutor.execute):
        wrong.append("PromptExecutor.execute as a plain function")
    for method, path in (("POST", "/prompt"), ("GET", "/object_info")):
        if stock_route(method, path) is None:
            wrong.append(f"{method} {path}")
    return wrong


def _has(thing: Any, names: str) -> bool:
    for name in names.split("."):
        if not hasattr(thing, name):
            return False
        thing = getattr(thing, name)
    return True
