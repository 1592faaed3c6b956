"""Prompts for the tests, in API form."""

from typing import Any

Graph = dict[str, Any]


def node(kind: str, **inputs: Any) -> Graph:
    """One node."""
    return {"class_type": kind, "inputs": inputs}


def default_graph(text: str = "a campfire at night", seed: int = 42, size: int = 64, steps: int = 8) -> Graph:
    """The default graph of comfyui-frontend-package 1.58.1, smaller."""
    return {
        "62": node("CLIPLoader", clip_name="qwen_3_4b.safetensors", type="lumina2", device="default"),
        "63": node("VAELoader", vae_name="ae.safetensors"),
        "66": node("UNETLoader", unet_name="z_image_turbo_bf16.safetensors", weight_dtype="default"),
        "67": node("CLIPTextEncode", text=text, clip=["62", 0]),
        "71": node("CLIPTextEncode", text="low quality", clip=["62", 0]),
        "68": node("EmptySD3LatentImage", width=size, height=size, batch_size=1),
        "69": node("ModelSamplingAuraFlow", model=["66", 0], shift=3),
        "70": node(
            "KSampler",
            model=["69", 0],
            seed=seed,
            steps=steps,
            cfg=1,
            sampler_name="res_multistep",
            scheduler="simple",
            positive=["67", 0],
            negative=["71", 0],
            latent_image=["68", 0],
            denoise=1,
        ),
        "65": node("VAEDecode", samples=["70", 0], vae=["63", 0]),
        "9": node("SaveImage", images=["65", 0], filename_prefix="ComfyUI"),
    }


def classic_graph(text: str = "a bottle", seed: int = 1, batch: int = 1, steps: int = 3) -> Graph:
    """The older default graph, of SD 1.5, with a LoRA."""
    return {
        "4": node("CheckpointLoaderSimple", ckpt_name="v1-5-pruned-emaonly-fp16.safetensors"),
        "10": node(
            "LoraLoader",
            model=["4", 0],
            clip=["4", 1],
            lora_name="pixel_art_example.safetensors",
            strength_model=1,
            strength_clip=1,
        ),
        "5": node("EmptyLatentImage", width=64, height=48, batch_size=batch),
        "6": node("CLIPTextEncode", text=text, clip=["10", 1]),
        "7": node("CLIPTextEncode", text="", clip=["10", 1]),
        "3": node(
            "KSampler",
            model=["10", 0],
            seed=seed,
            steps=steps,
            cfg=8,
            sampler_name="euler",
            scheduler="normal",
            positive=["6", 0],
            negative=["7", 0],
            latent_image=["5", 0],
            denoise=1,
        ),
        "8": node("VAEDecode", samples=["3", 0], vae=["4", 2]),
        "9": node("SaveImage", images=["8", 0], filename_prefix="classic"),
    }


def image_graph(color: int = 0xFF0000, prefix: str = "ComfyUI") -> Graph:
    """No model: any ComfyUI can run it."""
    return {
        "1": node("EmptyImage", width=32, height=24, batch_size=1, color=color),
        "2": node("SaveImage", images=["1", 0], filename_prefix=prefix),
    }
