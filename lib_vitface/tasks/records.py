"""The `consent` task: writing, showing and revoking records, and the prompts of a live clip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lib_vitface import media
from lib_vitface.errors import ConsentError, InputError, NoFaceError
from lib_vitface.provenance import age, audit
from lib_vitface.provenance import challenge as challenges
from lib_vitface.provenance import consent as records
from lib_vitface.provenance.consent import ConsentRecord
from lib_vitface.provenance.keys import open_keys
from lib_vitface.provenance.settings import ConsentOptions
from lib_vitface.tasks.erasure import erase
from lib_vitface.types import Face, Floats, Host, Image, Tick

_LOOKS = 40  # pictures of the person a consent record is made of


def consent(options: ConsentOptions, host: Host) -> dict[str, Any]:
    """Write, show or revoke a signed record, or draw prompts for a live clip."""
    if options.action == "challenge":
        return _challenge(options, host)
    if options.action == "write":
        return _write(options, host)
    record = records.load_record(options.record)
    if options.action == "revoke":
        records.revoke(record, open_keys(host.workspace), host.workspace)
        return {**_shown(record, host.workspace), **erase(record.id, host.workspace)}
    return _shown(record, host.workspace)


def _challenge(options: ConsentOptions, host: Host) -> dict[str, Any]:
    _check_place(options)
    made = challenges.issue(host.workspace, open_keys(host.workspace))
    prompts = [prompt.text for prompt in made.prompts]
    return {"challenge": made.id, "prompts": prompts, "issued": made.issued_text, "ends": made.ends_text}


def _check_place(options: ConsentOptions) -> None:
    if options.record.exists():
        raise InputError(f"{options.record}: is there already; name another file, or revoke that record first.")
    media.check_place(options.record)


def _write(options: ConsentOptions, host: Host) -> dict[str, Any]:
    if not options.source:
        raise InputError("--source: name clips or photos of the person; the record says what the face looks like.")
    _check_place(options)
    uses = records.USES if options.uses == "all" else (options.uses,)
    words: dict[str, Any] = {"adult": options.adult, "uses": uses, "kind": options.kind, "licence": options.licence}
    records.check_words(options.who, options.statement, **words)
    records.check_days(options.expires, options.starts)
    noted: dict[str, Any] = {}
    try:
        if options.challenge:
            look, proof = _live_look(options, host)
            noted["inputs"] = [str(options.source[0].resolve())]
        else:
            look, proof = _reference_look(options, host.tick), "clips"
    except ConsentError as error:
        audit.note(host.workspace, "refused", task="consent", reason=str(error))
        raise
    record = records.make_record(
        open_keys(host.workspace),
        options.who,
        options.statement,
        look,
        expires=options.expires,
        starts=options.starts,
        proof=proof,
        **words,
    )
    audit.note(host.workspace, "record written", record=record.id, who=record.who, kind=record.kind, **noted)
    records.keep(record, host.workspace)
    records.save_record(
        record, options.record
    )  # last: with it everything is done, without it the command can be repeated
    return _shown(record, host.workspace)


def _live_look(options: ConsentOptions, host: Host) -> tuple[Floats, str]:
    """Mean embedding of the person in a clip that answers a challenge, and what the record says of it."""
    from lib_vitface.faces.analyse import Analyser
    from lib_vitface.faces.detect import make_detector
    from lib_vitface.faces.embed import make_embedder
    from lib_vitface.faces.landmarks import MeshLandmarker
    from lib_vitface.metrics.source import sample_pictures
    from lib_vitface.provenance import liveness

    if len(options.source) != 1:
        raise InputError("--source: name one clip with --challenge, the one in which the prompts are done.")
    if options.person is not None:
        raise InputError("--person: is for sources with several people; before the camera there is one, leave it out.")
    (path,) = options.source
    length = liveness.length_of(path)
    asked = challenges.use_up(host.workspace, open_keys(host.workspace), options.challenge, length)
    analyser = Analyser(make_detector(), MeshLandmarker())
    seen = liveness.watch(path, analyser, make_embedder("sface"), host.tick)
    answers = liveness.check(asked.prompts, seen, path)
    age.check(((image, face) for image in sample_pictures(path, _LOOKS) for face in analyser(image)[:1]), path)
    return liveness.reference(seen), liveness.told(asked, answers, path)


def _shown(record: ConsentRecord, workspace: Path) -> dict[str, Any]:
    state = "valid"
    try:
        records.check(record, workspace)
    except ConsentError as error:
        state = str(error)
    names = (
        "id",
        "kind",
        "who",
        "statement",
        "licence",
        "adult",
        "uses",
        "created",
        "starts",
        "expires",
        "proof",
        "public_key",
    )
    return {**{name: getattr(record, name) for name in names}, "state": state}


def _reference_look(options: ConsentOptions, tick: Tick) -> Floats:
    """Mean embedding of the person in the given material."""
    import numpy as np

    from lib_vitface.faces.analyse import Analyser
    from lib_vitface.faces.detect import make_detector
    from lib_vitface.faces.embed import make_embedder
    from lib_vitface.faces.landmarks import MeshLandmarker
    from lib_vitface.faceset import cluster
    from lib_vitface.metrics.source import portrait, sample_pictures

    analyser = Analyser(make_detector(), MeshLandmarker(), make_embedder("sface"))
    reference = None
    if options.person is not None:
        reference = next((f.embedding for f in analyser(media.read_image(options.person))), None)
        if reference is None:
            raise NoFaceError(f"{options.person}: no face was found on it; give a clear picture of the person.")
    files = media.list_media(options.source)
    found: list[Floats] = []
    portraits: list[tuple[Image, Face]] = []
    turned = False
    for number, path in enumerate(files):
        tick(number, len(files), path.name)
        for image in sample_pictures(path, -(-_LOOKS // len(files))):
            faces = [face for face in analyser(image) if face.embedding is not None and face.pose is not None]
            turned |= bool(faces)
            faces = [f for f in faces if f.pose is not None and abs(f.pose.yaw_deg) <= records.MEASURED_YAW_DEG]
            found += [face.embedding for face in faces if face.embedding is not None]
            portraits += [portrait(image, face) for face in faces]
    if not found and turned:
        raise NoFaceError(records.undecided(options.source[0]))
    if not found:
        raise NoFaceError(
            f"{options.source[0]}: no face was found in the material; give clips or photos of the person."
        )
    looks = np.stack(found)
    labels = cluster.identities(looks)
    who = cluster.wanted(looks, labels, np.ones(len(looks)), reference)
    age.check((one for one, label in zip(portraits, labels, strict=True) if label == who), options.source[0])
    return cluster.centre(looks[labels == who])


__all__ = ["consent"]
