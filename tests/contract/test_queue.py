"""Queue, history, jobs, cancelling: shapes that the proxy reads from a backend and shows to its users."""

import uuid

import pytest

from tests.contract import graphs
from tests.contract.wire import Comfy

JOB_KEYS = {
    "id", "status", "priority", "create_time", "execution_start_time", "execution_end_time", "outputs_count",
    "preview_output",
}  # fmt: skip

ERROR_KEYS = {
    "prompt_id", "node_id", "node_type", "executed", "exception_message", "exception_type", "traceback",
    "current_inputs", "current_outputs", "timestamp",
}  # fmt: skip


@pytest.fixture
def client_id() -> str:
    return uuid.uuid4().hex


async def finished(comfy: Comfy, prompt: graphs.Prompt, client_id: str, **more: object) -> str:
    async with comfy.socket(client_id) as socket:
        prompt_id = await comfy.submit(prompt, client_id, **more)
        await socket.job(prompt_id)
    return prompt_id


async def test_a_history_entry(comfy: Comfy, client_id: str) -> None:
    workflow = {"id": str(uuid.uuid4()), "nodes": []}
    prompt = graphs.saved(8001)
    prompt_id = await finished(comfy, prompt, client_id, extra_data={"extra_pnginfo": {"workflow": workflow}})
    entry = await comfy.history(prompt_id)
    assert list(entry) == ["prompt", "outputs", "status", "meta"]
    number, queued_id, queued, extra_data, outputs = entry["prompt"]
    assert (queued_id, queued, outputs) == (prompt_id, prompt, ["2"])
    assert isinstance(number, int)
    assert set(extra_data) == {"extra_pnginfo", "client_id", "create_time"}
    assert extra_data["extra_pnginfo"] == {"workflow": workflow}
    assert isinstance(extra_data["create_time"], int)
    assert entry["status"]["status_str"] == "success"
    assert [name for name, _ in entry["status"]["messages"]] == [
        "execution_start", "execution_cached", "execution_success",
    ]  # fmt: skip
    assert entry["meta"] == {"2": {"node_id": "2", "display_node": "2", "parent_node": None, "real_node_id": "2"}}
    assert set(entry["outputs"]["2"]["images"][0]) == {"filename", "subfolder", "type"}


async def test_history_by_id_by_number_and_deleted(comfy: Comfy, client_id: str) -> None:
    first = await finished(comfy, graphs.saved(8002), client_id)
    second = await finished(comfy, graphs.saved(8003), client_id)
    assert list((await comfy.get("/history?max_items=1")).json()) == [second]
    assert {first, second} <= set((await comfy.get("/history")).json())
    assert (await comfy.get("/history/none")).json() == {}
    deleted = await comfy.post("/history", {"delete": [first]})
    assert (deleted.status, deleted.body) == (200, b"")
    assert (await comfy.get(f"/history/{first}")).json() == {}
    assert (await comfy.post("/history", {"clear": True})).status == 200
    assert (await comfy.get("/history")).json() == {}


async def test_the_queue_while_jobs_run_and_wait(comfy: Comfy, client_id: str) -> None:
    prompt = graphs.long_chain(8004)
    async with comfy.socket(client_id) as socket:
        running = await comfy.submit(prompt, client_id)
        await socket.until(lambda frame: frame.kind == "executing")
        waiting = [await comfy.submit(graphs.saved(8005 + index), client_id) for index in range(3)]
        queue = (await comfy.get("/queue")).json()
        assert list(queue) == ["queue_running", "queue_pending"]
        ((_, running_id, shown, extra_data, outputs),) = queue["queue_running"]
        assert (running_id, shown, outputs) == (running, prompt, [max(prompt, key=int)])
        assert extra_data["client_id"] == client_id
        assert sorted(item[1] for item in queue["queue_pending"]) == sorted(waiting)
        assert (await comfy.get("/prompt")).json() == {"exec_info": {"queue_remaining": 4}}

        assert (await comfy.post("/queue", {"delete": [waiting[1]]})).status == 200
        left = (await comfy.get("/queue")).json()["queue_pending"]
        assert sorted(item[1] for item in left) == sorted([waiting[0], waiting[2]])
        assert (await comfy.get(f"/history/{waiting[1]}")).json() == {}
        assert (await comfy.post("/queue", {"clear": True})).status == 200
        queue = (await comfy.get("/queue")).json()
        assert [item[1] for item in queue["queue_running"]] == [running]
        assert queue["queue_pending"] == []
        await comfy.post("/interrupt", {"prompt_id": running})
        await socket.job(running)


