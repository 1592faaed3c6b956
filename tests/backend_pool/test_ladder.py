"""The failure ladder as a table, and how a backend's words are read."""

from dataclasses import replace
from typing import Any

import pytest

from backend_pool.books.share import Share
from backend_pool.comfy.result import Result
from backend_pool.jobs.story import story
from backend_pool.model import Job
from backend_pool.runs.ladder import BROKEN, SMALLER, Act, Case, Mishap, Step, next_step
from backend_pool.runs.mishaps import mishap_of, said, with_hint
from backend_pool.runs.run_limit import RunLimit, limit_of, spelled

CASE = Case(Mishap.GONE, "it is gone", attempt=1, attempts=3, backend=1)


def harm(**more: Any) -> Step:
    """A step after the backend's own failure."""
    return replace(Step(Act.ELSEWHERE, doubt=True, avoid=True), **more)


@pytest.mark.parametrize(
    ("case", "step"),
    [
        ({"mishap": Mishap.NEVER_BEGAN, "attempt": 9}, Step(Act.ELSEWHERE, counts=False, doubt=True)),
        ({"mishap": Mishap.MEMORY}, Step(Act.HERE, charged=True)),
        ({"mishap": Mishap.MEMORY, "attempt": 9}, Step(Act.HERE, charged=True)),
        ({"mishap": Mishap.MEMORY, "freed": True}, Step(Act.FAIL, hint=SMALLER)),
        (
            {"mishap": Mishap.MEMORY, "freed": True, "roomier": True, "vram_mb": 8000, "attempt": 9},
            Step(Act.ELSEWHERE, charged=True, vram_mb=8000),
        ),
        ({"mishap": Mishap.MEMORY, "freed": True, "roomier": True}, Step(Act.ELSEWHERE, charged=True, avoid=True)),
        (
            {"mishap": Mishap.MEMORY, "freed": True, "roomier": True, "avoid": frozenset({2, 3})},
            Step(Act.FAIL, hint=SMALLER),
        ),
        (
            {"mishap": Mishap.MEMORY, "freed": True, "roomier": True, "avoid": frozenset({2}), "attempt": 4},
            Step(Act.ELSEWHERE, charged=True, avoid=True),
        ),
        (
            {"mishap": Mishap.MEMORY, "freed": True, "roomier": True, "avoid": frozenset({1}), "attempt": 4},
            Step(Act.FAIL, hint=SMALLER),
        ),
        ({}, harm()),
        ({"began": False}, harm(avoid=False)),
        ({"mishap": Mishap.FAULT}, harm(quarantine=True)),
        ({"mishap": Mishap.FAULT, "attempt": 3}, harm(act=Act.FAIL, avoid=False, quarantine=True, hint=BROKEN)),
        ({"repeated": True}, harm(charged=True)),
        ({"repeated": True, "began": False}, harm(avoid=False)),
        ({"mishap": Mishap.FAULT, "repeated": True}, harm(quarantine=True, charged=True)),
        ({"mishap": Mishap.HUNG}, harm(charged=True)),
        ({"mishap": Mishap.DEAF}, harm(quarantine=True, restart=True, charged=True)),
        ({"mishap": Mishap.SWEPT}, Step(Act.ELSEWHERE)),
        ({"mishap": Mishap.UNFETCHED, "attempt": 3, "repeated": True}, Step(Act.ELSEWHERE, counts=False, doubt=True)),
        ({"mishap": Mishap.UNFETCHED, "unfetched": 2, "attempt": 9}, Step(Act.ELSEWHERE, counts=False, doubt=True)),
        ({"mishap": Mishap.UNFETCHED, "unfetched": 3, "avoid": frozenset({2, 3})}, Step(Act.ELSEWHERE, doubt=True)),
        ({"mishap": Mishap.OUTDATED}, Step(Act.ELSEWHERE, doubt=True)),
        ({"mishap": Mishap.OUTDATED, "attempt": 3}, Step(Act.FAIL, doubt=True)),
    ],
)
def test_each_mishap_has_its_rung(case: dict[str, Any], step: Step) -> None:
    """What becomes of the job, and of the backend."""
    assert next_step(replace(CASE, **case)) == step


@pytest.mark.parametrize("mishap", [Mishap.GONE, Mishap.HUNG, Mishap.DEAF, Mishap.FAULT])
def test_a_job_that_harmed_three_backends_ends(mishap: Mishap) -> None:
    """Whatever attempts are left; twice the same backend counts once."""
    case = replace(CASE, mishap=mishap, attempts=99, avoid=frozenset({1, 2}))
    assert next_step(case).act is Act.ELSEWHERE
    step = next_step(replace(case, backend=3))
    assert step.act is Act.FAIL and step.error is not None
    assert step.error[0] == "JobKillsBackends" and "3 backends" in step.error[1] and step.charged
    assert next_step(replace(case, backend=3, began=False)).act is Act.ELSEWHERE


@pytest.mark.parametrize(
    ("mishap", "kind", "words"),
    [
        (Mishap.GONE, "BackendLost", "tried 3 times and lost its backend each time (it is gone)"),
        (Mishap.HUNG, "JobHung", "tried 3 times and stood still"),
        (Mishap.DEAF, "JobHung", "stood still"),
        (Mishap.SWEPT, "BackendLost", "each time"),
        (Mishap.UNFETCHED, "BackendLost", "each time"),
    ],
)
def test_after_the_last_attempt_the_user_reads_why(mishap: Mishap, kind: str, words: str) -> None:
    """In words that say what to do next."""
    step = next_step(replace(CASE, mishap=mishap, attempt=3, unfetched=3))
    assert step.act is Act.FAIL and step.error is not None
    assert step.error[0] == kind and words in step.error[1]


