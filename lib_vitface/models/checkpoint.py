"""Model folders: everything needed to go on training or to swap, and nothing that runs code when it is read.

A folder holds `model.json` and the safetensors files it names. A save writes new files beside the old ones and replaces
`model.json` last, so at every moment the folder holds one whole model.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib_vitface.assets import digest
from lib_vitface.errors import CheckpointError, InputError, OutputError
from lib_vitface.models.config import IDENTITIES, Config, config_from_dict, config_to_dict

FORMAT = "vitface-model"
VERSION = 1
INDEX = "model.json"


@dataclass(frozen=True)
class Checkpoint:
    """What `model.json` says. `files` maps a part (weights, state, memory_source, memory_target, best; onnx of an exported model)
    to a file name."""

    folder: Path
    config: Config
    model_id: str
    step: int
    elapsed_s: float
    consent_id: str | None
    notes: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)

    def person(self, reference: str = "") -> int:
        """The number (see `types.Batch.identity`) of one of the source's facesets by its name, by default of the first. Raises
        `InputError` where there is none of that name."""
        names = self.notes.get("references", [])
        if not reference:
            return 0
        if reference not in names:
            known = ", ".join(names) or "one faceset of the source only, see train --more-sources"
            raise InputError(f"--reference: {self.folder} has no {reference!r}; it has {known}.")
        place = names.index(reference)
        return place if place == 0 else place + IDENTITIES - 1

    def arrays(self, part: str) -> dict[str, NDArray[Any]]:
        """The named arrays of one part. Raises `CheckpointError` where the file is missing or damaged."""
        return _read_arrays(self.file(part))

    def tensors(self, part: str) -> dict[str, Any]:
        """As `arrays`, but torch tensors."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = self.file(part)
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} is damaged ({error}); use a backup of the model or train again.") from error

    def file(self, part: str) -> Path:
        """Where a part lies. Raises `CheckpointError` where it is missing or not as it was written."""
        name = self.files.get(part)
        if name is None and "exported" in self.notes:
            raise CheckpointError(
                f"{self.folder} was exported to swap with and has no {part!r}; use the model it was made of."
            )
        if name is None:
            raise CheckpointError(
                f"The model {self.folder} has no {part!r}; it was not saved completely. Train it again."
            )
        path = self.folder / name
        if not path.is_file():
            raise CheckpointError(f"{path} is missing; use a backup of the model or train again.")
        if digest(path) != self.digests.get(part):
            raise CheckpointError(
                f"{path} is damaged (its checksum is wrong); use a backup of the model or train again."
            )
        return path


def open_model(folder: Path) -> Checkpoint:
    """Read a model folder's index. Raises `CheckpointError` with the reason where it cannot be used."""
    path = folder / INDEX
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise CheckpointError(f"{path} is not a ViTFace model.")
        if values.get("version") != VERSION:
            raise CheckpointError(f"{path} is of format version {values.get('version')}; this version reads {VERSION}.")
        config = config_from_dict(values["config"])
        numbers = int(values["step"]), float(values["elapsed_s"])
        texts = str(values["model_id"]), values.get("consent_id")
        tables = values.get("notes", {}), values["files"], values["digests"]
    except FileNotFoundError:
        raise CheckpointError(f"{folder} holds no model ({INDEX} is missing); train one with `train` first.") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); use a backup of the model or train again.") from error
    if any(Path(name).name != name for name in tables[1].values()):
        raise CheckpointError(f"{path} names files outside its folder; it was not written by ViTFace.")
    return Checkpoint(folder, config, texts[0], numbers[0], numbers[1], texts[1], *tables)


def save_model(checkpoint: Checkpoint, parts: Mapping[str, Mapping[str, Any]]) -> Checkpoint:
    """Write `parts` (named torch tensors or numpy arrays) and the index; parts not given stay as they are on disk.

    Returns the checkpoint as it now stands. Raises `OutputError` where the disk does not take it; the old model stays whole.
    """
    folder = checkpoint.folder
    files, digests = dict(checkpoint.files), dict(checkpoint.digests)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for part, values in parts.items():
            path = folder / f"{part}-{checkpoint.step:08d}.safetensors"
            _write_arrays(path, values)
            files[part], digests[part] = path.name, digest(path)
        index = {
            "format": FORMAT,
            "version": VERSION,
            "model_id": checkpoint.model_id,
            "consent_id": checkpoint.consent_id,
            "config": config_to_dict(checkpoint.config),
            "step": checkpoint.step,
            "elapsed_s": checkpoint.elapsed_s,
            "notes": checkpoint.notes,
            "files": files,
            "digests": digests,
        }
        _replace(folder / INDEX, json.dumps(index, indent=1).encode())
    except OSError as error:
        raise OutputError(
            f"The model cannot be saved to {folder} ({error.strerror or error}); the last save is kept."
        ) from error
    for path in folder.glob("*.safetensors"):
        if path.name not in files.values():
            path.unlink(missing_ok=True)
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)
    return Checkpoint(
        folder, checkpoint.config, checkpoint.model_id, checkpoint.step, checkpoint.elapsed_s, checkpoint.consent_id,
        checkpoint.notes, files, digests,
    )  # fmt: skip


def back_up(checkpoint: Checkpoint) -> Path:
    """Copy the model as it stands to `backups/step-<n>`, whole or not at all."""
    place = checkpoint.folder / "backups" / f"step-{checkpoint.step:08d}"
    beside = place.with_name("." + place.name)
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        for name in (INDEX, *checkpoint.files.values()):
            shutil.copy2(checkpoint.folder / name, beside / name)
        shutil.rmtree(place, ignore_errors=True)
        beside.replace(place)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise OutputError(f"The backup {place} cannot be written ({error.strerror or error}).") from error
    return place


def _write_arrays(path: Path, values: Mapping[str, Any]) -> None:
    import torch
    from safetensors.numpy import save
    from safetensors.torch import save as save_tensors

    if all(isinstance(v, torch.Tensor) for v in values.values()):
        data = save_tensors({k: v.detach().cpu().contiguous() for k, v in values.items()})
    else:
        data = save({k: np.ascontiguousarray(v) for k, v in values.items()})
    _replace(path, data)


def _replace(path: Path, data: bytes) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); use a backup of the model or train again.") from error
