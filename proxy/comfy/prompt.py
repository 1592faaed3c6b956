"""POST /prompt: ComfyUI's validation and answers, then a durable job. GET /prompt: the length of the user's own queue.

Facts from server.py post_prompt (protocol §3). The job is stored before the answer and starts after it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from backend_pool.backends.consultant import Consultant
from backend_pool.backends.pool import Pool
from backend_pool.books.groups import Groups
from backend_pool.books.quotas import Quota, QuotaUsed
from backend_pool.dispatch.dispatcher import Dispatcher
from backend_pool.files.missing import with_files
from backend_pool.files.user_files import UserDirs, resolve
from backend_pool.files.user_models import files_of
from backend_pool.jobs.queries import JobQueries
from backend_pool.jobs.store import JobStore
from backend_pool.jobs.submission import Submission
from backend_pool.offers.judgement import judge
from backend_pool.prompts.second_opinion import Opinions
from backend_pool.prompts.validation import Verdict
from proxy.api.errors import error_response
from proxy.base.errors import BadInput, ClusterError, Unavailable
from proxy.base.names import new_id
from proxy.base.settings import Settings
from proxy.comfy.job_wishes import NOTE_HEADER, Wishes, take_wishes
from proxy.comfy.json_answer import ComfyJson
from proxy.comfy.request import identity, read_prompt
from proxy.comfy.session_nodes import SessionNodes
from proxy.comfy.shapes import shown_number
from proxy.tabs.user_events import UserEvents
from proxy.user_folders import UserFolders

SENSITIVE = ("auth_token_comfy_org", "api_key_comfy_org")
ID_LENGTH = 200
QUOTA_HEADER = "X-Cluster-Quota"
"""On the answer to a prompt of a group that has used most of its quota."""


@dataclass(frozen=True)
class PromptRoute:
    """The ASGI app of /prompt."""

    store: JobStore
    queries: JobQueries
    dispatcher: Dispatcher
    pool: Pool
    consultant: Consultant
    session_nodes: SessionNodes
    events: UserEvents
    folders: UserFolders
    groups: Groups
    settings: Settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if request.method != "POST":
            remaining = await self.queries.remaining(identity(request).user_id)
            response: Response = ComfyJson({"exec_info": {"queue_remaining": remaining}})
            await response(scope, receive, send)
            return
        try:
            body = await read_prompt(request, self.settings)
            await self._submit(request, body, send)
        except ClusterError as error:
            await error_response(scope, error)(scope, receive, send)

    async def _submit(self, request: Request, body: Any, send: Send) -> None:
        user = identity(request)
        order = _order(body)
        share, quota = self.groups.share(user.user_id), self.groups.quota(user.user_id)
        if quota is not None and quota.exhausted:
            raise QuotaUsed(quota, self.settings.quota_contact)
        extra, secrets = _extra_data(body)
        wishes = take_wishes(
            extra, request.headers, lane=self.groups.lane(user.user_id), priority_limit=share.priority_limit
        )
        dirs = await run_in_threadpool(self.folders.prepared, user.slug)
        verdict = await self._verdict(body, dirs)
        if verdict is None or not verdict.ok:
            if verdict is not None:
                verdict = await self.session_nodes.explained(verdict, body["prompt"], self.pool.info, user.user_id)
            refusal = NO_PROMPT if verdict is None else verdict.body()
            await ComfyJson(refusal, 400)(request.scope, request.receive, send)
            return
        new = Submission(
            user_id=user.user_id,
            prompt_id=order.prompt_id,
            client_id=order.client_id,
            prompt=body["prompt"],
            extra_data=extra,
            targets=verdict.outputs,
            number=order.number,
            front=order.front,
            withheld=sorted(secrets),
            lane=wishes.lane,
            priority=wishes.priority,
            labels=list(wishes.labels),
            vram_mb=wishes.vram_mb,
            queue_limit=share.queue_limit,
        )
        await self._accept(
            request, send, new, secrets=secrets, node_errors=verdict.node_errors, notes=_notes(wishes, quota)
        )

    async def _accept(
        self,
        request: Request,
        send: Send,
        new: Submission,
        *,
        secrets: dict[str, Any],
        node_errors: Mapping[str, Any],
        notes: dict[str, str],
    ) -> None:
        """Store it and answer; it starts no earlier."""
        with self.dispatcher.hold(new.user_id, new.prompt_id):
            job = await self.store.submit(new)
            self.dispatcher.keep_secrets(job.key, secrets)
            answer = {
                "prompt_id": job.prompt_id,
                "number": shown_number(job.number) if new.number is None else new.number,
                "node_errors": node_errors,
            }
            try:
                await ComfyJson(answer, headers=notes)(request.scope, request.receive, send)
            finally:
                self.events.queue_changed(new.user_id)

    async def _verdict(self, body: Any, dirs: UserDirs) -> Verdict | None:
        """None for a body without a prompt."""
        if "prompt" not in body:
            return None
        verdict = await run_in_threadpool(self._judge, body, dirs)
        if not verdict.ok and not verdict.node_errors:  # refused as a whole: no node is asked
            return verdict
        prompt = body["prompt"]
        asked = await run_in_threadpool(self.consultant.asks, prompt, lambda text: resolve(dirs, text) is not None)
        if not asked:
            return verdict
        opinions = await self.consultant.opinions(prompt, body.get("partial_execution_targets"), asked)
        return verdict if opinions is None else await run_in_threadpool(self._judge, body, dirs, opinions)

    def _judge(self, body: Any, dirs: UserDirs, opinions: Opinions | None = None) -> Verdict:
        if not self.pool.info.union:
            raise Unavailable("No backend has answered yet, so prompts cannot be checked. Try again in a moment.")

        def missing_file(_kind: str, name: str, value: Any, _spec: Any) -> str | None:
            names = value if isinstance(value, list) else [value]
            gone = [item for item in names if isinstance(item, str) and resolve(dirs, item) is None]
            return f"Invalid {_file_word(name)} file: {', '.join(gone)}" if gone else None

        targets = body.get("partial_execution_targets")
        files = files_of(dirs)
        pool, prompt = self.pool.info, body["prompt"]
        verdict = judge(prompt, pool, files, targets=targets, custom=missing_file, opinions=opinions)
        return with_files(verdict, prompt, pool.union, dirs)


def _notes(wishes: Wishes, quota: Quota | None) -> dict[str, str]:
    """What ComfyUI's answer has no room for."""
    notes = {NOTE_HEADER: wishes.note} if wishes.note else {}
    return notes | ({QUOTA_HEADER: quota.header} if quota is not None and quota.near else {})


