"""Offers: kept on disk, compared, compressed once for all users, and a user's own models on disk."""

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend_pool.files.user_models import files_of, own_folder, own_models
from backend_pool.offers.drift import compare
from backend_pool.offers.node_union import merge
from backend_pool.offers.offer import Offer
from backend_pool.offers.packed import Beginning
from backend_pool.offers.store import OfferStore
from tests.backend_pool.infos import info, provider
from tests.backend_pool.rig import user_dirs

URL = "http://ann:hunter2@gpu:8188"


def test_an_offer_is_kept(tmp_path: Path) -> None:
    store = OfferStore(tmp_path)
    offer = Offer(info("a", Odd={"input": {"required": {"x": ["\ud800"]}}}), {"loras": ("ü/b.safetensors",), "vae": ()})
    store.save(3, URL, offer)
    found = store.load(3, URL)
    assert (found.info, found.models) == (offer.info, offer.models)
    (path,) = (tmp_path / "backends").iterdir()
    assert path.stat().st_mode & 0o77 == 0 and b"hunter2" not in gzip.decompress(path.read_bytes())
    assert store.load(3, "http://elsewhere").info == store.load(4, URL).info == {}
    store.forget(3)
    store.forget(3)
    assert store.load(3, URL).info == {} and not path.exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"x", gzip.compress(b"{"), gzip.compress(b"[]"), gzip.compress(b'{"url": 1}'), gzip.compress(b"x")[:9]],
    ids=["empty", "no gzip", "half an object", "a list", "without an offer", "cut off"],  # gzip writes the time of day
)
def test_a_broken_file_is_no_offer(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "backends").mkdir()
    (tmp_path / "backends/1.json.gz").write_bytes(content)
    assert OfferStore(tmp_path).load(1, URL).info == {}


def test_a_full_disk_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "backends").write_text("in the way")
    OfferStore(tmp_path).save(1, URL, Offer(info("a")))
    assert OfferStore(tmp_path).load(1, URL).info == {}


@given(st.binary(max_size=5000), st.lists(st.binary(max_size=3000), min_size=1, max_size=3))
def test_one_beginning_serves_every_end(content: bytes, ends: list[bytes]) -> None:
    """As one gzip member, which is all that browsers read."""
    beginning = Beginning(content)
    for end in ends:
        reader = zlib.decompressobj(zlib.MAX_WBITS | 16)
        assert reader.decompress(beginning.gzipped(end)) + reader.flush() == content + end == beginning.whole(end)
        assert reader.eof and not reader.unused_data
    assert len({beginning.version(end) for end in ends}) == len(set(ends))


def test_how_backends_have_drifted_apart() -> None:
    other = info("a", Loader={"input": {"required": {"ckpt_name": [["a"]], "more": ["INT"]}}})
    found = compare(
        [
            provider(1, info("a", Only={"input": {}}), models={"loras": ["x\\l.pt", "m.pt"]}),
            provider(2, info("a", "b"), models={"loras": ["x/l.pt"], "vae": ["v.pt"]}),
            provider(3, other),
        ]
    )
    assert [(one.lacks_nodes, one.lacks_models, one.differs) for one in found] == [
        ([], ["vae/v.pt"], []),
        (["Only"], ["loras/m.pt"], []),
        (["Only"], ["loras/m.pt", "loras/x/l.pt", "vae/v.pt"], ["Loader"]),
    ]
    assert (found[0].nodes, found[0].models) == (len(info()) + 1, 2)
    assert compare([]) == []


def spec(**inputs: Any) -> dict[str, Any]:
    return {"N": {"input": {"required": inputs}}}


@pytest.mark.parametrize(
    ("documents", "shown", "varied"),
    [
        ([spec(x=["INT"]), spec(x=["FLOAT"]), spec(x=["FLOAT"])], spec(x=["FLOAT"]), {"N": {0}}),
        ([spec(x=["INT"]), spec(x=["FLOAT"])], spec(x=["INT"]), {"N": {1}}),
        ([spec(x=["INT", {"max": 1}]), spec(x=["INT", {"max": 2}])], spec(x=["INT", {"max": 1}]), {"N": {1}}),
        ([spec(x=["INT", {"default": 1}]), spec(x=["INT", {"tooltip": "t"}])], spec(x=["INT", {"default": 1}]), {}),
        ([spec(x=[["a"]]), spec(x=["COMBO", {"options": ["b"]}])], spec(x=[["a", "b"]]), {}),
        ([spec(x=[[1, True]]), spec(x=[[1.5, 1]])], spec(x=[[1, True, 1.5]]), {}),
        ([spec(x=[[]]), spec(x=[["a\\b"]]), spec(x=[["a/b"]])], spec(x=[["a\\b"]]), {}),
        ([spec(x=["COMBO", {"options": None}]), {}], spec(x=["COMBO", {"options": None}]), {}),
    ],
)
def test_the_definition_that_most_share_is_shown(documents: list[Any], shown: Any, varied: Any) -> None:
    union = merge(documents)
    assert (union.nodes, union.varied) == (shown, varied)


def test_options_of_dynamic_combos_are_merged() -> None:
    def dynamic(**keys: list[str]) -> dict[str, Any]:
        listed = [{"key": key, "inputs": {"required": {"file": [files]}}} for key, files in keys.items()]
        return spec(how=["COMFY_DYNAMICCOMBO_V3", {"options": listed}])

    merged = merge([dynamic(one=["a"]), dynamic(one=["b"], two=["c"])])
    assert merged.nodes == dynamic(one=["a", "b"], two=["c"]) and merged.varied == {"N": {1}}


def test_own_models_are_those_that_comfyui_would_find(tmp_path: Path) -> None:
    dirs = user_dirs(tmp_path, 1)
    for name in ("loras/deep/b.safetensors", "loras/a.SFT", "loras/.hidden/c.pt", "loras/note.txt", "clip/t.gguf"):
        (dirs.output / name).parent.mkdir(parents=True, exist_ok=True)
        (dirs.output / name).write_text("x")
    (tmp_path / "elsewhere.pt").write_text("x")
    (dirs.output / "loras/link.pt").symlink_to(tmp_path / "elsewhere.pt")
    assert own_models(dirs, "loras") == ["a.SFT", "deep/b.safetensors"]
    assert files_of(dirs).models("text_encoders") == ["t.gguf"]
    assert own_models(dirs, "vae") == []


@pytest.mark.parametrize(
    ("name", "declared", "folder"),
    [
        ("lora_name", [["a"]], "loras"),
        ("clip_name2", ["COMBO", {"options": []}], "text_encoders"),
        ("lora_name", ["STRING"], None),
        ("lora_name", [[], {"file_upload": True}], None),
        ("control_net_name", [["a"]], None),
        ("image", [["a"]], None),
    ],
)
def test_lists_that_get_a_user_s_own_models(name: str, declared: Any, folder: str | None) -> None:
    """Those folders that main.py of ComfyUI looks for below the output directory."""
    assert own_folder(name, declared) == folder
    json.dumps(declared)
