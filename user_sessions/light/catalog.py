"""What the operator's shared folders offer the WebUI: translations, example workflows of node packs, subgraphs.

Read-only, from `public/custom_nodes`. Nothing of those packs is executed here.
"""

import asyncio
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from aiohttp import web

from proxy.base.logs import events
from user_sessions.light.assets import Frontend
from user_sessions.light.files import RangedFile

log = events(__name__)

EXAMPLES = ("example_workflows", "example", "examples", "workflow", "workflows")
LOCALE_FILES = ("nodeDefs", "commands", "settings")
JSON_BYTES = 16 * 1024 * 1024


class Catalog:
    """The catalogue routes."""

    def __init__(self, public: Path, frontend: Frontend) -> None:
        self._packs = public / "custom_nodes"
        self._frontend = frontend

    def routes(self) -> list[web.RouteDef]:
        """Bare paths; the application adds the `/api` twins."""
        return [
            web.get("/extensions", self._extensions),
            web.get("/i18n", self._translations),
            web.get("/workflow_templates", self._examples),
            web.get("/global_subgraphs", self._subgraphs),
            web.get("/global_subgraphs/{id}", self._subgraph),
        ]

    def static_routes(self) -> list[web.RouteDef]:
        """Complete paths: ComfyUI has these under `/api` alone."""
        return [web.get("/api/workflow_templates/{pack}/{name}", self._example)]

    async def _extensions(self, request: web.Request) -> web.Response:
        return web.json_response(self._frontend.extensions())

    async def _translations(self, request: web.Request) -> web.Response:
        return web.json_response(await asyncio.to_thread(_translations, self._packs))

    async def _examples(self, request: web.Request) -> web.Response:
        found: dict[str, list[str]] = {}
        for pack, path in await asyncio.to_thread(list, _packed_files(self._packs, EXAMPLES)):
            found.setdefault(pack, []).append(path.stem)
        return web.json_response(found)

    async def _example(self, request: web.Request) -> web.StreamResponse:
        wanted = (request.match_info["pack"], request.match_info["name"])
        for pack, path in await asyncio.to_thread(list, _packed_files(self._packs, EXAMPLES, "*")):
            if (pack, path.name) == wanted:
                return RangedFile(path, {"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"})
        raise web.HTTPNotFound

    async def _subgraphs(self, request: web.Request) -> web.Response:
        entries = await asyncio.to_thread(self._subgraph_files)
        return web.json_response({name: _subgraph_entry(pack, path) for name, (pack, path) in entries.items()})

    async def _subgraph(self, request: web.Request) -> web.Response:
        entries = await asyncio.to_thread(self._subgraph_files)
        found = entries.get(request.match_info["id"])
        if found is None:
            return web.json_response(None)  # ComfyUI's answer to an unknown id
        data = await asyncio.to_thread(found[1].read_text, "utf-8", "replace")
        return web.json_response(_subgraph_entry(*found) | {"data": data})

    def _subgraph_files(self) -> dict[str, tuple[str, Path]]:
        """By id. ComfyUI hashes the absolute path, which differs between machines; this hashes the relative one."""
        files = _packed_files(self._packs, ("subgraphs",))
        return {
            hashlib.sha256(f"custom_node{path.relative_to(self._packs)}".encode()).hexdigest(): (pack, path)
            for pack, path in files
        }


def read_json(path: Path) -> object:
    """The content of a JSON file; None when it cannot be read, is too large or no JSON."""
    try:
        if path.stat().st_size > JSON_BYTES:
            raise ValueError("too large")
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        log.warning("a shared file is not readable JSON", file=path.name, reason=str(error)[:200])
        return None


def _packs(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError:
        return []


def _packed_files(folder: Path, kinds: tuple[str, ...], suffix: str = "*.json") -> Iterator[tuple[str, Path]]:
    """Files `<pack>/<kind>/<name>` with the pack's name."""
    for pack in _packs(folder):
        for kind in kinds:
            for path in sorted((pack / kind).glob(suffix)):
                if path.is_file():
                    yield pack.name, path


def _subgraph_entry(pack: str, path: Path) -> dict[str, object]:
    return {"source": "custom_node", "name": path.stem, "info": {"node_pack": f"custom_nodes.{pack}"}}


def _translations(folder: Path) -> dict[str, dict[str, object]]:
    """All packs' `locales/<language>/*.json`, merged; later packs win."""
    merged: dict[str, dict[str, object]] = {}
    for pack in _packs(folder):
        for language in _packs(pack / "locales"):
            words = read_json(language / "main.json")
            words = words if isinstance(words, dict) else {}
            for name in LOCALE_FILES:
                if extra := read_json(language / f"{name}.json"):
                    words[name] = extra
            if words:
                _merge(merged.setdefault(language.name, {}), words)
    return merged


def _merge(into: dict[str, object], more: dict[str, object]) -> None:
    for key, value in more.items():
        present = into.get(key)
        if isinstance(present, dict) and isinstance(value, dict):
            _merge(present, value)
        else:
            into[key] = value
