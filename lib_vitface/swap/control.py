"""What holds a diffusion pipeline to a face: pictures a ControlNet reads, drawn from the landmarks."""

from __future__ import annotations

import cv2
import numpy as np

from lib_vitface.faces import mesh
from lib_vitface.types import Floats, Image


def control_image(kind: str, image: Image, landmarks: Floats) -> Image:
    """For `kind` "tile" the picture, "depth" the mesh's depth (near is bright), "face" white dots where the landmarks are."""
    if kind == "tile":
        return image
    size = (image.shape[0], image.shape[1])
    return depth_image(landmarks, size) if kind == "depth" else dots_image(landmarks, size)


def depth_image(landmarks: Floats, size: tuple[int, int]) -> Image:
    """`[H, W, 3]`, far to near as dark to bright; triangles are painted from far to near, each in one shade."""
    near = -landmarks[:, 2]
    shade = 60 + 195 * (near - near.min()) / max(float(np.ptp(near)), 1e-6)
    corners = mesh.triangles()
    drawn = np.zeros(size, np.uint8)
    for place in np.argsort(near[corners].mean(axis=1)):
        points = np.rint(landmarks[corners[place], :2]).astype(np.int32)
        cv2.fillConvexPoly(drawn, points, float(shade[corners[place]].mean()))
    return np.asarray(cv2.cvtColor(cv2.blur(drawn, (3, 3)), cv2.COLOR_GRAY2RGB), np.uint8)


def dots_image(landmarks: Floats, size: tuple[int, int]) -> Image:
    """`[H, W, 3]` black with a white dot for each landmark of outline, brows, eyes, nose and mouth."""
    drawn = np.zeros((*size, 3), np.uint8)
    for x, y in landmarks[list(DOTS), :2]:
        cv2.circle(drawn, (round(float(x)), round(float(y))), max(min(size) // 170, 1), (255, 255, 255), -1)
    return drawn


DOTS = (
    *(127, 234, 93, 132, 58, 172, 136, 150, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288, 361, 323, 454, 356),
    *(70, 63, 105, 66, 107, 336, 296, 334, 293, 300),
    *(168, 6, 195, 4, 98, 97, 2, 326, 327),
    *(33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380),
    *(61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87),
)
"""Mesh points nearest to the 68 that face annotations have had since iBUG 300-W (Sagonas et al. 2013), jaw denser."""
