"""The gate against cloning minors: nobody who looks younger than 18, cautiously estimated, gets through.

Where no estimator is at hand (`faces.age`), the statement in the consent record is all there is. Where one is, the median over many
faces is taken, and the estimator's mean error off it. What it refuses stays refused: there is no option against it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lib_vitface.errors import ConsentError
from lib_vitface.faces.age import ESTIMATORS, AgeEstimator, find_estimator, installed
from lib_vitface.types import Face, Image

ADULT = 18


@dataclass(frozen=True)
class ApparentAge:
    """How old somebody looks: median `years` over so many `faces`, by an `estimator` that errs by `error_years` on average."""

    years: float
    faces: int
    estimator: str
    error_years: float


def apparent(years: Sequence[float], estimator: AgeEstimator) -> ApparentAge | None:
    """Of single estimates; None without any."""
    if not years:
        return None
    return ApparentAge(round(float(np.median(years)), 1), len(years), estimator.name, estimator.error_years)


def fault(found: ApparentAge | None, what: str) -> str:
    """The sentence that refuses somebody; empty for who looks old enough. A median that is no number is not old enough."""
    if found is None or found.years - found.error_years >= ADULT:
        return ""
    faces = "1 face" if found.faces == 1 else f"the median of {found.faces} faces"
    return (
        f"{what}: shows somebody who may be a minor ({found.estimator} says {found.years:.0f} years, {faces}, and errs by "
        f"{found.error_years:g} years on average; from {ADULT + found.error_years:g} on nobody is refused); this is an estimate, of "
        "an adult other footage may help, in even light and from the front, and nothing switches it off."
    )


def check(faces: Iterable[tuple[Image, Face]], what: object) -> dict[str, Any] | None:
    """How old the person of these faces (RGB pictures and faces with landmarks) looks, JSON-ready; None where nothing estimates it.

    Raises `ConsentError` for somebody who may be a minor, `MissingDependencyError` as `find_estimator`.
    """
    estimator = find_estimator()
    found = None if estimator is None else apparent([estimator(image, face) for image, face in faces], estimator)
    if reason := fault(found, str(what)):
        raise ConsentError(reason)
    return None if found is None else asdict(found)


def told() -> str:
    """For `doctor`: the estimator with its error, or that there is none and why."""
    kind = installed()
    if kind is not None:
        limit = f"whoever looks younger than {ADULT + kind.error_years:g} is refused"
        return f"{kind.name} ({kind.file()}); errs by {kind.error_years:g} years on average ({kind.error_source}), so {limit}"
    lacking = next((e for e in ESTIMATORS if e.file() is not None), None)
    if lacking is not None:
        package = lacking.package
        return (
            f"{lacking.file()} is here, but not the package {package}; nobody's age is estimated: pip install {package}"
        )
    return "none is at hand; nobody's age is estimated, the statement in the record is all there is"
