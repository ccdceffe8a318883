"""Options of the evaluate task. Light on purpose: `--help` reads this and nothing else of the sub-package."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lib_vitface.options import option

_INPUT = "Input"
_OUTPUT = "Output"
_MEASURES = "Measures"


@dataclass(frozen=True)
class EvaluateOptions:
    """How good a swapped video is: whose face, how true to the footage, how steady."""

    source: Path = option(
        help="Whose face was put in: the faceset, or a clip, a photo, or a folder of them.", group=_INPUT, kind="path"
    )
    target: Path = option(help="The footage before the swap.", group=_INPUT, kind="path")
    result: Path = option(help="The footage after the swap.", group=_INPUT, kind="path")
    start_s: float | None = option(
        None, help="Where in the target the result begins, if only a part was swapped.", group=_INPUT, low=0, unit="s"
    )
    end_s: float | None = option(
        None, help="Where in the target the result ends, if only a part was swapped.", group=_INPUT, low=0, unit="s"
    )
    self_reenactment: bool = option(
        False,
        help="Source and target are the same person, so the target is what the result should look like: compares the "
        "face pixel by pixel (PSNR, SSIM, MS-SSIM) and leaves out the question whose face it is.",
        group=_MEASURES,
    )
    lpips: bool = option(
        False,
        help="With --self-reenactment: also LPIPS of the face (VGG-16); its file is not shipped.",
        group=_MEASURES,
        advanced=True,
    )
    every: int = option(
        1,
        help="Score every n-th frame; flicker and jitter look at the two frames after it as well.",
        group=_MEASURES,
        low=1,
        high=10000,
    )
    scorer: str = option(
        "dlib",
        help="Network that says whose face it is. Take one that neither training nor selection used; sface was used.",
        group=_MEASURES,
        choices=("dlib", "sface", "insightface"),
        advanced=True,
    )
    features: list[str] = option(
        ["sface"],
        help="Spaces for the distance between the sets of faces. Only inception gives what is called FID; its file is "
        "not shipped.",
        group=_MEASURES,
        choices=("sface", "dlib", "insightface", "inception"),
        advanced=True,
    )
    source_faces: int = option(
        150, help="Compare with at most this many source faces.", group=_MEASURES, low=1, high=10000, advanced=True
    )
    json: Path | None = option(
        None, help="JSON file of all figures, per frame too; replaced if there.", group=_OUTPUT, kind="output"
    )
    report: Path | None = option(
        None, help="HTML page with curves and pictures, one file; replaced if there.", group=_OUTPUT, kind="output"
    )
    pictures: int = option(
        8,
        help="Moments shown in the report, and as many of the worst ones.",
        group=_OUTPUT,
        low=1,
        high=50,
        advanced=True,
    )
