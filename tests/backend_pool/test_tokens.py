"""API tokens of paid nodes: kept in memory, so a job never runs without the ones it came with."""

from pathlib import Path

from backend_pool.job_state import JobState
from tests.backend_pool.graphs import saved
from tests.backend_pool.rig import Rig, rig, submission
from tests.backend_pool.strange_backend import strange_backend

KEY = "api_key_comfy_org"


async def with_token(r: Rig, *, kept: bool) -> str:
    """A job that came with a token; `kept` False is what a restarted server finds."""
    order = submission(saved(), withheld=[KEY])
    with r.dispatcher.hold(1, order.prompt_id):
        job = await r.store.submit(order)
        if kept:
            r.dispatcher.keep_secrets(job.key, {KEY: "s3cr3t"})
    return order.prompt_id


async def test_a_job_without_its_token_is_not_sent_and_says_why(tmp_path: Path) -> None:
    async with strange_backend() as strange, rig(tmp_path, strange.url) as r:
        prompt_id = await with_token(r, kept=False)
        job, document = await r.final(prompt_id)
        assert (job.state, job.attempt) == (JobState.FAILED, 1)
        ((kind, error),) = document.messages
        assert (kind, error["exception_type"]) == ("execution_error", "TokensGone")
        assert KEY in error["exception_message"] and "Queue it again" in error["exception_message"]
        assert strange.prompts == []
        assert (await r.run(saved()))[0].state is JobState.SUCCEEDED  # the queue goes on


async def test_a_token_goes_along_and_is_not_kept_beside(tmp_path: Path) -> None:
    async with strange_backend() as strange, rig(tmp_path, strange.url) as r:
        job, document = await r.final(await with_token(r, kept=True))
        assert job.state is JobState.SUCCEEDED
        assert strange.prompts[0]["extra_data"][KEY] == "s3cr3t"
        assert document.withheld == [KEY] and KEY not in document.extra_data
