"""Options of the diffusion pass over the swapped face. Light on purpose, as `settings.py`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lib_vitface.options import option

GROUP = "Diffusion"


@dataclass(frozen=True)
class DenoiseOptions:
    """A Stable Diffusion checkpoint redraws the swapped face; `denoise` 0 leaves all of it out."""

    denoise: float = option(
        0.0,
        help="Strength with which a diffusion checkpoint redraws the swapped face; 0 does not. Low values (0.1 to 0.3) keep "
        "the likeness.",
        group=GROUP,
        low=0,
        high=1,
    )
    denoise_steps: int = option(12, help="Steps that are made for each redrawn picture.", group=GROUP, low=1, high=150)
    denoise_every: int = option(
        8,
        help="Of a video one frame in so many is redrawn; what that adds is carried to those between along the motion.",
        group=GROUP,
        low=1,
        high=32,
        unit="frames",
    )
    denoise_light: float = option(
        0.0,
        help="How much of the checkpoint's own light and colour is taken as well; 0 takes only what is fine: texture and "
        "sharpness.",
        group=GROUP,
        low=0,
        high=1,
    )
    denoise_prompt: str = option(
        "{prompt}, {view} of a face, skin texture",
        help="What to draw. {prompt} is the prompt of the picture being generated (nothing elsewhere), {view} the direction "
        "the face is seen from.",
        group=GROUP,
    )
    denoise_negative: str = option(
        "{negative}, blurry, deformed",
        help="What not to draw. {negative} is the negative prompt of the picture being generated.",
        group=GROUP,
    )
    denoise_checkpoint: Path | None = option(
        None,
        help="Checkpoint: a .safetensors file or a folder as diffusers has it. Inside the WebUI the loaded one is used where "
        "this is empty.",
        group=GROUP,
        kind="path",
    )

    denoise_seed: int = option(
        1,
        help="Seed of that pass; one noise, fixed to the face, is used for all frames.",
        group=GROUP,
        low=0,
        high=2**31 - 1,
        advanced=True,
    )
    denoise_sampler: str = option(
        "auto",
        help="Sampler by its usual name, such as Euler or DPM++ 2M; auto takes that of the picture or of the checkpoint.",
        group=GROUP,
        advanced=True,
    )
    denoise_schedule: str = option(
        "auto",
        help="How the steps are spread, such as Karras; auto leaves it to the sampler.",
        group=GROUP,
        advanced=True,
    )
    denoise_guidance: float = option(
        5.0, help="How closely the prompt is followed (CFG scale).", group=GROUP, low=1, high=30, advanced=True
    )
    denoise_size: int = option(
        512,
        help="Side of the square that is redrawn, in a multiple of 64; what suits the checkpoint.",
        group=GROUP,
        low=64,
        high=2048,
        unit="px",
        advanced=True,
    )
    denoise_padding: float = option(
        25.0,
        help="Room about the face in that square, on each side, as part of the face's height.",
        group=GROUP,
        low=5,
        high=150,
        unit="%",
        advanced=True,
    )
    denoise_carry: float = option(
        0.5,
        help="How much of the texture a redrawn frame keeps from the redrawn frame before it; 0 draws each anew.",
        group=GROUP,
        low=0,
        high=0.9,
        advanced=True,
    )
    denoise_batch: int = option(
        1,
        help="Redrawn frames of a video that are drawn together: quicker on a GPU, for more memory. All of them start from the "
        "last one before.",
        group=GROUP,
        low=1,
        high=16,
        unit="frames",
        advanced=True,
    )
    denoise_attention: bool = option(
        False,
        help="Frames that are drawn together also look at the first of them (cross-frame attention), so that they are more "
        "alike. Needs two or more together and a checkpoint with a U-Net.",
        group=GROUP,
        advanced=True,
    )
    denoise_likeness: float = option(
        0.8,
        help="A frame whose face is less alike (cosine) to itself before the pass keeps less of the pass; 0 does not ask.",
        group=GROUP,
        low=0,
        high=0.99,
        advanced=True,
    )
    denoise_drift: float = option(
        4.0,
        help="Likewise for landmarks that move, in parts of the distance between the eyes; 100 does not ask.",
        group=GROUP,
        low=0.1,
        high=100,
        unit="%",
        advanced=True,
    )
    denoise_control: str = option(
        "none",
        help="Inside the WebUI with the ControlNet extension: what holds the drawing to the face: the picture (tile), the "
        "depth of its mesh, or its landmarks (face).",
        group=GROUP,
        choices=("none", "tile", "depth", "face"),
        advanced=True,
    )
    denoise_config: Path | None = option(
        None,
        help="For a checkpoint in one file: a folder with the configuration and tokenizer of its kind, as diffusers has it.",
        group=GROUP,
        kind="folder",
        advanced=True,
    )
    denoise_offline: bool = option(
        True,
        help="Do not fetch configuration and tokenizer from the internet.",
        group=GROUP,
        advanced=True,
    )
