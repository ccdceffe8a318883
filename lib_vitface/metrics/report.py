"""The evaluation as something to look at: one HTML page without outside files, and contact sheets."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from lib_vitface.errors import MissingDependencyError
from lib_vitface.metrics.gallery import Gallery, Strip
from lib_vitface.metrics.source import SourceFace
from lib_vitface.types import Floats, Image, Pose

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LABEL_PX = 26
_PAPER, _INK = 255, (40, 40, 40)
_RESULT, _TARGET, _SOURCE = "#c2410c", "#0f766e", "#6d28d9"

_ABOVE: dict[str, Any] = {
    "loc": "lower left",
    "bbox_to_anchor": (0, 1),
    "frameon": False,
    "fontsize": 8,
}  # off the curves

_TITLES = {
    "share_nearer_source": "frames nearer to the source than to the target",
    "landmark_distance_median": "median landmark distance / distance between the eyes",
    "flicker_ratio": "flicker of result / flicker of target",
}
_WORST = {
    "identity": ("least like the source", "cosine {:.3f}", -1.0),
    "landmarks": ("landmarks farthest from the target's", "distance {:.4f}", 1.0),
    "flicker": ("most flicker", "{:.2f} grey levels", 1.0),
}

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:1000px;margin:2em auto;padding:0 1em;color:#222;background:#fff}
table{border-collapse:collapse;margin:.5em 0 1.5em}td,th{padding:.2em .9em .2em 0;text-align:left;vertical-align:top}
tr{border-bottom:1px solid #e5e5e5}td.n{text-align:right;font-variant-numeric:tabular-nums}img,svg{max-width:100%}
.met{color:#15803d}.missed{color:#b91c1c}small{color:#666}
"""


def contact_sheet(
    rows: Sequence[Sequence[Image]], labels: Sequence[str], *, columns: Sequence[str] = (), cell_px: int = 192
) -> Image:
    """Pictures in rows, each row's label above it and the columns' titles on top; RGB.

    Every picture is scaled to `cell_px` high, its shape kept; columns are as wide as their widest picture. Characters the
    drawing font lacks become "?". Raises ValueError for no pictures or another number of labels than rows.
    """
    if not any(len(row) for row in rows) or len(labels) != len(rows):
        raise ValueError(f"{len(rows)} rows with pictures and {len(labels)} labels make no contact sheet")
    cells = [[_at_height(image, cell_px) for image in row] for row in rows]
    count = max(len(row) for row in cells)
    widths = [max((row[i].shape[1] for row in cells if i < len(row)), default=0) for i in range(count)]
    parts = [_titles(columns, widths)] if columns else []
    for label, row in zip(labels, cells, strict=True):
        band = np.full((cell_px, sum(widths), 3), _PAPER, dtype=np.uint8)
        left = 0
        for image, width in zip(row, widths, strict=False):
            band[:, left : left + image.shape[1]] = image
            left += width
        parts += [_titles([label], [sum(widths)])] if label else []
        parts.append(band)
    return np.concatenate(parts)


def _at_height(image: Image, height: int) -> Image:
    factor = height / image.shape[0]
    if factor == 1:
        return image
    size = (max(1, round(image.shape[1] * factor)), height)
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return cv2.resize(image, size, interpolation=method).astype(np.uint8, copy=False)


def _titles(texts: Sequence[str], widths: Sequence[int]) -> Image:
    """A strip of text, each over its column; shrunk where it would not fit."""
    band = np.full((_LABEL_PX, sum(widths), 3), _PAPER, dtype=np.uint8)
    left = 0
    for text, width in zip(texts, widths, strict=False):
        text = text.encode("ascii", "replace").decode()
        length = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 1)[0][0]
        scale = 0.5 * min(1.0, (width - 8) / max(length, 1))
        if scale > 0:
            cv2.putText(band, text, (left + 4, 18), cv2.FONT_HERSHEY_SIMPLEX, scale, _INK, 1, cv2.LINE_AA)
        left += width
    return band


