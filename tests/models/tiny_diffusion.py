"""Writes a tiny random Stable Diffusion checkpoint: a folder as diffusers saves one, and the same weights in one file.

    python tests/models/tiny_diffusion.py FOLDER

What it draws is noise; it is there so that everything around the drawing can be tried. The one file has the names of the ldm
layout (the reference implementation's), which the files that are passed around have.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

TEXT, WIDTH = 32, 32


def make(folder: Path) -> Any:
    """The pipeline, saved in `folder / "diffusers"` and as `folder / "single.safetensors"`."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from safetensors.torch import save_file
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=32, in_channels=4, out_channels=4, block_out_channels=(WIDTH, 2 * WIDTH), layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=TEXT, attention_head_dim=4,
    )  # fmt: skip
    vae = AutoencoderKL(
        in_channels=3, out_channels=3, block_out_channels=(WIDTH,) * 4, layers_per_block=1, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    text = CLIPTextModel(
        CLIPTextConfig(
            hidden_size=TEXT, intermediate_size=2 * TEXT, num_hidden_layers=2, num_attention_heads=2,
            projection_dim=TEXT, vocab_size=len(write_tokenizer(folder / "words")), eos_token_id=1, bos_token_id=0,
        )
    )  # fmt: skip
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1,
    )  # fmt: skip
    pipeline = StableDiffusionPipeline(
        vae, text, tokenizer_of(folder / "words"), unet, scheduler, None, None, requires_safety_checker=False
    )
    pipeline.save_pretrained(folder / "diffusers")
    save_file(ldm_names(unet.state_dict(), vae.state_dict(), text.state_dict()), str(folder / "single.safetensors"))
    return pipeline


def write_tokenizer(folder: Path) -> dict[str, int]:
    """Single letters are the words; returns them by number."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = [chr(c) for c in range(33, 127)]
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(letter + "</w>" for letter in letters)]
    vocabulary = {word: number for number, word in enumerate(words)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    return vocabulary


def tokenizer_of(folder: Path) -> Any:
    from transformers import CLIPTokenizer

    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77)


_RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
_ENDS = {
    "conv_in": "input_blocks.0.0", "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0", "conv_out": "out.2",
}  # fmt: skip
_MIDDLE = {"resnets.0": "0", "attentions.0": "1", "resnets.1": "2"}


def unet_name(name: str) -> str:
    """For one layer a block: two places a block on the way down, two on the way up."""
    for ours, theirs in _ENDS.items():
        if name.startswith(ours + "."):
            return theirs + name[len(ours) :]
    if name.startswith("mid_block."):
        part = ".".join(name.split(".")[1:3])
        return f"middle_block.{_MIDDLE[part]}." + inner(name.split(".", 3)[3], "resnets" in part)
    way, block, kind, layer, rest = re.match(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.+)", name).groups()  # type: ignore[union-attr]
    at, number = int(block), int(layer)
    if kind == "downsamplers":
        return f"input_blocks.{2 * (at + 1)}.0.op." + rest.removeprefix("conv.")
    if kind == "upsamplers":
        return f"output_blocks.{2 * at + 1}.1." + rest
    place = 2 * at + number + 1 if way == "down" else 2 * at + number
    return f"{'in' if way == 'down' else 'out'}put_blocks.{place}.{int(kind == 'attentions')}." + inner(
        rest, kind == "resnets"
    )


def inner(rest: str, is_resnet: bool) -> str:
    if not is_resnet:
        return rest
    part, _, end = rest.partition(".")
    return f"{_RESNET[part]}.{end}"


def vae_name(name: str) -> str:
    name = re.sub(r"down_blocks\.(\d)\.resnets\.", r"down.\1.block.", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d)\.resnets\.", lambda m: f"up.{3 - int(m[1])}.block.", name)
    name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{3 - int(m[1])}.upsample", name)
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    name = name.replace("mid_block.attentions.0", "mid.attn_1").replace("conv_norm_out", "norm_out")
    name = name.replace("conv_shortcut", "nin_shortcut").replace("group_norm", "norm")
    return re.sub(r"\.to_(q|k|v)\.", r".\1.", name).replace(".to_out.0.", ".proj_out.")


def ldm_names(unet: Any, vae: Any, text: Any) -> dict[str, Any]:
    """The three parts' weights in one dictionary."""
    found = {"model.diffusion_model." + unet_name(name): value.contiguous() for name, value in unet.items()}
    for name, value in vae.items():
        new = vae_name(name)
        if ".attn_1." in new and new.endswith("weight") and value.ndim == 2:
            value = value[:, :, None, None]
        found["first_stage_model." + new] = value.contiguous()
    prefix = "cond_stage_model.transformer."
    for name, value in text.items():
        found[prefix + (name if name.startswith("text_model.") else "text_model." + name)] = value.contiguous()
    return found


if __name__ == "__main__":
    make(Path(sys.argv[1]))
