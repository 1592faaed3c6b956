"""Keeps users' results apart inside ComfyUI's caches: the user becomes a part of every key, for all cache types.

Pure loaders of shared models stay shared, so that a model is loaded once for everybody. Node instances, which capture
directories and keep state, are each user's own.
"""

import importlib
import os
from collections.abc import Callable
from typing import Any

MARK = "__cluster_user__"
SHARED_LOADERS = frozenset(
    {
        "CheckpointLoader",
        "CheckpointLoaderSimple",
        "ImageOnlyCheckpointLoader",
        "unCLIPCheckpointLoader",
        "DiffusersLoader",
        "UNETLoader",
        "CLIPLoader",
        "DualCLIPLoader",
        "TripleCLIPLoader",
        "QuadrupleCLIPLoader",
        "LTXAVTextEncoderLoader",
        "CLIPVisionLoader",
        "AudioEncoderLoader",
        "VAELoader",
        "LTXVAudioVAELoader",
        "ControlNetLoader",
        "DiffControlNetLoader",
        "ModelPatchLoader",
        "StyleModelLoader",
        "GLIGENLoader",
        "UpscaleModelLoader",
        "LatentUpscaleModelLoader",
        "HypernetworkLoader",
        "PhotoMakerLoader",
        "LoraLoader",
        "LoraLoaderModelOnly",
    }
)
"""Core nodes whose result depends on their inputs and files of model folders alone."""


def install(user_of_now: Callable[[], str], own_model_roots: Callable[[], list[str]]) -> None:
    """Patch the two methods that make keys."""
    caching = importlib.import_module("comfy_execution.caching")
    signature = caching.CacheKeySetInputSignature.get_immediate_node_signature
    add_keys = caching.CacheKeySetID.add_keys

    async def get_immediate_node_signature(self: Any, dynprompt: Any, node_id: str, *rest: Any) -> Any:
        found = await signature(self, dynprompt, node_id, *rest)
        if dynprompt.has_node(node_id) and is_shared(dynprompt.get_node(node_id), own_model_roots()):
            return found
        return [*found, (MARK, user_of_now())]

    async def add_keys_of_user(self: Any, node_ids: Any) -> None:
        before = set(self.keys)
        await add_keys(self, node_ids)
        for node_id in set(self.keys) - before:
            self.keys[node_id] = (*self.keys[node_id], user_of_now())
            self.subcache_keys[node_id] = (*self.subcache_keys[node_id], user_of_now())

    caching.CacheKeySetInputSignature.get_immediate_node_signature = get_immediate_node_signature
    caching.CacheKeySetID.add_keys = add_keys_of_user


def is_shared(node: Any, own_roots: list[str]) -> bool:
    """Whether a node's result may serve everybody: a pure loader that names no model of the user's own."""
    if node.get("class_type") not in SHARED_LOADERS:
        return False
    names = [value for value in node.get("inputs", {}).values() if isinstance(value, str)]
    return not any(os.path.lexists(os.path.join(root, name)) for root in own_roots for name in names)  # noqa: PTH118
