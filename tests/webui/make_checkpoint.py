"""Writes a tiny random checkpoint of the SD 1.5 layout, so that a real WebUI can generate pictures in seconds on a CPU.

    python tests/webui/make_checkpoint.py WEBUI_DIR

Run it with the Python of that WebUI's environment: the layer names come from the libraries the WebUI brings. Writes
`models/Stable-diffusion/tiny.safetensors` and `tiny.yaml` below WEBUI_DIR and `models/tiny-clip` for the text encoder. What
it paints is noise; it is there so that everything around the painting can be tried.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from pathlib import Path
from typing import Any

WIDTH = 32  # GroupNorm wants multiples of 32
TEXT = 64  # width of the text encoder

UNET = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": WIDTH,
    "attention_resolutions": [4, 2, 1],
    "num_res_blocks": 1,
    "channel_mult": [1, 2],
    "num_heads": 4,
    "use_spatial_transformer": True,
    "transformer_depth": 1,
    "context_dim": TEXT,
    "use_checkpoint": False,
    "legacy": False,
}
VAE = {
    "double_z": True,
    "z_channels": 4,
    "resolution": 256,
    "in_channels": 3,
    "out_ch": 3,
    "ch": WIDTH,
    "ch_mult": [1, 1, 1, 1],
    "num_res_blocks": 1,
    "attn_resolutions": [],
    "dropout": 0.0,
}


def config(clip: Path) -> dict[str, Any]:
    """The model's yaml, as a value."""
    diffusion = {
        "linear_start": 0.00085, "linear_end": 0.012, "num_timesteps_cond": 1, "log_every_t": 200, "timesteps": 1000,
        "first_stage_key": "jpg", "cond_stage_key": "txt", "image_size": 64, "channels": 4, "cond_stage_trainable": False,
        "conditioning_key": "crossattn", "monitor": "val/loss_simple_ema", "scale_factor": 0.18215, "use_ema": False,
    }  # fmt: skip
    autoencoder = {
        "embed_dim": 4,
        "monitor": "val/rec_loss",
        "ddconfig": VAE,
        "lossconfig": {"target": "torch.nn.Identity"},
    }
    return {
        "model": {
            "target": "ldm.models.diffusion.ddpm.LatentDiffusion",
            "params": {
                **diffusion,
                "unet_config": {"target": "ldm.modules.diffusionmodules.openaimodel.UNetModel", "params": UNET},
                "first_stage_config": {"target": "ldm.models.autoencoder.AutoencoderKL", "params": autoencoder},
                "cond_stage_config": {
                    "target": "ldm.modules.encoders.modules.FrozenCLIPEmbedder",
                    "params": {"version": str(clip), "device": "cpu"},
                },
            },
        }
    }


def write_text_encoder(folder: Path) -> None:
    """A CLIP text encoder of two narrow layers with the usual vocabulary (which the `clip` package brings)."""
    import clip
    from transformers import CLIPTextConfig, CLIPTextModel

    folder.mkdir(parents=True, exist_ok=True)
    table = gzip.decompress((Path(clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz").read_bytes()).decode("utf-8")
    merges = table.split("\n")[1 : 49152 - 256 - 2 + 1]
    letters = list(clip.simple_tokenizer.bytes_to_unicode().values())
    vocabulary = letters + [letter + "</w>" for letter in letters] + ["".join(m.split()) for m in merges]
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(vocabulary)}), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges), encoding="utf-8")
    settings = CLIPTextConfig(
        hidden_size=TEXT, intermediate_size=2 * TEXT, num_hidden_layers=2, num_attention_heads=4, projection_dim=TEXT
    )
    CLIPTextModel(settings).save_pretrained(folder)
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    kind = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "pad_token": "<|endoftext|>", **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(kind), encoding="utf-8")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("webui", type=Path)
    webui = parser.parse_args(arguments).webui.resolve()
    for part in ("repositories/stable-diffusion-stability-ai", "repositories/generative-models"):
        sys.path.insert(0, str(webui / part))
    import torch
    from ldm.util import instantiate_from_config
    from omegaconf import OmegaConf
    from safetensors.torch import save_file

    torch.manual_seed(0)
    clip = webui / "models" / "tiny-clip"
    write_text_encoder(clip)
    folder = webui / "models" / "Stable-diffusion"
    folder.mkdir(parents=True, exist_ok=True)
    settings = OmegaConf.create(config(clip))
    OmegaConf.save(settings, folder / "tiny.yaml")
    model = instantiate_from_config(settings.model)
    state = {name: value.contiguous().clone() for name, value in model.state_dict().items()}
    for name, value in state.items():  # layers that begin at nothing would hide what comes before them
        if name.startswith("model.diffusion_model.") and value.ndim > 1 and not value.any():
            value.normal_(0, 0.05)
    save_file(state, str(folder / "tiny.safetensors"))
    print(f"{folder / 'tiny.safetensors'}: {sum(v.numel() for v in state.values()) / 1e6:.1f} million numbers")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
