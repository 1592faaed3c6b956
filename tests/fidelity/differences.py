"""Tests of ComfyUI's own suite that pass directly and not through the proxy, each with the reason.

docs/fidelity.md has the same list. A name stands for all parameters of a test.
"""

DIFFERENCES: dict[str, str] = {}
"""`file::class::test` -> why."""