def ended(kind: str, text: str, **more: Any) -> list[Any]:
    """History messages of a job that a node failed."""
    error = {"exception_type": kind, "exception_message": text, "timestamp": 5} | more
    return [["execution_start", {"timestamp": 1}], ["execution_error", error]]


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("torch.OutOfMemoryError", "CUDA out of memory. Tried to allocate 20.00 GiB.\n", Mishap.MEMORY),
        ("torch.cuda.OutOfMemoryError", "Allocation on device", Mishap.MEMORY),
        ("torch.AcceleratorError", "CUDA error: out of memory\nCUDA kernel errors might be", Mishap.MEMORY),
        ("RuntimeError", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`", Mishap.MEMORY),
        ("RuntimeError", "MPS backend out of memory (MPS allocated: 9 GB)", Mishap.MEMORY),
        (
            "RuntimeError",
            "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
            "allocate 4000000000000000 bytes. Error code 12 (Cannot allocate memory)",
            Mishap.MEMORY,
        ),
        ("RuntimeError", "[enforce fail at inline_container.cc:145] . PytorchStreamReader failed", None),
        ("RuntimeError", "NVML_SUCCESS == r INTERNAL ASSERT FAILED at CUDACachingAllocator.cpp:838", Mishap.FAULT),
        ("torch.AcceleratorError", "CUDA error: device-side assert triggered", Mishap.FAULT),
        ("RuntimeError", "CUDA error: an illegal memory access was encountered", Mishap.FAULT),
        ("RuntimeError", "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED", Mishap.FAULT),
        ("RuntimeError", "HIP error: unspecified launch failure", Mishap.FAULT),
        ("RuntimeError", "CUBLAS_STATUS_NOT_INITIALIZED when calling", Mishap.FAULT),
        ("RuntimeError", "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear", None),
        ("RuntimeError", "mat1 and mat2 shapes cannot be multiplied", None),
        ("ValueError", "CUDA error: a word of the user's", None),
        ("MyPack.Error", "out of memory, says the prompt", None),
        ("RuntimeError", "ERROR: Could not detect model type of: /data/5/CUDA error.safetensors", None),
        ("RuntimeError", "ERROR: Could not detect model type of: CUDA out of memory.safetensors", None),
        ("SystemError", "no such file: HIP error: device-side assert.pt", None),
        ("SystemError", "CUDA error: device-side assert triggered", Mishap.FAULT),
        ("RuntimeError", "  CUDA out of memory. Tried to allocate 2.00 GiB", Mishap.MEMORY),
        ("", "", None),
    ],
)
def test_a_backend_s_words_are_read(kind: str, text: str, expected: Mishap | None) -> None:
    """Torch's own errors count; what others say may come from the user."""
    assert mishap_of(ended(kind, text), {}) is expected
    assert mishap_of([["execution_success", {"timestamp": 2}]], {}) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a cat", Mishap.FAULT),
        ("CUDA error: an illegal memory access", None),
        ({"list": ["in/cuda ERROR: x.pt"]}, None),
        (7, Mishap.FAULT),
    ],
)
def test_words_that_the_prompt_has_too_are_the_user_s(value: Any, expected: Mishap | None) -> None:
    """A node may begin its error with what it was given."""
    messages = ended("RuntimeError", "CUDA error: an illegal memory access was encountered")
    prompt = {"1": {"class_type": "A", "inputs": {"text": value, "link": ["2", 0]}}, "2": None, "3": {}}
    assert mishap_of(messages, prompt) is expected


def test_a_blocked_node_s_error_ends_nothing() -> None:
    """It has no timestamp, and the job goes on."""
    messages = ended("torch.OutOfMemoryError", "CUDA out of memory")
    del messages[1][1]["timestamp"]
    assert mishap_of(messages, {}) is None


def test_a_hint_follows_the_backend_s_own_words() -> None:
    """And nothing else of the result changes."""
    result = Result({"1": {}}, {"1": {}}, ended("torch.OutOfMemoryError", "no room\nat all \n", node_id="3"))
    told = with_hint(result, "Use less.")
    error = told.messages[-1][1]
    assert error["exception_message"] == "no room\nat all\n\nUse less." and error["node_id"] == "3"
    assert (told.outputs, told.meta, told.messages[0]) == (result.outputs, result.meta, result.messages[0])
    assert said(result) == "no room at all" and with_hint(result, "") is result


def test_limits_are_spelled_in_people_s_units() -> None:
    """And say whose they are."""
    cases = {1800: "30 minutes", 60: "1 minute", 90: "90 seconds", 7200: "2 hours", 0.5: "0.5 seconds", 1: "1 second"}
    assert {seconds: spelled(seconds) for seconds in cases} == cases
    assert limit_of(Share()) is None
    assert limit_of(Share(run_limit_s=60)) == RunLimit(60, "this server")
    limit = limit_of(Share(group="art", run_limit_s=1800))
    assert limit is not None and "longer than 30 minutes, the limit of your group" in limit.words


def test_a_job_s_story_names_its_backends() -> None:
    """Rows of earlier versions have no backend in their lines."""
    trail = [[1, "queued", "submitted"], [2, "assigned", "attempt 1", 7, 1], [3, "queued", "it is gone", 8, 1]]
    job = Job(prompt_id="a", user_id=1, number=1, created_ms=1, trail=trail)
    told = story(job, {7: "gpu-1"})
    assert [(line["state"], line["backend_id"], line["backend"], line["attempt"]) for line in told] == [
        ("queued", None, None, 0),
        ("assigned", 7, "gpu-1", 1),
        ("queued", 8, None, 1),
    ]
