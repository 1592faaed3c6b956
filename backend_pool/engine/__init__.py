"""The embedded engine: a ComfyUI-compatible CPU inference server in a process of its own, without torch or a model.

The default backend of a fresh machine, the tests' backend and the load simulator. It speaks the true protocol; what it
paints is procedural and says so on every picture. It knows nothing of the proxy, of users or of pools.
"""
