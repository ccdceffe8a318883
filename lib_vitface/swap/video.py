"""A whole video with another face: analysed, planned, swapped in chunks, joined. Can be killed at any moment and goes on.

Memory does not grow with the video's length: frames stream, everything else lies in the job's folder. Chunks begin at fixed
frame numbers and the model always gets the same clips, so a job that was killed and resumed writes the same bytes as one
that was not.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_vitface import media
from lib_vitface.errors import InputError, NoFaceError
from lib_vitface.faces.analyse import Analyser
from lib_vitface.faces.detect import make_detector
from lib_vitface.faces.embed import make_embedder
from lib_vitface.faces.landmarks import MeshLandmarker
from lib_vitface.jobs import Chunk, Claim, Job, JobStore
from lib_vitface.media.container import writing
from lib_vitface.models.checkpoint import INDEX
from lib_vitface.options import to_dict
from lib_vitface.provenance.label import place
from lib_vitface.provenance.watermark import SAMPLES
from lib_vitface.swap.analysis import ChunkReader, HandWatch, Observer, Seen, load_seen, save_seen
from lib_vitface.swap.chunks import ChunkWork, changed, segment_name
from lib_vitface.swap.denoise import Guard, Redrawer
from lib_vitface.swap.person import CheckedSwapper
from lib_vitface.swap.plan import Plan, make_plan, read_plan
from lib_vitface.swap.settings import SwapOptions
from lib_vitface.swap.steady import Counts, SteadyRedraw
from lib_vitface.swap.stream import FrameStream, Gathered
from lib_vitface.types import Denoiser, Floats, Frame, Image, SwapModel, Tick, no_tick
from lib_vitface.workers import workers

if TYPE_CHECKING:
    from lib_vitface.provenance.publish import Publisher

# Frames that may wait between two stages: a clip and more of up to 1080p, fewer of larger ones.
DEPTH, _LEAST_DEPTH, _LARGE_PX = 6, 2, 1920 * 1080
_MANY = 10  # chunks from which on each is deleted when it lies in the output: with few there is little to be gained


def swap_video(
    options: SwapOptions,
    swapper: SwapModel,
    publisher: Publisher,
    store: JobStore,
    tick: Tick = no_tick,
    denoiser: Denoiser | None = None,
    make: Callable[[], SwapModel] | None = None,
    published: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Swaps the chosen face of `options.input` (a video) and publishes `options.output`. JSON-ready facts come back.

    `denoiser` redraws it where `options.denoise` is above 0; `make` (picklable) makes the swapper in other processes, where
    `options.workers` is above 1. `published` is called when the output is there, before the job is done: a kill can repeat it, not
    leave it out.
    With `options.resume` an unfinished job of `store` with the same options, input and model is gone on with. Raises
    `InputError` for unusable input or an output that exists, `NoFaceError`, `OutputError` (disk full), `Cancelled`.
    """
    info = media.probe(options.input)
    settings = media.EncodeSettings(options.codec, options.quality, options.encode_speed)
    check_label(options.label, options.label_reason)
    media.plan_encoding(settings, info, options.output)  # says now what would not go together at the end
    redrawer = redrawer_of(options, denoiser)
    job = find_job(store, options, denoiser)
    if was_published(store, job, options.output):
        with store.claim(job.id) as claim:
            published()
            claim.finish(store.chunks(job.id, "published")[0].data["result"])
    else:
        check_output(options)
        with store.claim(job.id) as claim:
            result = _Run(options, swapper, publisher, claim, tick, settings, redrawer, make).all()
            published()
            claim.finish(result)
    shutil.rmtree(job.folder, ignore_errors=True)
    return store.get(job.id).result or {}


def check_label(label: bool, reason: str) -> None:
    """Raises `InputError` for a video that shall have no label and no reason for that."""
    if not label and not reason.strip():
        raise InputError("--no-label: say why with --label-reason; the reason goes into the file and the audit log.")


def check_output(options: SwapOptions) -> None:
    """Raises `InputError` when the output would replace something it must not, `OutputError` where it cannot be written."""
    output = options.output
    if output.exists() and output.resolve() == options.input.resolve():
        raise InputError(f"{output}: is the input itself; name another output.")
    empty_folder = output.is_dir() and not any(output.iterdir())
    if output.exists() and not empty_folder and not options.overwrite:
        raise InputError(f"{output}: is there already; name another output or use --overwrite.")
    media.check_place(output)


