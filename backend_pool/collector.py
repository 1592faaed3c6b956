"""Brings one job's files home from its backend, before anyone is told about them.

Each file gets its place noted in the job's document before it gets its name on disk, so that a crash at any point
neither loses it nor stores it twice. A file that the backend serves again from its cache keeps its first name.
"""

import asyncio
import json
from collections import OrderedDict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from backend_pool.comfy_client import CHUNK, ComfyClient, FileRef
from backend_pool.errors import FileGone
from backend_pool.job_store import JobStore
from backend_pool.model import Job, JsonDict
from backend_pool.png_text import replace_prompt
from backend_pool.staging import output_folder
from backend_pool.user_files import (
    FOLDERS,
    UserDirs,
    arrive,
    disk_error,
    free_names,
    incoming,
    safe_filename,
    safe_subfolder,
)

PNG_HEAD = 16 * 1024 * 1024
KNOWN_LIMIT = 20_000


@dataclass(frozen=True)
class Home:
    """Where a backend's file lies in the user's directories, and the version (ETag) that was fetched."""

    local: FileRef
    etag: str | None


class KnownFiles:
    """Files fetched before, by backend, user and upstream name: bounded, the oldest forgotten first."""

    def __init__(self) -> None:
        self._homes: OrderedDict[tuple[int, int, FileRef], Home] = OrderedDict()

    def get(self, backend_id: int, user_id: int, ref: FileRef) -> Home | None:
        """The place of an earlier fetch."""
        return self._homes.get((backend_id, user_id, ref))

    def put(self, backend_id: int, user_id: int, ref: FileRef, home: Home) -> None:
        """Remember a fetch."""
        self._homes[backend_id, user_id, ref] = home
        self._homes.move_to_end((backend_id, user_id, ref))
        while len(self._homes) > KNOWN_LIMIT:
            self._homes.popitem(last=False)


class Collector:
    """Fetches the files of one job. Calls to `localize` come one at a time."""

    def __init__(
        self,
        job: Job,
        *,
        client: ComfyClient,
        store: JobStore,
        dirs: UserDirs,
        tag: str,
        prompt: JsonDict,
        known: KnownFiles,
    ) -> None:
        self._job = job
        self._client = client
        self._store = store
        self._dirs = dirs
        self._folder = output_folder(tag)
        self._prompt_json = json.dumps(prompt)
        self._known = known
        self.files: list[JsonDict] = []
        """What the job's document holds: `{source, local, fresh}`."""

    async def localize(self, value: Any) -> Any:
        """The same ui output with every file reference replaced by the user's own, the files being there."""
        if isinstance(value, list):
            return [await self.localize(item) for item in value]
        if not isinstance(value, dict):
            return value
        filename, kind = value.get("filename"), value.get("type", "output")
        if isinstance(filename, str) and kind in FOLDERS:
            local = await self._home(FileRef(filename, str(value.get("subfolder") or ""), str(kind)))
            return {**value, **asdict(local)}
        return {key: await self.localize(item) for key, item in value.items()}

    async def _home(self, source: FileRef) -> FileRef:
        if safe_filename(source.filename) is None or safe_subfolder(source.subfolder) is None:
            raise FileGone(f"The backend named a file outside its folders: {source.filename}")
        noted = next((entry for entry in self.files if entry["source"] == asdict(source)), None)
        if noted is not None:
            local = FileRef(**noted["local"])
            if self._path(local).is_file():
                return local
            return await self._fetch(source, None, wanted=local)
        known = self._known.get(self._job.backend_id or 0, self._job.user_id, source)
        if known is not None and not self._path(known.local).is_file():
            known = None
        return await self._fetch(source, known, wanted=None)

    async def _fetch(self, source: FileRef, known: Home | None, wanted: FileRef | None) -> FileRef:
        subfolder = self._local_subfolder(source)
        root = self._dirs.root(source.type)
        async with self._client.view(source, known.etag if known else None) as response:
            if response.status == 304 and known is not None:
                await self._note(source, known.local, fresh=False)
                return known.local
            etag = response.headers.get("ETag")
            partial = await asyncio.to_thread(incoming, root, subfolder)
            try:
                await self._save(response.content.iter_chunked(CHUNK), partial)
                expected = None if "Content-Encoding" in response.headers else response.content_length
                if expected is not None and partial.stat().st_size != expected:
                    raise FileGone(f"{source.filename} arrived incomplete")
                await asyncio.to_thread(restore_prompt, partial, self._prompt_json)
                local = await self._settle(source, partial, FileRef(source.filename, subfolder, source.type), wanted)
            finally:
                partial.unlink(missing_ok=True)
        self._known.put(self._job.backend_id or 0, self._job.user_id, source, Home(local, etag))
        return local

    async def _save(self, chunks: Any, partial: Path) -> None:
        try:
            with partial.open("wb") as out:
                async for chunk in chunks:
                    await asyncio.to_thread(out.write, chunk)
        except OSError as error:
            if isinstance(error, (ConnectionError, TimeoutError)) or error.errno is None:
                raise
            raise disk_error(error) from error

    async def _settle(self, source: FileRef, partial: Path, ref: FileRef, wanted: FileRef | None) -> FileRef:
        names = [wanted.filename] if wanted else []
        names += await asyncio.to_thread(free_names, partial.parent, ref.filename)
        for name in names:
            local = FileRef(name, ref.subfolder, ref.type)
            await self._note(source, local, fresh=True)
            if await asyncio.to_thread(arrive, partial, name):
                return local
        raise FileGone(f"There is no free name left for {ref.filename}; tidy the folder.")

    async def _note(self, source: FileRef, local: FileRef, *, fresh: bool) -> None:
        entry = {"source": asdict(source), "local": asdict(local), "fresh": fresh}
        self.files = [known for known in self.files if known["source"] != entry["source"]] + [entry]
        await self._store.note_files(self._job, self.files)

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
        replaced = replace_prompt(content.read(PNG_HEAD), prompt_json)
        if replaced is None:
            return
        head, position = replaced
        content.seek(position)
        swapped = path.with_name(path.name + "x")
        try:
            with swapped.open("wb") as out:
                out.write(head)
                while chunk := content.read(CHUNK):
                    out.write(chunk)
            swapped.replace(path)
        except OSError as error:
            swapped.unlink(missing_ok=True)
            raise disk_error(error) from error


def discard(dirs: UserDirs, files: list[JsonDict]) -> None:
    """Remove what an attempt that is given up brought home; files of earlier jobs (not fresh) stay."""
    for entry in files:
        if entry.get("fresh"):
            local = FileRef(**entry["local"])
            (dirs.root(local.type) / local.subfolder / local.filename).unlink(missing_ok=True)
