"""Sampling nodes: text and seed become a Scene, steps take their time and show previews, decoding paints."""

from dataclasses import replace

import numpy as np

from backend_pool.engine import pictures
from backend_pool.engine.job import Job
from backend_pool.engine.nodes.registry import MAX_RESOLUTION, Inputs, Node, Spec, integer, number
from backend_pool.engine.nodes.samplers import SAMPLERS, SCHEDULERS
from backend_pool.engine.nodes.values import Conditioning, Images, Latent, ModelRef, Scene, room_for

SEED_MAX = 0xFFFFFFFFFFFFFFFF
PREVIEW_PIXELS = 256


def _encode(job: Job, text: str, clip: ModelRef | None) -> tuple[Conditioning]:
    if clip is None:
        raise RuntimeError("The clip input is empty. Connect a text encoder or a checkpoint that has one.")
    job.use_model(clip.folder, clip.name)
    return (Conditioning(text),)


def _zero_out(_job: Job, conditioning: Conditioning) -> tuple[Conditioning]:
    return (Conditioning(""),)


def _combine(_job: Job, conditioning_1: Conditioning, conditioning_2: Conditioning) -> tuple[Conditioning]:
    return (Conditioning(f"{conditioning_1.text}, {conditioning_2.text}"),)


def _empty(_job: Job, width: int, height: int, batch_size: int = 1) -> tuple[Latent]:
    return (Latent(width // 8 * 8, height // 8 * 8, batch_size),)


def _sample(
    job: Job,
    *,
    model: ModelRef,
    seed: int,
    steps: int,
    cfg: float,
    sampler_name: str,
    scheduler: str,
    positive: Conditioning,
    negative: Conditioning,
    latent_image: Latent,
    denoise: float = 1.0,
) -> tuple[Latent]:
    job.use_model(model.folder, model.name)
    scene = Scene(
        positive.text,
        negative.text,
        seed + job.services.options.seed,
        "/".join((model.name, *model.changes)),
        f"{steps}|{cfg:g}|{sampler_name}|{scheduler}",
    )
    sampled = replace(latent_image, scene=scene, strength=denoise)
    _steps(job, sampled, range(steps), steps)
    return (sampled,)


def _sample_advanced(
    job: Job,
    *,
    model: ModelRef,
    add_noise: str,
    noise_seed: int,
    steps: int,
    cfg: float,
    sampler_name: str,
    scheduler: str,
    positive: Conditioning,
    negative: Conditioning,
    latent_image: Latent,
    start_at_step: int,
    end_at_step: int,
    return_with_leftover_noise: str,
) -> tuple[Latent]:
    last = min(end_at_step, steps)
    if start_at_step >= last:
        return (latent_image,)
    job.use_model(model.folder, model.name)
    variant = f"{steps}|{cfg:g}|{sampler_name}|{scheduler}"
    seed = noise_seed if add_noise == "enable" or latent_image.scene is None else latent_image.scene.seed
    scene = Scene(positive.text, negative.text, seed + job.services.options.seed, model.name, variant)
    sampled = replace(latent_image, scene=scene, strength=(last - start_at_step) / steps)
    _steps(job, sampled, range(start_at_step, last), steps)
    return (sampled,)


def _steps(job: Job, latent: Latent, numbers: range, total: int) -> None:
    final: Images | None = None
    if job.wants_previews and latent.scene is not None:
        scale = min(1.0, PREVIEW_PIXELS / max(latent.width, latent.height))
        final = _painted(latent, 0, max(8, round(latent.width * scale)), max(8, round(latent.height * scale)))
    for step in numbers:
        job.wait(job.services.options.step_ms / 1000)
        preview = None
        if final is not None and latent.scene is not None:
            preview = pictures.preview(final, (step + 1) / total, latent.scene)
        job.report(step + 1, total, preview)


def _decode(job: Job, samples: Latent, vae: ModelRef) -> tuple[Images]:
    job.use_model(vae.folder, vae.name)
    room_for(samples.width * samples.height * samples.batch)
    frames = []
    for index in range(samples.batch):
        job.check()
        picture = _painted(samples, index, samples.width, samples.height)
        frames.append(picture if samples.scene is None else pictures.captioned(picture, samples.scene, index))
    return (np.stack(frames),)


def _encode_pixels(job: Job, pixels: Images, vae: ModelRef) -> tuple[Latent]:
    job.use_model(vae.folder, vae.name)
    batch, height, width = pixels.shape[:3]
    height, width = max(8, height // 8 * 8), max(8, width // 8 * 8)
    return (Latent(width, height, batch, base=pixels[:, :height, :width, :3]),)


def _upscale_by(_job: Job, samples: Latent, upscale_method: str, scale_by: float) -> tuple[Latent]:
    return (_resized(samples, round(samples.width / 8 * scale_by) * 8, round(samples.height / 8 * scale_by) * 8),)


def _upscale(_job: Job, samples: Latent, upscale_method: str, width: int, height: int, crop: str) -> tuple[Latent]:
    if width == 0 and height == 0:
        return (samples,)
    if width == 0:
        width = max(64, round(samples.width * height / samples.height))
    elif height == 0:
        height = max(64, round(samples.height * width / samples.width))
    return (_resized(samples, max(64, width), max(64, height)),)


def _resized(latent: Latent, width: int, height: int) -> Latent:
    """The new latent begins with the old one's picture, so that a second sampler refines it."""
    width, height = max(8, width // 8 * 8), max(8, height // 8 * 8)
    room_for(width * height * latent.batch)
    if latent.scene is None and latent.base is None:
        return replace(latent, width=width, height=height)
    frames = [_painted(latent, index, width, height) for index in range(latent.batch)]
    return replace(latent, width=width, height=height, base=np.stack(frames), strength=min(latent.strength, 0.0))


def _painted(latent: Latent, index: int, width: int, height: int) -> Images:
    """One picture of the batch: painted, or the base, or a blend by denoise strength."""
    base = None if latent.base is None else pictures.resized(latent.base[index % len(latent.base)], width, height)
    if latent.scene is None or (base is not None and latent.strength <= 0):
        return pictures.blank(width, height) if base is None else base
    picture = pictures.paint(latent.scene, index, width, height)
    if base is None or latent.strength >= 1:
        return picture
    blend: Images = base * np.float32(1 - latent.strength) + picture * np.float32(latent.strength)
    return blend


def _size(default: int, step: int, what: str) -> Spec:
    return integer(default, 16, MAX_RESOLUTION, step, tooltip=f"The {what} of the latent images in pixels.")


TEXT: Inputs = {
    "text": ("STRING", {"multiline": True, "dynamicPrompts": True, "tooltip": "The text to be encoded."}),
    "clip": ("CLIP", {"tooltip": "The CLIP model used for encoding the text."}),
}
SAMPLING: Inputs = {
    "steps": integer(20, 1, 10000, tooltip="The number of steps used in the denoising process."),
    "cfg": ("FLOAT", {"default": 8.0, "min": 0.0, "max": 100.0, "step": 0.1, "round": 0.01}),
    "sampler_name": (SAMPLERS, {"tooltip": "The algorithm used when sampling."}),
    "scheduler": (SCHEDULERS, {"tooltip": "How noise is removed over the steps."}),
    "positive": ("CONDITIONING", {"tooltip": "What to include in the image."}),
    "negative": ("CONDITIONING", {"tooltip": "What to exclude from the image."}),
    "latent_image": ("LATENT", {"tooltip": "The latent image to denoise."}),
}
UPSCALERS = ["nearest-exact", "bilinear", "area", "bicubic", "bislerp"]
SEED: Spec = integer(0, 0, SEED_MAX, control_after_generate=True)

NODES = (
    Node(
        "CLIPTextEncode",
        _encode,
        TEXT,
        outputs=("CONDITIONING",),
        category="conditioning",
        display_name="CLIP Text Encode (Prompt)",
        output_tooltips=("The encoded text.",),
    ),
    Node(
        "ConditioningZeroOut",
        _zero_out,
        {"conditioning": ("CONDITIONING",)},
        outputs=("CONDITIONING",),
        category="advanced/conditioning",
    ),
    Node(
        "ConditioningCombine",
        _combine,
        {"conditioning_1": ("CONDITIONING",), "conditioning_2": ("CONDITIONING",)},
        outputs=("CONDITIONING",),
        category="conditioning",
        display_name="Conditioning (Combine)",
    ),
    Node(
        "EmptyLatentImage",
        _empty,
        {
            "width": _size(512, 8, "width"),
            "height": _size(512, 8, "height"),
            "batch_size": integer(1, 1, 4096, tooltip="The number of latent images in the batch."),
        },
        outputs=("LATENT",),
        category="latent",
        display_name="Empty Latent Image",
        output_tooltips=("The empty latent image batch.",),
    ),
    Node(
        "EmptySD3LatentImage",
        _empty,
        {
            "width": integer(1024, 16, MAX_RESOLUTION, 16),
            "height": integer(1024, 16, MAX_RESOLUTION, 16),
            "batch_size": integer(1, 1, 4096),
        },
        outputs=("LATENT",),
        category="latent/sd3",
        module="comfy_extras.nodes_sd3",
        v3=True,
    ),
    Node(
        "KSampler",
        _sample,
        {"model": ("MODEL", {"tooltip": "The model used for denoising the input latent."}), "seed": SEED}
        | dict(SAMPLING)
        | {"denoise": number(1.0, 0.0, 1.0, tooltip="How much of the initial image is replaced.")},
        outputs=("LATENT",),
        category="sampling",
        display_name="KSampler",
        description="Takes the time of sampling and decides what the decoder paints.",
        output_tooltips=("The denoised latent.",),
    ),
    Node(
        "KSamplerAdvanced",
        _sample_advanced,
        {"model": ("MODEL",), "add_noise": (["enable", "disable"],), "noise_seed": SEED}
        | dict(SAMPLING)
        | {
            "start_at_step": integer(0, 0, 10000),
            "end_at_step": integer(10000, 0, 10000),
            "return_with_leftover_noise": (["disable", "enable"],),
        },
        outputs=("LATENT",),
        category="sampling",
        display_name="KSampler (Advanced)",
    ),
    Node(
        "VAEDecode",
        _decode,
        {
            "samples": ("LATENT", {"tooltip": "The latent to be decoded."}),
            "vae": ("VAE", {"tooltip": "The VAE model used for decoding the latent."}),
        },
        outputs=("IMAGE",),
        category="latent",
        display_name="VAE Decode",
        output_tooltips=("The decoded image.",),
    ),
    Node(
        "VAEEncode",
        _encode_pixels,
        {"pixels": ("IMAGE",), "vae": ("VAE",)},
        outputs=("LATENT",),
        category="latent",
        display_name="VAE Encode",
    ),
    Node(
        "LatentUpscale",
        _upscale,
        {
            "samples": ("LATENT",),
            "upscale_method": (UPSCALERS,),
            "width": integer(512, 0, MAX_RESOLUTION, 8),
            "height": integer(512, 0, MAX_RESOLUTION, 8),
            "crop": (["disabled", "center"],),
        },
        outputs=("LATENT",),
        category="latent",
        display_name="Upscale Latent",
    ),
    Node(
        "LatentUpscaleBy",
        _upscale_by,
        {"samples": ("LATENT",), "upscale_method": (UPSCALERS,), "scale_by": number(1.5, 0.01, 8.0)},
        outputs=("LATENT",),
        category="latent",
        display_name="Upscale Latent By",
    ),
)
