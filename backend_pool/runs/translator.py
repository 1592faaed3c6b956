"""Frames of one attempt at a backend turned into frames of the user's job. Pure.

The attempt has ids of its own upstream and rewritten file names; the user sees neither. Frames of other prompts, the
backend's own status and unknown binary types are dropped (protocol §8.5, §8.49).
"""

import json
from typing import Any

from backend_pool.comfy.frames import (
    PREVIEW_IMAGE_WITH_METADATA,
    RELAYED,
    Message,
    binary_type,
    decode,
    preview_metadata,
    with_metadata,
)
from backend_pool.files.staging import Staged

DROPPED = frozenset({"status", "feature_flags"})


class Translator:
    """Maps one attempt's identifiers back to the job's."""

    def __init__(self, upstream_id: str, prompt_id: str, staged: Staged) -> None:
        self._upstream_id = upstream_id
        self._prompt_id = prompt_id
        self._escaped = json.dumps(prompt_id)[1:-1]
        self._staged = staged

    def text(self, frame: str) -> Message | None:
        """A JSON frame in the user's terms, None when it is not this job's.

        The output of `executed` still names the backend's files: it is for the collector to bring them home first.
        """
        message = decode(frame.replace(self._upstream_id, self._escaped))
        if message is None or message.type in DROPPED:
            return None
        if message.data.get("prompt_id", self._prompt_id) != self._prompt_id:
            return None
        if self._staged.hidden:
            if message.data.get("node") in self._staged.hidden:
                return None
            message = Message(message.type, self._without_hidden(message.data))
        return message if message.type == "executed" else Message(message.type, self.restored(message.data))

    def binary(self, frame: bytes) -> bytes | None:
        """A binary frame in the user's terms, None when it is of no type a client knows or another prompt's."""
        kind = binary_type(frame)
        if kind != PREVIEW_IMAGE_WITH_METADATA:
            return frame if kind in RELAYED else None
        parsed = preview_metadata(frame)
        if parsed is None:
            return None
        metadata, image = parsed
        if metadata.get("prompt_id") not in (None, self._upstream_id):
            return None
        return with_metadata({**metadata, "prompt_id": self._prompt_id}, image)

    def restored(self, value: Any) -> Any:
        """A JSON value with the user's own file names and prefixes."""
        if not self._staged.undo:
            return value
        return json.loads(self._staged.restore(json.dumps(value)))

    def document(self, value: Any) -> Any:
        """A JSON value of the backend's history with the job's id; file names as the backend has them."""
        found = json.loads(json.dumps(value).replace(self._upstream_id, self._escaped))
        status = found.get("status") if isinstance(found, dict) else None
        if self._staged.hidden and isinstance(status, dict) and isinstance(status.get("messages"), list):
            status["messages"] = [
                [told[0], self._without_hidden(told[1])] if isinstance(told, list) and len(told) == 2 else told
                for told in status["messages"]
            ]
        return found

    def _without_hidden(self, data: Any) -> Any:
        """A message without nodes of ours in its lists (cached ones, executed ones, those with progress)."""
        if not isinstance(data, dict):
            return data
        hidden, shown = self._staged.hidden, dict(data)
        for key in ("nodes", "executed"):
            match data.get(key):
                case list() as ids:
                    shown[key] = [node for node in ids if node not in hidden]
                case dict() as states:
                    shown[key] = {node: state for node, state in states.items() if node not in hidden}
        return shown
