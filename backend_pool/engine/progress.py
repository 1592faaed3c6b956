"""Progress of one prompt: the node map that `progress_state` repeats with every change, and `progress` frames."""

from collections.abc import Callable
from typing import Any

Send = Callable[[str, dict[str, Any]], None]


class Progress:
    """States of the nodes of one prompt, sent through `send(event, data)`."""

    def __init__(self, prompt_id: str, send: Send) -> None:
        self._prompt_id = prompt_id
        self._send = send
        self._nodes: dict[str, dict[str, Any]] = {}

    def start(self, node_id: str) -> None:
        """The node begins."""
        self._set(node_id, "running", 0.0, 1.0)

    def update(self, node_id: str, value: float, total: float) -> None:
        """The node is at `value` of `total`; the caller sends the preview between this and `progress`."""
        self._set(node_id, "running", value, total)

    def progress(self, node_id: str, value: float, total: float) -> None:
        """The older frame that follows `update`."""
        self._send("progress", {"value": value, "max": total, "prompt_id": self._prompt_id, "node": node_id})

    def finish(self, node_id: str) -> None:
        """The node is done, or was cached."""
        total = self._nodes.get(node_id, {"max": 1})["max"]
        self._set(node_id, "finished", total, total)

    def identity(self, node_id: str) -> dict[str, Any]:
        """Who a frame is about; there is no subgraph expansion here, so all ids are the node's own."""
        return {
            "node_id": node_id,
            "prompt_id": self._prompt_id,
            "display_node_id": node_id,
            "parent_node_id": None,
            "real_node_id": node_id,
        }

    def _set(self, node_id: str, state: str, value: float, total: float) -> None:
        self._nodes[node_id] = {"value": value, "max": total, "state": state} | self.identity(node_id)
        self._send("progress_state", {"prompt_id": self._prompt_id, "nodes": self._nodes})