async def test_lower_numbers_go_first(comfy: Comfy, client_id: str) -> None:
    async with comfy.socket(client_id) as socket:
        running = await comfy.submit(graphs.long_chain(8010), client_id)
        await socket.until(lambda frame: frame.kind == "executing")
        later = await comfy.submit(graphs.saved(8011), client_id)
        front = await comfy.submit(graphs.saved(8012), client_id, front=True)
        await comfy.post("/interrupt", {"prompt_id": running})
        await socket.job(running)
        frames = await socket.until(lambda frame: frame.ends_job and frame.data["prompt_id"] == later)
    started = [frame.data["prompt_id"] for frame in frames if frame.kind == "execution_start"]
    assert started == [front, later]


async def test_an_interrupted_job(comfy: Comfy, client_id: str) -> None:
    prompt = graphs.long_chain(8020)
    async with comfy.socket(client_id) as socket:
        prompt_id = await comfy.submit(prompt, client_id)
        await socket.until(lambda frame: frame.kind == "executing" and frame.data["node"] == "2")
        answer = await comfy.post("/interrupt", {"prompt_id": prompt_id})
        assert (answer.status, answer.body) == (200, b"")
        frames = await socket.job(prompt_id)
    interrupted = frames[-2]
    assert interrupted.kind == "execution_interrupted"
    assert set(interrupted.data) == {"prompt_id", "node_id", "node_type", "executed", "timestamp"}
    assert interrupted.data["node_type"] == "ImageBlur"
    assert {"0", "1"} <= set(interrupted.data["executed"])
    entry = await comfy.history(prompt_id)
    assert (entry["status"]["status_str"], entry["status"]["completed"], entry["outputs"]) == ("error", False, {})
    assert entry["status"]["messages"][-1][0] == "execution_interrupted"


async def test_an_interrupt_of_another_job_changes_nothing(comfy: Comfy, client_id: str) -> None:
    async with comfy.socket(client_id) as socket:
        prompt_id = await comfy.submit(graphs.long_chain(8021, 6), client_id)
        await socket.until(lambda frame: frame.kind == "executing")
        assert (await comfy.post("/interrupt", {"prompt_id": str(uuid.uuid4())})).status == 200
        frames = await socket.job(prompt_id)
    assert frames[-2].kind == "execution_success"


@pytest.mark.parametrize("body", [None, b"", b"{}", b"no JSON", b"prompt_id=x"])
async def test_interrupting_nothing_is_fine(comfy: Comfy, body: bytes | None) -> None:
    assert (await comfy.call("POST", "/interrupt", data=body)).status == 200


async def test_a_failing_node(comfy: Comfy, client_id: str) -> None:
    """A file that is no picture passes validation and fails inside LoadImage."""
    broken = (await comfy.upload(f"{client_id}.png", b"no picture at all")).json()["name"]
    prompt = {**graphs.saved(8022), "3": graphs.node("LoadImage", image=broken)}
    prompt["2"]["inputs"]["images"] = ["3", 0]
    async with comfy.socket(client_id) as socket:
        prompt_id = await comfy.submit(prompt, client_id)
        frames = await socket.job(prompt_id)
    assert [frame.kind for frame in frames[-2:]] == ["execution_error", "executing"]
    error = frames[-2].data
    assert set(error) == ERROR_KEYS
    assert (error["prompt_id"], error["node_id"], error["node_type"]) == (prompt_id, "3", "LoadImage")
    assert error["exception_type"] == "PIL.UnidentifiedImageError"
    assert broken in error["exception_message"]
    assert isinstance(error["executed"], list)
    assert all(isinstance(line, str) for line in error["traceback"])
    assert error["current_inputs"] == {"image": [broken]}
    entry = await comfy.history(prompt_id)
    assert (entry["status"]["status_str"], entry["status"]["completed"], entry["outputs"]) == ("error", False, {})
    assert entry["status"]["messages"][-1] == ["execution_error", error]
    job = (await comfy.get(f"/api/jobs/{prompt_id}")).json()
    assert (job["status"], job["execution_error"]) == ("failed", error)


