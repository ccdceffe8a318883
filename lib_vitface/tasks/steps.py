"""The single steps: `faceset`, `train`, `swap`, `evaluate`."""

from __future__ import annotations

import getpass
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lib_vitface import device, media
from lib_vitface.errors import CheckpointError, ConsentError, InputError, OutputError
from lib_vitface.faceset.settings import FacesetOptions
from lib_vitface.metrics.settings import EvaluateOptions
from lib_vitface.options import to_dict
from lib_vitface.provenance import age, audit, nudity
from lib_vitface.provenance import consent as records
from lib_vitface.provenance.consent import ConsentRecord
from lib_vitface.provenance.keys import open_keys
from lib_vitface.provenance.settings import MATERIAL, STATEMENT
from lib_vitface.swap.denoise_settings import DenoiseOptions
from lib_vitface.swap.settings import SwapOptions
from lib_vitface.training.settings import TrainOptions
from lib_vitface.types import Denoiser, Face, Floats, Host, Image, Tick, no_tick

if TYPE_CHECKING:
    from lib_vitface.faceset.store import Faceset
    from lib_vitface.models.checkpoint import Checkpoint
    from lib_vitface.provenance.publish import Publisher
    from lib_vitface.swap.frame import ModelSwapper
    from lib_vitface.swap.members import Ensemble
    from lib_vitface.swap.person import CheckedSwapper

_SAMPLE = 32  # faces of a faceset that are looked at again before training
_SAMPLE_OF_MANY = 8  # of each person, where many are in it


def faceset(options: FacesetOptions, host: Host) -> dict[str, Any]:
    """Build or continue a faceset; with a consent record (given, or in the faceset already), of that person only."""
    from lib_vitface.faceset.choice import Consenting
    from lib_vitface.faceset.extract import extract
    from lib_vitface.faceset.store import Faceset
    from lib_vitface.provenance.inspect import is_marked

    refuse_nude(options.input, host)
    kept = options.output / records.FILE
    given = options.consent or (kept if kept.exists() else None)
    if given is None:
        summary = extract(options, host.tick, is_synthetic=is_marked)
        return {**summary, "apparent_age": adults_only(options.output, host.workspace)}
    record = records.load_record(given)
    with _gate(host.workspace, "faceset", record):
        records.check(record, host.workspace)
        person = Consenting(np.asarray(record.reference, np.float32), records.SAME_FACE, records.MEASURED_YAW_DEG)
        summary = extract(options, host.tick, is_synthetic=is_marked, consenting=person)
        with Faceset.open(options.output) as made:
            records.check_person(record, front_look(made), options.output)
            summary["undecided"] = int((np.abs(made.columns("yaw_deg")["yaw_deg"]) > records.MEASURED_YAW_DEG).sum())
    summary["apparent_age"] = adults_only(options.output, host.workspace, record)
    records.save_record(record, kept)
    records.keep(record, host.workspace)
    inputs = [str(path.resolve()) for path in options.input]
    facts = {"folder": str(options.output.resolve()), "faces": summary["faces"], "dropped": summary["dropped"]}
    facts["undecided"] = summary["undecided"]
    audit.note(host.workspace, "faceset built", record=record.id, inputs=inputs, **facts)
    return {**summary, "consent_record": record.id}


def refuse_nude(paths: Sequence[Path], host: Host) -> None:
    """Raises `InputError`, noted in the audit log, where an installed classifier sees nudity in the material."""
    reason = nudity.fault(paths, host.tick)
    if reason:
        audit.note(host.workspace, "refused", task="nudity", reason=reason)
        raise InputError(reason)


def adults_only(folder: Path, workspace: Path, record: ConsentRecord | None = None) -> dict[str, Any] | None:
    """How old the person of a faceset that was just built looks (of several people, the youngest), None where nothing estimates it.

    Raises `ConsentError` for somebody who may be a minor; then nothing is kept of the faceset.
    """
    from lib_vitface.faceset.writer import erase

    try:
        with _gate(workspace, "faceset", record):
            return _apparent_age(folder)
    except ConsentError as error:
        erase(folder)
        raise ConsentError(f"{str(error).removesuffix('.')}; the faceset was erased.") from None


