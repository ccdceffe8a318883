"""Texture memory: a person's own pixels in face-mesh space, put together anew for every pose and expression.

Every view of the person is unwrapped through its fitted mesh into one atlas. For a wanted pose and expression the views are
weighted per region (mouth, each eye, the rest) by how near their expression and pose are, per texel by visibility and by
agreement with the other views (a hand in front of the face does not agree), and blended. Drawn through the wanted mesh the
result is a sharp picture of the person that a network then only has to correct.

The idea of view- and expression-dependent texture blending is older than networks: Debevec et al. 1996 (view-dependent texture
mapping), Pighin et al. 1998 (Synthesizing realistic facial expressions from photographs). The implementation is ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, lru_cache
from itertools import chain, repeat

import cv2
import numpy as np
from numpy.typing import NDArray

from lib_vitface.errors import CheckpointError
from lib_vitface.faces import mesh
from lib_vitface.faces.align import fit_head
from lib_vitface.faceset import atlas, gaze
from lib_vitface.types import Floats, Image, Mask

_EYES = mesh.RIGHT_EYE + mesh.LEFT_EYE
_LIPS = mesh.LIPS_OUTER + mesh.LIPS_INNER
_POSE_WIDTH_DEG = 12.0  # views this far away in yaw or pitch count e^-1 as much
_MAX_BLENDED = 12  # views that share one region of one frame
_LEAST = 0.01  # share of a view, of the likest one's, from which it is drawn
_COARSE = 128  # px, side of an atlas that shows all that is coarse
_FINE = 1 / 80  # standard deviation, of the atlas' side, between what counts as fine and as coarse
_AHEAD, _SHARPEST = 7.0, 0.3  # for what is fine: exponent of a view's share, and what a place in sharpness costs
_STEADY_S = 0.1  # standard deviation of the time over which the choice of views is steadied
_AGREEMENT_WIDTH = 18.0  # grey levels of low-frequency difference to the median view that halve a texel's weight
_BELIEF = (np.arange(256, dtype=np.float32) / 255) ** 2 + np.float32(1e-3)  # weight of a texel by its trust
_MOUTH_COLOR = np.array([70, 32, 32], np.float32)
_KNOWN = 0.45  # trust of the mouth's inside from which nothing is added to it


@dataclass(frozen=True)
class Expression:
    """A face without position, scale and rotation. `points` [468, 3] cm in canonical axes; `angles` [2] yaw, pitch in degrees;
    `gaze` [2, 2] as `gaze.GazeReader` gives it, NaN where unknown."""

    points: Floats
    angles: Floats
    gaze: Floats = field(default_factory=gaze.UNKNOWN.copy)


def read_expression(landmarks: Floats, looking: Floats = gaze.UNKNOWN) -> Expression:
    """Expression and pose of landmarks `[468, 3]` in any picture's pixels; the gaze as it was read from the picture."""
    fit = fit_head(landmarks)
    pose = fit.pose
    return Expression(
        fit.canonical(landmarks).astype(np.float32), np.array([pose.yaw_deg, pose.pitch_deg], np.float32), looking
    )


def place_expression(points: Floats, like: Floats) -> Floats:
    """Canonical points `[468, 3]` put where the head of `like` (landmarks in pixels) is."""
    return fit_head(like).project(points).astype(np.float32)


@dataclass(frozen=True)
class _Region:
    """Points that decide which views are alike, where in the atlas that counts, and how narrow the choice is (cm).
    `eye` is 0 or 1 for the right or left eye; `skin` is all that is neither eye nor mouth."""

    points: tuple[int, ...]
    weight: Mask
    rows: slice
    columns: slice
    width_cm: float
    eye: int | None
    skin: bool


