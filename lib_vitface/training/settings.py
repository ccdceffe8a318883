"""Options of training: one declaration each, read by form, command line and API."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lib_vitface.options import option, same_option

DEFAULT_MINUTES = 30.0


@dataclass(frozen=True)
class TrainOptions:
    """What `train` can be asked for. Where neither `minutes` nor `steps` is given, 30 minutes are trained."""

    source: Path = option(
        help="Faceset of the person whose face is put in (made by `faceset`).", group="Input", kind="folder"
    )
    target: Path = option(help="Faceset of the person in the footage.", group="Input", kind="folder")
    model: Path = option(help="Folder of the model; an existing one is trained further.", group="Input", kind="output")
    more_sources: list[Path] = option(
        [],
        help="Further facesets of the same source person (other years, glasses, a beard), each with a code and a texture memory of "
        "its own; swap chooses by folder name; vit only.",
        group="Input",
        kind="paths",
        advanced=True,
    )
    encoder: str = option(
        "vit",
        help="vit: Vision Transformer with texture memory; saehd-df, saehd-liae: DeepFaceLab's autoencoder, the baseline.",
        group="Model",
        choices=("vit", "saehd-df", "saehd-liae"),
    )
    preset: str = option(
        "cpu",
        help="Size of the vit model: cpu learns in minutes on two cores, standard works on 256 px in patches of 16 px with 12 layers.",
        group="Model",
        choices=("cpu", "small", "standard", "large"),
    )
    base: Path | None = option(
        None,
        help="Start from this base, made by `pretrain` of the same preset, instead of from nothing; only for a new model; vit only.",
        group="Model",
        kind="file",
    )
    resolution: int | None = option(
        None,
        help="Side of the square the network works on; by default the preset's (saehd: 128). Rounded down to a multiple of 32.",
        group="Model",
        low=64,
        high=640,
        unit="px",
    )
    encoder_resolution: int | None = option(
        None,
        help="Side of the picture the ViT looks at, by default the preset's; smaller is quicker, in steps of its patches; vit only.",
        group="Model",
        low=32,
        high=640,
        unit="px",
        advanced=True,
    )
    local_features: str = option(
        "none",
        help="EfficientNet branch beside the ViT: none, or how the two are fused; vit only. "
        "No gain in a short ablation (docs: benchmark).",
        group="Model",
        choices=("none", "concat", "attention"),
    )
    clip_frames: int = option(
        1,
        help="Frames that look at each other by attention over time; 1 works on single frames; vit only. "
        "No gain in a short ablation (docs: benchmark).",
        group="Model",
        low=1,
        high=16,
    )
    memory_views: int = option(
        0,
        help="Views of each person that are fused into memory tokens which the decoder asks; 0 for none; vit only. "
        "No gain in a short ablation (docs: benchmark).",
        group="Model",
        low=0,
        high=64,
    )
    morphable: str = option(
        "none",
        help="Tell the network expression, pose and the wanted person's shape as numbers of a morphable face: film (scale and shift "
        "of features), tokens, or both; vit only. No gain in a short ablation (docs: benchmark).",
        group="Model",
        choices=("none", "film", "tokens", "both"),
    )
    renderer: bool = option(
        False,
        help="A volume of each person, rendered as the driving face is turned: its picture, features and depth go to the decoder; vit "
        "only. No gain in a short ablation (docs: benchmark).",
        group="Model",
    )
    morphable_file: Path | None = option(
        None,
        help="Take the morphable face from this file of the Basel Face Model (.mat, .h5) or FLAME (.pkl, .npz).",
        group="Model",
        kind="file",
        advanced=True,
    )
    checkpointing: bool = option(
        False,
        help="Work out the ViT's activations twice instead of keeping them: slower, less memory.",
        group="Model",
        advanced=True,
    )
    views: int = option(48, help="Views of each person that the texture memory keeps.", group="Model", low=1, high=256)
    minutes: float | None = option(
        None,
        help="Stop when the model was trained this long in all, over all runs.",
        group="Duration",
        low=0.05,
        high=100_000,
        unit="min",
    )
    steps: int | None = option(
        None, help="Stop after this many steps in all.", group="Duration", low=1, high=10_000_000
    )
    patience: int = option(
        0,
        help="Stop when the held-out loss has not improved for this many saves; 0 never stops early.",
        group="Duration",
        low=0,
        high=1000,
    )
    batch: int = option(8, help="Pictures in one step, both persons together.", group="Learning", low=2, high=256)
    learning_rate: float | None = option(
        None,
        help="Highest learning rate; by default 4e-4 for vit, 5e-5 for saehd.",
        group="Learning",
        low=1e-7,
        high=0.1,
    )
    warm_up: int = option(30, help="Steps over which the learning rate rises.", group="Learning", low=0, high=100_000)
    clip: float = option(1.0, help="Largest norm of the gradient; 0 does not clip.", group="Learning", low=0, high=1000)
    averaging: float = option(
        0.998, help="Decay of the running average of the weights that is used for swapping; 0 uses the last weights.",
        group="Learning", low=0, high=0.99999,
    )  # fmt: skip
    soup: bool = option(
        False,
        help="At the end, average last, best and backed-up weights as far as that lowers the held-out loss, for swap --weights soup.",
        group="Saving",
    )
    precision: str = option(
        "auto",
        help="auto takes what is fastest here and does no harm: bfloat16 or float32 as measured, float16 on older CUDA cards.",
        group="Learning",
        choices=("auto", "float32", "bfloat16"),
    )
    seed: int = option(0, help="Seed of weights and batches; same seed, same steps, same result on a CPU in float32.",
                       group="Learning", low=0, high=2**31 - 1)  # fmt: skip
    random_warp: float = option(
        1.0,
        help="Strength of random turns, sizes and shifts, and of the distortion of the driving face; 0 turns all off.",
        group="Augmentation",
        low=0,
        high=3,
    )
    flip: bool = option(True, help="Mirror half of the pictures.", group="Augmentation")
    color_jitter: float = option(
        1.0, help="Strength of random light and colour changes; 0 turns them off.", group="Augmentation", low=0, high=3
    )
    covers: float = option(
        0.5, help="Share of pictures with a painted cover (fingers, cards), from which the mask learns; vit only.",
        group="Augmentation", low=0, high=1,
    )  # fmt: skip
    disguise: float = option(
        0.5, help="Share of driving faces that wear the other person's looks and shape, so that looks are learned from the source's "
        "pictures alone; vit only.", group="Augmentation", low=0, high=1,
    )  # fmt: skip
    cover_shapes: str = option(
        "plain",
        help="What covers look like: plain fingers, discs and cards; objects: hands, glasses, microphones; or all.",
        group="Augmentation",
        choices=("plain", "objects", "all"),
    )
    recipe: str = option(
        "none",
        help="Changes of the driving picture by albumentations (a package of its own): camera (noise, blur, compression), light, all.",
        group="Augmentation",
        choices=("none", "camera", "light", "all"),
    )
    mask_patches: float = option(
        0.0,
        help="Share of the ViT's patches hidden from it, in half of the pictures; vit only. "
        "No gain in a short ablation (docs: benchmark).",
        group="Augmentation",
        low=0,
        high=0.9,
    )
    mask_pattern: str = option(
        "block",
        help="Which patches: random ones, blocks, or those the ViT attends to most.",
        group="Augmentation",
        choices=("random", "block", "attention"),
    )
    attention_guided: float = option(
        0.0,
        help="Share of pictures in which a region the ViT attends to, mostly eyes or mouth, is blurred or counts more; vit only. "
        "No gain in a short ablation (docs: benchmark).",
        group="Augmentation",
        low=0,
        high=1,
    )
    weight_dssim: float = option(
        10.0, help="Weight of structural dissimilarity.", group="Losses", low=0, high=100, advanced=True
    )
    weight_l1: float = option(10.0, help="Weight of the absolute difference (saehd: squared).", group="Losses", low=0, high=100,
                              advanced=True)  # fmt: skip
    weight_mask: float = option(10.0, help="Weight of the mask's squared difference.", group="Losses", low=0, high=100,
                                advanced=True)  # fmt: skip
    weight_eyes_mouth: float = option(
        5.0, help="Extra weight of eyes and mouth; vit only.", group="Losses", low=0, high=300, advanced=True
    )
    weight_edge: float = option(3.0, help="Weight of differences between edges, against blur; vit only.", group="Losses", low=0,
                                high=100, advanced=True)  # fmt: skip
    dssim_scales: int = option(
        1,
        help="Scales of the structural dissimilarity; above 1 it is multi-scale.",
        group="Losses",
        low=1,
        high=5,
        advanced=True,
    )
    weight_geometry: float = option(
        0.0, help="Weight of the distance of landmarks, read by the frozen face mesh network; vit only. "
        "No gain in a short ablation (docs: benchmark).",
        group="Losses", low=0, high=100, advanced=True,
    )  # fmt: skip
    weight_identity: float = option(
        0.0, help="Weight of identity, seen by frozen SFace (scoring uses another network); vit only. Not shown to help yet.",
        group="Losses", low=0, high=100, advanced=True,
    )  # fmt: skip
    weight_temporal: float = option(
        0.0, help="Weight of dissimilarity between neighbouring frames of a clip along their motion; needs --clip-frames above 1. "
        "No gain in a short ablation (docs: benchmark).",
        group="Losses", low=0, high=100, advanced=True,
    )  # fmt: skip
    weight_volume: float = option(
        5.0, help="Weight of the absolute difference of what the volume alone shows; only with --renderer.",
        group="Losses", low=0, high=100, advanced=True,
    )  # fmt: skip
    weight_depth: float = option(
        5.0, help="Weight of the difference between the volume's depth and that of the fitted mesh; only with --renderer.",
        group="Losses", low=0, high=100, advanced=True,
    )  # fmt: skip
    weight_gan: float = option(
        0.0, help="Weight of a patch critic that learns along (patch GAN); vit only. Not shown to help yet.",
        group="Losses", low=0, high=10, advanced=True,
    )  # fmt: skip
    save_minutes: float = option(5.0, help="Time between saves.", group="Saving", low=0.01, high=1440, unit="min")
    backup_hours: float = option(4.0, help="Time between backups that are kept; 0 keeps none.", group="Saving", low=0, high=1000,
                                 unit="h")  # fmt: skip
    preview_steps: int = option(
        200, help="Steps between pictures of progress; 0 makes none.", group="Saving", low=0, high=1_000_000
    )
    device: str = option("auto", help="auto, cpu, cuda, cuda:1, mps …", group="Device")
    processes: int = option(
        1,
        help="Processes that share each batch, one for each graphics card; on a processor, one for each group of cores. Needs the "
        "package accelerate.",
        group="Device",
        low=1,
        high=64,
        advanced=True,
    )


@dataclass(frozen=True)
class PretrainOptions:
    """A base learns from many people what holds for all of them; it holds no pictures. Only vit models have one."""

    input: Path = option(
        help="Folder with a folder for each person (VoxCeleb, your own), or pictures of a person each (FFHQ).",
        group="Input",
        kind="folder",
    )
    output: Path = option(
        help="Folder of the base, the people's facesets and the state to go on from.", group="Input", kind="folder"
    )
    licence: str = option(
        help="What allows these pictures to be learned from: the data set's licence, or whose consent. It is noted in the base and in "
        "the audit log.",
        group="Input",
    )
    people: int = option(1000, help="At most so many people are looked at.", group="Input", low=2, high=1_000_000)
    faces: int = option(40, help="Faces of each person at most.", group="Input", low=2, high=1000)
    every: int = option(5, help="Look at every n-th frame of a video only.", group="Input", low=1, high=10000)
    size: int = option(256, help="Edge length of the crops.", group="Input", low=128, high=1024, unit="px")
    at_once: int = option(
        24, help="People in memory at once; every 1000 steps others are loaded.", group="Input", low=2, high=10_000
    )
    preset: str = same_option(TrainOptions, "preset", help="Size of the model; train must ask for the same one.")
    resolution: int | None = same_option(
        TrainOptions,
        "resolution",
        help="Side of the square the network works on; by default the preset's. Rounded down to a multiple of 32.",
    )
    local_features: str = same_option(
        TrainOptions, "local_features", help="EfficientNet branch beside the ViT: none, or how the two are fused."
    )
    clip_frames: int = same_option(
        TrainOptions,
        "clip_frames",
        help="Frames that look at each other by attention over time; 1 works on single frames.",
    )
    views: int = same_option(TrainOptions, "views", default=12)
    minutes: float | None = same_option(
        TrainOptions,
        "minutes",
        help="Stop when the base was trained this long in all, over all runs; 30 where no steps are given, either.",
    )
    steps: int | None = same_option(TrainOptions, "steps")
    batch: int = same_option(TrainOptions, "batch", help="Pictures in one step.")
    learning_rate: float | None = same_option(
        TrainOptions, "learning_rate", help="Highest learning rate; by default 4e-4."
    )
    precision: str = same_option(TrainOptions, "precision")
    seed: int = same_option(TrainOptions, "seed", help="Seed of weights, batches and people.")
    save_minutes: float = same_option(TrainOptions, "save_minutes")
    device: str = same_option(TrainOptions, "device")
