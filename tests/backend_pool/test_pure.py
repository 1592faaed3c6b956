"""Tables for the pool's pure parts: job states, health, frames, verdicts, JSON, file references."""

import json
import struct
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend_pool.backends.health import Health, judge
from backend_pool.comfy import frames
from backend_pool.comfy.client import FileRef
from backend_pool.comfy.frames import Message
from backend_pool.comfy.json_text import parse, parse_aside
from backend_pool.comfy.result import as_history, count_outputs, result_of, state_of
from backend_pool.comfy.verdicts import failed, interrupted, refusal
from backend_pool.errors import BackendRefused
from backend_pool.files.known_files import KNOWN_LIMIT, Home, KnownFiles
from backend_pool.files.references import references, replaced
from backend_pool.job_state import ACTIVE, ALLOWED, FINAL, ON_BACKEND, IllegalTransition, JobState, check
from backend_pool.jobs.submission import workflow_id

# -- job states ----------------------------------------------------------------------------------------------------


def test_the_sets_of_states_fit_together() -> None:
    """Every state is active or final; a final one never changes; every other one can end."""
    assert set(JobState) == ACTIVE | FINAL and not ACTIVE & FINAL
    assert {JobState.QUEUED} == ACTIVE - ON_BACKEND
    assert set(ALLOWED) == set(JobState)
    for state in JobState:
        assert (ALLOWED[state] == frozenset()) == (state in FINAL)
        assert state in FINAL or ALLOWED[state] & FINAL
        assert state not in ALLOWED[state]


@pytest.mark.parametrize("current", JobState)
@pytest.mark.parametrize("target", JobState)
def test_only_known_changes_pass(current: JobState, target: JobState) -> None:
    """And the refusal shows the row's recent history."""
    if target in ALLOWED[current]:
        check(current, target, [])
    else:
        with pytest.raises(IllegalTransition, match="what came before"):
            check(current, target, ["what came before"])


# -- health --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("current", "answered", "silent_s", "after"),
    [
        *[(health, True, 0.0, Health.UP) for health in Health],
        (Health.JOINING, False, 1.0, Health.JOINING),
        (Health.JOINING, False, 20.0, Health.DOWN),
        (Health.UP, False, 1.0, Health.SUSPECT),
        (Health.UP, False, 20.0, Health.DOWN),
        (Health.SUSPECT, False, 19.9, Health.SUSPECT),
        (Health.SUSPECT, False, 20.0, Health.DOWN),
        (Health.DOWN, False, 0.0, Health.DOWN),
    ],
)
def test_health(current: Health, answered: bool, silent_s: float, after: Health) -> None:
    """One missed probe makes suspect, a long silence down; one answer is enough to be up."""
    assert judge(current, answered=answered, silent_s=silent_s, down_after_s=20.0) is after


# -- frames --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '{"type": 3}', '{"data": {}}', "\ud800"])
def test_what_is_no_frame_is_none(text: str) -> None:
    """A backend may say anything."""
    assert frames.decode(text) is None


def test_text_frames() -> None:
    """Data that is no object counts as empty; numbers no browser reads become null."""
    assert frames.decode(frames.encode("progress", {"value": 1})) == Message("progress", {"value": 1})
    assert frames.decode('{"type": "x", "data": [1]}') == Message("x", {})
    assert frames.decode('{"type": "x", "data": {"a": NaN, "b": [-Infinity, 1e999, 1.5]}}') == Message(
        "x", {"a": None, "b": [None, None, 1.5]}
    )


@given(st.dictionaries(st.text(), st.text()), st.binary())
def test_previews_with_metadata(metadata: dict[str, str], image: bytes) -> None:
    """There and back; the older form has the image alone."""
    frame = frames.with_metadata(metadata, image)
    assert frames.binary_type(frame) == 4
    assert frames.preview_metadata(frame) == (metadata, image)
    kind = 2 if metadata.get("image_type") == "image/png" else 1
    assert frames.without_metadata(frame) == struct.pack(">II", 1, kind) + image


@given(st.binary(max_size=40))
def test_any_bytes_are_read_without_an_error(frame: bytes) -> None:
    """Malformed frames pass as they are or not at all."""
    parsed = frames.preview_metadata(frame)
    assert parsed is None or frames.binary_type(frame) == 4
    assert frames.without_metadata(frame) == frame or parsed is not None


# -- JSON ----------------------------------------------------------------------------------------------------------


async def test_long_json_is_the_same_in_a_thread() -> None:
    """And so are its errors."""
    long = json.dumps(["x" * 400_000, 1]).replace("1]", "NaN]")
    assert await parse_aside(long) == parse(long) == ["x" * 400_000, None]
    with pytest.raises(ValueError, match="Expecting"):
        await parse_aside(long[:-1] + ",")


# -- file references -----------------------------------------------------------------------------------------------

A = FileRef("a.png", "", "output")
SHAPES: list[tuple[Any, list[FileRef]]] = [
    ({"images": [asdict(A)]}, [A]),
    ({"images": [{"filename": "a.png"}]}, [A]),
    ({"images": [{"filename": "a.png", "subfolder": None, "type": "temp"}]}, [FileRef("a.png", "", "temp")]),
    ({"gifs": [{**asdict(A), "format": "video/mp4", "workflow": "a.png", "fullpath": "/x/a.png"}]}, [A]),
    ({"made": {"deep": [[{"mesh": asdict(A)}], asdict(A)]}}, [A, A]),
    ({"text": ["a.png"], "animated": [False], "n": 3, "none": None}, []),
    ({"images": [{"filename": "a.png", "type": "elsewhere"}, {"filename": 3}, {"filename": ""}]}, []),
    ({"images": [{"filename": "a.png", "type": ["output"]}]}, []),
    (None, []),
    ("a.png", []),
    ([asdict(A)], [A]),
]