async def test_a_failed_job_is_followed_by_the_next(comfy: Comfy, client_id: str) -> None:
    broken = (await comfy.upload(f"{client_id}.png", b"no picture either")).json()["name"]
    prompt = {"1": graphs.node("LoadImage", image=broken), "2": graphs.node("PreviewImage", images=["1", 0])}
    async with comfy.socket(client_id) as socket:
        failing = await comfy.submit(prompt, client_id)
        next_one = await comfy.submit(graphs.saved(8023), client_id)
        await socket.job(failing)
        frames = await socket.job(next_one)
    assert frames[-2].kind == "execution_success"


async def test_the_jobs_list_and_one_job(comfy: Comfy, client_id: str) -> None:
    workflow = {"id": str(uuid.uuid4()), "nodes": []}
    prompt = graphs.two_outputs(graphs.empty_image(8030))
    prompt_id = await finished(comfy, prompt, client_id, extra_data={"extra_pnginfo": {"workflow": workflow}})
    listed = (await comfy.get("/api/jobs?status=completed&limit=1")).json()
    assert list(listed) == ["jobs", "pagination"]
    assert set(listed["pagination"]) == {"offset", "limit", "total", "has_more"}
    (job,) = listed["jobs"]
    assert set(job) == {*JOB_KEYS, "workflow_id"}
    assert (job["id"], job["status"], job["outputs_count"]) == (prompt_id, "completed", 2)
    assert job["workflow_id"] == workflow["id"]
    assert set(job["preview_output"]) == {"filename", "subfolder", "type", "nodeId", "mediaType"}
    assert (job["preview_output"]["nodeId"], job["preview_output"]["mediaType"]) == ("4", "images")
    detail = (await comfy.get(f"/api/jobs/{prompt_id}")).json()
    assert set(detail) == {*JOB_KEYS, "workflow_id", "outputs", "execution_status", "workflow"}
    entry = await comfy.history(prompt_id)
    assert detail["outputs"] == entry["outputs"]
    assert detail["execution_status"] == entry["status"]
    assert detail["workflow"] == {"prompt": prompt, "extra_data": entry["prompt"][3]}


async def test_jobs_that_run_and_wait(comfy: Comfy, client_id: str) -> None:
    async with comfy.socket(client_id) as socket:
        running = await comfy.submit(graphs.long_chain(8031), client_id)
        await socket.until(lambda frame: frame.kind == "executing")
        waiting = await comfy.submit(graphs.saved(8032), client_id)
        jobs = (await comfy.get("/api/jobs?status=in_progress,pending")).json()["jobs"]
        assert {job["id"]: job["status"] for job in jobs} == {running: "in_progress", waiting: "pending"}
        assert all({"id", "status", "priority", "create_time", "outputs_count"} <= set(job) for job in jobs)
        await comfy.post("/queue", {"clear": True})
        await comfy.post("/interrupt", {"prompt_id": running})
        await socket.job(running)
    failed = (await comfy.get(f"/api/jobs/{running}")).json()
    assert failed["status"] in {"failed", "cancelled"}  # 0.8.0 says failed, later servers cancelled


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("status=bogus", "Invalid status value(s): bogus."),
        ("limit=0", "limit must be a positive integer"),
        ("limit=x", "limit must be an integer"),
        ("sort_by=x", "sort_by must be 'created_at' or 'execution_duration'"),
        ("sort_order=x", "sort_order must be 'asc' or 'desc'"),
    ],
)
async def test_wrong_questions_about_jobs(comfy: Comfy, query: str, message: str) -> None:
    answer = await comfy.get(f"/api/jobs?{query}")
    assert answer.status == 400
    assert answer.json()["error"].startswith(message)


async def test_a_job_nobody_knows(comfy: Comfy) -> None:
    answer = await comfy.get("/api/jobs/none")
    assert (answer.status, answer.json()) == (404, {"error": "Job not found"})
    assert (await comfy.get("/jobs")).status == 404  # there is no bare twin of /api/jobs


async def test_each_route_has_a_twin_below_api(comfy: Comfy) -> None:
    for path in ("/prompt", "/queue", "/history", "/features", "/embeddings"):
        assert (await comfy.get(path)).body == (await comfy.get(f"/api{path}")).body
