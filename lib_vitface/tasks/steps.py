"""The single steps: `consent`, `faceset`, `train`, `swap`, `evaluate`."""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_vitface import device, media
from lib_vitface.errors import CheckpointError, ConsentError, InputError, NoFaceError
from lib_vitface.faceset.settings import FacesetOptions
from lib_vitface.metrics.settings import EvaluateOptions
from lib_vitface.options import to_dict
from lib_vitface.provenance import consent as records
from lib_vitface.provenance.consent import ConsentRecord
from lib_vitface.provenance.keys import open_keys
from lib_vitface.provenance.settings import STATEMENT, ConsentOptions
from lib_vitface.swap.denoise_settings import DenoiseOptions
from lib_vitface.swap.settings import SwapOptions
from lib_vitface.training.settings import TrainOptions
from lib_vitface.types import Denoiser, Floats, Host, Tick, no_tick

if TYPE_CHECKING:
    from lib_vitface.provenance.publish import Publisher
    from lib_vitface.swap.frame import ModelSwapper
    from lib_vitface.swap.members import Ensemble

_LOOKS = 40  # pictures of the person a consent record is made of


def consent(options: ConsentOptions, host: Host) -> dict[str, Any]:
    """Write, show or revoke a signed record."""
    if options.action == "write":
        if not options.source:
            raise InputError("--source: name clips or photos of the person; the record says what the face looks like.")
        if options.record.exists():
            raise InputError(f"{options.record}: is there already; name another file, or revoke that record first.")
        look = _reference_look(options, host.tick)
        record = records.make_record(
            open_keys(host.workspace), options.who, options.statement, look, expires=options.expires
        )
        records.save_record(record, options.record)
        records.keep(record, host.workspace)
        return _shown(record, host.workspace)
    record = records.load_record(options.record)
    if options.action == "revoke":
        records.keep(record, host.workspace)
        records.revoke(record, open_keys(host.workspace), host.workspace)
    return _shown(record, host.workspace)


def _shown(record: ConsentRecord, workspace: Path) -> dict[str, Any]:
    state = "valid"
    try:
        records.check(record, workspace)
    except ConsentError as error:
        state = str(error)
    names = ("id", "kind", "who", "statement", "created", "expires", "public_key")
    return {**{name: getattr(record, name) for name in names}, "state": state}


