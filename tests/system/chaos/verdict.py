"""What must hold once all is quiet: each promise kept once, each file whose it is, nothing left over.

Every check returns the list of what is wrong with it.
"""

import asyncio
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from backend_pool.runs.runner import UNFETCHED
from tests.system.chaos.crowd import Player
from tests.system.chaos.orders import REPEATED, Order, title
from tests.system.chaos.stage import Stage

FINAL = ("succeeded", "failed", "cancelled")
EXCUSED = frozenset({"BackendLost", "OutOfMemoryError", "torch.OutOfMemoryError"})
"""Failures that the troubles explain: a job that lost its backend too often, and memory that was not enough."""
END_OF = {"succeeded": "execution_success", "failed": "execution_error", "cancelled": "execution_interrupted"}
ENDS = "SELECT prompt_id, state, ended_ms FROM jobs WHERE user_id = ? AND attempt > 0 AND ended_ms IS NOT NULL"
BEFORE_MS, AFTER_MS = 1_000, 15_000
"""How long before and after its end a socket was open that must have told of it: a database may be away meanwhile."""
SESSION_S = 60
ONCE = ("execution_start", "execution_success", "execution_error", "execution_interrupted")


@dataclass
class Findings:
    """What is wrong, and what became of the jobs."""

    wrong: list[str] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    attempts: Counter[int] = field(default_factory=Counter)


async def judge(stage: Stage, players: list[Player]) -> Findings:
    """All checks on a cluster that is quiet and runs."""
    found = Findings()
    found.wrong += [*stage.troubles, *_database(stage)]
    for player in players:
        await _user(stage, player, found)
    await _strangers(players, found)
    for wrong in await asyncio.gather(*map(_session, players)):
        found.wrong += wrong
    return found


def _database(stage: Stage) -> list[str]:
    connection = stage.database()
    try:
        wrong = stage.base.health(connection)
        double = "SELECT user_id, prompt_id, count(*) FROM jobs GROUP BY 1, 2 HAVING count(*) > 1"
        wrong += [f"twice in the table: {row}" for row in connection.execute(double)]
        for prompt_id, state, trail in connection.execute("SELECT prompt_id, state, trail FROM jobs"):
            ends = [entry[1] for entry in _lines(trail) if entry[1] in FINAL]
            if ends != [state]:
                wrong.append(f"{prompt_id} is {state}, its trail ends with {ends}")
        return wrong
    finally:
        connection.close()


def _rows(stage: Stage, user_id: int) -> dict[str, tuple[str, int]]:
    query = "SELECT prompt_id, state, attempt FROM jobs WHERE user_id = ?"
    return {row[0]: (str(row[1]), row[2]) for row in stage.rows(query, user_id)}


def _lines(trail: Any) -> list[list[Any]]:
    return list(json.loads(trail) if isinstance(trail, str) else trail)


def _begun(stage: Stage, user_id: int) -> dict[str, int]:
    """How often each job may have begun: at each attempt; one whose files were lost after its end counts as none."""
    found = stage.rows("SELECT prompt_id, attempt, trail FROM jobs WHERE user_id = ?", user_id)
    return {
        prompt_id: attempt + sum(str(entry[2]).startswith(UNFETCHED) for entry in _lines(trail))
        for prompt_id, attempt, trail in found
    }


async def _user(stage: Stage, player: Player, found: Findings) -> None:
    rows = _rows(stage, player.person.id)
    who = player.person.name
    found.wrong += [f"{who} was refused {text}" for text in player.refusals]
    found.wrong += [f"{who}'s {lost} was accepted and is gone" for lost in sorted(set(player.accepted) - set(rows))]
    unknown = set(rows) - set(player.accepted) - player.unsure
    found.wrong += [f"{who} has {extra}, which was never accepted" for extra in sorted(unknown)]
    queue, history = await player.get("/queue"), await player.get("/history")
    if queue != {"queue_running": [], "queue_pending": []}:
        found.wrong.append(f"{who}'s queue is not empty: {queue}")
    shown = {prompt_id for prompt_id, row in rows.items() if row != ("cancelled", 0)}  # ComfyUI shows no such either
    if set(history) != shown:
        found.wrong.append(f"{who}'s history and jobs differ: {set(history) ^ shown}")
    folder = stage.cluster.data_dir / "users" / player.person.slug
    for prompt_id, (state, attempt) in rows.items():
        found.attempts[attempt] += 1
        found.ends["cancelled while waiting"] += (state, attempt) == ("cancelled", 0)
        order = player.accepted.get(prompt_id)
        if order is not None and prompt_id in history:
            found.wrong += _job(order, state, history[prompt_id], player, folder, found)
    found.wrong += _left_over(player, history, folder)
    found.wrong += _frames(player, _begun(stage, player.person.id))
    found.wrong += _untold(player, stage.rows(ENDS, player.person.id))


