"""Jobs in the shapes of ComfyUI's own answers."""

from typing import Any

import pytest

from backend_pool.job_state import JobState
from backend_pool.model import Job, JobDocument
from proxy.comfy.shapes import STATUS, history_entry, job_detail, job_item, outputs_summary, queue_item, shown_number

IMAGE = {"filename": "a.png", "subfolder": "", "type": "output"}
TEMP = {"filename": "t.png", "subfolder": "", "type": "temp"}
PROMPT = {"9": {"class_type": "SaveImage", "inputs": {}}}


def job(state: JobState, **values: Any) -> Job:
    return Job(seq=1, prompt_id="p", user_id=1, number=4.0, state=state, created_ms=10, **values)


def document(**values: Any) -> JobDocument:
    return JobDocument(seq=1, prompt=PROMPT, extra_data={"create_time": 10}, targets=["9"], **values)


@pytest.mark.parametrize(("number", "shown"), [(4.0, "4"), (-2.0, "-2"), (0.5, "0.5")])
def test_whole_numbers_have_no_fraction(number: float, shown: str) -> None:
    assert str(shown_number(number)) == shown


def test_a_queue_item_is_the_five_tuple() -> None:
    assert queue_item(job(JobState.QUEUED), document()) == [4, "p", PROMPT, {"create_time": 10}, ["9"]]


def test_each_state_has_its_word() -> None:
    assert set(STATUS) == set(JobState)


@pytest.mark.parametrize(
    ("state", "word", "completed"),
    [(JobState.SUCCEEDED, "success", True), (JobState.FAILED, "error", False), (JobState.CANCELLED, "error", False)],
)
def test_a_history_entry(state: JobState, word: str, completed: bool) -> None:
    entry = history_entry(job(state), document(outputs={"9": {"images": [IMAGE]}}, meta={"9": {}}))
    assert (entry["outputs"], entry["meta"]) == ({"9": {"images": [IMAGE]}}, {"9": {}})
    assert entry["status"] == {"status_str": word, "completed": completed, "messages": []}


def test_a_waiting_job_has_no_times() -> None:
    assert job_item(job(JobState.QUEUED), document()) == {
        "id": "p", "status": "pending", "priority": 4, "create_time": 10, "outputs_count": 0,
    }  # fmt: skip


def test_times_come_from_the_messages_and_else_from_the_row() -> None:
    messages = [["execution_start", {"timestamp": 11}], ["execution_error", {"timestamp": 12, "node_id": "9"}]]
    item = job_item(job(JobState.FAILED, started_ms=1, ended_ms=2), document(messages=messages))
    assert (item["execution_start_time"], item["execution_end_time"]) == (11, 12)
    assert item["execution_error"] == messages[1][1]
    item = job_item(job(JobState.CANCELLED, started_ms=1, ended_ms=2), document())
    assert (item["execution_start_time"], item["execution_end_time"]) == (1, 2)


def test_details_have_outputs_only_at_the_end() -> None:
    assert "outputs" not in job_detail(job(JobState.RUNNING), document())
    detail = job_detail(job(JobState.SUCCEEDED, ended_ms=2), document(outputs={"9": {"images": [IMAGE]}}))
    assert detail["workflow"] == {"prompt": PROMPT, "extra_data": {"create_time": 10}}
    assert detail["preview_output"] == {**IMAGE, "nodeId": "9", "mediaType": "images"}


OUTPUTS: list[tuple[dict[str, Any], int, str | None]] = [
    ({}, 0, None),
    ({"1": {"images": [TEMP]}, "2": {"images": [IMAGE, IMAGE]}}, 3, "a.png"),
    ({"1": {"images": [TEMP]}}, 1, "t.png"),
    ({"1": {"text": ["words"], "animated": [True]}}, 0, None),
    ({"1": {"gifs": [{"filename": "v.mp4", "format": "video/h264", "type": "output"}]}}, 1, "v.mp4"),
    ({"1": {"result": [{"filename": "mesh.GLB", "type": "output"}]}}, 1, "mesh.GLB"),
    ({"1": {"latents": [{"filename": "x.latent", "type": "output"}]}}, 1, None),
    ({"1": None, "2": {"images": None}, "3": {"images": [None, 3]}}, 0, None),
]


@pytest.mark.parametrize(("outputs", "count", "shown"), OUTPUTS)
def test_the_summary_of_outputs(outputs: dict[str, Any], count: int, shown: str | None) -> None:
    found, preview = outputs_summary(outputs)
    assert (found, preview and preview["filename"]) == (count, shown)
