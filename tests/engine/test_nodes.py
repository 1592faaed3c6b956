"""The nodes that really compute, as array functions and through a prompt."""

import io
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from backend_pool.engine.job import Job, OutOfMemoryError
from backend_pool.engine.nodes.catalogue import NODES
from backend_pool.engine.nodes.registry import Shown
from backend_pool.engine.nodes.resize import METHODS, resize
from tests.engine.client import Client
from tests.engine.graphs import node
from tests.engines import Engine


class QuietJob:
    """All that array nodes ask of a job."""

    def check(self) -> None:
        """Never interrupted."""


def run(kind: str, **inputs: Any) -> Any:
    result = NODES[kind].run(cast(Job, QuietJob()), **inputs)
    assert not isinstance(result, Shown)
    return result[0] if len(result) == 1 else result


def image(*shape: int, value: float | None = None) -> Any:
    if value is not None:
        return np.full(shape, value, dtype=np.float32)
    return np.random.default_rng(1).random(shape, dtype=np.float32)


def test_empty_image_has_its_colour() -> None:
    made = run("EmptyImage", width=3, height=2, batch_size=2, color=0xFF8000)
    assert made.shape == (2, 2, 3, 3)
    assert np.allclose(made[1, 1, 2], [1, 128 / 255, 0])


@pytest.mark.parametrize("method", METHODS)
def test_scaling_keeps_flat_colours(method: str) -> None:
    scaled = run(
        "ImageScale", image=image(1, 8, 6, 3, value=0.25), upscale_method=method, width=12, height=0, crop="disabled"
    )
    assert scaled.shape == (1, 16, 12, 3) and np.allclose(scaled, 0.25, atol=1e-4)
    assert run("ImageScaleBy", image=scaled, upscale_method=method, scale_by=0.5).shape == (1, 8, 6, 3)


def test_centre_crop_cuts_the_longer_sides() -> None:
    wide = np.concatenate([image(1, 4, 4, 3, value=0), image(1, 4, 4, 3, value=1), image(1, 4, 4, 3, value=0)], axis=2)
    assert np.all(resize(wide, 4, 4, "nearest-exact", "center") == 1)


def test_pixels_and_steps() -> None:
    scaled = run(
        "ImageScaleToTotalPixels", image=image(1, 10, 20, 3), upscale_method="area", megapixels=0.01, resolution_steps=8
    )
    assert scaled.shape[1] % 8 == 0 and scaled.shape[2] % 8 == 0


def test_simple_ones() -> None:
    picture = image(2, 4, 5, 3)
    assert np.allclose(run("ImageInvert", image=picture) + picture, 1)
    assert np.array_equal(run("ImageCrop", image=picture, width=2, height=3, x=1, y=9), picture[:, 3:, 1:3])
    assert run("RepeatImageBatch", image=picture, amount=3).shape[0] == 6
    assert np.array_equal(run("ImageFromBatch", image=picture, batch_index=1, length=9), picture[1:])
    assert run("ImageBatch", image1=picture, image2=image(1, 8, 10, 4)).shape == (3, 4, 5, 4)


def test_rebatching_maps_over_lists() -> None:
    parts = run("RebatchImages", images=[image(3, 2, 2, 3), image(2, 2, 2, 3)], batch_size=[2])
    assert [len(part) for part in parts] == [2, 2, 1]


def test_padding_feathers_towards_the_new_side_only() -> None:
    padded, mask = run("ImagePadForOutpaint", image=image(1, 32, 32, 3), left=8, top=0, right=0, bottom=0, feathering=8)
    assert padded.shape == (1, 32, 40, 3) and np.all(padded[:, :, :8] == 0.5)
    assert np.all(mask[0, :, :8] == 1) and mask[0, 5, 8] == 1
    assert mask[0, 5, 12] == 0.25 and np.all(mask[0, :, 16:] == 0)


