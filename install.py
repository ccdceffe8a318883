"""Installs what ViTFace needs into the WebUI's environment, without changing anything that is there.

The WebUI runs this at every start, so it is quick when nothing is missing. Every version that is installed goes into a
constraints file that pip must keep to; nothing is compiled; whatever cannot be had under these terms is left out, with a
sentence. A failed attempt is remembered for a day, so that a start without a network does not wait for it again.

    python install.py [--skip-install]
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent
NOTES = ROOT / "tmp" / "install.json"
RETRY_S = 24 * 3600
PIP = ("--disable-pip-version-check", "--no-input", "--only-binary=:all:", "--retries=1", "--timeout=15")


@dataclass(frozen=True)
class Wanted:
    """A package: what pip is asked for, the module that shows it is there, and what does not work without it.

    `alone`: without its dependencies, which are in the list themselves (one of them exists under several names, and a second
    copy beside the first breaks both).
    """

    requirement: str
    module: str
    without: str
    needed: bool = True
    alone: bool = False


WANTED = (
    Wanted("torch>=2.1", "torch", "nothing works"),
    Wanted("transformers>=4.30", "transformers", "no model can be trained or used"),
    Wanted("safetensors>=0.4", "safetensors", "no model can be read"),
    Wanted("numpy>=1.26", "numpy", "nothing works"),
    Wanted("scipy>=1.11", "scipy", "no face can be measured"),
    Wanted("opencv-python>=4.8,<5", "cv2", "no picture can be read"),
    Wanted("Pillow>=9.5", "PIL", "no picture can be read"),
    Wanted("av>=12", "av", "no video can be read or written"),
    Wanted("cryptography>=41", "cryptography", "nothing can be signed, so nothing is written"),
    Wanted("PyWavelets>=1.4", "pywt", "marks of other generators cannot be read", needed=False),
    Wanted(
        "invisible-watermark==0.2.0",
        "imwatermark",
        "marks of other generators cannot be read",
        needed=False,
        alone=True,
    ),
    Wanted("dlib-bin>=19.24", "dlib", "Evaluate cannot use its independent scorer", needed=False),
    Wanted("matplotlib>=3.7", "matplotlib", "no faceset's coverage and no report can be drawn"),
)


def is_there(module: str) -> bool:
    """Whether a module can be imported, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def constraints() -> str:
    """One `name==version` line for every installed distribution."""
    lines = set()
    for distribution in metadata.distributions():
        name, version = distribution.metadata["Name"], distribution.version
        if name and version and re.fullmatch(r"[0-9][A-Za-z0-9.!+_-]*", version):
            lines.add(f"{name}=={version}")
    return "\n".join(sorted(lines, key=str.lower)) + "\n"


def attempt(wanted: Wanted, rules: Path) -> str | None:
    """Installs one package; None when it went well, else pip's reason in a line."""
    command = [sys.executable, "-m", "pip", "install", *PIP, "--constraint", str(rules)]
    command += [*(["--no-deps"] if wanted.alone else []), wanted.requirement]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0:
        return None
    lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
    return (lines[-1] if lines else "no reason given").removeprefix("ERROR: ").strip()[:200]


def refused(notes: dict[str, float], wanted: Wanted, key: str) -> bool:
    """Whether this very attempt failed less than a day ago."""
    return time.time() - notes.get(f"{wanted.requirement} {key}", 0.0) < RETRY_S


def read_notes() -> dict[str, float]:
    try:
        found = json.loads(NOTES.read_text(encoding="utf-8"))
        return {str(k): float(v) for k, v in found.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def write_notes(notes: dict[str, float]) -> None:
    try:
        NOTES.parent.mkdir(exist_ok=True)
        NOTES.write_text(json.dumps(notes, indent=1), encoding="utf-8")
    except OSError:
        pass  # a folder that cannot be written only costs another attempt


def install(missing: list[Wanted], notes: dict[str, float]) -> None:
    """Tries every missing package on its own, so that one that cannot be had does not keep out the others."""
    for wanted in missing:
        rules = constraints()
        key = hashlib.sha256(rules.encode()).hexdigest()[:12]
        reason: str | None = "it could not be installed less than a day ago"
        if not refused(notes, wanted, key):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "constraints.txt"
                path.write_text(rules, encoding="utf-8")
                reason = attempt(wanted, path)
            if reason is None:
                print(f"ViTFace: installed {wanted.requirement}.")
                continue
            notes[f"{wanted.requirement} {key}"] = time.time()
        kind = "" if wanted.needed else "optional: "
        print(f"ViTFace: {kind}{wanted.requirement} is missing, so {wanted.without} ({reason}).")


def skipped(arguments: list[str]) -> bool:
    """Whether the person asked that nothing be installed."""
    asked = [*arguments, *os.environ.get("COMMANDLINE_ARGS", "").split()]
    return "--skip-install" in asked


def main(arguments: list[str]) -> int:
    """Always 0: a package that is missing is no reason to keep the WebUI from starting."""
    missing = [wanted for wanted in WANTED if not is_there(wanted.module)]
    if not missing or skipped(arguments):
        for wanted in missing:
            print(f"ViTFace: {wanted.requirement} is missing, so {wanted.without} (--skip-install).")
        return 0
    notes = read_notes()
    install(missing, notes)
    write_notes(notes)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
