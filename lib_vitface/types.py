"""Values that flow between the parts, and the one-method protocols of what can be plugged in.

Images are RGB uint8 `[H, W, 3]`. Points are `(x, y)` in pixels, x right and y down, pixel centres at
integer coordinates. Matrices are named `a_to_b` and are 2x3 affine float64: `b = M @ [a_x, a_y, 1]`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

Image = NDArray[np.uint8]
Mask = NDArray[np.float32]
Floats = NDArray[np.float32]
Matrix = NDArray[np.float64]


class Pose(NamedTuple):
    """Head rotation in degrees. Zero looks into the camera.

    `yaw_deg` > 0: the face turns to the viewer's right; `pitch_deg` > 0: the face looks up;
    `roll_deg` > 0: the head leans clockwise as seen by the viewer.
    """

    yaw_deg: float
    pitch_deg: float
    roll_deg: float


@dataclass(frozen=True)
class Face:
    """One face in one frame, in frame pixels. A stage that learns more returns `replace(face, ...)`."""

    box: Floats  # [4] x0, y0, x1, y1
    score: float  # detector confidence, 0..1
    points: Floats  # [5, 2] right eye, left eye (as the viewer sees: left one first), nose tip, mouth corners likewise
    landmarks: Floats | None = None  # [468, 3] face-mesh points; z in pixels, towards the viewer is negative
    presence: float | None = None  # 0..1, the landmark model's own confidence that a face is there
    pose: Pose | None = None
    embedding: Floats | None = None  # [D] unit length
    track: int | None = None
    iris: Floats | None = None  # [2, 2] centres of the irises, viewer's left first; NaN where the eye turns away


@dataclass(frozen=True)
class Crop:
    """An upright square picture cut out of a frame. `frame_to_crop` is 2x3."""

    image: Image
    frame_to_crop: Matrix


@dataclass(frozen=True)
class Frame:
    """One picture of a video. `time` is its presentation time in seconds from the start of the video."""

    index: int
    time: Fraction
    image: Image
    alpha: Image | None = None  # [H, W] opacity where the source has it; `replace(frame, image=...)` keeps it


@dataclass(frozen=True)
class VideoInfo:
    """What a video says of itself, after its rotation was applied (width and height are as shown)."""

    path: Path
    width: int
    height: int
    fps: Fraction  # mean rate
    frame_count: int | None  # None where the container does not know
    duration: Fraction  # seconds
    rotation_deg: int
    codec: str
    pixel_format: str
    bit_depth: int
    has_alpha: bool
    color_range: int
    color_space: int
    color_primaries: int
    color_transfer: int
    audio_codecs: tuple[str, ...] = field(default=())
    time_base: Fraction = Fraction(1, 90000)  # every frame time is a whole multiple of it
    sample_aspect: Fraction = Fraction(1)  # width of a pixel as shown, divided by its height


@dataclass(frozen=True)
class Batch:
    """What a swapper reads. `B` clips of `T` frames; colours and masks 0..1; all float32.

    `image` [B, T, 3, H, W] the face that drives (pose, expression, light);
    `reference` [B, T, 3, H, W] the wanted person's own pixels, drawn on the driving geometry;
    `reference_mask` [B, T, 1, H, W] how far `reference` can be trusted;
    `own_reference` [B, T, 3, H, W] the driving person's own pixels on the same geometry (what an uncovered face looks like);
    `geometry` [B, T, 2, H, W] where the eye and mouth openings are;
    `identity` [B] int64, 0 = source (the face that is put in), 1 = target, 2 and up = further facesets of the source.

    For models with the parts that read them, else None:
    `times` [B, T] seconds, when each frame is shown; by default 1/25 apart;
    `masked` [B, T, patches] bool, patches of `image` that the encoders may not see;
    `coefficients` [B, T, K] of a morphable face: expression, angles, and the wanted person's shape (see `faceset.morphable`);
    `picture_to_face` [B, T, 3, 4] from the crop into face space (see `faces.align.picture_to_face`);
    `views` [P, V, 3, H, W] pictures of all persons from several sides, or `memory` [P, K, C] what was made of them.
    """

    image: torch.Tensor
    reference: torch.Tensor
    reference_mask: torch.Tensor
    own_reference: torch.Tensor
    geometry: torch.Tensor
    identity: torch.Tensor
    times: torch.Tensor | None = None
    masked: torch.Tensor | None = None
    views: torch.Tensor | None = None
    memory: torch.Tensor | None = None
    coefficients: torch.Tensor | None = None
    picture_to_face: torch.Tensor | None = None


@dataclass(frozen=True)
class SwapperOutput:
    """`image` [B, T, 3, H, W] in 0..1 and `mask` [B, T, 1, H, W] in 0..1; of a model with a volume also what that alone shows,
    `volume` [B, T, 3, v, v] 0..1, and its `depth` [B, T, 1, v, v] (picture z, see `models.renderer`)."""

    image: torch.Tensor
    mask: torch.Tensor
    volume: torch.Tensor | None = None
    depth: torch.Tensor | None = None


class Tick(Protocol):
    """Progress and cancelling at once: raises `Cancelled` when the person asked to stop."""

    def __call__(self, done: float, total: float, note: str = "") -> None: ...


class Detector(Protocol):
    """Finds faces: box, score and five points, best score first."""

    def __call__(self, image: Image) -> list[Face]: ...


class Landmarker(Protocol):
    """Adds dense landmarks, presence and pose to a face."""

    def __call__(self, image: Image, face: Face) -> Face: ...


class Embedder(Protocol):
    """Unit-length identity vector `[D]` of a face (uses `face.points`)."""

    def __call__(self, image: Image, face: Face) -> Floats: ...


@dataclass(frozen=True)
class SwappedFace:
    """A new face in its crop: `image` [S, S, 3] RGB uint8, `mask` [S, S] 0..1, `frame_to_crop` 2x3."""

    image: Image
    mask: Mask
    frame_to_crop: Matrix


Neighbours = Sequence[tuple[Face, float]]
"""Faces of frames around one, of the same shot, and how many seconds they are apart from it."""


class Clip(NamedTuple):
    """Neighbouring frames of one shot and the face to replace in each. `times` are seconds; `nearby` are each frame's neighbours, for
    what is to change slowly."""

    frames: Sequence[Image]
    faces: Sequence[Face]
    times: Sequence[float] | None = None
    nearby: Sequence[Neighbours] | None = None


class SwapModel(Protocol):
    """Swaps clips. The same clip gives the same result.

    Clips are `clip_length` frames long (fewer at the end of a shot), with up to `context` more before and after, whose
    results are not used.

    A clip goes through `prepare`, `draw` (the network) and `finish`. Each of the three may run in a thread of its own beside the
    two others with other clips; none is called by two threads at once, and clips keep their order.
    """

    clip_length: int
    context: int

    def prepare(self, clip: Clip) -> Any: ...

    def draw(self, prepared: Any) -> Any: ...

    def finish(self, drawn: Any) -> list[SwappedFace]: ...

    def __call__(
        self,
        frames: Sequence[Image],
        faces: Sequence[Face],
        times: Sequence[float] | None = None,
        nearby: Sequence[Neighbours] | None = None,
    ) -> list[SwappedFace]:
        """The three in a row: one result per frame, in order."""
        return self.finish(self.draw(self.prepare(Clip(frames, faces, times, nearby))))


@dataclass(frozen=True)
class Redraw:
    """What a diffusion pipeline is asked for: `image` [S, S, 3] drawn again where `mask` [S, S] 0..1 says.

    `strength` 0..1 is how much noise is put on; `steps` are those that are made (not those of a whole drawing from noise).
    The same `seed` gives the same noise. `sampler` and `schedule` are names or "auto". `landmarks` [468, 3] lie in `image`;
    `control` (see `DenoiseOptions`) says what of them, where the pipeline can, holds the drawing. `attention`: pictures that
    are drawn together also look at the first of them.
    """

    image: Image
    mask: Mask
    strength: float
    steps: int
    seed: int
    prompt: str = ""
    negative: str = ""
    guidance: float = 5.0
    sampler: str = "auto"
    schedule: str = "auto"
    landmarks: Floats | None = None
    control: str = "none"
    attention: bool = False


class Denoiser(Protocol):
    """A diffusion pipeline: for each request an image of the same size, the same ones for the same requests.

    Requests of one call differ in picture, mask, prompts and landmarks only; they are drawn together.
    `name` says which checkpoint; work that was begun with one is not gone on with another. Raises `Cancelled` when the host
    was told to stop, `InputError` for what the pipeline does not know.
    """

    @property
    def name(self) -> str: ...

    def __call__(self, asked: Sequence[Redraw]) -> list[Image]: ...


@dataclass(frozen=True)
class Host:
    """What a host (WebUI, standalone, test) supplies to a task; nothing else is known of it.

    `workspace` holds jobs, facesets, models and keys; `device` is a torch device name or "auto";
    `exclusive()` gives sole use of the device; `denoiser` is there where a diffusion pipeline is.
    """

    workspace: Path
    device: str = "auto"
    tick: Tick = field(default=lambda done, total, note="": None)
    exclusive: Callable[[], AbstractContextManager[object]] = nullcontext
    denoiser: Denoiser | None = None


def no_tick(done: float, total: float, note: str = "") -> None:
    """A `Tick` that reports nowhere and never cancels."""