def redrawer_of(options: SwapOptions, denoiser: Denoiser | None, words: tuple[str, str] = ("", "")) -> Redrawer | None:
    """The diffusion pass the options ask for, if they do. Raises `InputError` where nothing is there to draw."""
    if options.denoise <= 0 or options.opacity <= 0:
        return None
    if options.workers > 1:
        raise InputError(
            "--workers: the diffusion pass needs the frames in a row; set --workers to 1, or --denoise to 0."
        )
    if denoiser is None:
        raise InputError(
            "--denoise: there is no diffusion checkpoint here; name one with --denoise-checkpoint, or set it to 0."
        )
    return Redrawer(options, denoiser, words)


def find_job(store: JobStore, options: SwapOptions, denoiser: Denoiser | None = None) -> Job:
    """The unfinished job for exactly this work, or a new one where `check_output` has nothing against it."""
    key = _key(options, denoiser)
    job = store.find("swap", key) if options.resume else None
    if job is None:
        check_output(options)
        job = store.create("swap", key)
    return job


def _key(options: SwapOptions, denoiser: Denoiser | None = None) -> dict[str, Any]:
    """What decides which pixels come out."""
    values = to_dict(replace(options, overwrite=False, resume=True, workers=1))
    key = {"options": values, "input": identity(options.input), "model": model_identity(options.model)}
    if options.denoise > 0 and denoiser is not None:
        key["checkpoint"] = denoiser.name
    if options.also or options.references:
        key["others"] = [*map(model_identity, options.also), *map(identity, options.references)]
    return key


def finished(store: JobStore, options: SwapOptions) -> dict[str, Any] | None:
    """What a job of exactly this work brought whose output still lies there as it was written; None without one."""
    if not options.output.is_file():
        return None
    key = json.loads(json.dumps(_key(options)))
    for job in store.list("swap"):
        if job.options == key and was_published(store, job, options.output):
            return dict(store.chunks(job.id, "published")[0].data["result"])
    return None


def model_identity(folder: Path) -> str:
    """Changes when a model is trained on; its index holds the hashes of its parts. Logs and copies of the record do not count."""
    index = folder / INDEX
    return identity(index if index.is_file() else folder)


