"""Brings one job's files home from its backend, before anyone is told about them.

Each output gets its place noted in the job's document before it gets its name on disk (`noted_files`). A file that the
backend serves again from its cache keeps its first name.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

from backend_pool.comfy.client import ComfyClient, FileRef
from backend_pool.errors import FileAbsent, FileGone, Swept
from backend_pool.files.claims import Claims
from backend_pool.files.incoming import arrive, clear_incoming
from backend_pool.files.known_files import Home, KnownFiles
from backend_pool.files.moved_note import LONGEST, Moved, moved_in
from backend_pool.files.noted_files import NotedFiles
from backend_pool.files.own_prompt import OwnPrompt
from backend_pool.files.placing import Arrival, Placing
from backend_pool.files.references import mentions, path_of, references, replaced
from backend_pool.files.staging import Staged
from backend_pool.files.text import restore_prompt
from backend_pool.files.transfer import Fetched, fetch, side_by_side, to_its_end
from backend_pool.files.user_files import (
    ATTEMPTS,
    FOLDERS,
    UserDirs,
    disk_error,
    landing,
    safe_filename,
    safe_subfolder,
    version_at,
)
from backend_pool.files.user_folder import user_folder
from backend_pool.model import Job, JsonDict
from proxy.base.user_file_open import open_file

AT_ONCE = 4
"""Files of one output that are fetched at the same time."""


class Collector:
    """Fetches the files of one job. Calls to `localize` come one at a time."""

    def __init__(
        self,
        job: Job,
        *,
        client: ComfyClient,
        note: Callable[[list[JsonDict]], Awaitable[None]],
        dirs: UserDirs,
        tag: str,
        prompt: JsonDict,
        staged: Staged,
        known: KnownFiles,
        files: Iterable[JsonDict] = (),
    ) -> None:
        """`files` are the notes in the job's document."""
        self._job = job
        self._client = client
        self._write_notes = note
        self._dirs = dirs
        self._folder = user_folder(tag)
        self._own_prompt = OwnPrompt(prompt, staged)
        self._staged = staged
        self._known = known
        self.claims = Claims(job, self._folder, prompt, known)
        self.noted = NotedFiles(dirs, files)
        for _, local, _ in self.noted.fresh():
            known.brings(job, local)
        self._resumed = bool(self.noted.homes)
        self._absent: set[FileRef] = set()
        """What texts seemed to name and the backend does not have."""

    async def localize(self, value: Any) -> Any:
        """The same ui output with every file reference replaced by the user's own, the files being there."""
        if self._resumed:  # who was killed after it named a file has left the partial one
            await asyncio.to_thread(self.clear)
            self._resumed = False
        refs = self._collectable(references(value))
        told = [ref for ref in self._collectable(mentions(value)) if ref not in self._absent]
        missing = [(ref, False) for ref in refs if not self._is_home(ref)]
        missing += [(ref, True) for ref in told if ref not in refs and not self._is_home(ref)]
        try:
            bring = [partial(self._bring, ref, number, unsure) for number, (ref, unsure) in enumerate(missing)]
            await self._settle([arrival for arrival in await side_by_side(bring, AT_ONCE) if arrival is not None])
        except BaseException:
            await to_its_end(self.clear)
            raise
        own = {ref: mine for ref in (*refs, *told) if (mine := self._own_file(ref)) is not None}
        return replaced(value, {**self.noted.homes, **own})

    def is_home(self, value: Any) -> bool:
        """Whether `localize` would find every file of this output at home."""
        wanted = self._collectable(references(value)) + self._collectable(mentions(value))
        return all(self._is_home(ref) or ref in self._absent for ref in wanted)

    def _collectable(self, refs: Iterable[FileRef]) -> list[FileRef]:
        """The files that this job may bring home: a node can be made to name any file, also another user's.

        Input files only as staged by this job; of others none that the prompt itself names.
        """
        named = dict.fromkeys(refs)
        return [ref for ref in named if self._own_file(ref) is not None or self.claims.may_ask_for(ref)]

    def at_home(self) -> list[tuple[FileRef, Moved]]:
        """Files of the user's folder at the backend that this job brought home, and where they are: whatever lies there
        by now, a note tells of the job's own."""
        found = [
            (source, Moved(local, version)) for source, local, version in self.noted.fresh() if version is not None
        ]
        return [(source, moved) for source, moved in found if self.claims.in_own_folder(source)]

    def clear(self) -> None:
        """Remove partial files of this job, also those of a process that was killed. Blocking."""
        for kind in FOLDERS:
            clear_incoming(self._dirs.root(kind), self._key)

    def discard(self, outputs: JsonDict) -> None:
        """Remove what this job brought home except what `outputs` shows; files of earlier jobs stay. Blocking."""
        self.noted.discard({*references(outputs), *mentions(outputs)})
        self.clear()
        self.ended()

    def ended(self) -> None:
        """What came home and is there still stays: other jobs may show it too."""
        self._known.ended(self._job.key)

    @property
    def _key(self) -> str:
        return f"{self._job.key}-"

    def _is_home(self, ref: FileRef) -> bool:
        return self._own_file(ref) is not None or self.noted.is_home(ref)

    def _own_file(self, ref: FileRef) -> FileRef | None:
        """The user's own file behind a staged input that a node shows again."""
        staged = ref.type == "input" and ref.subfolder == self._staged.subfolder(ref.filename)
        return self._staged.own.get(ref.filename) if staged else None

    async def _bring(self, source: FileRef, number: int, unsure: bool) -> Arrival | None:
        """One file; with `unsure` None when there is none."""
        try:
            return await self._fetch(source, number)
        except FileGone:
            if not unsure:
                raise
            self._absent.add(source)
            return None

    async def _fetch(self, source: FileRef, number: int) -> Arrival:
        if safe_filename(source.filename) is None or safe_subfolder(source.subfolder) is None:
            raise FileGone(f"The backend named a file outside its folders: {source.filename}")
        home = self._known.get(self._job.backend_id or 0, self._job.user_id, source)
        if home is not None and not self._may_show(home):
            home = None
        try:
            fetched = await fetch(
                self._client,
                source,
                etag=home.etag if home else None,
                root=self._dirs.root(source.type),
                key=f"{self._key}{number}",
                admit=partial(self.claims.may_keep, source),
            )
        except FileGone as error:
            if not isinstance(error, FileAbsent) or not self.claims.cached or await self._is_forgotten():
                raise
            if home is not None:
                return Arrival(source, None, home)  # cached at the backend, deleted there since, and here all along
            if self.claims.may_be_cached(source):
                raise Swept(f"{source.filename} was removed there") from error
            raise
        if fetched.path is None and home is not None:
            return Arrival(source, None, home)
        return await asyncio.to_thread(self._examined, source, fetched)

    def _examined(self, source: FileRef, fetched: Fetched) -> Arrival:
        """What has arrived: a note of an earlier fetch, a file that is here already, or a new one, made the user's."""
        path, etag = fetched.path, fetched.headers.get("ETag")
        if path is None:
            raise FileGone(f"The backend sent nothing of {source.filename}")
        own, root = self.claims.in_own_folder(source), self._dirs.root(source.type)
        try:
            with open_file(root, path) as content:
                moved = moved_in(content.read(LONGEST + 1)) if own else None
        except OSError as error:
            raise disk_error(error) from error
        if moved is not None:
            home = Home(moved.place, etag, moved.version)
            if not self._may_show(home):
                raise Swept(f"{source.filename} was cleared away there, and here too")
            return Arrival(source, None, home)
        restore_prompt(root, path, self._own_prompt)
        home = Home(source, etag, version_at(path))
        return Arrival(source, path, home, own and self.claims.made_before(fetched.headers))

    def _may_show(self, home: Home) -> bool:
        """Whether the file is there as it came, another may have got its name since, and stays: a job that has not
        ended may be given back, and takes its files along."""
        if self._known.may_go(self._job, home.local):  # asked first: it is removed before that is forgotten
            return False
        found = version_at(path_of(self._dirs, home.local))
        return found is not None and found == home.version

    async def _is_forgotten(self) -> bool:
        """Whether the backend knows nothing of the job: it was started anew, and its names may mean other files now."""
        return await self._client.whereabouts(self._job.upstream_id or "") == "absent"

    async def _settle(self, arrivals: list[Arrival]) -> None:
        """Give every arrival its name. One note for all of them, and another round when a name was taken meanwhile."""
        for _round in range(ATTEMPTS):
            if not arrivals:
                return
            places = await asyncio.to_thread(self._choose, arrivals)
            for arrival, local in zip(arrivals, places, strict=True):
                fresh = arrival.partial is not None
                if fresh:
                    self._known.brings(self._job, local)
                self.noted.put(arrival.source, local, arrival.home.version, fresh=fresh)
            if any(local.type != "temp" for local in places):  # a stray preview goes with the session's temp
                await self._write_notes(self.noted.entries)
            landed = await to_its_end(partial(self._land, arrivals, places))
            for arrival, local, done in zip(arrivals, places, landed, strict=True):
                if done:
                    self.noted.landed(arrival.source)
                    home = replace(arrival.home, local=local)
                    self._known.put(self._job.backend_id or 0, self._job.user_id, arrival.source, home)
            arrivals = [arrival for arrival, done in zip(arrivals, landed, strict=True) if not done]
        raise FileGone("There is no free name left for the job's files; tidy the folder")

    def _choose(self, arrivals: list[Arrival]) -> list[FileRef]:
        others = self._known.of_others(self._job)
        return Placing(self._dirs, self._folder, self.noted.homes, others).choose(arrivals)

    def _land(self, arrivals: list[Arrival], places: list[FileRef]) -> list[bool]:
        """Give the partial files their names; False for one whose name was taken meanwhile."""
        landed = []
        for arrival, local in zip(arrivals, places, strict=True):
            if arrival.partial is None:
                landed.append(True)
                continue
            landing(self._dirs.root(local.type), local.subfolder)
            landed.append(arrive(arrival.partial, path_of(self._dirs, local), durable=local.type != "temp"))
        if all(landed):
            self.clear()
        return landed
