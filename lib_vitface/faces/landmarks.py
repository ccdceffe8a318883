"""Dense face landmarks by the MediaPipe face mesh."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from lib_vitface.faces import align, mesh
from lib_vitface.faces.engines import network
from lib_vitface.types import Face, Floats, Image, Matrix

_SIZE = 192
_ROI_SCALE = 1.5
_CENTRE = np.array([[0.0, -0.57, 1.5]])  # cm, middle of the canonical face
_MAX_PASSES = 8
_SETTLED = 0.02  # of the ROI's side

_EYE_SIZE = 64
_EYE_SCALE = 2.3
_EYE_RINGS = (
    ((33, 7, 163, 144, 145, 153, 154, 155, 133, 246, 161, 160, 159, 158, 157, 173), 1.0),
    ((130, 25, 110, 24, 23, 22, 26, 112, 243, 247, 30, 29, 27, 28, 56, 190), 0.75),
    ((226, 31, 228, 229, 230, 231, 232, 233, 244, 113, 225, 224, 223, 222, 221, 189), 0.4),
)
"""Right eye: mesh points of the first 48 outputs of the eye network, ring by ring, and how much its word counts there."""
SHUT = 0.10
"""Gap of the lids, in widths of the eye, below which an eye does not look anywhere."""
AWAY_DEG = 45.0
"""Yaw beyond which the eye that turns away shows no iris to go by."""
NO_IRISES: Floats = np.full((2, 2), np.nan, np.float32)
"""Centres of irises `[2, 2]` of which none is seen."""
_FAR_EYE_DEG = (35.0, 55.0)  # yaw over which the eye that turns away is left to the face mesh


class MeshLandmarker:
    """468 points, presence and pose (Kartynnik et al. 2019, arXiv:1907.06724).

    The network looks several times, each time at the square that the points of the look before give: a detector's box
    wanders, the head does not. A face that brings landmarks (of the frame before) needs one look less. Not for use by
    two threads at once.
    """

    def __init__(self, passes: int = 3, eyes: bool = True) -> None:
        """`passes`: looks at a newly detected face; `eyes`: refine the lids by the eye network."""
        self.passes = passes
        self._net = network("face_mesh", 1 / 255)
        self._eyes = EyeNet()
        self._refine = eyes

    def __call__(self, image: Image, face: Face) -> Face:
        """The face with landmarks, presence and pose; box and points are renewed from the landmarks.

        More looks are taken, to a limit, while the square still moves: then the face was not in its middle.
        """
        wanted = self.passes if face.landmarks is None else max(1, self.passes - 1)
        matrix = roi_matrix(face)
        for count in range(1, _MAX_PASSES + 1):
            face = self._look(image, face, matrix, rough=count < wanted)
            before, matrix = matrix, roi_matrix(face)
            if count >= wanted and _moved(before, matrix) < _SETTLED:
                break
        return self._eyes.refine(image, face) if self._refine else face

    def _look(self, image: Image, face: Face, matrix: Matrix, rough: bool) -> Face:
        """`rough`: only the next look's square hangs on this one, for which a picture that is not smoothed will do."""
        if rough:
            picture = np.asarray(cv2.warpAffine(image, matrix, (_SIZE, _SIZE), flags=cv2.INTER_LINEAR), np.uint8)
        else:
            picture = align.warp(image, matrix, _SIZE, border=cv2.BORDER_CONSTANT)
        results = self._net(picture)
        raw = next(r for r in results if r.size == mesh.POINT_COUNT * 3).reshape(-1, 3)
        logit = next(float(r.ravel()[0]) for r in results if r.size == 1)
        landmarks = align.apply(align.invert(matrix), raw).astype(np.float32)
        return replace(with_landmarks(face, landmarks), presence=float(1 / (1 + np.exp(-np.clip(logit, -60, 60)))))