def identity(path: Path) -> str:
    """Changes when a file, or any file in a folder, is written anew. Raises `InputError` when it is not there."""
    try:
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        facts = [(p.relative_to(path).as_posix(), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from None
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def was_published(store: JobStore, job: Job, output: Path) -> bool:
    """Whether the job was killed after its output took its place and before that was noted."""
    noted = store.chunks(job.id, "published").get(0)
    return noted is not None and output.is_file() and noted.data["file"] == file_facts(output)


def file_facts(path: Path) -> list[int]:
    """What stays the same when a file is renamed."""
    facts = path.stat()
    return [facts.st_ino, facts.st_size, facts.st_mtime_ns]


def make_analyser(options: SwapOptions) -> Analyser:
    """Faces with landmarks; embeddings are asked for separately, they take longest."""
    return Analyser(make_detector(options.detector), MeshLandmarker())


def reference_look(options: SwapOptions, analyser: Analyser) -> Floats | None:
    """Embedding of the largest face on `options.face_picture`."""
    if options.face != "picture":
        return None
    if options.face_picture is None:
        raise InputError("--face picture needs --face-picture: a picture of the person to replace.")
    image = media.read_image(options.face_picture)
    faces = analyser(image)
    if not faces:
        raise NoFaceError(f"{options.face_picture}: no face was found on it; give a clear picture of the person.")
    return make_embedder("sface")(image, max(faces, key=lambda face: float(face.box[2] - face.box[0])))


class _Run:
    """One run of one job, from wherever it stands to the end."""

    def __init__(
        self,
        options: SwapOptions,
        swapper: SwapModel,
        publisher: Publisher,
        claim: Claim,
        tick: Tick,
        settings: media.EncodeSettings,
        redrawer: Redrawer | None = None,
        make: Callable[[], SwapModel] | None = None,
    ) -> None:
        self.make = make if options.workers > 1 else None
        self.redrawer = redrawer
        self.redrawn: Counts | None = None
        self.options, self.swapper, self.publisher, self.claim = options, swapper, publisher, claim
        self.folder = claim.job.folder
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        self.info = media.probe(options.input)
        self.settings = settings
        self.seconds: dict[str, dict[str, float]] = {}
        self.resumed = 0
        self._tick = tick

    def all(self) -> dict[str, Any]:
        """Every stage that is not done yet."""
        count = self.analyse()
        plan = self.plan(count)
        self.publisher = self._door(count)
        self.restore(count)
        self.swap(plan, count)
        result = {
            "output": str(self.options.output),
            "frames": count,
            "swapped_frames": int((plan.strength > 0).sum()),
            "people": plan.people,
            "resumed_chunks": self.resumed,
            "seconds": self.seconds,
            **({} if self.redrawn is None else {"denoise": asdict(self.redrawn)}),
        }
        self.join(count, result)
        return result

    def tick(self, done: float, total: float, note: str) -> None:
        """Progress to the caller and into the store; either may raise `Cancelled`."""
        self._tick(done, total, note)
        self.claim.progress(done, total, note)

    # ------------------------------------------------------------------------------------------------- first pass

    def analyse(self) -> int:
        """Faces of all frames, on disk; returns the number of frames."""
        chunk, store = self.options.chunk_frames, self.claim.store
        finished = store.chunks(self.claim.job.id, "analysed").get(0)
        first = _unbroken(store.chunks(self.claim.job.id, "analysis"))
        self.resumed += first
        if finished is not None:
            return int(finished.data["frames"])
        start = first * chunk
        analyser = make_analyser(self.options)
        observer = Observer(
            analyser, analyser.landmarker, make_embedder("sface"), HandWatch() if self.options.occlusion else None
        )
        before = load_seen(self.folder / f"analysis-{first - 1:05}.npz")[-1] if first else None
        expected = self._expected_frames()
        seen: list[Seen] = []
        count, last = start, 0.0

        def work(frame: Frame) -> Seen | None:
            nonlocal last
            last = float(frame.time)
            if frame.index < start and before is not None:
                observer.go_on_from(frame.image, before)
                return None
            self.tick(frame.index, 2 * max(expected, frame.index + 1), "looking for faces")
            return observer(frame)

        def write(found: Seen | None) -> None:
            nonlocal count
            if found is None:
                return
            seen.append(found)
            count += 1
            if len(seen) == chunk:
                self._save_seen(count // chunk - 1, seen)

        self._overlap("analysis", self._frames(max(start - 1, 0)), work, write)
        if seen:
            self._save_seen(count // chunk, seen)
        self.claim.add_chunk("analysed", 0, data={"frames": count, "last_s": last})
        return count

    def _save_seen(self, number: int, seen: list[Seen]) -> None:
        name = f"analysis-{number:05}.npz"
        save_seen(self.folder / name, seen)
        self.claim.add_chunk("analysis", number, name)
        seen.clear()

    def _frames(self, skip: int) -> Iterator[Frame]:
        return media.read_frames(self.options.input, self.options.start_s, self.options.end_s, skip)

    def _expected_frames(self) -> int:
        start = self.options.start_s or 0.0
        end = min(self.options.end_s or float("inf"), float(self.info.duration))
        return max(round((end - start) * float(self.info.fps)), 1)

    def plan(self, count: int) -> Plan:
        """Which face, where, how strongly; made once."""
        if 0 in self.claim.store.chunks(self.claim.job.id, "plan"):
            return read_plan(self.folder, self.options.chunk_frames)
        reference = reference_look(self.options, make_analyser(self.options))
        plan = make_plan(
            self.folder,
            count,
            self.options,
            reference,
            lambda: self.tick(count, 2 * count, "choosing and steadying the face"),
        )
        self.claim.add_chunk("plan", 0, "plan.npz")
        return plan

    def _door(self, count: int) -> Publisher:
        """The door with the label in one corner for the whole video, where all faces of all frames are least, and one strength of
        the mark."""
        if self.options.label:
            chunk = self.options.chunk_frames
            seen = ChunkReader(lambda n: self.folder / f"analysis-{n:05}.npz", load_seen, chunk)
            boxes = (face.box for one in seen.run(count) for face in one.faces)
            door = self.publisher.labelled(place((self.info.height, self.info.width), boxes))
        else:
            door = self.publisher.labelled(None, self.options.label_reason.strip())
        return door.of_strength(self._strength(door))

    def _strength(self, door: Publisher) -> float:
        """How strongly this video's frames are marked: found once and noted, so that all segments agree, whenever and wherever they
        are written. The footage is asked, not the result, which is not there yet."""
        noted = self.claim.store.chunks(self.claim.job.id, "strength").get(0)
        if noted is not None:
            return float(noted.data["rms"])
        strength = door.strength(self._samples())
        self.claim.add_chunk("strength", 0, data={"rms": strength})
        return strength

    def _samples(self) -> list[Image]:
        """Frames spread over the footage; fewer where it has places that cannot be reached by themselves."""
        first = self.options.start_s or 0.0
        last = self.claim.store.chunks(self.claim.job.id, "analysed")[0].data.get("last_s", first)
        found = []
        for k in range(SAMPLES):
            time = first + max(last - first, 0.0) * (k + 0.5) / SAMPLES
            with contextlib.suppress(InputError):
                found.append(next(media.read_frames(self.options.input, time, self.options.end_s)).image)
        return found

    # ------------------------------------------------------------------------------------------------ second pass

    def swap(self, plan: Plan, count: int) -> None:
        """All segments that are not there yet."""
        if self.make is not None:
            self._swap_apart(count, self.make)
            return
        first = _unbroken(self.claim.store.chunks(self.claim.job.id, "video"))
        self.resumed += first
        start = min(first * self.options.chunk_frames, count)
        redraw = self._redraw(plan, start)
        if start == count:
            return
        stream = FrameStream(self.options, self.swapper, plan, count, redraw.begin if redraw else start)
        segments = _Segments(self, first, count)

        def draw(gathered: Gathered) -> Gathered:
            index = count if gathered.frame is None else gathered.frame.index
            self.tick(count + index, 2 * count, "swapping")
            return stream.draw(gathered)

        def redrawn(gathered: Gathered) -> list[Frame]:
            assert redraw is not None
            return redraw(stream.finish(draw(gathered)))

        # Beside a diffusion pipeline nothing else is drawn: it belongs to the caller's thread.
        stages = (redrawn, None) if redraw else (draw, stream.finish)
        try:
            self._overlap("swap", self._frames(stream.begin), stages[0], segments.write, stream.gather, stages[1])
        except BaseException as error:
            segments.abort(error)
            raise
        if segments.written != count - start:
            raise InputError(changed(self.options.input))

    def _swap_apart(self, count: int, make: Callable[[], SwapModel]) -> None:
        """All segments that are not there yet, in workers."""
        began = time.monotonic()
        settings, suffix = media.segment_settings(self.settings, self.info, self.options.output)
        there = self.claim.store.chunks(self.claim.job.id, "video")
        self.resumed += len(there)
        lacking = [k for k in range(-(-count // self.options.chunk_frames)) if k not in there]
        work = ChunkWork(self.options, self.folder, count, self.publisher, settings, suffix, make)

        def say(number: int = -1) -> None:
            done = count - min(count, self.options.chunk_frames * (len(lacking) - number - 1))
            self.tick(count + done, 2 * count, f"swapping in {self.options.workers} workers")

        if not lacking:
            return
        at = -1
        with workers(self.options.workers, lambda: say(at)) as answers:
            for at, seen in enumerate(answers(work, lacking)):
                self.claim.add_chunk("video", lacking[at], segment_name(lacking[at], suffix))
                if isinstance(self.swapper, CheckedSwapper):
                    self.swapper.take_over(seen)
                say(at)
        self.seconds["swap"] = {"wall": round(time.monotonic() - began, 3)}

    def _redraw(self, plan: Plan, start: int) -> SteadyRedraw | None:
        if self.redrawer is None:
            return None
        redraw = SteadyRedraw(self.options, self.redrawer, Guard(self.options), plan, self.folder, start)
        self.redrawn = redraw.counts
        return redraw

    def _parts(self, count: int) -> list[Path]:
        _, suffix = media.segment_settings(self.settings, self.info, self.options.output)
        return [self.folder / segment_name(k, suffix) for k in range(-(-count // self.options.chunk_frames))]

    def restore(self, count: int) -> None:
        """Segments that lay in an output already whose joining was killed."""
        noted = self.claim.store.chunks(self.claim.job.id, "joined")
        for name in {str(chunk.data["joined"]) for chunk in noted.values()}:
            joined = self.options.output.absolute().with_name(name)
            if joined.is_file():
                own = {k: media.Place.from_json(c.data) for k, c in noted.items() if c.data["joined"] == name}
                media.bring_back(self._parts(count), joined, own)

    def join(self, count: int, result: dict[str, Any]) -> None:
        """The finished file, in one step. Of long videos the segments go one by one as they arrive in it, so that the disk need not
        hold everything twice."""
        parts = self._parts(count)
        self.tick(2 * count, 2 * count, "joining")

        def note(temporary: Path) -> None:
            if temporary.is_file():
                data = {"file": file_facts(temporary), "result": result}
                self.claim.add_chunk("published", 0, data=data)

        def taken(number: int, joined: Path, place: media.Place) -> None:
            self.claim.add_chunk("joined", number, data={"joined": joined.name, **place.to_json()})

        media.sweep(self.options.output)
        self.publisher.join(
            parts,
            self.options.output,
            source=self.options.input,
            settings=self.settings,
            start_s=self.options.start_s,
            end_s=self.options.end_s,
            finish=note,
            taken=taken if len(parts) >= _MANY else None,
        )

    def _overlap(
        self, name: str, read: Iterator[Frame], work: Any, write: Any, before: Any = None, after: Any = None
    ) -> None:
        clock = _Clock()
        depth = DEPTH * _LARGE_PX // max(self.info.width * self.info.height, 1)
        media.overlap(
            clock.reading(read),
            clock.timed("work", work),
            clock.timed("write", write),
            min(max(depth, _LEAST_DEPTH), DEPTH),
            before=before and clock.timed("prepare", before),
            after=after and clock.timed("finish", after),
        )
        self.seconds[name] = clock.seconds()


def _unbroken(chunks: dict[int, Chunk]) -> int:
    """How many chunks from the first on are there without a gap."""
    number = 0
    while number in chunks:
        number += 1
    return number


class _Segments:
    """Writes finished frames into one file per chunk and notes each in the store."""

    def __init__(self, run: _Run, first: int, count: int) -> None:
        self._run, self._number, self._count = run, first, count
        self._settings, self._suffix = media.segment_settings(run.settings, run.info, run.options.output)
        self._open: ExitStack | None = None
        self._writer: Any = None
        self.written = 0

    def write(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            if self._open is None:
                path = self._run.folder / segment_name(self._number, self._suffix)
                self._open = ExitStack()
                self._writer = self._open.enter_context(
                    self._run.publisher.segment(path, self._run.info, self._settings)
                )
            self._writer.write(frame)
            self.written += 1
            if (frame.index + 1) % self._run.options.chunk_frames == 0 or frame.index + 1 == self._count:
                self._close()

    def _close(self) -> None:
        if self._open is not None:
            stack, self._open = self._open, None
            stack.close()
            self._run.claim.add_chunk("video", self._number, segment_name(self._number, self._suffix))
            self._number += 1

    def abort(self, error: BaseException) -> None:
        """Leaves nothing of the segment that was being written."""
        if self._open is not None:
            stack, self._open = self._open, None
            stack.__exit__(type(error), error, error.__traceback__)


class _Clock:
    """Seconds that each of the overlapping stages was busy."""

    def __init__(self) -> None:
        self._busy: dict[str, float] = {"read": 0.0}
        self._began = time.monotonic()

    def reading(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        try:
            while True:
                began = time.monotonic()
                frame = next(frames, None)
                self._busy["read"] += time.monotonic() - began
                if frame is None:
                    return
                yield frame
        finally:
            close = getattr(frames, "close", None)
            if close is not None:
                close()

    def timed(self, name: str, stage: Any) -> Any:
        self._busy[name] = 0.0

        def call(item: Any) -> Any:
            began = time.monotonic()
            try:
                return stage(item)
            finally:
                self._busy[name] += time.monotonic() - began

        return call

    def seconds(self) -> dict[str, float]:
        """Busy seconds per stage, and `wall`."""
        facts = {**self._busy, "wall": time.monotonic() - self._began}
        return {name: round(value, 3) for name, value in facts.items()}
