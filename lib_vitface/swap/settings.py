"""Options of the swap task. Light on purpose: `--help` reads this and nothing else of the sub-package."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lib_vitface.options import option
from lib_vitface.swap.denoise_settings import DenoiseOptions

_FILES = "Files"
_FACE = "Which face"
_LOOK = "Colour and sharpness"
_SEAM = "Mask and seam"
_LIMITS = "Where not to swap"
_VIDEO = "Video"
_RUN = "Running"

FACES = ("largest", "leftmost", "rightmost", "index", "picture")
COLORS = ("rct", "lct", "mkl", "idt", "sot", "hist", "none")
MASKS = ("both", "learned", "hull")
BLENDS = ("alpha", "multiband", "poisson", "raw")
CODECS = ("auto", "h264", "h265", "vp9", "av1", "prores", "ffv1", "gif", "images")
BACKENDS = ("auto", "torch", "onnx", "openvino")
SPEEDS = ("fast", "medium", "slow")


@dataclass(frozen=True)
class PlainSwapOptions:
    """The swap without the diffusion pass."""

    model: Path = option(help="Folder of the trained model.", group=_FILES, kind="folder")
    input: Path = option(help="Video, picture, or folder of pictures to change.", group=_FILES, kind="path")
    output: Path = option(
        help="File to write; for a folder of pictures, the folder to write them to.", group=_FILES, kind="output"
    )
    overwrite: bool = option(False, help="Replace the output if it is there already.", group=_FILES)

    weights: str = option(
        "last",
        help="Which weights of the model: last, best by the loss on held-out frames, or averaged (train --soup).",
        group=_FILES,
        choices=("last", "best", "soup"),
        advanced=True,
    )
    also: list[Path] = option(
        [],
        help="Further models of the same person under the same consent record; all draw together, each weighted by how small its "
        "error on held-out frames is.",
        group=_FILES,
        kind="paths",
        advanced=True,
    )
    reference: str = option(
        "",
        help="Which faceset of the source to draw, by its folder's name, for models trained with --more-sources; else the first.",
        group=_FILES,
        advanced=True,
    )
    references: list[Path] = option(
        [],
        help="Further clips, photos or facesets of the source, for models trained with --memory-views; nothing is trained again.",
        group=_FILES,
        kind="paths",
        advanced=True,
    )
    network_size: int | None = option(
        None,
        help="Side of the square the network works on, if not that of its training; vit only. Rounded down to a multiple of 32.",
        group=_FILES,
        low=64,
        high=640,
        unit="px",
        advanced=True,
    )

    face: str = option(
        "largest",
        help="The person to replace, as seen over the whole video: who is largest, furthest left or right, at a place "
        "counted from the left (--face-index), or who is on a picture (--face-picture).",
        group=_FACE,
        choices=FACES,
    )
    face_index: int = option(
        0, help="With --face index: the place counted from the left, beginning with 0.", group=_FACE, low=0, high=99
    )
    face_picture: Path | None = option(
        None, help="With --face picture: a picture of the person to replace.", group=_FACE, kind="file"
    )
    likeness: float = option(
        0.363,
        help="How alike (cosine) faces must be to count as one person; higher is stricter.",
        group=_FACE,
        low=0,
        high=1,
        advanced=True,
    )
    detector: str = option(
        "auto",
        help="Face detector: auto is yunet; blazeface sees near faces only; insightface and facexlib are packages of their own.",
        group=_FACE,
        choices=("auto", "yunet", "blazeface", "insightface", "facexlib"),
        advanced=True,
    )

    shape: float = option(
        0.0,
        help="How far the new face takes the source's own proportions, within the footage's outline; 0 keeps the footage's; vit only.",
        group=_LOOK,
        low=0,
        high=1,
    )
    color: str = option(
        "rct",
        help="Colour transfer towards the footage: rct (mean and spread), lct and mkl (linear), idt and sot (full "
        "distribution, slow), hist (per channel), none.",
        group=_LOOK,
        choices=COLORS,
    )
    color_frames: int = option(
        8,
        help="Colours are measured over so many frames before and after, against flicker.",
        group=_LOOK,
        low=0,
        high=60,
        unit="frames",
        advanced=True,
    )
    relight: float = option(
        0.7,
        help="How much of the footage's light, where it changes slowly over the face, the new face takes; 0 keeps its own.",
        group=_LOOK,
        low=0,
        high=1,
    )
    sharpen: float = option(0.0, help="Unsharp mask on the new face.", group=_LOOK, low=0, high=3)
    motion_blur: float = option(
        0.0,
        help="Blur along the movement of the face; 0.5 is what a usual shutter gives, 1 a shutter that is always open.",
        group=_LOOK,
        low=0,
        high=1,
    )
    opacity: float = option(1.0, help="Strength of the swap; 0 leaves the footage.", group=_LOOK, low=0, high=1)
    smooth: int = option(
        8,
        help="The face's outline is smoothed over at most so many frames before and after, against jitter.",
        group=_LOOK,
        low=0,
        high=30,
        unit="frames",
        advanced=True,
    )

    mask: str = option(
        "both",
        help="What of the crop is shown: where the learned mask and the outline of the face both agree, the learned mask "
        "alone (that of saehd may reach beyond the outline), or the outline alone (hull).",
        group=_SEAM,
        choices=MASKS,
    )
    erode: float = option(
        2.0,
        help="Shrink the mask by this part of the face's height; negative grows it.",
        group=_SEAM,
        low=-50,
        high=50,
        unit="%",
    )
    feather: float = option(
        8.0, help="Width of the soft edge, as part of the face's height.", group=_SEAM, low=0, high=50, unit="%"
    )
    blend: str = option(
        "multiband",
        help="How the seam is closed: alpha (weighted mean), multiband (wide for colour, narrow for detail), poisson "
        "(takes its light from around the seam), raw (the whole square, no mask).",
        group=_SEAM,
        choices=BLENDS,
    )
    occlusion: bool = option(
        True,
        help="Keep hands, hair and things before the face; if not, the outline alone says what is replaced.",
        group=_SEAM,
    )

    max_yaw_deg: float = option(
        75.0,
        help="Fade the swap out before the head turns further than this.",
        group=_LIMITS,
        low=10,
        high=120,
        unit="degrees",
    )
    max_pitch_deg: float = option(
        55.0,
        help="Fade the swap out before the head nods further than this.",
        group=_LIMITS,
        low=10,
        high=90,
        unit="degrees",
        advanced=True,
    )
    min_face_px: int = option(
        24,
        help="Leave faces narrower than this in the frame.",
        group=_LIMITS,
        low=8,
        high=4096,
        unit="px",
        advanced=True,
    )
    fade_frames: int = option(
        5,
        help="Frames over which the swap comes and goes where a face appears or turns away.",
        group=_LIMITS,
        low=1,
        high=60,
        unit="frames",
        advanced=True,
    )

    start_s: float | None = option(None, help="Leave out what comes before this time.", group=_VIDEO, low=0, unit="s")
    end_s: float | None = option(None, help="Leave out what comes after this time.", group=_VIDEO, low=0, unit="s")
    label: bool = option(
        True, help="Write into a corner of the video, away from faces, that the face is synthetic.", group=_VIDEO
    )
    label_reason: str = option(
        "", help="Without the label: why. It goes into the file's statement and into the audit log.", group=_VIDEO
    )
    codec: str = option(
        "auto", help="Video codec of the output; auto takes what suits its suffix.", group=_VIDEO, choices=CODECS
    )
    quality: int | None = option(
        None,
        help="Constant quality of the encoder, smaller is better (H.264 and H.265 up to 51, VP9 and AV1 up to 63); for "
        "pictures 1 to 100, larger is better. Left out: looks like the original.",
        group=_VIDEO,
        low=0,
        high=100,
    )
    encode_speed: str = option(
        "medium", help="A slow encoder makes smaller files.", group=_VIDEO, choices=SPEEDS, advanced=True
    )

    chunk_frames: int = option(
        120,
        help="Work is saved after so many frames; what a killed run loses at most.",
        group=_RUN,
        low=8,
        high=10000,
        unit="frames",
        advanced=True,
    )
    resume: bool = option(True, help="Go on with the same work where it was interrupted.", group=_RUN)
    workers: int = option(
        1,
        help="Processes, here or on other machines, that share the chunks of a video. Above 1 it needs the package ray.",
        group=_RUN,
        low=1,
        high=256,
        advanced=True,
    )
    device: str = option("auto", help="Device that runs the model: auto, cpu, cuda, cuda:1, mps.", group=_RUN)
    backend: str = option(
        "auto",
        help="Engine that runs the model: torch for a trained model; onnx (ONNX Runtime) or openvino for an exported one; auto "
        "takes what suits the folder and is installed.",
        group=_RUN,
        choices=BACKENDS,
        advanced=True,
    )


@dataclass(frozen=True)
class SwapOptions(DenoiseOptions, PlainSwapOptions):
    """Put a trained face into a video, a picture, or a folder of pictures."""
