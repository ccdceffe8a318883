"""A person who does what is asked, made of one real picture: its face mesh is turned in space, its lids and lips are moved, and the
picture is warped after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from scipy.interpolate import LinearNDInterpolator

from lib_vitface.faces import align, mesh
from lib_vitface.faces.analyse import Analyser
from lib_vitface.faces.detect import make_detector
from lib_vitface.faces.landmarks import MeshLandmarker
from lib_vitface.provenance.challenge import Prompt
from lib_vitface.types import Pose

LOWER = ((7, 163, 144, 145, 153, 154, 155), (382, 381, 380, 374, 373, 390, 249))
SKIN = (27, 257)  # of the upper lids
BELOW = (87, 14, 317, 178, 88, 95, 402, 318, 324, 17, 84, 181, 314, 405, 321, 91, 146, 375)
STEP_S = 0.3  # from straight to turned


@dataclass(frozen=True)
class Moment:
    """Yaw and pitch in degrees from the picture's own, `shut` the lids (0 or 1), `open_cm` of the mouth."""

    yaw: float = 0.0
    pitch: float = 0.0
    shut: float = 0.0
    open_cm: float = 0.0


DRAWN = {"turn": 38.0, "nod": 36.0}
"""How far the mesh is turned so that a landmarker sees a clear turn: a warped picture looks less turned than it is."""
SIDES = {"left": (1, 0), "right": (-1, 0), "up": (0, 1), "down": (0, -1)}
"""To their own left a person turns towards the viewer's right."""


def acted(
    prompts: Sequence[Prompt], fps: int, *, turn: float = 32.0, nod: float = 22.0, still_s: float = 1.0
) -> list[Moment]:
    """The moments of a clip in which the prompts are done one after the other."""
    moments = [Moment()] * round(still_s * fps)
    for prompt in prompts:
        if prompt.kind in SIDES:
            y, p = SIDES[prompt.kind]
            way = [
                *np.linspace(0, 1, round(STEP_S * fps)),
                *[1.0] * round(0.5 * fps),
                *np.linspace(1, 0, round(STEP_S * fps)),
            ]
            moments += [Moment(turn * y * k, nod * p * k) for k in way]
        elif prompt.kind == "blink":
            moments += [*[Moment(shut=1.0)] * max(round(0.2 * fps), 2), *[Moment()] * max(round(0.4 * fps), 2)] * int(
                prompt.detail
            )
        else:
            wave = np.sin(np.linspace(0, np.pi, max(round(0.35 * fps), 4)))
            moments += [Moment(open_cm=1.2 * float(k)) for k in np.tile(wave, len(prompt.detail))]
        moments += [Moment()] * round(0.6 * fps)
    return moments + [Moment()] * round(still_s * fps)


@lru_cache(maxsize=1)
def analyser() -> Analyser:
    return Analyser(make_detector(), MeshLandmarker())


class Actor:
    """Plays moments on a picture `[H, W, 3]` with one face that looks about straight."""

    def __init__(self, image: np.ndarray) -> None:
        self.image = image
        (face,) = analyser()(image)
        self.landmarks = np.asarray(face.landmarks, np.float64)
        self.fit = align.fit_head(face.landmarks)
        height, width = image.shape[:2]
        x, y = np.meshgrid(np.linspace(0, width - 1, 9), np.linspace(0, height - 1, 9))
        ring = np.stack([x.ravel(), y.ravel()], 1)
        middle, reach = self.landmarks[:, :2].mean(axis=0), 1.9 * np.ptp(self.landmarks[:, 1]) / 2
        self.fixed = np.concatenate([ring[np.linalg.norm(ring - middle, axis=1) > reach], self._border(width, height)])

    @staticmethod
    def _border(width: int, height: int) -> np.ndarray:
        return np.array([[-1, -1], [width, -1], [-1, height], [width, height]], float)

    def points(self, moment: Moment) -> np.ndarray:
        """Where the landmarks `[468, 3]` go."""
        points = self.fit.canonical(self.landmarks)
        points[list(BELOW), 1] -= moment.open_cm
        turned = align.rotation_of(Pose(moment.yaw, moment.pitch, 0.0)) @ self.fit.rotation
        return align.HeadFit(self.fit.scale, turned, self.fit.shift).project(points)

    def __call__(self, moment: Moment) -> np.ndarray:
        points = self.points(moment)
        oval = list(mesh.OVAL)
        there, here = (np.concatenate([p[oval, :2], self.fixed]) for p in (points, self.landmarks))
        height, width = self.image.shape[:2]
        x, y = np.meshgrid(np.arange(width), np.arange(height))
        back = LinearNDInterpolator(there, here)(x, y).astype(np.float32)
        number = self._drawn(points)
        inside = number >= 0
        spots = np.stack([x[inside], y[inside], np.ones(inside.sum())], 1)
        back[inside] = np.einsum("nij,nj->ni", self._ways(points)[number[inside]], spots)
        picture = cv2.remap(self.image, back[..., 0], back[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        for loop, lower, skin in zip((mesh.RIGHT_EYE, mesh.LEFT_EYE), LOWER, SKIN, strict=True):
            if moment.shut > 0.5:
                x0, y0 = np.round(points[skin, :2]).astype(int)
                colour = picture[y0 - 1 : y0 + 2, x0 - 1 : x0 + 2].mean(axis=(0, 1))
                cv2.fillPoly(picture, [np.round(points[list(loop), :2]).astype(np.int32)], colour.tolist(), cv2.LINE_AA)
                lashes = np.round(points[list(lower), :2]).astype(np.int32)
                cv2.polylines(picture, [lashes], False, (0.4 * colour).tolist(), 2, cv2.LINE_AA)
        if moment.open_cm > 0.05:
            hole = np.round(points[list(mesh.LIPS_INNER), :2]).astype(np.int32)
            cv2.fillPoly(picture, [hole], (55, 25, 25), cv2.LINE_AA)
        return picture

    def _drawn(self, points: np.ndarray) -> np.ndarray:
        """Which triangle is seen at each pixel `[H, W]`, -1 beside the face; the nearest one covers the others."""
        number = np.full(self.image.shape[:2], -1, np.int32)
        corners = points[mesh.triangles()]
        for k in np.argsort(-corners[..., 2].mean(axis=1)):
            cv2.fillConvexPoly(number, np.round(corners[k, :, :2] * 16).astype(np.int32), int(k), shift=4)
        return number

    def _ways(self, points: np.ndarray) -> np.ndarray:
        """For each triangle what leads from the drawn picture to the real one `[T, 2, 3]`."""
        there, here = (p[mesh.triangles()][..., :2] for p in (points, self.landmarks))
        system = np.concatenate([there, np.ones((len(there), 3, 1))], axis=2)
        return np.linalg.solve(system + 1e-6 * np.eye(3), here).transpose(0, 2, 1)


def play(image: np.ndarray, moments: Sequence[Moment]) -> list[np.ndarray]:
    """The pictures of a clip; equal moments are drawn once."""
    actor, drawn = Actor(image), dict[Moment, np.ndarray]()
    for moment in moments:
        if moment not in drawn:
            drawn[moment] = actor(moment)
    return [drawn[moment] for moment in moments]
