"""How often clips in which nobody was asked for anything pass a challenge of live capture by accident.

    python benchmarks/liveness.py --clips me.mp4 you.mp4 … [--challenges 200] [--json out.json]

Each clip is looked at once and held against the challenges, which are drawn as `consent --action challenge` draws them. Beside the
passes it is told how often each part alone would have passed: the movements of the head, the blinking and the reading.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib_vitface import media
from lib_vitface.errors import ConsentError, ViTFaceError
from lib_vitface.faces.analyse import Analyser
from lib_vitface.faces.detect import make_detector
from lib_vitface.faces.embed import make_embedder
from lib_vitface.faces.landmarks import MeshLandmarker
from lib_vitface.provenance import challenge, liveness
from lib_vitface.types import no_tick


def passes(prompts: Sequence[challenge.Prompt], watched: liveness.Watched, clip: Path) -> str:
    """Empty where the clip passes, else the sentence that says why not."""
    try:
        liveness.check(prompts, watched, clip)
    except ConsentError as error:
        return str(error).removeprefix(f"{clip}: ")
    return ""


def measure(clip: Path, challenges: Sequence[Sequence[challenge.Prompt]], analyser: Analyser) -> dict[str, Any]:
    try:
        watched = liveness.watch(clip, analyser, make_embedder("sface"), no_tick)
    except ViTFaceError as error:
        return {"clip": clip.name, "challenges": len(challenges), "passed": 0, "refused_at_once": str(error)}
    found = liveness.events(watched)
    heads = [event.kind for event in found if event.kind in challenge.HEADS]
    said = Counter(passes(prompts, watched, clip) for prompts in challenges)
    return {
        "clip": clip.name, "challenges": len(challenges), "passed": said[""], "seconds": round(float(watched.times[-1]), 1),
        "events": [f"{e.kind} x{e.count} {e.start:.1f}-{e.end:.1f}" for e in found],
        "heads_alone": sum([p.kind for p in prompts if p.kind in challenge.HEADS] == heads for prompts in challenges),
        "blinks_alone": sum(_somewhere(prompts, "blink", found) for prompts in challenges),
        "reading_alone": sum(_somewhere(prompts, "read", found) for prompts in challenges),
        "said": dict(said.most_common(3)),
    }  # fmt: skip


def _somewhere(prompts: Sequence[challenge.Prompt], kind: str, found: Sequence[liveness.Event]) -> bool:
    """Whether the blinking or the reading is in the clip, in any place."""
    (prompt,) = (p for p in prompts if p.kind == kind)
    return any(liveness.fits(prompt, event) for event in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", nargs="+", type=Path, required=True)
    parser.add_argument("--challenges", type=int, default=200)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    analyser = Analyser(make_detector(), MeshLandmarker())
    challenges = [challenge.draw() for _ in range(given.challenges)]
    rows = [measure(clip, challenges, analyser) for clip in media.list_media(given.clips)]
    tried, passed = sum(row["challenges"] for row in rows), sum(row["passed"] for row in rows)
    told = {"tried": tried, "passed": passed, "clips": rows}
    print(json.dumps(told, indent=1))
    if given.json:
        given.json.write_text(json.dumps(told, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
