"""The task `pretrain`: a folder with a folder for each person in, one base file out, from which `train --base` starts warm."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lib_vitface import device, media
from lib_vitface.errors import CheckpointError, ConsentError, InputError, NoFaceError
from lib_vitface.faceset.settings import FacesetOptions
from lib_vitface.media.container import beside, writing
from lib_vitface.options import build
from lib_vitface.provenance import audit
from lib_vitface.tasks.steps import adults_only, refuse_nude
from lib_vitface.training.settings import PretrainOptions
from lib_vitface.types import Host, Pose

PEOPLE = "people"
_LIST = "people.json"
_MIRRORED = "mirrored"


def pretrain(options: PretrainOptions, host: Host) -> dict[str, Any]:
    """Builds a small faceset of each person, trains over all of them, writes the base. The same command goes on where it stopped."""
    from lib_vitface.faceset.writer import sole_right
    from lib_vitface.training.pretrain import pretrain as run

    if not options.licence.strip():
        raise InputError(
            "--licence: say what allows these pictures to be learned from (the data set's licence, or whose consent)."
        )
    refuse_nude([options.input], host)
    with sole_right(options.output), host.exclusive():
        people, left_out = build_people(options, host)
        audit.note(host.workspace, "base trained", folder=str(options.output.resolve()), licence=options.licence)
        result = run(options, people, host.tick)
        device.release_memory(device.pick_device(options.device))
    return {**result, "left_out": left_out}


def people_in(root: Path) -> dict[str, list[Path]]:
    """Files of a tree by person: VoxCeleb's `id10001`, else the first folder. Pictures that lie in no person's folder (FFHQ) are a
    person each; videos there, whose person nobody says, are an `InputError`."""
    from lib_vitface.faceset.interop import person_of

    found: defaultdict[str, list[Path]] = defaultdict(list)
    for path in media.list_media([root]):
        name = person_of(path, root)
        if name is None and media.is_video(path):
            raise InputError(f"{path}: lies in no person's folder; put it into one.")
        found[name or f"picture-{path.stem}"].append(path)
    return dict(sorted(found.items()))


def build_people(options: PretrainOptions, host: Host) -> tuple[list[Path], dict[str, str]]:
    """Facesets of the people that have a usable face, and why others have none. What was built before is not built again."""
    from lib_vitface.faceset.extract import extract

    folder = options.output / PEOPLE
    known: dict[str, str] = _read(folder / _LIST)
    people = list(people_in(options.input).items())[: options.people]
    for number, (name, files) in enumerate(people):
        host.tick(number, len(people), f"faces of {name}")
        place = folder / name
        if name in known:
            _leave_out_minors(place, name, known, host)
            continue
        values = {
            "input": files,
            "output": place,
            "size": options.size,
            "max_faces": options.faces,
            "every": options.every,
        }
        try:
            extract(build(FacesetOptions, values))
            _mirror_a_single_face(place)
            known[name] = ""
        except (InputError, NoFaceError) as error:
            known[name] = str(error)
        _leave_out_minors(place, name, known, host)
        _write(folder / _LIST, known)
    usable = [folder / name for name, _ in people if not known[name]]
    return usable, {name: known[name] for name, _ in people if known[name]}


def _leave_out_minors(place: Path, name: str, known: dict[str, str], host: Host) -> None:
    """Somebody who may be a minor is nobody to learn from; asked again each time, for an estimator may have come since."""
    if known[name]:
        return
    try:
        adults_only(place, host.workspace)
    except ConsentError as error:
        known[name] = str(error)


def _mirror_a_single_face(folder: Path) -> None:
    """A face of which there is one picture gets its mirrored picture beside it: something it can be redrawn from."""
    from lib_vitface.faceset.morphable import mirrored_landmarks
    from lib_vitface.faceset.writer import FacesetWriter, Progress

    with FacesetWriter.open(folder) as faceset:
        records = list(faceset.records())
        if len(records) > 1:
            return
        one = records[0]
        yaw, pitch, roll = one.pose
        other = replace(
            one,
            source=_MIRRORED,
            time=Fraction(0),
            image=f"mirrored_{one.image}",
            pose=Pose(-yaw, pitch, -roll),
            landmarks=mirrored_landmarks(one.landmarks[None], one.size)[0],
        )
        flipped = np.ascontiguousarray(cv2.flip(faceset.image(one), 1), np.uint8)
        faceset.save_crop(other.image, flipped, 96)
        faceset.add(faceset.add_input(_MIRRORED, one.source), [other], Progress(1, found=1, done=True))


def _read(path: Path) -> dict[str, str]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); delete it, and the people are looked at again.") from error
    return {str(name): str(reason) for name, reason in found.items()}


def _write(path: Path, known: dict[str, str]) -> None:
    with beside(path) as temporary, writing(path):
        temporary.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