def _job(order: Order, state: str, entry: dict[str, Any], player: Player, folder: Path, found: Findings) -> list[str]:
    if state == "cancelled":
        found.ends[state] += 1
        return [] if order.prompt_id in player.cancelled else [f"{order.prompt_id} was cancelled by nobody"]
    if state == "failed":
        error: dict[str, Any] = next((m[1] for m in entry["status"]["messages"] if m[0] == "execution_error"), {})
        kind = str(error.get("exception_type"))
        found.ends[f"failed: {kind}"] += 1
        return [] if kind in EXCUSED else [f"{order.prompt_id} failed: {kind}: {error.get('exception_message')}"]
    found.ends[state] += 1
    if entry["status"]["status_str"] != "success" or not entry["status"]["completed"]:
        return [f"{order.prompt_id} succeeded, its history says {entry['status']['status_str']}"]
    return [f"{order.prompt_id}: {text}" for node in order.saves for text in _file(order, node, entry, player, folder)]


def _file(order: Order, node: str, entry: dict[str, Any], player: Player, folder: Path) -> list[str]:
    images = entry["outputs"].get(node, {}).get("images", [])
    if len(images) != 1 or images[0]["type"] != "output":
        return [f"node {node} shows {images}"]
    path = folder / "output" / images[0]["subfolder"] / images[0]["filename"]
    if not path.is_file():
        return [f"{path} is missing"]
    try:
        with Image.open(path) as picture:
            picture.load()
            colour = picture.convert("RGB").getpixel((0, 0))
            prompt = json.loads(picture.info.get("prompt", "null"))
    except (OSError, ValueError) as error:
        return [f"{path} cannot be read: {error}"]
    wrong = []
    mark = order.marks.get(node)
    if mark is not None and colour != (mark >> 16, mark >> 8 & 0xFF, mark & 0xFF):
        wrong.append(f"{path} has the colour {colour}, not {mark:06x}")
    titles = {each["_meta"]["title"] for each in prompt.values()}
    if titles != {title(player.number)}:
        wrong.append(f"{path} holds a prompt {titles}")
    return wrong


def _left_over(player: Player, history: dict[str, Any], folder: Path) -> list[str]:
    """Files that no history entry names, such as those of an attempt that was lost; and files named twice.

    Only those of the same picture may be: a backend had it in its cache, and it keeps the name of its first fetch.
    """
    who = player.person.name
    named: dict[str, list[str]] = {}
    for prompt_id, entry in history.items():
        for ui in entry["outputs"].values():
            for image in ui.get("images", []):
                if image["type"] == "output":
                    named.setdefault(f"{image['subfolder']}/{image['filename']}".lstrip("/"), []).append(prompt_id)
    root = folder / "output"
    there = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    fresh = {prompt_id for prompt_id, order in player.accepted.items() if order.kind not in REPEATED}
    wrong = [f"{who}'s {name} is of {ids}" for name, ids in named.items() if len(ids) > 1 and fresh.intersection(ids)]
    return wrong + [f"{who} has {name}, which no job names" for name in sorted(there - set(named))]


def _frames(player: Player, begun: dict[str, int]) -> list[str]:
    """No frame of anybody else's; a job's end once, its beginning as often as it may: the page counts anew then."""
    wrong = []
    for told in player.told:
        wrong += [f"{player.person.name} was sent {frame}" for frame in sorted(told.strange)]
        for (kind, prompt_id), count in told.counts.items():
            if kind in ONCE and count > (begun.get(prompt_id, 1) if kind == "execution_start" else 1):
                wrong.append(f"{player.person.name} was told {kind} of {prompt_id} {count} times")
    return wrong


async def _session(player: Player) -> list[str]:
    """Everybody's session comes back."""
    try:
        async with asyncio.timeout(SESSION_S):
            settings = await player.get("/settings")
    except TimeoutError:
        return [f"{player.person.name}'s session has not come back within {SESSION_S} s"]
    return [] if isinstance(settings, dict) else [f"{player.person.name}'s session has no settings"]


def _untold(player: Player, ended: list[tuple[str, str, int]]) -> list[str]:
    """Each end once over all connections of the tab; and told, where one was open around that moment."""
    counts: Counter[tuple[str, str]] = Counter()
    for told in player.told:
        counts.update({key: count for key, count in told.counts.items() if key[0] in END_OF.values()})
    wrong = []
    for prompt_id, state, ended_ms in ended:
        count = counts[END_OF[state], prompt_id]
        open_then = any(
            told.opened_ms < ended_ms - BEFORE_MS and (told.closed_ms is None or told.closed_ms > ended_ms + AFTER_MS)
            for told in player.told
        )
        if count > 1 or (open_then and not count):
            wrong.append(f"{player.person.name} was told of the end of {prompt_id} ({state}) {count} times in all")
    return wrong


async def _strangers(players: list[Player], found: Findings) -> None:
    """Nobody can read another's job by its id."""
    for player, other in zip(players, [*players[1:], players[0]], strict=True):
        for prompt_id in list(other.accepted)[:3]:
            if await player.get(f"/history/{prompt_id}") != {}:
                found.wrong.append(f"{player.person.name} reads {prompt_id} in the history")
            if await player.get(f"/api/jobs/{prompt_id}") is not None:
                found.wrong.append(f"{player.person.name} reads {prompt_id} as a job")