@pytest.mark.parametrize(("ui", "found"), SHAPES)
def test_files_are_found_in_every_shape(ui: Any, found: list[FileRef]) -> None:
    """Custom nodes nest them as they like; everything else stays as it is."""
    assert list(references(ui)) == found
    moved = replaced(ui, {ref: FileRef("b.png", "s", ref.type) for ref in found})
    assert [ref.filename for ref in references(moved)] == ["b.png"] * len(found)
    if not found:
        assert moved == ui


@pytest.mark.parametrize(
    ("outputs", "count"),
    [
        ({}, 0),
        ({"1": {"images": [asdict(A), asdict(A)], "animated": [True]}}, 2),
        ({"1": {"text": ["x"]}, "2": None, "3": [asdict(A)], "4": {"images": "x"}}, 0),
    ],
)
def test_outputs_are_counted_in_every_shape(outputs: dict[str, Any], count: int) -> None:
    """Never an error: it runs where the job's end is stored."""
    assert count_outputs(outputs) == count


@pytest.mark.parametrize(
    "extra", [{}, {"extra_pnginfo": None}, {"extra_pnginfo": {"workflow": [1]}}, {"extra_pnginfo": 1}]
)
def test_a_workflow_id_may_be_missing_in_any_way(extra: dict[str, Any]) -> None:
    """extra_data is the caller's."""
    assert workflow_id(extra) is None


def test_known_files_forget_the_oldest() -> None:
    """The memory is bounded."""
    known = KnownFiles()
    for number in range(KNOWN_LIMIT + 5):
        known.put(1, 1, FileRef(f"{number}", "", "output"), Home(A, None, None))
    assert known.get(1, 1, FileRef("4", "", "output")) is None
    assert known.get(1, 1, FileRef("5", "", "output")) == Home(A, None, None)
    assert known.get(2, 1, FileRef("5", "", "output")) is None


# -- verdicts ------------------------------------------------------------------------------------------------------

SUCCESS = ["execution_success", {"prompt_id": "p", "timestamp": 1}]
ERROR = ["execution_error", {"prompt_id": "p", "timestamp": 1}]
BLOCKED = ["execution_error", {"prompt_id": "p"}]
STOPPED = ["execution_interrupted", {"prompt_id": "p", "timestamp": 1}]


@pytest.mark.parametrize(
    ("messages", "state"),
    [
        ([SUCCESS], JobState.SUCCEEDED),
        ([BLOCKED, SUCCESS], JobState.SUCCEEDED),
        ([ERROR], JobState.FAILED),
        ([STOPPED], JobState.CANCELLED),
        ([], JobState.SUCCEEDED),
    ],
)
def test_how_a_job_ended(messages: list[Any], state: JobState) -> None:
    """A blocked node's error does not end a job (protocol §2)."""
    assert state_of(messages) is state


@pytest.mark.parametrize(
    ("entry", "messages", "state"),
    [
        ({}, [], JobState.SUCCEEDED),
        ({"status": None, "outputs": [1], "meta": "x"}, [], JobState.SUCCEEDED),
        (
            {"status": {"status_str": "success", "messages": [SUCCESS, ["x"], 3, ["y", None]]}},
            [SUCCESS],
            JobState.SUCCEEDED,
        ),
        ({"status": {"status_str": "error", "messages": [ERROR]}}, [ERROR], JobState.FAILED),
    ],
)
def test_history_entries_of_every_shape(entry: dict[str, Any], messages: list[Any], state: JobState) -> None:
    """What is not as ComfyUI writes it is left out."""
    result = result_of(entry, "p")
    assert result.messages == messages and state_of(result.messages) is state
    assert result.outputs == {} == result.meta


def test_a_silent_failure_is_a_failure() -> None:
    """Some versions end a job as an error without a message."""
    result = result_of({"status": {"status_str": "error", "messages": []}}, "p")
    assert state_of(result.messages) is JobState.FAILED
    assert result.messages[0][1]["prompt_id"] == "p"


NODE_ERRORS = {"3": {"errors": [{"message": "Bad", "details": "seed"}], "class_type": "K"}}


@pytest.mark.parametrize(
    ("body", "text", "node"),
    [
        ({"error": {"message": "No"}, "node_errors": NODE_ERRORS}, "No\nBad: seed", ("3", "K")),
        ({"error": "plain", "node_errors": []}, "plain", ("", "")),
        ({"error": {"message": "No"}, "node_errors": {"9": None}}, "No", ("9", "")),
        ("<html>", "refused it", ("", "")),
        (None, "refused it", ("", "")),
    ],
)
def test_refusals_of_every_shape(body: Any, text: str, node: tuple[str, str]) -> None:
    """A backend's 400 becomes the job's error."""
    message = refusal("p", {"3": {"class_type": "K"}, "9": None}, BackendRefused("refused it", body))
    assert message.type == "execution_error"
    assert message.data["exception_message"] == text
    assert (message.data["node_id"], message.data["node_type"]) == node


def test_our_messages_have_every_field_clients_read() -> None:
    """As ComfyUI's execution.py writes them."""
    error = failed("p", "Kind", "text", ("1", "Node"))
    assert {"node_id", "node_type", "executed", "traceback", "current_inputs", "timestamp"} <= error.data.keys()
    assert as_history(interrupted("p"))[0] == "execution_interrupted"