def _apparent_age(folder: Path) -> dict[str, Any] | None:
    """Of each person of a faceset by the pixels that lie there now; the youngest's. Raises `ConsentError`."""
    from lib_vitface.faceset.store import Faceset

    with Faceset.open(folder) as faces:
        column = faces.columns("id", "cluster", novel=False)
        people = [column["id"][column["cluster"] == one] for one in np.unique(column["cluster"])]
        count = _SAMPLE if len(people) == 1 else _SAMPLE_OF_MANY
        found = [age.check(_pictured(faces, _spread(own, count)), folder) for own in people]
    known = [one for one in found if one is not None]
    return min(known, key=lambda one: float(one["years"]), default=None)


@contextmanager
def _gate(workspace: Path, task: str, record: ConsentRecord | None = None) -> Iterator[None]:
    """Notes in the audit log what a gate refused."""
    try:
        yield
    except ConsentError as error:
        audit.note(workspace, "refused", task=task, reason=str(error), record=None if record is None else record.id)
        raise


def train(options: TrainOptions, host: Host, who: str = "", licence: str = "") -> dict[str, Any]:
    """Train or train on, as a job of the workspace. `who` is named in a declaration, where one has to be made; with `licence` it
    says that the footage's licence allows it."""
    from lib_vitface.faceset.store import Faceset
    from lib_vitface.faceset.writer import sole_right
    from lib_vitface.jobs import JobStore
    from lib_vitface.provenance.publish import Publisher
    from lib_vitface.training.team import follows
    from lib_vitface.training.trainer import train as run

    if follows():  # it writes nothing; the first process passes the gates and keeps the job
        return run(options)
    with Faceset.open(options.target):
        pass  # says what is wrong with it before anything is made
    with _gate(host.workspace, "train"):
        record = _training_record(options, host, who, licence)
        for path in (options.source, *options.more_sources, options.target):
            _apparent_age(path)
    _check_model(options.model, record)
    keys = open_keys(host.workspace)
    publisher = Publisher(record.id, "preview", keys.mark)
    store = JobStore(host.workspace)
    key = {"options": {**to_dict(options), "model": str(options.model.resolve())}}
    job = store.find("train", key) or store.create("train", key)
    with sole_right(options.model), store.claim(job.id) as claim, host.exclusive():
        records.save_record(record, options.model / records.FILE)
        _bind(record, options, host.workspace)
        result = run(options, _both(host.tick, claim.progress), consent_id=record.id, publish=publisher.image)
        claim.finish(result)
        device.release_memory(device.pick_device(options.device))
    return {**result, "consent": record.id, "job": job.id}


def _bind(record: ConsentRecord, options: TrainOptions, workspace: Path) -> None:
    """Facesets and model are known as the record's from now on: in the audit log, and the facesets by their own copies."""
    sources = (options.source, *options.more_sources)
    for source in sources:
        if not (source / records.FILE).exists():
            with suppress(OutputError):  # a faceset on a disk that cannot be written
                records.save_record(record, source / records.FILE)
    for folder, what in (*((source, "faceset used") for source in sources), (options.model, "training begun")):
        audit.note(workspace, what, record=record.id, folder=str(folder.resolve()))


def _both(first: Tick, second: Tick) -> Tick:
    def tick(done: float, total: float, note: str = "") -> None:
        first(done, total, note)
        second(done, total, note)

    return tick


