"""The engine's pure parts: plan, socket queues, pictures of any size, palette."""

import numpy as np
import pytest

from backend_pool.engine import pictures, sockets
from backend_pool.engine.motifs import MOTIFS
from backend_pool.engine.nodes.values import Scene
from backend_pool.engine.palette import MOODS, palette_of
from backend_pool.engine.plan import Plan
from backend_pool.engine.sockets import Client

PARENTS = {
    "model": [],
    "text": ["model"],
    "sampler": ["model", "text", "text"],
    "vae": [],
    "decode": ["sampler", "vae"],
    "save": ["decode"],
    "preview": ["decode"],
    "unused": [],
}


def order(outputs: list[str], cached: set[str], parents: dict[str, list[str]] = PARENTS) -> list[str]:
    plan = Plan(outputs, parents.__getitem__, cached.__contains__, {"save", "preview"}.__contains__)
    done = []
    while (node_id := plan.pick()) is not None:
        done.append(node_id)
        plan.finish(node_id)
    return done


def test_parents_run_first_and_nothing_else_runs() -> None:
    assert order(["save", "preview"], set()) == ["vae", "model", "text", "sampler", "decode", "save", "preview"]
    assert order([], set()) == []


def test_cached_parents_are_left_out() -> None:
    assert order(["save"], {"sampler", "model", "text"}) == ["vae", "decode", "save"]
    assert order(["save"], set(PARENTS)) == ["save"], "a cached output is visited, to be shown again"


def test_a_circle_ends_the_plan() -> None:
    assert order(["save"], set(), {"save": ["a"], "a": ["b"], "b": ["a"]}) == []


def test_wide_and_deep_plans() -> None:
    deep = {str(i): [str(i - 1)] if i else [] for i in range(20_000)}
    assert order(["19999"], set(), deep) == list(deep)


def test_overflow_drops_what_may_go_and_then_refuses() -> None:
    client = Client(ws=None, transport=None)  # type: ignore[arg-type]
    assert client.put("kept", False)
    assert all(client.put("p", True) for _ in range(sockets.FRAMES_KEPT))
    assert len(client.waiting) == sockets.FRAMES_KEPT and client.waiting[0] == ("kept", False)
    assert all(client.put("k", False) for _ in range(sockets.FRAMES_KEPT - 1))
    assert not client.put("too much", False)
    assert client.size == sum(len(frame) for frame, _ in client.waiting)


def test_overflow_counts_bytes() -> None:
    client = Client(ws=None, transport=None)  # type: ignore[arg-type]
    half = b"x" * (sockets.BYTES_KEPT // 2)
    assert all(client.put(half, True) for _ in range(5))
    assert len(client.waiting) == 2 and client.size <= sockets.BYTES_KEPT
    assert len(client.take()) == len(half) and client.size == len(half)


def scene(text: str = "", seed: int = 0) -> Scene:
    return Scene(text, "", seed, "model", "variant")


@pytest.mark.parametrize("size", [(16, 16), (8, 8), (2048, 16), (16, 2048), (33, 17)])
@pytest.mark.parametrize("seed", range(6))
def test_pictures_of_any_size(size: tuple[int, int], seed: int) -> None:
    width, height = size
    picture = pictures.paint(scene("x", seed), 0, width, height)
    for made in (picture, pictures.captioned(picture, scene("x", seed), 1)):
        assert made.shape == (height, width, 3) and made.dtype == np.float32
        assert 0 <= made.min() <= made.max() <= 1
    assert pictures.preview(picture, 0.5, scene("x", seed)).size == size


@pytest.mark.parametrize("text", ["", "  ", "日本語", "\ud800", "a" * 100_000, "éàü ñ", "line\nline"])
def test_prompts_of_any_text(text: str) -> None:
    first = pictures.captioned(pictures.paint(scene(text), 0, 64, 64), scene(text), 0)
    second = pictures.captioned(pictures.paint(scene(text), 0, 64, 64), scene(text), 0)
    assert np.array_equal(first, second)


def test_previews_go_from_noise_to_the_picture() -> None:
    final = pictures.paint(scene("sunset"), 0, 64, 64)
    far, near, end = (
        np.abs(np.asarray(pictures.preview(final, done, scene("sunset")), dtype=np.float32) / 255 - final)[:40].mean()
        for done in (0.1, 0.8, 1.0)
    )
    assert far > near > end < 0.01


def test_words_choose_colours() -> None:
    random = np.random.default_rng(0)
    assert palette_of("milky way at night", 1, random).brightness < 0.5
    assert palette_of("a street", 1, random).brightness == palette_of("a stroll", 1, random).brightness, "no tree in it"
    for words, (_, _, brightness) in MOODS:
        assert palette_of(f"one {words[0]}", 5, random).brightness == brightness


def test_every_motif_is_reached() -> None:
    rng = np.random.default_rng(3)
    for motif in MOTIFS:
        picture = motif(palette_of("x", 9, rng), rng, 48, 40)
        assert picture.shape == (40, 48, 3) and picture.std() > 0.01