def test_blur_and_sharpen_are_opposites() -> None:
    picture = image(1, 16, 16, 3)
    soft = run("ImageBlur", image=picture, blur_radius=3, sigma=1.0)
    sharp = run("ImageSharpen", image=picture, sharpen_radius=1, sigma=1.0, alpha=0.1)
    assert soft.std() < picture.std() < sharp.std()
    assert np.allclose(soft.mean(), picture.mean(), atol=0.02)
    flat = image(1, 4, 4, 3, value=0.5)
    assert np.allclose(run("ImageBlur", image=flat, blur_radius=31, sigma=10.0), 0.5, atol=1e-5)
    assert np.allclose(run("ImageSharpen", image=flat, sharpen_radius=31, sigma=1.0, alpha=5.0), 0.5, atol=1e-4)


@pytest.mark.parametrize(
    ("mode", "value"),
    [
        ("normal", 0.8),
        ("multiply", 0.16),
        ("screen", 0.84),
        ("overlay", 0.32),
        ("difference", 0.0),
        ("soft_light", 0.348),
    ],
)
def test_blend_modes(mode: str, value: float) -> None:
    below, above = image(1, 2, 2, 3, value=0.2), image(1, 4, 4, 4, value=0.8)
    made = run("ImageBlend", image1=below, image2=above, blend_factor=1.0, blend_mode=mode)
    assert made.shape == (1, 2, 2, 3) and np.allclose(made, value, atol=1e-3)


@pytest.mark.parametrize("dither", ["none", "floyd-steinberg", "bayer-2", "bayer-16"])
def test_quantize_leaves_few_colours(dither: str) -> None:
    made = run("ImageQuantize", image=image(1, 32, 32, 3), colors=4, dither=dither)
    assert len(np.unique(made.reshape(-1, 3), axis=0)) <= 4


def test_masks() -> None:
    mask = run("SolidMask", value=0.25, width=5, height=4)
    assert mask.shape == (1, 4, 5) and np.allclose(run("InvertMask", mask=mask), 0.75)
    assert run("MaskToImage", mask=mask).shape == (1, 4, 5, 3)
    assert np.array_equal(run("ImageToMask", image=image(1, 4, 5, 3), channel="green"), image(1, 4, 5, 3)[..., 1])
    dot = np.zeros((1, 7, 7), dtype=np.float32)
    dot[0, 3, 3] = 1
    assert run("GrowMask", mask=dot, expand=2, tapered_corners=True).sum() == 13
    square = run("GrowMask", mask=dot, expand=2, tapered_corners=False)
    assert square.sum() == 25
    assert run("GrowMask", mask=square, expand=-2, tapered_corners=False).sum() == 1


@pytest.mark.parametrize(
    ("kind", "inputs"),
    [
        ("EmptyImage", {"width": 16384, "height": 16384, "batch_size": 4096, "color": 0}),
        ("SolidMask", {"value": 1.0, "width": 16384, "height": 16384}),
        ("RepeatImageBatch", {"image": image(1, 512, 512, 3, value=0), "amount": 4096}),
    ],
)
def test_too_much_is_out_of_memory_not_the_end(kind: str, inputs: dict[str, Any]) -> None:
    with pytest.raises(OutOfMemoryError):
        run(kind, **inputs)


async def show(client: Client, prompt: dict[str, Any], kind: str, slot: int = 0) -> Image.Image:
    """Pixels of what a prompt's node "1" makes."""
    end = (
        {"8": node("MaskToImage", mask=["1", slot]), "9": node("PreviewImage", images=["8", 0])}
        if kind == "mask"
        else {"9": node("PreviewImage", images=["1", slot])}
    )
    entry, _ = await client.run(prompt | end)
    async with client.http.get(f"{client.url}/view", params=entry["outputs"]["9"]["images"][0]) as response:
        return Image.open(io.BytesIO(await response.read()))