def _training_record(options: TrainOptions, host: Host, who: str, licence: str) -> ConsentRecord:
    """The record of the source faceset, else the model's own, else a declaration made and signed now. Every faceset of the source must
    show its person, and may carry no other's record."""
    from lib_vitface.faceset.store import Faceset

    with Faceset.open(options.source) as source:
        look, seen = front_look(source), sampled_looks(source)
    for folder in (options.source, options.model):
        if (folder / records.FILE).exists():
            record = records.load_record(folder / records.FILE)
            break
    else:
        record = declare(host.workspace, look, who, licence)
    records.check(record, host.workspace)
    records.check_person(record, look, options.source)
    records.check_share(record, seen, options.source)
    for path in options.more_sources:
        if (path / records.FILE).exists() and (other := records.load_record(path / records.FILE)).id != record.id:
            raise ConsentError(
                f"{path}: belongs to another consent record ({other.id}) than {options.source}; leave it out of --more-sources."
            )
        with Faceset.open(path) as source:
            records.check_person(record, front_look(source), path)
            records.check_share(record, sampled_looks(source), path)
    return record


def front_look(faceset: Faceset) -> Floats:
    """Mean embedding [128] of the kept faces of which one tells whose they are. Raises `ConsentError` where there are none."""
    from lib_vitface.faces.embed import unit

    yaw = faceset.columns("yaw_deg", novel=False)["yaw_deg"]
    looks = faceset.array("embedding", novel=False)[np.abs(yaw) <= records.MEASURED_YAW_DEG]
    if not len(looks):
        raise ConsentError(records.undecided(faceset.path))
    return unit(looks.mean(axis=0))


def sampled_looks(faceset: Faceset) -> Floats:
    """Embeddings `[N, 128]` of some of the kept faces, of the pixels that lie there now: the index may tell of others.

    Those turned by more than `MEASURED_YAW_DEG` are left out, if the pixels say so as well.
    """
    from lib_vitface.faces.analyse import Analyser
    from lib_vitface.faces.detect import make_detector
    from lib_vitface.faces.embed import make_embedder
    from lib_vitface.faces.landmarks import MeshLandmarker

    column, embedder = faceset.columns("id", "yaw_deg"), make_embedder("sface")
    turned = np.abs(column["yaw_deg"]) > records.MEASURED_YAW_DEG
    chosen = [_spread(column["id"][part], _SAMPLE) for part in (~turned, turned)]
    found = [embedder(image, face) for image, face in _pictured(faceset, chosen[0])]
    if len(chosen[1]):  # most sets need no detector
        look = Analyser(make_detector(), MeshLandmarker())
        for image, face in _pictured(faceset, chosen[1]):
            seen = [f.pose.yaw_deg for f in look(image)[:1] if f.pose is not None]
            if seen and abs(seen[0]) <= records.MEASURED_YAW_DEG:
                found.append(embedder(image, face))
    return np.stack(found) if found else np.zeros((0, len(faceset.mean_embedding())), np.float32)