class EyeNet:
    """Eye contour and iris of one eye (Ablavatski et al. 2020, arXiv:2006.11341)."""

    def __init__(self) -> None:
        self._net = network("iris", 1 / 255)

    def __call__(self, image: Image, face: Face, left: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Contour `[71, 3]` and iris `[5, 3]` in frame pixels of the person's left or right eye."""
        matrix = eye_matrix(face, left)
        results = self._net(align.warp(image, matrix, _EYE_SIZE))
        back = align.invert(matrix)
        contour = next(r for r in results if r.size == 71 * 3).reshape(71, 3)
        iris = next(r for r in results if r.size == 5 * 3).reshape(5, 3)
        return align.apply(back, contour), align.apply(back, iris)

    def irises(self, image: Image, face: Face) -> Floats:
        """Irises `[2, 5, 2]` in frame pixels, viewer's left first: centre, then four points of the rim."""
        return np.stack([self(image, face, left)[1][:, :2] for left in (False, True)]).astype(np.float32)

    def refine(self, image: Image, face: Face) -> Face:
        """The face with irises, and with lids moved (x and y) to where this network sees them; the face mesh alone leaves closed
        eyes ajar.

        The eye that turns away from the camera is left as it was.
        """
        if face.landmarks is None or face.pose is None:
            raise ValueError("the face has no landmarks yet: run a landmarker first")
        landmarks, irises = face.landmarks.copy(), NO_IRISES.copy()
        for left in (False, True):
            away = face.pose.yaw_deg if left else -face.pose.yaw_deg
            trust = float(np.interp(away, _FAR_EYE_DEG, (1.0, 0.0)))
            if trust == 0:
                continue
            contour, iris = self(image, face, left)
            irises[int(left)] = iris[0, :2]
            start = 0
            for ring, weight in _EYE_RINGS:
                index = mesh.mirror_order()[list(ring)] if left else list(ring)
                seen = contour[start : start + len(ring), :2]
                landmarks[index, :2] += trust * weight * (seen - landmarks[index, :2])
                start += len(ring)
        return replace(with_landmarks(face, landmarks), iris=irises)


def roi_matrix(face: Face) -> Matrix:
    """`frame_to_roi` of the upright square the network looks at, 1.5 times the face as MediaPipe has it.

    From landmarks it follows the fitted head, not their bounding box, so that it does not move with the mouth.
    """
    if face.landmarks is not None:
        fit = align.fit_head(face.landmarks)
        side = _ROI_SCALE * fit.scale * align.HEIGHT_CM
        return align.square_matrix(fit.project(_CENTRE)[0, :2], _SIZE / side, fit.pose.roll_deg, _SIZE)
    side = _ROI_SCALE * float((face.box[2:] - face.box[:2]).max())
    across = face.points[1] - face.points[0]
    roll = float(np.degrees(np.arctan2(across[1], across[0])))
    return align.square_matrix((face.box[:2] + face.box[2:]) / 2, _SIZE / side, roll, _SIZE)


def eye_matrix(face: Face, left: bool) -> Matrix:
    """`frame_to_eye` of the square about an eye; the person's left eye is mirrored, the network knows right eyes only."""
    if face.landmarks is None or face.pose is None:
        raise ValueError("the face has no landmarks yet: run a landmarker first")
    corners = face.landmarks[list(mesh.EYE_CORNERS[2:] if left else mesh.EYE_CORNERS[:2]), :2]
    side = _EYE_SCALE * float(np.linalg.norm(corners[1] - corners[0]))
    matrix = align.square_matrix(corners.mean(axis=0), _EYE_SIZE / max(side, 1.0), face.pose.roll_deg, _EYE_SIZE)
    if left:
        matrix[0] *= -1
        matrix[0, 2] += _EYE_SIZE - 1
    return matrix


def with_landmarks(face: Face, landmarks: Floats) -> Face:
    """The face with these landmarks `[468, 3]` and the box, five points and pose that follow from them."""
    flat = landmarks[:, :2]
    return replace(
        face,
        box=np.concatenate([flat.min(axis=0), flat.max(axis=0)]).astype(np.float32),
        points=five_points(landmarks),
        landmarks=landmarks.astype(np.float32),
        pose=align.fit_head(landmarks).pose,
    )


def five_points(landmarks: Floats) -> Floats:
    """Eye centres, nose tip and mouth corners `[5, 2]` of landmarks `[468, 3]`, viewer's left first."""
    flat = landmarks[:, :2]
    eyes = [flat[list(loop)].mean(axis=0) for loop in (mesh.RIGHT_EYE, mesh.LEFT_EYE)]
    return np.stack([*eyes, flat[mesh.NOSE_TIP], *flat[list(mesh.MOUTH_CORNERS)]]).astype(np.float32)


def _moved(before: Matrix, after: Matrix) -> float:
    """How far the middle of a square moved or its side changed between two looks, in sides."""
    middle = np.full((1, 2), (_SIZE - 1) / 2)
    step = align.apply(after, align.apply(align.invert(before), middle)) - middle
    growth = np.sqrt(abs(np.linalg.det(after[:, :2]) / np.linalg.det(before[:, :2])))
    return max(float(np.linalg.norm(step)) / _SIZE, abs(float(growth) - 1))
