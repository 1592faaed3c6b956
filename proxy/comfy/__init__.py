"""ComfyUI's own API as one user sees it."""
