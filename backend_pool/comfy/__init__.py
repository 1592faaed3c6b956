"""What a ComfyUI says and is told: the client of its API, frames, history entries. Knows no backend of the pool."""
