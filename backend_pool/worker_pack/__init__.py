"""The worker pack: what `comfy-cluster worker-pack install` copies into a ComfyUI's `custom_nodes`.

Imports the standard library, aiohttp and ComfyUI only, never this project: there it runs alone, under ComfyUI's Python
(3.10 or newer). Its server part knows nothing of ComfyUI (`host.py` is the seam), so that the embedded engine mounts it
too. Loaded by ComfyUI it hooks itself in; imported as a part of this project it does nothing.
"""

from typing import Any

NODE_CLASS_MAPPINGS: dict[str, Any] = {}
"""ComfyUI asks for it; the pack adds no nodes."""

if __name__ != "backend_pool.worker_pack":
    from .boot import boot

    boot()