def _reference_look(options: ConsentOptions, tick: Tick) -> Floats:
    """Mean embedding of the person in the given material."""
    import numpy as np

    from lib_vitface.faces.analyse import Analyser
    from lib_vitface.faces.detect import make_detector
    from lib_vitface.faces.embed import make_embedder
    from lib_vitface.faces.landmarks import MeshLandmarker
    from lib_vitface.faceset import cluster
    from lib_vitface.metrics.source import sample_pictures

    analyser = Analyser(make_detector(), MeshLandmarker(), make_embedder("sface"))
    reference = None
    if options.person is not None:
        reference = next((f.embedding for f in analyser(media.read_image(options.person))), None)
        if reference is None:
            raise NoFaceError(f"{options.person}: no face was found on it; give a clear picture of the person.")
    files = media.list_media(options.source)
    found: list[Floats] = []
    for number, path in enumerate(files):
        tick(number, len(files), path.name)
        for image in sample_pictures(path, -(-_LOOKS // len(files))):
            found += [face.embedding for face in analyser(image) if face.embedding is not None]
    if not found:
        raise NoFaceError(
            f"{options.source[0]}: no face was found in the material; give clips or photos of the person."
        )
    looks = np.stack(found)
    labels = cluster.identities(looks)
    who = cluster.wanted(looks, labels, np.ones(len(looks)), reference)
    return cluster.centre(looks[labels == who])


def faceset(options: FacesetOptions, host: Host) -> dict[str, Any]:
    """Build or continue a faceset; with a consent record, of that person only."""
    from lib_vitface.faceset.extract import extract
    from lib_vitface.faceset.store import Faceset
    from lib_vitface.provenance.inspect import is_marked

    record = None
    if options.consent is not None:
        record = records.load_record(options.consent)
        records.check(record, host.workspace)
    summary = extract(options, host.tick, is_synthetic=is_marked)
    if record is not None:
        with Faceset.open(options.output) as made:
            records.check_person(record, made.mean_embedding(), options.output)
        records.save_record(record, options.output / records.FILE)
        records.keep(record, host.workspace)
    return summary


def train(options: TrainOptions, host: Host, who: str = "") -> dict[str, Any]:
    """Train or train on, as a job of the workspace. `who` is named in a declaration, where one has to be made."""
    from lib_vitface.faceset.store import Faceset
    from lib_vitface.faceset.writer import sole_right
    from lib_vitface.jobs import JobStore
    from lib_vitface.provenance.publish import Publisher
    from lib_vitface.training.trainer import train as run

    with Faceset.open(options.target):
        pass  # says what is wrong with it before anything is made
    record = _training_record(options, host, who)
    _check_model(options.model, record)
    keys = open_keys(host.workspace)
    publisher = Publisher(record.id, "preview", keys.mark)
    store = JobStore(host.workspace)
    key = {"options": {**to_dict(options), "model": str(options.model.resolve())}}
    job = store.find("train", key) or store.create("train", key)
    with sole_right(options.model), store.claim(job.id) as claim, host.exclusive():
        records.save_record(record, options.model / records.FILE)
        result = run(options, _both(host.tick, claim.progress), consent_id=record.id, publish=publisher.image)
        claim.finish(result)
        device.release_memory(device.pick_device(options.device))
    return {**result, "consent": record.id, "job": job.id}


def _both(first: Tick, second: Tick) -> Tick:
    def tick(done: float, total: float, note: str = "") -> None:
        first(done, total, note)
        second(done, total, note)

    return tick


def _training_record(options: TrainOptions, host: Host, who: str) -> ConsentRecord:
    """The record of the source faceset, else the model's own, else a declaration made and signed now."""
    from lib_vitface.faceset.store import Faceset

    with Faceset.open(options.source) as source:
        look = source.mean_embedding()
    for folder in (options.source, options.model):
        if (folder / records.FILE).exists():
            record = records.load_record(folder / records.FILE)
            break
    else:
        record = declare(host.workspace, look, who)
    records.check(record, host.workspace)
    records.check_person(record, look, options.source)
    return record


def _check_model(folder: Path, record: ConsentRecord) -> None:
    """Raises `CheckpointError` where a model is there that was trained under another record; its record must stay."""
    from lib_vitface.models.checkpoint import INDEX, open_model

    if (folder / INDEX).exists() and (found := open_model(folder).consent_id) != record.id:
        raise CheckpointError(f"{folder} belongs to another consent record ({found}); choose another folder.")


def declare(workspace: Path, look: Floats, who: str = "") -> ConsentRecord:
    """Whoever starts the work says that it is their own face, or that they have its owner's consent; signed and kept."""
    record = records.make_record(open_keys(workspace), who or _user(), STATEMENT, look, kind="declaration")
    records.keep(record, workspace)
    return record


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "the user of this machine"


def model_record(folder: Path, consent_id: str | None, workspace: Path) -> ConsentRecord:
    """The record a model carries. Raises `ConsentError` where it is missing, another's, changed, expired or revoked."""
    record = records.load_record(folder / records.FILE)
    if record.id != consent_id:
        raise ConsentError(
            f"{folder}: its consent record is not the one it was trained under; put the right {records.FILE} back."
        )
    records.check(record, workspace)
    return record


def publisher_of(model: Path, workspace: Path) -> Publisher:
    """The door for what a model makes; it opens only where the model's consent record holds (see `model_record`)."""
    from lib_vitface.models.checkpoint import open_model
    from lib_vitface.provenance.publish import Publisher
    from lib_vitface.provenance.sealing import open_seal

    checkpoint = open_model(model)
    record = model_record(model, checkpoint.consent_id, workspace)
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
    from lib_vitface.swap.picture import swap_input

    media.list_media([options.input])  # says at once what is wrong with the input, before a model is loaded
    publisher = publisher_of(options.model, host.workspace)
    checkpoint = open_model(options.model)
    with host.exclusive(), device.PeakMemory() as memory:
        denoiser = denoiser_of(options, host, options.device)
        swapper = open_swapper(options, host.workspace, host.tick)
        result = swap_input(options, swapper, publisher, JobStore(host.workspace), host.tick, denoiser)
        used = [member.network.device for member in members_of(swapper)]
        del swapper
        for one in used:
            device.release_memory(one)
    return {
        **result,
        "peak_memory_mb": round(memory.peak_bytes / 2**20),
        "model_id": checkpoint.model_id,
        "consent": checkpoint.consent_id,
    }


def open_swapper(options: SwapOptions, workspace: Path, tick: Tick = no_tick) -> ModelSwapper | Ensemble:
    """The model that the options ask for, or several as one. Consent is asked for each model, and for each further reference.

    Raises `ConsentError`, `CheckpointError` where models do not go together or hold no such weights, `InputError`.
    """
    import numpy as np

    from lib_vitface.models.checkpoint import open_model
    from lib_vitface.swap.frame import ModelSwapper
    from lib_vitface.swap.members import Ensemble, shares_of
    from lib_vitface.swap.references import reference_views

    checkpoints = [open_model(folder) for folder in (options.model, *options.also)]
    main = checkpoints[0]
    record = model_record(options.model, main.consent_id, workspace)
    for other in checkpoints[1:]:
        if other.consent_id != main.consent_id:
            raise ConsentError(f"{other.folder}: belongs to another consent record than {main.folder}; leave it out.")
        model_record(other.folder, other.consent_id, workspace)
    views = []
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
            weights=part,
            backend=options.backend,
            size=None if options.network_size is None else options.network_size // 32 * 32,
            references=np.concatenate(views) if views and checkpoint is main else None,
        )
        for checkpoint in checkpoints
    ]
    return members[0] if len(members) == 1 else Ensemble(members, shares_of(checkpoints))


def members_of(swapper: ModelSwapper | Ensemble) -> Sequence[ModelSwapper]:
    """The single models of what `open_swapper` gave."""
    return getattr(swapper, "members", None) or [swapper]


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
        pictures = ((faces.image(r), r.landmarks) for r in faces.records())
        return run(options, host.tick, source_faces=pictures, label=label)


__all__: list[str] = [
    "consent",
    "declare",
    "denoiser_of",
    "evaluate",
    "faceset",
    "model_record",
    "publisher_of",
    "swap",
    "train",
]