def html_report(
    found: Mapping[str, Any], per_frame: Mapping[str, Sequence[Any]], gallery: Gallery, source: Sequence[SourceFace]
) -> str:
    """The whole page. `found` and `per_frame` are what `evaluate` writes. Raises MissingDependencyError without matplotlib."""
    title = f"{found['mode'].capitalize()}: {found['result']}"
    parts = [f"<h1>{html.escape(title)}</h1>", _inputs(found), _aims(found["aims"])]
    parts += ["<h2>Over time</h2>", _curves(found, per_frame), "<h2>By angle</h2>", _by_yaw(found)]
    parts += ["<h2>Moments</h2>", _sheet(gallery.even, source, [f"{s.time_s:.2f} s" for s in gallery.even])]
    for name, (words, form, sign) in _WORST.items():
        worst = gallery.worst(name)
        if worst:
            labels = [f"{strip.time_s:.2f} s, {form.format(sign * value)}" for value, strip in worst]
            parts += [f"<h2>Worst: {words}</h2>", _sheet([strip for _, strip in worst], source, labels)]
    parts += ["<h2>All figures</h2>", _table(found)]
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{_STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'


def _inputs(found: Mapping[str, Any]) -> str:
    frames = found["frames"]
    rows = "".join(
        f"<tr><th>{n}</th><td>{html.escape(str(found[n]))}</td></tr>" for n in ("source", "target", "result")
    )
    text = (
        f"{frames['scored']} frames scored of {frames['paired']}; no face in the target in {frames['without_face_in_target']}, "
        f"face lost in the result in {frames['face_lost_in_result']}. Identity by {html.escape(found['scorer'])}."
    )
    return f"<table>{rows}</table><p>{text}</p>"


def _aims(aims: Sequence[Mapping[str, Any]]) -> str:
    rows = ""
    for row in aims:
        word = {None: "not measured", True: "met", False: "missed"}[row["met"]]
        value = "–" if row["value"] is None else f"{row['value']:.4g}"
        kind = "met" if row["met"] else "missed"
        name = html.escape(_TITLES.get(row["name"], row["name"]))
        rows += f"<tr><td>{name}</td><td class=n>{value}</td><td>{html.escape(row['aim'])}</td><td class={kind}>{word}</td></tr>"
    return f"<table><tr><th>figure</th><th>value</th><th>aim</th><th></th></tr>{rows}</table>"


def _figure(heights: Sequence[float]) -> tuple[Any, list[Axes]]:
    """A matplotlib figure (no global state, no display) with one plot above another."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            "The report's curves need the package matplotlib: pip install matplotlib."
        ) from error
    figure = Figure(figsize=(10, sum(heights)), layout="constrained")
    axes = figure.subplots(len(heights), 1, squeeze=False, gridspec_kw={"height_ratios": list(heights)})[:, 0]
    for each in axes:
        each.grid(alpha=0.3)
        each.spines[["top", "right"]].set_visible(False)
    return figure, list(axes)


def _svg(figure: Any) -> str:
    """A figure as inline SVG."""
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]


def _curves(found: Mapping[str, Any], per_frame: Mapping[str, Sequence[Any]]) -> str:
    figure, axes = _figure([2.2, 1.8, 1.8])
    times = np.array(per_frame["time_s"], dtype=float)
    at = dict(zip(per_frame["frame"], times, strict=True))
    axes[0].plot(times, _numbers(per_frame["source_cosine"]), color=_SOURCE, label="to the source")
    axes[0].plot(times, _numbers(per_frame["target_cosine"]), color=_TARGET, label="to the target")
    for name, style in (("ceiling", "--"), ("floor", ":")):
        if found["identity"].get(name) is not None:
            axes[0].axhline(found["identity"][name], color="#888", ls=style, lw=1, label=name)
    for lost in per_frame["lost_s"]:
        axes[0].axvline(lost, color="#b91c1c", lw=0.5, alpha=0.5)
    axes[0].set_ylabel("identity cosine")
    axes[0].legend(**_ABOVE, ncols=4)
    axes[1].plot(times, _numbers(per_frame["landmark_distance"]), color=_RESULT)
    axes[1].set_ylabel("landmark distance")
    axes[1].set_ylim(bottom=0)
    moments = _numbers([at.get(frame, at.get(frame - 1)) for frame in per_frame["flicker_frame"]])
    axes[2].plot(moments, _numbers(per_frame["flicker_result"]), color=_RESULT, label="result")
    axes[2].plot(moments, _numbers(per_frame["flicker_target"]), color=_TARGET, label="target")
    axes[2].set_ylabel("flicker (grey levels)")
    axes[2].set_ylim(bottom=0)
    axes[2].set_xlabel("time (s)")
    axes[2].legend(**_ABOVE, ncols=2)
    return _svg(figure)


def _by_yaw(found: Mapping[str, Any]) -> str:
    bins = [b for b in found["identity"]["by_yaw"] if b["frames"]]
    figure, (axes,) = _figure([2.2])
    places = np.arange(len(bins))
    for shift, name, colour in ((-0.2, "source_cosine", _SOURCE), (0.2, "target_cosine", _TARGET)):
        axes.bar(places + shift, [b[name] for b in bins], 0.38, color=colour, label=name.replace("_", " "))
    axes.set_xticks(places, [f"{b['yaw_deg'][0]}–{b['yaw_deg'][1]}°\n{b['frames']} frames" for b in bins])
    axes.set_xlim(-0.6, max(len(bins), 4) - 0.4)
    axes.set_xlabel("how far the head is turned")
    axes.set_ylabel("identity cosine")
    axes.legend(**_ABOVE, ncols=2)
    return _svg(figure)


def _numbers(values: Sequence[Any]) -> Floats:
    return np.array([np.nan if v is None else v for v in values], dtype=np.float32)


def _sheet(strips: Sequence[Strip], source: Sequence[SourceFace], labels: Sequence[str]) -> str:
    """Source face of the most similar pose, target and result, one moment a row."""
    rows = [[_alike(source, strip.pose), strip.target, strip.result] for strip in strips]
    image = contact_sheet(rows, labels, columns=["source", "target", "result"])
    coded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 92])[1]
    return (
        f'<img alt="source, target, result" src="data:image/jpeg;base64,{base64.b64encode(coded.tobytes()).decode()}">'
    )


def _alike(source: Sequence[SourceFace], pose: Pose) -> Image:
    """The source face turned most like `pose`."""
    gaps = [abs(f.pose.yaw_deg - pose.yaw_deg) + abs(f.pose.pitch_deg - pose.pitch_deg) for f in source]
    return source[int(np.argmin(gaps))].thumbnail


def _table(found: Mapping[str, Any]) -> str:
    """Every number of a nested result, one a row."""
    rows = ""
    for name, value in _leaves(found):
        text = "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
        rows += f"<tr><td>{html.escape(name)}</td><td class=n>{html.escape(text)}</td></tr>"
    return f"<table>{rows}</table>"


def _leaves(found: Mapping[str, Any], above: str = "") -> list[tuple[str, Any]]:
    leaves: list[tuple[str, Any]] = []
    for name, value in found.items():
        if isinstance(value, Mapping):
            leaves += _leaves(value, f"{above}{name} › ")
        elif not isinstance(value, (list, str)):
            leaves.append((above + name.replace("_", " "), value))
    return leaves