@lru_cache(maxsize=8)
def _regions(size: int) -> tuple[_Region, ...]:
    mouth = atlas.soft_box(_LIPS, size, 1.5)
    right, left = atlas.soft_box(mesh.RIGHT_EYE, size, 1.3), atlas.soft_box(mesh.LEFT_EYE, size, 1.3)
    rest = np.clip(1 - mouth - right - left, 0, 1)
    described = (
        (_LIPS, mouth, 0.22, None, False),
        (mesh.RIGHT_EYE, right, 0.10, 0, False),
        (mesh.LEFT_EYE, left, 0.10, 1, False),
        (tuple(range(mesh.POINT_COUNT)), rest, 0.30, None, True),
    )
    found = []
    for points, weight, width, eye, skin in described:
        rows, columns = np.where(weight.max(axis=1) > 0)[0], np.where(weight.max(axis=0) > 0)[0]
        area = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
        found.append(_Region(points, weight[area].astype(np.float32), *area, width, eye, skin))
    return tuple(found)


@dataclass(frozen=True)
class Mixture:
    """How much of each view a region is blended from: `shares` `[R, N]` (sum 1 each), and how well an expression is `known` there
    `[R]` 0..1."""

    shares: NDArray[np.float64]
    known: NDArray[np.float64]


@dataclass(frozen=True)
class Nearby:
    """A frame of the same shot, `apart_s` seconds away: its expression, and its own mixture."""

    expression: Expression
    mixture: Mixture
    apart_s: float


@dataclass(frozen=True)
class Rendering:
    """A picture drawn from the memory. `image` float32 `[S, S, 3]` 0..255, `mask` `[S, S]` 0..1 how far it is to be trusted,
    `seen` `[S, S]` 0..1 how well any view ever showed that part of the face, whatever its expression; both 0 beyond the mesh."""

    image: Floats
    mask: Mask
    seen: Mask


