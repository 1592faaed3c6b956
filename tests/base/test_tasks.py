"""Background tasks: their death is logged and, for vital ones, told; stopping ends all of them."""

import asyncio
import logging

import pytest

from proxy.base.tasks import Tasks, beside, together

TIMEOUT_S = 10.0


async def ends() -> str:
    return "done"


async def dies() -> None:
    raise RuntimeError("broken")


async def test_a_task_gives_its_result_and_is_forgotten() -> None:
    tasks = Tasks()
    task = tasks.start("one", ends())
    assert task.get_name() == "one"
    assert len(tasks) == 1
    assert await task == "done"
    await tasks.stop()
    assert len(tasks) == 0
    assert tasks.dead == {}


async def test_a_death_is_logged_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    tasks = Tasks()
    await asyncio.wait({tasks.start("frail", dies())}, timeout=TIMEOUT_S)
    [record] = [record for record in caplog.records if record.getMessage() == "task died"]
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert tasks.dead == {}


@pytest.mark.parametrize("work", [dies, ends])
async def test_a_vital_task_may_not_end_for_whatever_reason(work: type) -> None:
    tasks = Tasks()
    await asyncio.wait({tasks.start("loop", work(), vital=True)}, timeout=TIMEOUT_S)
    assert list(tasks.dead) == ["loop"]


async def test_stopping_is_no_death() -> None:
    tasks = Tasks()
    task = tasks.start("loop", asyncio.Event().wait(), vital=True)
    await tasks.stop()
    assert task.cancelled()
    assert tasks.dead == {}


async def test_who_ignores_the_stop_is_named(caplog: pytest.LogCaptureFixture) -> None:
    tasks = Tasks()
    release = asyncio.Event()
    begun = asyncio.Event()

    async def deaf() -> None:
        begun.set()
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    task = tasks.start("deaf", deaf())
    await begun.wait()
    await tasks.stop(timeout_s=0.05)
    assert any("ignored" in record.getMessage() for record in caplog.records)
    release.set()
    await asyncio.wait_for(task, TIMEOUT_S)


async def fails_as_it_cancels(victim: asyncio.Task[object], cancel: bool) -> None:
    if cancel:
        victim.cancel()
    raise RuntimeError("broken")


@pytest.mark.parametrize("cancel", [True, False])
@pytest.mark.parametrize("how", ["together", "beside", "watch"])
async def test_a_cancellation_in_the_moment_of_a_failure_is_not_lost(how: str, cancel: bool) -> None:
    """Else whoever handles the failure goes on, and the one who cancelled waits for ever."""

    async def way() -> str:
        victim = asyncio.current_task()
        assert victim is not None
        try:
            if how == "together":
                await together("some", [fails_as_it_cancels(victim, cancel), asyncio.sleep(60)])
            elif how == "beside":
                await beside("one", fails_as_it_cancels(victim, cancel), [asyncio.sleep(60)])
            else:
                await beside("one", asyncio.sleep(60), [fails_as_it_cancels(victim, cancel)])
        except RuntimeError:
            return "handled"
        return "nothing happened"

    tasks = Tasks()
    task = tasks.start("way", way())
    await asyncio.wait({task}, timeout=TIMEOUT_S)
    assert task.cancelled() is cancel
    assert cancel or task.result() == "handled"


async def test_what_runs_together_gives_its_results_in_order() -> None:
    assert await together("some", [asyncio.sleep(0.01, "a"), asyncio.sleep(0, "b")]) == ["a", "b"]
    assert await together("none", []) == []


async def test_a_way_ends_its_watches_and_outlives_those_that_end_well() -> None:
    watching = asyncio.Event()

    async def watch() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            watching.set()

    assert await beside("one", asyncio.sleep(0.01, "there"), [watch(), asyncio.sleep(0)]) == "there"
    assert watching.is_set()