async def test_loading_turns_pictures_upright_and_splits_alpha(client: Client, engine: Engine) -> None:
    folder = engine.base_dir / "input"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (10, 4), "red").save(folder / "turned.jpg", exif=exif)
    assert (await show(client, {"1": node("LoadImage", image="turned.jpg")}, "image")).size == (4, 10)
    Image.new("RGBA", (6, 5), (1, 2, 3, 55)).save(folder / "alpha.png")
    mask = await show(client, {"1": node("LoadImage", image="alpha.png")}, "mask", 1)
    assert mask.getpixel((0, 0)) == (200, 200, 200) and mask.size == (6, 5)
    mask = await show(client, {"1": node("LoadImageMask", image="alpha.png", channel="alpha")}, "mask")
    assert mask.getpixel((0, 0)) == (200, 200, 200)
    mask = await show(client, {"1": node("LoadImageMask", image="alpha.png", channel="blue")}, "mask")
    assert mask.getpixel((0, 0)) == (3, 3, 3)
    Image.new("I;16", (3, 3), 65535).save(folder / "deep.png")
    assert (await show(client, {"1": node("LoadImage", image="deep.png")}, "image")).getpixel((0, 0)) == (255, 255, 255)
    (engine.base_dir / "output" / "made.png").write_bytes((folder / "alpha.png").read_bytes())
    assert (await show(client, {"1": node("LoadImageOutput", image="made.png [output]")}, "image")).size == (6, 5)


async def test_a_broken_picture_fails_its_node(client: Client, engine: Engine) -> None:
    (engine.base_dir / "input" / "broken.png").write_bytes(b"not a picture")
    prompt = {"1": node("LoadImage", image="broken.png"), "2": node("PreviewImage", images=["1", 0])}
    entry, _ = await client.run(prompt)
    event, data = entry["status"]["messages"][-1]
    assert (event, data["node_type"]) == ("execution_error", "LoadImage")
    assert data["exception_type"] == "PIL.UnidentifiedImageError" and data["traceback"]
    assert data["current_inputs"] == {"image": ["broken.png"]}


async def test_values_and_text(client: Client) -> None:
    prompt = {
        "1": node("PrimitiveInt", value="5"),
        "2": node("PreviewAny", source=["1", 0]),
        "3": node("StringConcatenate", string_a="a", string_b="b", delimiter="-"),
        "4": node("PreviewAny", source=["3", 0]),
        "5": node("PrimitiveBoolean", value=1),
        "6": node("PreviewAny", source=["5", 0]),
        "7": node("EmptyImage", width=1, height=1, batch_size=1, color=0),
        "8": node("PreviewAny", source=["7", 0]),
    }
    entry, _ = await client.run(prompt)
    texts = {node_id: ui["text"] for node_id, ui in entry["outputs"].items()}
    assert (texts["2"], texts["4"], texts["6"]) == (["5"], ["a-b"], ["True"])
    assert "0." in texts["8"][0]


async def test_animations(client: Client, engine: Engine) -> None:
    prompt = {
        "1": node("EmptyImage", width=16, height=16, batch_size=1, color=0xFF0000),
        "2": node("EmptyImage", width=16, height=16, batch_size=1, color=0x0000FF),
        "3": node("ImageBatch", image1=["1", 0], image2=["2", 0]),
        "4": node(
            "SaveAnimatedWEBP",
            images=["3", 0],
            filename_prefix="w",
            fps=5,
            lossless=True,
            quality=80,
            method="fastest",
        ),
        "5": node("SaveAnimatedPNG", images=["3", 0], filename_prefix="p", fps=5, compress_level=1),
    }
    entry, _ = await client.run(prompt, extra_data={"extra_pnginfo": {"workflow": {"id": "ä"}}})
    for node_id, kind in (("4", "WEBP"), ("5", "PNG")):
        ui = entry["outputs"][node_id]
        assert ui["animated"] == [True]
        with Image.open(engine.base_dir / "output" / ui["images"][0]["filename"]) as made:
            assert (made.format, made.n_frames) == (kind, 2)  # type: ignore[attr-defined]
            if kind == "WEBP":
                assert made.getexif()[0x0110].startswith('prompt:{"1"')
