"""Line plots as SVG, in the colours of the page's theme; no plotting library is needed for them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

Series = Mapping[str, Sequence[float]]
_WIDTH, _HEIGHT = 640, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 28, 34
_POINTS = 400


def lines(
    series: Series,
    title: str,
    x_name: str,
    x: Sequence[float] | None = None,
    limits: tuple[float, float] | None = None,
) -> str:
    """One line per name over `x` (by default 0, 1, 2 …). Values that are not finite leave gaps. `limits` are the ends of the upright
    axis, by default those of the values. Empty where there is nothing."""
    known = {name: np.asarray(values, dtype=np.float64) for name, values in series.items() if len(values)}
    finite = [v[np.isfinite(v)] for v in known.values()]
    finite = [v for v in finite if len(v)]
    if not finite:
        return ""
    low, high = float(min(v.min() for v in finite)), float(max(v.max() for v in finite))
    if limits is not None:
        low, high = limits
    elif high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    places = np.asarray(x if x is not None else np.arange(max(len(v) for v in known.values())), dtype=np.float64)
    span = float(places[0]), float(max(places[-1], places[0] + 1e-9))
    parts = [_grid(low, high, span, x_name)]
    for number, (name, values) in enumerate(known.items()):
        at = places[: len(values)]
        parts.append(_path(at, values[: len(at)], span, (low, high), number))
        parts.append(_key(name, number, len(known)))
    return (
        f'<figure class="vitface-plot"><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">'
        f'<text class="vitface-title" x="{_LEFT}" y="16">{escape(title)}</text>{"".join(parts)}</svg></figure>'
    )


def thin(values: Sequence[float], count: int = _POINTS) -> tuple[list[float], list[float]]:
    """Means of equal stretches and their middle places, so that a long run stays readable."""
    array = np.asarray(values, dtype=np.float64)
    if len(array) <= count:
        return list(map(float, range(len(array)))), [float(v) for v in array]
    edges = np.linspace(0, len(array), count + 1).astype(int)
    means, places = [], []
    for a, b in itertools.pairwise(edges):
        stretch = array[a:b][np.isfinite(array[a:b])]
        means.append(float(stretch.mean()) if len(stretch) else math.nan)
        places.append((a + b - 1) / 2)
    return places, means


def _x(value: float, span: tuple[float, float]) -> float:
    return _LEFT + (value - span[0]) / (span[1] - span[0]) * (_WIDTH - _LEFT - _RIGHT)


def _y(value: float, limits: tuple[float, float]) -> float:
    return _HEIGHT - _BOTTOM - (value - limits[0]) / (limits[1] - limits[0]) * (_HEIGHT - _TOP - _BOTTOM)


def _path(
    places: NDArray[np.float64],
    values: NDArray[np.float64],
    span: tuple[float, float],
    limits: tuple[float, float],
    number: int,
) -> str:
    steps, begun = [], False
    for place, value in zip(places, values, strict=True):
        if math.isfinite(value):
            steps.append(f"{'L' if begun else 'M'}{_x(place, span):.1f} {_y(value, limits):.1f}")
        begun = math.isfinite(value)
    return f'<path class="vitface-line vitface-line-{number % 5}" d="{" ".join(steps)}"/>'


def _grid(low: float, high: float, span: tuple[float, float], x_name: str) -> str:
    parts = []
    for value in np.linspace(low, high, 5):
        y = _y(float(value), (low, high))
        parts.append(f'<line class="vitface-rule" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="vitface-tick" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>')
    whole = span[1] - span[0] >= 20
    for number, value in enumerate(np.linspace(*span, 6)):
        x, anchor = _x(float(value), span), "end" if number == 5 else "middle"
        text = f"{value:.0f}" if whole else f"{value:.3g}"
        parts.append(f'<text class="vitface-tick" x="{x:.1f}" y="{_HEIGHT - 18}" text-anchor="{anchor}">{text}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(
        f'<text class="vitface-tick" x="{middle}" y="{_HEIGHT - 4}" text-anchor="middle">{escape(x_name)}</text>'
    )
    return "".join(parts)


def _key(name: str, number: int, count: int) -> str:
    x = _WIDTH - _RIGHT - 110 * (count - number)
    return (
        f'<line class="vitface-line vitface-line-{number % 5}" x1="{x}" x2="{x + 16}" y1="12" y2="12"/>'
        f'<text class="vitface-tick" x="{x + 20}" y="16">{escape(name)}</text>'
    )