@dataclass(frozen=True)
class TextureMemory:
    """Views of one person in atlas space.

    `textures` uint8 `[N, U, U, 3]`, `trust` uint8 `[N, U, U]` (visibility x agreement), `points` `[N, 468, 3]` and `angles`
    `[N, 2]` and `gazes` `[N, 2, 2]` as in `Expression`, `neutral` `[468, 3]` the person's resting shape.
    """

    textures: NDArray[np.uint8]
    trust: NDArray[np.uint8]
    points: Floats
    angles: Floats
    gazes: Floats
    neutral: Floats

    @property
    def size(self) -> int:
        return int(self.textures.shape[1])

    def __len__(self) -> int:
        return len(self.textures)

    @classmethod
    def build(
        cls, views: Iterable[tuple[Image, Floats, Floats]], size: int = 256, covers: Iterable[Mask | None] = ()
    ) -> TextureMemory:
        """From `(crop, landmarks in crop pixels [468, 3], gaze)` of one person; at least one view.

        `covers` `[H, W]` 0..1 say where something lies before the face of each view, None: nowhere; from there nothing is taken.
        """
        textures, visible, points, angles, gazes = [], [], [], [], []
        for (image, landmarks, looking), cover in zip(views, chain(covers, repeat(None)), strict=False):
            texture, seen = _unwrap(image, landmarks, size, cover)
            expression = read_expression(landmarks, looking)
            textures.append(texture)
            visible.append(seen)
            points.append(expression.points)
            angles.append(expression.angles)
            gazes.append(expression.gaze)
        if not textures:
            raise ValueError("a texture memory needs at least one view")
        stack = np.stack(textures)
        trust = _agreement(stack) * np.stack(visible)
        shapes = np.stack(points)
        shown = (trust * 255).astype(np.uint8)
        return cls(stack, shown, shapes, np.stack(angles), np.stack(gazes).astype(np.float32), neutral_shape(shapes))

    def mixture(self, expression: Expression, allowed: NDArray[np.bool_] | None = None) -> Mixture:
        """Which views show an expression of this person's shape best, from like angles.

        `allowed` [N] leaves views out (training must not see the very frame it has to draw).
        """
        shares, known = [], []
        for region in _regions(self.size):
            unlike, distance = _distances(region, self.points, self.angles, self.gazes, expression)
            if allowed is not None:
                distance = np.where(allowed, distance, np.inf)
            best = int(distance.argmin())
            share = np.exp(-(distance - distance[best]))
            shares.append(share / share.sum())
            known.append(np.exp(-0.5 * max(0.0, float(unlike[best]) - 0.5)))
        return Mixture(np.stack(shares), np.array(known))

    def steady(self, expression: Expression, mixture: Mixture, nearby: Sequence[Nearby]) -> Mixture:
        """The mixture of a frame steadied by those of frames around it that show the same: a view that comes and goes flickers.

        A bilateral filter (Tomasi and Manduchi 1998) per region, whose measure of likeness is that of the views, so a blink or
        a syllable is not washed out.
        """
        if not nearby:
            return mixture
        points, angles, gazes = (
            np.stack([getattr(one.expression, name) for one in nearby]) for name in ("points", "angles", "gaze")
        )
        near = np.exp(-0.5 * (np.array([one.apart_s for one in nearby]) / _STEADY_S) ** 2)
        shares, known = mixture.shares.copy(), mixture.known.copy()
        for number, region in enumerate(_regions(self.size)):
            weights = near * np.exp(-_distances(region, points, angles, gazes, expression)[1])
            for weight, one in zip(weights, nearby, strict=True):
                shares[number] += weight * one.mixture.shares[number]
                known[number] += weight * one.mixture.known[number]
            shares[number] /= 1 + weights.sum()
            known[number] /= 1 + weights.sum()
        return Mixture(shares, known)

    def texture(self, expression: Expression, mixture: Mixture) -> tuple[Floats, Mask]:
        """Blended atlas `[U, U, 3]` 0..255 and its trust `[U, U]` for an expression of this person's shape.

        Trust is low where the texel was seen from the side, and where no view has a like expression. What is coarse comes from many
        views, which is steady; what is fine from few, since many lie never quite on each other and would blur it (two bands of Burt
        and Adelson 1983).
        """
        finest = self._finest(mixture)
        detail = self._blended(expression, finest, trusted=False)[0]
        base, trust = self._coarse._blended(expression, mixture)
        base -= self._coarse._blended(expression, finest, trusted=False)[0]
        change = cv2.GaussianBlur(base, (0, 0), self._coarse.size * _FINE)
        whole = (self.size, self.size)
        detail += cv2.resize(change, whole, interpolation=cv2.INTER_LINEAR)
        return detail, cv2.resize(trust, whole, interpolation=cv2.INTER_LINEAR)

    @cached_property
    def _coarse(self) -> TextureMemory:
        """The memory at a size that is enough for what is coarse, and for trust."""
        return self.resized(min(self.size, max(_COARSE, self.size // 4)))

    def _finest(self, mixture: Mixture) -> Mixture:
        """The mixture with the likest views far ahead; where all are alike (skin), the sharpest."""
        most = mixture.shares.max(axis=1, keepdims=True)
        shares = (mixture.shares / most) ** _AHEAD
        for region, share in zip(_regions(self.size), shares, strict=True):
            if region.skin:
                share *= np.exp(-_SHARPEST * self._sharpness_rank)
        return Mixture(shares / shares.sum(axis=1, keepdims=True), mixture.known)

    @cached_property
    def _sharpness_rank(self) -> NDArray[np.intp]:
        """Place of each view `[N]` by how much fine detail it shows, 0 the sharpest."""
        fine = [
            float((np.abs(cv2.Laplacian(cv2.cvtColor(t, cv2.COLOR_RGB2GRAY), cv2.CV_32F)) * seen).sum())
            for t, seen in zip(self.textures, self.trust, strict=True)
        ]
        return np.argsort(np.argsort([-f for f in fine], kind="stable"))

    def _blended(self, expression: Expression, mixture: Mixture, *, trusted: bool = True) -> tuple[Floats, Mask]:
        """Atlas and trust by one mixture; no trust unless `trusted`, which is quicker."""
        total = np.zeros((self.size, self.size, 3), np.float32)
        weight = np.zeros((self.size, self.size), np.float32)
        sure = np.zeros((self.size, self.size), np.float32)
        for region, shares, known in zip(_regions(self.size), mixture.shares, mixture.known, strict=True):
            lids = _lids(region, expression)
            area = region.rows, region.columns
            # Written again and again: fresh memory for every view would cost more than the sums.
            part = np.empty_like(region.weight)
            part_colours, colours = (np.empty((*part.shape, 3), np.float32) for _ in range(2))
            order = np.argsort(-shares, kind="stable")
            # A share begins at nothing: a view that is drawn at once with a part of its own would be seen to come.
            most = float(shares[order[0]])
            following = float(shares[order[_MAX_BLENDED]]) if len(order) > _MAX_BLENDED else 0.0
            floor = max(min(following, most / 2), _LEAST * most)
            for view in order[:_MAX_BLENDED]:
                share = float(shares[view]) - floor
                if share <= 0:
                    break
                trust = np.ascontiguousarray(self.trust[view][area])
                cv2.multiply(region.weight, cv2.LUT(trust, _BELIEF), dst=part, scale=share)
                weight[area] += part
                cv2.merge([part, part, part], dst=part_colours)
                drawn = self._view(view, region, expression, lids)
                total[area] += cv2.multiply(drawn, part_colours, dst=colours, dtype=cv2.CV_32F)
                if trusted:
                    sure[area] += cv2.multiply(part, trust, dst=part, scale=float(known) / 255, dtype=cv2.CV_32F)
        np.maximum(weight, 1e-9, out=weight)
        total /= weight[..., None]
        if trusted:
            sure /= weight
        return total, sure

    def _view(self, view: int, region: _Region, expression: Expression, lids: float) -> NDArray[np.uint8]:
        """A region of a view, with the iris where it is wanted; `lids`: how open the eye is drawn."""
        area, eye = (region.rows, region.columns), region.eye
        if eye is None:
            return self.textures[view][area]
        return gaze.slid(self.textures[view], area, self.gazes[view, eye], expression.gaze[eye], eye, lids)

    def render(
        self,
        landmarks: Floats,
        size: int,
        expression: Expression,
        mixture: Mixture | None = None,
        footage: Floats | None = None,
    ) -> Rendering:
        """The person with `expression` (of this person's shape), drawn on a mesh at `landmarks` `[468, 3]` in a `size` px crop.

        An open mouth of which no view is known shows what `footage` `[S, S, 3]` 0..255 (the driving crop) shows in its own,
        in the drawn face's light. `mixture` says which views are blended, by itself those of `self.mixture`.
        """
        texture, trust = self.texture(expression, mixture or self.mixture(expression))
        seen = atlas.draw_triangles(landmarks, size, depth=True)
        x, y = atlas.pixel_map(seen, landmarks, atlas.places(self.size))
        image = cv2.remap(texture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        mask = cv2.remap(trust, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        self._fill_unknown_mouth(image, mask, landmarks, footage)
        best = cv2.remap(self._best_view, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        covered = seen >= 0
        beyond = cv2.mean(image, covered.astype(np.uint8))[:3]
        np.copyto(image, np.array(beyond, np.float32), where=~covered[..., None])
        mask *= covered
        best *= covered
        return Rendering(image, mask, best)

    @cached_property
    def _best_view(self) -> Mask:
        """The highest trust of any view at each texel `[U, U]`."""
        return self.trust.max(axis=0).astype(np.float32) / 255

    @staticmethod
    def _fill_unknown_mouth(image: Floats, trust: Mask, landmarks: Floats, footage: Floats | None) -> None:
        """Teeth of another opening, stretched, mislead the network more than the footage's own or the dark do."""
        inside = np.ascontiguousarray(geometry_map(landmarks, image.shape[0])[..., 1])
        left, top, width, height = cv2.boundingRect((inside > 0).astype(np.uint8))
        if not width:
            return
        area = slice(top, top + height), slice(left, left + width)
        known = float((trust[area] * inside[area]).sum() / inside[area].sum())
        unknown = 1 - known / _KNOWN
        if unknown <= 0:
            return
        filling = _MOUTH_COLOR
        if footage is not None:
            filling = footage[area] * light_ratio(image, footage, trust * (1 - inside))
        image[area] += (filling - image[area]) * (unknown * inside[area])[..., None]

    def resized(self, size: int) -> TextureMemory:
        """The same memory with a smaller or larger atlas."""
        if size == self.size:
            return self
        textures = np.stack([cv2.resize(t, (size, size), interpolation=cv2.INTER_AREA) for t in self.textures])
        trust = np.stack([cv2.resize(t, (size, size), interpolation=cv2.INTER_AREA) for t in self.trust])
        return replace(self, textures=textures, trust=trust)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Everything as named arrays, for a safetensors file."""
        return {item.name: getattr(self, item.name) for item in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[np.generic]]) -> TextureMemory:
        """The opposite of `arrays`. Raises `CheckpointError` where something is missing or of another shape."""
        # Memories of before irises were looked at: where nothing is known nothing is moved.
        known = {"gazes": np.full((len(arrays.get("points", ())), 2, 2), np.nan, np.float32), **arrays}
        try:
            memory = cls(**{item.name: known[item.name] for item in fields(cls)})  # type: ignore[arg-type]
        except KeyError as error:
            raise CheckpointError(f"The texture memory lacks {error}; train the model again.") from None
        if memory.textures.ndim != 4 or memory.points.shape != (len(memory), mesh.POINT_COUNT, 3):
            raise CheckpointError(
                "The texture memory has another shape than this version writes; train the model again."
            )
        return memory


def _lids(region: _Region, expression: Expression) -> float:
    """How open the region's eye is drawn; 0 for another region."""
    return 0.0 if region.eye is None else gaze.openness(expression.points, region.eye)


def _distances(
    region: _Region, points: Floats, angles: Floats, gazes: Floats, expression: Expression
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How unlike (squared, in widths) `[N]` faces given by `points` `[N, 468, 3]`, `angles` and `gazes` are to an expression in a
    region: by their shape alone, and with angle and gaze."""
    index = list(region.points)
    gap = ((points[:, index, :2] - expression.points[index, :2]) ** 2).sum(axis=2).mean(axis=1)
    unlike = gap.astype(np.float64) / region.width_cm**2
    distance = unlike + (((angles - expression.angles) / _POSE_WIDTH_DEG) ** 2).sum(axis=1)
    if region.eye is not None:
        distance = distance + gaze.unlike(gazes, expression.gaze, region.eye, _lids(region, expression))
    return unlike, distance


def light_ratio(drawn: Floats, footage: Floats, weight: Mask) -> Floats:
    """Gain per colour `[3]` that brings the footage's face to the light of the drawn one."""
    weights = cv2.merge([weight] * 3)
    total = [np.array(cv2.sumElems(cv2.multiply(picture, weights))[:3]) for picture in (drawn, footage)]
    return np.clip((total[0] + 1) / (total[1] + 1), 0.4, 2.5).astype(np.float32)


def _unwrap(image: Image, landmarks: Floats, size: int, cover: Mask | None = None) -> tuple[NDArray[np.uint8], Mask]:
    """A crop in atlas space and how well each texel was seen (0..1), which is not at all where `cover` lies over it."""
    seen = atlas.triangle_map(size)
    x, y = atlas.pixel_map(atlas.nearest_triangle_map(size), atlas.places(size), landmarks)
    texture = cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    facing = atlas.facing(landmarks)[mesh.triangles()].mean(axis=1)[np.maximum(seen, 0)]
    height, width = image.shape[:2]
    inside = (x >= 0) & (y >= 0) & (x <= width - 1) & (y <= height - 1)
    bare = 1 if cover is None else 1 - cv2.remap(cover, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return texture, (facing * (seen >= 0) * inside * bare).astype(np.float32)


def _agreement(textures: NDArray[np.uint8]) -> Floats:
    """Weight 0..1 `[N, U, U]` by how near a view's low frequencies are to the median view's; all ones for fewer than 5 views.

    The mouth is left alone: there views rightly differ.
    """
    count, size = textures.shape[:2]
    if count < 5:
        return np.ones((count, size, size), np.float32)
    small = np.stack([cv2.resize(t, (32, 32), interpolation=cv2.INTER_AREA) for t in textures]).astype(np.float32)
    brightness = small.mean(axis=(1, 2), keepdims=True)
    small = small * (brightness.mean(axis=0) / np.maximum(brightness, 1))  # exposure drift is no occluder
    gap = np.abs(small - np.median(small, axis=0)).max(axis=3)
    weight = 1 / (1 + (gap / _AGREEMENT_WIDTH) ** 4)
    full = np.stack([cv2.resize(w, (size, size), interpolation=cv2.INTER_LINEAR) for w in weight])
    free = np.clip(atlas.soft_box(_LIPS, size, 1.2) + atlas.soft_box(_EYES, size, 1.1) * 0.5, 0, 1).astype(np.float32)
    return np.maximum(full, free)


def neutral_shape(shapes: Floats) -> Floats:
    """The person at rest `[468, 3]` of many `[N, 468, 3]`: the median over the fifth of the frames with the mouth closed and the
    eyes open as usual. (A plain median would take talking or blinking for rest.)"""
    mouth = np.linalg.norm(shapes[:, 13] - shapes[:, 14], axis=1)
    eyes = np.linalg.norm(shapes[:, 159] - shapes[:, 145], axis=1) + np.linalg.norm(
        shapes[:, 386] - shapes[:, 374], axis=1
    )
    spread = np.linalg.norm(shapes[:, 61] - shapes[:, 291], axis=1)
    unrest = mouth - mouth.min() + np.abs(eyes - np.quantile(eyes, 0.7)) + np.abs(spread - np.median(spread))
    calm = np.argsort(unrest, kind="stable")[: max(1, len(shapes) // 5)]
    return np.median(shapes[calm], axis=0).astype(np.float32)


def geometry_map(landmarks: Floats, size: int) -> Floats:
    """Where eye and mouth openings are: `[size, size, 2]` 0..1 (lids, inner lips), from landmarks in crop pixels."""
    openings = np.zeros((2, size, size), np.uint8)
    for channel, loops in enumerate(((mesh.RIGHT_EYE, mesh.LEFT_EYE), (mesh.LIPS_INNER,))):
        for loop in loops:
            polygon = np.round(landmarks[list(loop), :2] * (1 << atlas.SHIFT)).astype(np.int32)
            cv2.fillPoly(openings[channel], [polygon], 255, lineType=cv2.LINE_AA, shift=atlas.SHIFT)
    return openings.transpose(1, 2, 0).astype(np.float32) / 255


def spread_views(expressions: Sequence[Expression], quality: Sequence[float], count: int) -> list[int]:
    """Indices of at most `count` views that cover pose and expression: farthest-point sampling (Gonzalez 1985), best quality first."""
    mouth, eyes = list(_LIPS), list(_EYES)
    described = np.stack(
        [
            np.concatenate(
                [
                    e.angles / _POSE_WIDTH_DEG,
                    e.points[mouth, :2].ravel() / (0.22 * np.sqrt(len(mouth))),
                    e.points[eyes, :2].ravel() / (0.10 * np.sqrt(len(eyes))),
                ]
            )
            for e in expressions
        ]
    )
    worth = np.asarray(quality, np.float64)
    worth = 0.5 + 0.5 * (worth - worth.min()) / max(float(np.ptp(worth)), 1e-9)
    chosen = [int(worth.argmax())]
    gap = np.linalg.norm(described - described[chosen[0]], axis=1)
    while len(chosen) < min(count, len(described)):
        best = int((gap * worth).argmax())
        chosen.append(best)
        gap = np.minimum(gap, np.linalg.norm(described - described[best], axis=1))
    return chosen
