"""Bodies and answers of the JSON API. The OpenAPI document is made of these; times are milliseconds since the epoch."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Answer(BaseModel):
    """What the server sends."""

    model_config = ConfigDict(frozen=True)


class Body(BaseModel):
    """What a caller sends: unknown fields are refused, so that a typing error never passes for a default."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Me(Answer):
    """Who the caller is."""

    id: int
    name: str
    is_admin: bool
    via: Literal["login", "token"] = Field(description="Which kind of credential came with this request.")


class PasswordChange(Body):
    """A user's own change of password."""

    current: str = Field(max_length=1024)
    new: str = Field(max_length=1024)


class FailedPack(Answer):
    """A pack of custom nodes that could not be loaded."""

    pack: str
    error: str


class FailedPackLog(FailedPack):
    """The same with what it wrote meanwhile."""

    log: str


class SessionInfo(Answer):
    """A user's session."""

    user_id: int
    state: str = Field(description="stopped, starting, running, stopping or failed.")
    started_ms: int | None = None
    active_ms: int | None = Field(None, description="Last real action in it.")
    error: str | None = Field(None, description="Why it failed.")
    log: str | None = Field(None, description="The end of its log, when it failed.")
    outdated: bool = Field(False, description="It runs from before the latest refresh; a restart brings what is new.")
    crashed_ms: int | None = Field(None, description="When it last ended unexpectedly, unless it was stopped since.")
    gave_up: bool = Field(False, description="It crashed so often that nothing but a restart by hand starts it again.")
    memory: int | None = Field(None, description="Bytes; in the administrators' list only.")
    failed_packs: list[FailedPack] = Field([], description="Custom nodes that could not be loaded; one's own only.")


class RefreshInfo(Answer):
    """The latest refresh of what sessions start from."""

    state: Literal["none", "warming", "done", "failed"]
    began_ms: int | None = None
    ended_ms: int | None = None
    error: str | None = None
    log: str | None = Field(None, description="The end of the session host's log, when it failed.")
    by: str | None = Field(None, description="Who asked for it.")


class SessionList(Answer):
    """All sessions, and what they start from."""

    sessions: list[SessionInfo]
    refresh: RefreshInfo
    failed_packs: list[FailedPackLog]
    broken: str | None = Field(None, description="Why none can be started.")


class JobInfo(Answer):
    """One job."""

    id: int
    prompt_id: str
    user_id: int
    state: str = Field(description="queued, assigned, running, collecting, succeeded, failed or cancelled.")
    title: str = Field(description="A line of the prompt's text; empty in the administrators' list.")
    position: int | None = Field(
        None,
        description="Among everybody's waiting jobs in the order in which they are expected to start, from 1; none for "
        "a job that cannot run as things are.",
    )
    expected_start_ms: int | None = Field(
        None, description="When a waiting job is expected to start; none while nothing like it was ever measured."
    )
    expected_end_ms: int | None = Field(None, description="When a waiting or running job is expected to end.")
    progress: float | None = Field(None, description="Done part of a running job, 0 to 1.")
    error: str | None = Field(None, description="Why it failed.")
    reason: str | None = Field(None, description="Why it waits, in words.")
    lane: str = Field(description="interactive or batch.")
    priority: int = Field(description="Higher ones of a user go first.")
    cancel_requested: bool
    attempt: int
    backend_id: int | None
    outputs_count: int
    created_ms: int
    started_ms: int | None
    ended_ms: int | None


class JobList(Answer):
    """Jobs, and how many are active in all."""

    jobs: list[JobInfo]
    active: int


class PictureInfo(Answer):
    """One finished file; `url` opens it."""

    job_id: int
    prompt_id: str
    filename: str
    subfolder: str
    kind: Literal["image", "video", "audio", "file"]
    url: str
    ended_ms: int | None


class PictureList(Answer):
    """Finished files, newest first; `next` is the `before` of the following page."""

    pictures: list[PictureInfo]
    next: int | None


class NewToken(Body):
    """A token to be made."""

    name: str = Field(max_length=256)


class TokenInfo(Answer):
    """An API token without its secret."""

    id: int
    name: str
    prefix: str
    created_ms: int
    used_ms: int | None


class TokenMade(TokenInfo):
    """A new token. `token` is shown this once."""

    token: str


class TokenList(Answer):
    """The caller's tokens."""

    tokens: list[TokenInfo]


class LoginInfo(Answer):
    """A browser that is signed in."""

    id: str
    created_ms: int
    seen_ms: int
    address: str
    user_agent: str
    current: bool


class LoginList(Answer):
    """The caller's logins."""

    logins: list[LoginInfo]


class UserInfo(Answer):
    """An account."""

    id: int
    name: str
    is_admin: bool
    disabled: bool
    created_ms: int


class UserList(Answer):
    """All accounts."""

    users: list[UserInfo]


class NewUser(Body):
    """An account to be made; without a password one is generated."""

    name: str = Field(max_length=256)
    password: str | None = Field(None, max_length=1024)
    is_admin: bool = False


class UserMade(UserInfo):
    """A new account; `password` only if it was generated, this once."""

    password: str | None


class UserChange(Body):
    """Fields to change."""

    is_admin: bool | None = None
    disabled: bool | None = None


class PasswordReset(Body):
    """A new password; generated unless given."""

    password: str | None = Field(None, max_length=1024)


class PasswordMade(Answer):
    """The password now in force; shown this once."""

    password: str


class Done(Answer):
    """It is done."""

    done: Literal[True] = True
