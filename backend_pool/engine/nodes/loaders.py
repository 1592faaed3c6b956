"""Loader and model-patch nodes: they pass on names; a model becomes resident when something is done with it."""

from backend_pool.engine.job import Job
from backend_pool.engine.nodes.registry import Inputs, Node, Shelf, number
from backend_pool.engine.nodes.values import ModelRef

DTYPES = ["default", "fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2"]
CLIP_TYPES = [
    "stable_diffusion",
    "stable_cascade",
    "sd3",
    "stable_audio",
    "mochi",
    "ltxv",
    "pixart",
    "cosmos",
    "lumina2",
    "wan",
    "hidream",
    "chroma",
    "ace",
    "omnigen2",
    "qwen_image",
    "hunyuan_image",
    "flux2",
    "ovis",
]
DUAL_CLIP_TYPES = [
    "sdxl",
    "sd3",
    "flux",
    "hunyuan_video",
    "hidream",
    "hunyuan_image",
    "hunyuan_video_15",
    "kandinsky5",
    "kandinsky5_image",
    "ltxv",
    "newbie",
]
DEVICE: Inputs = {"device": (["default", "cpu"], {"advanced": True})}


def _checkpoint(_job: Job, ckpt_name: str) -> tuple[ModelRef, ModelRef, ModelRef]:
    model = ModelRef("checkpoints", ckpt_name)
    return model, model, model


def _unet(_job: Job, unet_name: str, weight_dtype: str) -> tuple[ModelRef]:
    return (ModelRef("diffusion_models", unet_name, () if weight_dtype == "default" else (weight_dtype,)),)


def _clip(_job: Job, clip_name: str, type: str = "", device: str = "default") -> tuple[ModelRef]:  # noqa: A002
    return (ModelRef("text_encoders", clip_name),)


def _dual_clip(
    _job: Job,
    clip_name1: str,
    clip_name2: str,
    type: str = "",  # noqa: A002 - ComfyUI's input name
    device: str = "default",
) -> tuple[ModelRef]:
    return (ModelRef("text_encoders", clip_name1, (clip_name2,)),)


def _vae(_job: Job, vae_name: str) -> tuple[ModelRef]:
    return (ModelRef("vae", vae_name),)


def _lora(
    _job: Job, model: ModelRef, clip: ModelRef, lora_name: str, strength_model: float, strength_clip: float
) -> tuple[ModelRef, ModelRef]:
    return _changed(model, lora_name, strength_model), _changed(clip, lora_name, strength_clip)


def _lora_model(_job: Job, model: ModelRef, lora_name: str, strength_model: float) -> tuple[ModelRef]:
    return (_changed(model, lora_name, strength_model),)


def _shift(_job: Job, model: ModelRef, shift: float) -> tuple[ModelRef]:
    return (_changed(model, "shift", shift),)


def _last_layer(_job: Job, clip: ModelRef, stop_at_clip_layer: int) -> tuple[ModelRef]:
    return (_changed(clip, "layer", stop_at_clip_layer),)


def _changed(model: ModelRef, what: str, strength: float) -> ModelRef:
    if strength == 0:
        return model
    return ModelRef(model.folder, model.name, (*model.changes, f"{what}={strength:g}"))


def _vaes(shelf: Shelf) -> list[str]:
    return [*shelf.models("vae"), "pixel_space"]


STRENGTH = number(1.0, -100.0, 100.0)
NODES = (
    Node(
        "CheckpointLoaderSimple",
        _checkpoint,
        {
            "ckpt_name": (
                lambda shelf: shelf.models("checkpoints"),
                {"tooltip": "The name of the checkpoint (model) to load."},
            )
        },
        outputs=("MODEL", "CLIP", "VAE"),
        category="loaders",
        display_name="Load Checkpoint",
        description="Offers a checkpoint; nothing is read from it by the embedded engine.",
        output_tooltips=("The model.", "The text encoder.", "The VAE."),
    ),
    Node(
        "UNETLoader",
        _unet,
        {"unet_name": (lambda shelf: shelf.models("diffusion_models"),), "weight_dtype": (DTYPES,)},
        outputs=("MODEL",),
        category="advanced/loaders",
        display_name="Load Diffusion Model",
    ),
    Node(
        "CLIPLoader",
        _clip,
        {"clip_name": (lambda shelf: shelf.models("text_encoders"),), "type": (CLIP_TYPES,)},
        DEVICE,
        outputs=("CLIP",),
        category="advanced/loaders",
        display_name="Load CLIP",
    ),
    Node(
        "DualCLIPLoader",
        _dual_clip,
        {
            "clip_name1": (lambda shelf: shelf.models("text_encoders"),),
            "clip_name2": (lambda shelf: shelf.models("text_encoders"),),
            "type": (DUAL_CLIP_TYPES,),
        },
        DEVICE,
        outputs=("CLIP",),
        category="advanced/loaders",
    ),
    Node(
        "VAELoader",
        _vae,
        {"vae_name": (_vaes,)},
        outputs=("VAE",),
        category="loaders",
        display_name="Load VAE",
    ),
    Node(
        "LoraLoader",
        _lora,
        {
            "model": ("MODEL", {"tooltip": "The diffusion model the LoRA will be applied to."}),
            "clip": ("CLIP", {"tooltip": "The CLIP model the LoRA will be applied to."}),
            "lora_name": (lambda shelf: shelf.models("loras"), {"tooltip": "The name of the LoRA."}),
            "strength_model": STRENGTH,
            "strength_clip": STRENGTH,
        },
        outputs=("MODEL", "CLIP"),
        category="loaders",
        display_name="Load LoRA",
    ),
    Node(
        "LoraLoaderModelOnly",
        _lora_model,
        {
            "model": ("MODEL",),
            "lora_name": (lambda shelf: shelf.models("loras"),),
            "strength_model": STRENGTH,
        },
        outputs=("MODEL",),
        category="loaders",
    ),
    Node(
        "ModelSamplingAuraFlow",
        _shift,
        {"model": ("MODEL",), "shift": number(1.73, 0.0, 100.0)},
        outputs=("MODEL",),
        category="advanced/model",
        module="comfy_extras.nodes_model_advanced",
    ),
    Node(
        "ModelSamplingSD3",
        _shift,
        {"model": ("MODEL",), "shift": number(3.0, 0.0, 100.0)},
        outputs=("MODEL",),
        category="advanced/model",
        module="comfy_extras.nodes_model_advanced",
    ),
    Node(
        "CLIPSetLastLayer",
        _last_layer,
        {"clip": ("CLIP",), "stop_at_clip_layer": ("INT", {"default": -1, "min": -24, "max": -1, "step": 1})},
        outputs=("CLIP",),
        category="conditioning",
        display_name="CLIP Set Last Layer",
    ),
)