def _spread(ids: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """At most `count` of them, evenly over all."""
    if not len(ids):
        return ids
    return ids[np.unique(np.linspace(0, len(ids) - 1, count).round().astype(int))]


def _pictured(faceset: Faceset, ids: NDArray[np.int64]) -> Iterator[tuple[Image, Face]]:
    """Crops as they lie there now, each with its face."""
    from lib_vitface.metrics.source import face_from

    for one in faceset.records(ids=[int(k) for k in ids]):
        yield faceset.image(one), face_from(one.landmarks)


def _check_model(folder: Path, record: ConsentRecord) -> None:
    """Raises `CheckpointError` where a model is there that was trained under another record; its record must stay."""
    from lib_vitface.models.checkpoint import INDEX, open_model

    if (folder / INDEX).exists() and (found := open_model(folder).consent_id) != record.id:
        raise CheckpointError(f"{folder} belongs to another consent record ({found}); choose another folder.")


def declare(workspace: Path, look: Floats, who: str = "", licence: str = "") -> ConsentRecord:
    """Whoever starts the work says that it is their own face, or that they have its owner's consent, or that the footage's
    `licence` allows it; signed and kept."""
    kind, statement = ("material", MATERIAL) if licence else ("declaration", STATEMENT)
    keys = open_keys(workspace)
    record = records.make_record(keys, who or _user(), statement, look, kind=kind, licence=licence, proof="faceset")
    audit.note(workspace, "record written", record=record.id, who=record.who, kind=record.kind)
    records.keep(record, workspace)
    return record


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "the user of this machine"


def model_record(folder: Path, consent_id: str | None, workspace: Path) -> ConsentRecord:
    """The record a model carries. Raises `ConsentError` where it is missing, another's, changed, expired or revoked."""
    with _gate(workspace, "model"):
        record = records.load_record(folder / records.FILE)
        if record.id != consent_id:
            raise ConsentError(
                f"{folder}: its consent record is not the one it was trained under; put the right {records.FILE} back."
            )
        records.check(record, workspace)
    return record


def publisher_of(model: Path, workspace: Path, use: str = "") -> Publisher:
    """The door for what a model makes; it opens only where the model's consent record holds (see `model_record`), and covers the
    `use`, where one is named."""
    from lib_vitface.models.checkpoint import open_model
    from lib_vitface.provenance.publish import Publisher
    from lib_vitface.provenance.sealing import open_seal

    checkpoint = open_model(model)
    record = model_record(model, checkpoint.consent_id, workspace)
    if use:
        with _gate(workspace, "swap", record):
            records.check_use(record, use)
    return Publisher(record.id, checkpoint.model_id, open_keys(workspace).mark, open_seal(workspace))


def denoiser_of(options: DenoiseOptions, host: Host, device: str = "auto") -> Denoiser | None:
    """What redraws: the checkpoint that is named, else the host's; None where nothing is to be redrawn.

    Raises `InputError` where there is neither, `MissingDependencyError` without diffusers.
    """
    if options.denoise <= 0:
        return None
    if options.denoise_checkpoint is not None:
        from lib_vitface.models.diffusion import DiffusersDenoiser

        return DiffusersDenoiser(
            options.denoise_checkpoint,
            device=device,
            config=options.denoise_config,
            offline=options.denoise_offline,
        )
    if host.denoiser is None:
        raise InputError(
            "--denoise: there is no diffusion checkpoint here; name one with --denoise-checkpoint, or set it to 0."
        )
    return host.denoiser


def swap(options: SwapOptions, host: Host) -> dict[str, Any]:
    """Swap a video, a picture or a folder of pictures."""
    from lib_vitface.jobs import JobStore
    from lib_vitface.models.checkpoint import open_model
    from lib_vitface.swap.picture import makes_video, swap_input

    media.list_media([options.input])  # says at once what is wrong with the input, before a model is loaded
    refuse_nude([options.input], host)
    publisher = publisher_of(options.model, host.workspace, "video" if makes_video(options) else "pictures")
    checkpoint = open_model(options.model)
    with host.exclusive(), device.PeakMemory() as memory:
        denoiser = denoiser_of(options, host, options.device)
        swapper = open_swapper(options, host.workspace, host.tick)
        make = partial(open_swapper, options, host.workspace)
        noted = partial(_note_swap, options, host.workspace, checkpoint, swapper)
        result = swap_input(options, swapper, publisher, JobStore(host.workspace), host.tick, denoiser, make, noted)
        likeness, undecided = swapper.likeness(), swapper.undecided
        used = [member.network.device for member in members_of(swapper)]
        del swapper, noted
        for one in used:
            device.release_memory(one)
    return {
        **result,
        "likeness": likeness,
        "undecided": undecided,
        "peak_memory_mb": round(memory.peak_bytes / 2**20),
        "model_id": checkpoint.model_id,
        "consent": checkpoint.consent_id,
    }


def open_swapper(options: SwapOptions, workspace: Path, tick: Tick = no_tick) -> CheckedSwapper:
    """The model that the options ask for, or several as one, which watches whose face it draws. Consent is asked for each model,
    and for each further reference.

    Raises `ConsentError`, `CheckpointError` where models do not go together or hold no such weights, `InputError`.
    """
    from lib_vitface.models.checkpoint import open_model
    from lib_vitface.swap.frame import ModelSwapper
    from lib_vitface.swap.members import Ensemble, shares_of
    from lib_vitface.swap.references import reference_views

    checkpoints = [open_model(folder) for folder in (options.model, *options.also)]
    main = checkpoints[0]
    record = model_record(options.model, main.consent_id, workspace)
    views = []
    with _gate(workspace, "swap", record):
        for other in checkpoints[1:]:
            if other.consent_id != main.consent_id:
                raise ConsentError(
                    f"{other.folder}: belongs to another consent record than {main.folder}; leave it out."
                )
            model_record(other.folder, other.consent_id, workspace)
        for path in options.references:
            pictures, look = reference_views(path, main.config.resolution, tick)
            records.check_person(record, look, path)
            views.append(pictures)
    part = {"last": "weights"}.get(options.weights, options.weights)
    if part == "soup" and (lacking := next((c.folder for c in checkpoints if part not in c.files), None)) is not None:
        raise CheckpointError(f"{lacking}: holds no averaged weights; train it on with --soup first.")
    members = [
        ModelSwapper(
            checkpoint,
            device=options.device,
            shape=options.shape,
            weights=part,
            backend=options.backend,
            size=None if options.network_size is None else options.network_size // 32 * 32,
            references=np.concatenate(views) if views and checkpoint is main else None,
            reference=options.reference,
        )
        for checkpoint in checkpoints
    ]
    return watched(members[0] if len(members) == 1 else Ensemble(members, shares_of(checkpoints)), record, workspace)


def watched(
    swapper: ModelSwapper | Ensemble, record: ConsentRecord, workspace: Path, *, stops: bool = True
) -> CheckedSwapper:
    """A model whose new faces are held against its record and the other records of the workspace; see `CheckedSwapper`."""
    from lib_vitface.swap.person import CheckedSwapper

    reference = np.asarray(record.reference, np.float32)
    others = [one for one in records.kept(workspace) if one.likeness(reference) < records.SAME_PERSON]

    def refused(reason: str) -> None:
        audit.note(workspace, "refused", task="swap", reason=reason, record=record.id)

    return CheckedSwapper(swapper, record, others, refused, stops)


def members_of(swapper: CheckedSwapper) -> Sequence[ModelSwapper]:
    """The single models of what `open_swapper` gave."""
    return getattr(swapper.inner, "members", None) or [swapper.inner]


def _note_swap(options: SwapOptions, workspace: Path, checkpoint: Checkpoint, swapper: CheckedSwapper) -> None:
    """`undecided` in the log: no new face was seen of which an embedding tells whose it is."""
    facts: dict[str, Any] = {"model": checkpoint.model_id, "output": str(options.output.resolve())}
    facts |= {"undecided": True} if swapper.likeness() is None else {}
    if not options.label:
        facts["no_label"] = options.label_reason.strip()
    audit.note(workspace, "swapped", record=checkpoint.consent_id, **facts)


def evaluate(options: EvaluateOptions, host: Host) -> dict[str, Any]:
    """Measure a result; the source may be a faceset or any media."""
    from lib_vitface.faceset.store import INDEX, Faceset
    from lib_vitface.metrics.evaluate import evaluate as run
    from lib_vitface.provenance.manifest import read_statement

    media.list_media([options.source])
    media.list_media([options.result])
    said = read_statement(options.result) if options.result.is_file() else None
    label = None if said is None else said.label_box
    if not (options.source / INDEX).is_file():
        return run(options, host.tick, label=label)
    with ExitStack() as stack:
        faces = stack.enter_context(Faceset.open(options.source))
        pictures = ((faces.image(r), r.landmarks) for r in faces.records(novel=False))
        return run(options, host.tick, source_faces=pictures, label=label)


__all__: list[str] = [
    "adults_only",
    "declare",
    "denoiser_of",
    "evaluate",
    "faceset",
    "front_look",
    "members_of",
    "model_record",
    "open_swapper",
    "publisher_of",
    "sampled_looks",
    "swap",
    "train",
    "watched",
]
