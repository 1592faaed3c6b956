"""What a tab that comes back is told of a running job."""

import struct
from typing import Any

from backend_pool.comfy.frames import Frame, encode
from proxy.tabs.replay import RESULTS_KEPT, Replay

PREVIEW = struct.pack(">I", 1) + b"picture"


def state(value: float, most: float, name: str = "running") -> Frame:
    return encode("progress_state", {"nodes": {"3": {"state": name, "value": value, "max": most}}})


START = encode("execution_start", {"prompt_id": "p"})
EXECUTING = encode("executing", {"node": "3"})
PROGRESS = encode("progress", {"value": 2, "max": 8})
RESULT = encode("executed", {"node": "9", "output": {}})
END = encode("executing", {"node": None})


def told(*frames: Frame) -> Replay:
    replay = Replay()
    for frame in frames:
        assert replay.note(frame) is False
    return replay


def test_states_once_each_in_a_live_order_and_results_between() -> None:
    replay = told(START, state(0, 8), EXECUTING, PROGRESS, RESULT, state(1, 8), state(2, 8), PROGRESS)
    assert replay.frames() == [START, RESULT, state(2, 8), EXECUTING, PROGRESS]
    assert replay.progress == 0.25


def test_the_end_marker_ends_it() -> None:
    assert told(START).note(END) is True


def test_a_preview_comes_with_the_progress_that_makes_the_canvas_draw() -> None:
    assert told(START, EXECUTING, PREVIEW).preview() == [PREVIEW]
    assert told(START, EXECUTING, PREVIEW, PROGRESS).preview() == [PREVIEW, PROGRESS]
    assert told(START, EXECUTING, PROGRESS).preview() == []


def test_another_node_ends_the_last_ones_bar_and_preview() -> None:
    replay = told(START, EXECUTING, PREVIEW, PROGRESS, encode("executing", {"node": "4"}))
    assert replay.preview() == []
    assert replay.frames() == [START, encode("executing", {"node": "4"})]


def test_a_second_attempt_voids_the_first() -> None:
    assert told(START, RESULT, EXECUTING, PROGRESS, START).frames() == [START]


def test_cached_nodes_are_not_replayed() -> None:
    """A frontend without its graph takes them for a finished job."""
    assert told(START, encode("execution_cached", {"nodes": ["1"]})).frames() == [START]


def test_results_are_bounded() -> None:
    replay = told(START, *[RESULT] * (RESULTS_KEPT + 5))
    assert len(replay.frames()) == RESULTS_KEPT + 1


def test_progress_is_that_of_the_node_which_counts_steps() -> None:
    assert told(state(0, 1)).progress is None
    assert told(state(8, 8, "finished")).progress is None
    assert told(state(9, 8)).progress == 1.0


def test_nonsense_is_passed_over() -> None:
    odd: list[Any] = ["", "{", "[]", '{"type": 3}', b"", b"\0\0\0\x09x", encode("progress_state", {"nodes": 4})]
    assert told(*odd).frames() in ([], [odd[-1]])
