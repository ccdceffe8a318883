"""Who may be a minor is refused: where the limit lies, what is said, and what is done where nothing estimates an age."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from age_model import age_model

from lib_vitface.errors import ConsentError
from lib_vitface.provenance import age
from lib_vitface.tasks import facts
from lib_vitface.tasks.settings import DoctorOptions
from lib_vitface.types import Face, Host, Image


class Says:
    """An estimator that reads the age off a pixel."""

    name, error_years, error_source, package = "a seer", 4.0, "made up", ""

    @staticmethod
    def file() -> Path | None:
        return Path("seer")

    def __init__(self, path: Path = Path()) -> None: ...

    def __call__(self, image: Image, face: Face) -> float:
        return float(image[0, 0, 0])


def faces(*years: int) -> Iterator[tuple[Image, Face]]:
    nobody = Face(np.zeros(4, np.float32), 1.0, np.zeros((5, 2), np.float32))
    return ((np.full((4, 4, 3), one, np.uint8), nobody) for one in years)


@pytest.fixture
def seer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(age, "find_estimator", Says)


def test_the_median_less_the_error_counts(seer: None) -> None:
    found = age.check(faces(10, 22, 60), "x")
    assert found == {"years": 22.0, "faces": 3, "estimator": "a seer", "error_years": 4.0}
    with pytest.raises(ConsentError) as caught:
        age.check(faces(10, 21, 60), "x.mp4")
    assert str(caught.value) == (
        "x.mp4: shows somebody who may be a minor (a seer says 21 years, the median of 3 faces, and errs by 4 years on average; from "
        "22 on nobody is refused); this is an estimate, of an adult other footage may help, in even light and from the front, and "
        "nothing switches it off."
    )
    with pytest.raises(ConsentError, match=r"12 years, 1 face, and errs"):
        age.check(faces(12), "x.mp4")
    assert age.check(faces(), "x.mp4") is None


def test_an_answer_that_is_no_number_is_not_old_enough() -> None:
    assert "may be a minor" in age.fault(age.apparent([float("nan"), 40.0], Says()), "x")


def test_without_an_estimator_nothing_is_estimated_and_doctor_says_so(tmp_path: Path) -> None:
    assert age.check(faces(3), "x.mp4") is None
    said = facts.doctor(DoctorOptions(), Host(tmp_path / "space", "cpu"))["age_estimator"]
    assert said == "none is at hand; nobody's age is estimated, the statement in the record is all there is"


def test_doctor_names_the_estimator_and_its_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = age_model(tmp_path, monkeypatch)
    said = facts.doctor(DoctorOptions(), Host(tmp_path / "space", "cpu"))["age_estimator"]
    assert said == (
        f"insightface's genderage ({path}); errs by 7.5 years on average (at best, on 1000 pictures of IMDB-Clean: Jamo 2025, "
        "arXiv:2511.14689), so whoever looks younger than 25.5 is refused"
    )
    monkeypatch.setattr("lib_vitface.faces.age.util.find_spec", lambda name: None)
    assert (
        age.told()
        == f"{path} is here, but not the package onnxruntime; nobody's age is estimated: pip install onnxruntime"
    )
