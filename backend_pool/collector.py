"""Brings one job's files home from its backend, before anyone is told about them.

Each output gets its place noted in the job's document before it gets its name on disk, so that a crash at any point
neither loses it nor stores it twice. A file that the backend serves again from its cache keeps its first name.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeVar

from aiohttp import ClientResponse

from backend_pool.claims import Claims
from backend_pool.comfy_client import CHUNK, ComfyClient, FileRef
from backend_pool.errors import FileGone
from backend_pool.file_refs import references, replaced
from backend_pool.known_files import Home, KnownFiles
from backend_pool.model import Job, JsonDict
from backend_pool.png_text import replace_prompt
from backend_pool.user_files import (
    ATTEMPTS,
    FOLDERS,
    UserDirs,
    arrive,
    clear_incoming,
    close,
    create_incoming,
    disk_error,
    free_names,
    landing,
    safe_filename,
    safe_subfolder,
    write,
)
from backend_pool.user_folder import user_folder

T = TypeVar("T")

PNG_HEAD = 16 * 1024 * 1024


@dataclass
class Arrival:
    """A fetched file on its way to its name; without `partial` the user has it already, at `home`."""

    source: FileRef
    partial: Path | None
    home: Home


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
        own: Mapping[str, FileRef],
        known: KnownFiles,
    ) -> None:
        self._job = job
        self._client = client
        self._write_notes = note
        self._dirs = dirs
        self._folder = user_folder(tag)
        self._prompt_json = json.dumps(prompt)
        self._own = own
        self._known = known
        self.claims = Claims(job, self._folder, prompt, known)
        self.files: list[JsonDict] = []
        """What the job's document holds: `{source, local, fresh}`."""

    async def localize(self, value: Any) -> Any:
        """The same ui output with every file reference replaced by the user's own, the files being there."""
        refs = self._collectable(value)
        missing = [ref for ref in refs if not self._is_home(ref)]
        try:
            await self._settle([await self._fetch(ref, number) for number, ref in enumerate(missing)])
        except BaseException:
            await _to_its_end(self.clear)
            raise
        own = {ref: mine for ref in refs if (mine := self._own_file(ref)) is not None}
        return replaced(value, self._noted() | own)

    def is_home(self, value: Any) -> bool:
        """Whether `localize` would find every file of this output at home."""
        return all(self._is_home(ref) for ref in self._collectable(value))

    def _collectable(self, value: Any) -> list[FileRef]:
        """The files that this job may bring home: a node can be made to name any file, also another user's.

        Input files only as staged by this job; of others none that the prompt itself names.
        """
        refs = dict.fromkeys(references(value))
        return [ref for ref in refs if self._own_file(ref) is not None or self.claims.may_ask_for(ref)]

    def clear(self) -> None:
        """Remove partial files of this job, also those of a process that was killed. Blocking."""
        for kind in FOLDERS:
            clear_incoming(self._dirs.root(kind), self._key)

    def discard(self, outputs: JsonDict) -> None:
        """Remove what this job brought home except what `outputs` shows; files of earlier jobs stay. Blocking."""
        shown = set(references(outputs))
        kept = [entry for entry in self.files if FileRef(**entry["local"]) in shown or not entry.get("fresh")]
        for entry in self.files:
            if entry not in kept:
                self._path(FileRef(**entry["local"])).unlink(missing_ok=True)
        self.files = kept
        self.clear()

    @property
    def _key(self) -> str:
        return f"{self._job.key}-"

    def _is_home(self, ref: FileRef) -> bool:
        if self._own_file(ref) is not None:
            return True
        local = self._noted().get(ref)
        return local is not None and self._path(local).is_file()

    def _own_file(self, ref: FileRef) -> FileRef | None:
        """The user's own file behind a staged input that a node shows again."""
        staged = ref.type == "input" and ref.subfolder == self._folder
        return self._own.get(ref.filename) if staged else None

    def _noted(self) -> dict[FileRef, FileRef]:
        return {FileRef(**entry["source"]): FileRef(**entry["local"]) for entry in self.files}

    async def _fetch(self, source: FileRef, number: int) -> Arrival:
        if safe_filename(source.filename) is None or safe_subfolder(source.subfolder) is None:
            raise FileGone(f"The backend named a file outside its folders: {source.filename}")
        home = self._known.get(self._job.backend_id or 0, self._job.user_id, source)
        if home is not None and not self._path(home.local).is_file():
            home = None
        try:
            async with self._client.view(source, home.etag if home else None) as response:
                if response.status == 304 and home is not None:
                    return Arrival(source, None, home)
                if not self.claims.may_keep(source, response.headers):
                    raise FileGone(f"{source.filename} was not made by this job")
                path = await self._save(response, source, f"{self._key}{number}")
                return Arrival(source, path, Home(source, response.headers.get("ETag")))
        except FileGone:
            if home is None:
                raise
            return Arrival(source, None, home)  # cached at the backend, deleted there since, and here all along

    async def _save(self, response: ClientResponse, source: FileRef, key: str) -> Path:
        size = 0
        path, out = await asyncio.to_thread(create_incoming, self._dirs.root(source.type), key)
        try:
            async for chunk in response.content.iter_chunked(CHUNK):
                size += len(chunk)
                await asyncio.to_thread(write, out, chunk)
        except BaseException:
            await _to_its_end(out.close)
            raise
        expected = None if "Content-Encoding" in response.headers else response.content_length
        await asyncio.to_thread(self._complete, out, path)
        if expected is not None and size != expected:
            raise FileGone(f"{source.filename} arrived incomplete")
        return path

    def _complete(self, out: IO[bytes], path: Path) -> None:
        close(out)
        restore_prompt(path, self._prompt_json)

    async def _settle(self, arrivals: list[Arrival]) -> None:
        """Give every arrival its name. One note for all of them, and another round when a name was taken meanwhile."""
        for _round in range(ATTEMPTS):
            if not arrivals:
                return
            places = await asyncio.to_thread(self._choose, arrivals)
            for arrival, local in zip(arrivals, places, strict=True):
                self._note(arrival, local)
            if any(local.type != "temp" for local in places):  # a stray preview goes with the session's temp
                await self._write_notes(self.files)
            landed = await _to_its_end(partial(self._land, arrivals, places))
            for arrival, local, done in zip(arrivals, places, landed, strict=True):
                if done:
                    home = Home(local, arrival.home.etag)
                    self._known.put(self._job.backend_id or 0, self._job.user_id, arrival.source, home)
            arrivals = [arrival for arrival, done in zip(arrivals, landed, strict=True) if not done]
        raise FileGone("There is no free name left for the job's files; tidy the folder")

    def _choose(self, arrivals: list[Arrival]) -> list[FileRef]:
        """A place for each; the noted one if there is one, as after a crash between noting and landing."""
        noted = self._noted()
        places: list[FileRef] = []
        for arrival in arrivals:
            local = noted.get(arrival.source)
            if arrival.partial is None:
                local = arrival.home.local
            elif local is None or self._path(local).exists():
                local = self._free(arrival.source, places)
            places.append(local)
        return places

    def _free(self, source: FileRef, promised: list[FileRef]) -> FileRef:
        subfolder = self._local_subfolder(source)
        folder = landing(self._dirs.root(source.type), subfolder)
        taken = {ref.filename for ref in promised if (ref.subfolder, ref.type) == (subfolder, source.type)}
        name = next(free_names(folder, source.filename, taken), None)
        if name is None:
            raise FileGone(f"There is no free name left for {source.filename}; tidy the folder")
        return FileRef(name, subfolder, source.type)

    def _note(self, arrival: Arrival, local: FileRef) -> None:
        entry = {"source": asdict(arrival.source), "local": asdict(local), "fresh": arrival.partial is not None}
        self.files = [known for known in self.files if known["source"] != entry["source"]] + [entry]

    def _land(self, arrivals: list[Arrival], places: list[FileRef]) -> list[bool]:
        """Give the partial files their names; False for one whose name was taken meanwhile."""
        landed = []
        for arrival, local in zip(arrivals, places, strict=True):
            if arrival.partial is None:
                landed.append(True)
                continue
            landing(self._dirs.root(local.type), local.subfolder)
            landed.append(arrive(arrival.partial, self._path(local), durable=local.type != "temp"))
        if all(landed):
            self.clear()
        return landed

    def _local_subfolder(self, source: FileRef) -> str:
        subfolder = safe_subfolder(source.subfolder) or ""
        if subfolder == self._folder:
            return ""
        return subfolder.removeprefix(f"{self._folder}/")

    def _path(self, ref: FileRef) -> Path:
        return self._dirs.root(ref.type) / ref.subfolder / ref.filename


def restore_prompt(path: Path, prompt_json: str) -> None:
    """Put the user's own prompt into a PNG that carries the rewritten one; other files stay as they are."""
    with path.open("rb") as content:
        replaced_head = replace_prompt(content.read(PNG_HEAD), prompt_json)
        if replaced_head is None:
            return
        head, position = replaced_head
        content.seek(position)
        swapped = path.with_name(f"{path.name}x")
        try:
            with swapped.open("wb") as out:
                out.write(head)
                while chunk := content.read(CHUNK):
                    out.write(chunk)
            swapped.replace(path)
        except OSError as error:
            swapped.unlink(missing_ok=True)
            raise disk_error(error) from error


async def _to_its_end(work: Callable[[], T]) -> T:
    """Run `work` in a thread; also when cancelled it is over on return, so that what it made can be removed."""
    future = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        raise