NO_PROMPT = {
    "error": {"type": "no_prompt", "message": "No prompt provided", "details": "No prompt provided", "extra_info": {}},
    "node_errors": {},
}


@dataclass(frozen=True)
class _Order:
    prompt_id: str
    client_id: str | None
    number: float | None
    front: bool


def _order(body: Any) -> _Order:
    """The fields beside the prompt. Raises BadInput for what ComfyUI answers 500 to."""
    if not isinstance(body, dict):
        raise BadInput("The body must be a JSON object with a prompt.")
    number = body.get("number")
    if number is not None:
        try:
            number = float(number)
        except (TypeError, ValueError, OverflowError) as error:
            raise BadInput(f"number is not a number: {number!r}") from error
        if not math.isfinite(number):
            raise BadInput("number must be finite.")
    return _Order(
        prompt_id=_id(body, "prompt_id") or new_id(),
        client_id=_id(body, "client_id"),
        number=number,
        front=bool(body.get("front")),
    )


def _id(body: Mapping[str, Any], key: str) -> str | None:
    value = body.get(key)
    if value is None or value == "":
        return None
    text = str(value)
    if isinstance(value, dict | list) or len(text) > ID_LENGTH or not text.isprintable() or "/" in text:
        raise BadInput(f"{key} must be a plain text of at most {ID_LENGTH} characters without slashes, such as a UUID.")
    return text


def _extra_data(body: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """extra_data as ComfyUI keeps it, and the API tokens apart: those are never stored."""
    given = body.get("extra_data")
    if given is not None and not isinstance(given, dict):
        raise BadInput("extra_data must be an object.")
    extra = dict(given or {})
    secrets = {key: extra.pop(key) for key in SENSITIVE if key in extra}
    if body.get("client_id"):
        extra["client_id"] = str(body["client_id"])
    return extra, secrets


def _file_word(input_name: str) -> str:
    return input_name if input_name in ("image", "audio", "video") else "image"
