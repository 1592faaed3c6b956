"""What a running job has told so far, for a tab that comes back after a reload. Pure, in memory, bounded.

ComfyUI itself replays almost nothing (protocol §2). Kept are the last frame of each kind that shows a state, and the
`executed` frames, which show results; previews and progress are never stored in the database.
"""

from backend_pool.comfy.frames import PREVIEW_IMAGE, PREVIEW_IMAGE_WITH_METADATA, Frame, binary_type, decode

STATES = ("execution_start", "progress_state", "executing", "progress")
"""Not execution_cached: a frontend that has not loaded its graph yet takes it for a finished job (Total 100%)."""
PREVIEW = "preview"
RESULTS_KEPT = 200


class Replay:
    """The frames of one running job that a late tab needs, in the order a live one saw them."""

    def __init__(self) -> None:
        self._last: dict[str, Frame] = {}
        self._results: list[Frame] = []
        self.progress: float | None = None
        """Progress of the node that runs now, 0 to 1; None when it counts no steps."""

    def note(self, frame: Frame) -> bool:
        """Take in a frame; True for the end marker, after which nothing is worth replaying."""
        if isinstance(frame, bytes):
            if binary_type(frame) in (PREVIEW_IMAGE, PREVIEW_IMAGE_WITH_METADATA):
                self._last[PREVIEW] = frame
            return False
        message = decode(frame)
        if message is None:
            return False
        if message.type == "execution_start":  # another attempt after a lost backend: what the first one told is void
            self._last.clear()
            self._results.clear()
        if message.type in STATES:
            self._last[message.type] = frame
        if message.type == "executing":  # another node: the old one's bar and preview are over
            self._last.pop("progress", None)
            self._last.pop(PREVIEW, None)
        elif message.type == "executed" and len(self._results) < RESULTS_KEPT:
            self._results.append(frame)
        elif message.type == "progress_state":
            self.progress = _running(message.data.get("nodes"))
        return message.type == "executing" and message.data.get("node") is None

    def frames(self) -> list[Frame]:
        """What to send to a tab that connects now."""
        start = [self._last[kind] for kind in STATES[:1] if kind in self._last]
        state = [self._last[kind] for kind in STATES[1:] if kind in self._last]
        return [*start, *self._results, *state]

    def preview(self) -> list[Frame]:
        """The last preview, which a frontend shows only once its graph is loaded, some seconds after it connected; and
        the progress that follows each preview in ComfyUI and makes the frontend draw its canvas again."""
        if PREVIEW not in self._last:
            return []
        return [self._last[kind] for kind in (PREVIEW, "progress") if kind in self._last]


def _running(nodes: object) -> float | None:
    """Progress of the node that counts steps now; others take a moment and say nothing of the whole."""
    for node in reversed(list(nodes.values())) if isinstance(nodes, dict) else ():
        if isinstance(node, dict) and node.get("state") == "running" and (node.get("max") or 0) > 1:
            return min(1.0, float(node["value"]) / float(node["max"]))
    return None
