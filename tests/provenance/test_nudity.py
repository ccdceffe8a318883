"""The gate against nude material: an installed classifier is asked before work, at every door. What it sees is made up here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lib_vitface import media
from lib_vitface.errors import InputError, MissingDependencyError
from lib_vitface.faceset.settings import FacesetOptions
from lib_vitface.options import build
from lib_vitface.provenance import audit, nudity
from lib_vitface.swap.settings import SwapOptions
from lib_vitface.tasks import facts, steps
from lib_vitface.tasks.settings import DoctorOptions
from lib_vitface.types import Host
from lib_vitface.ui.site import Site
from lib_vitface.ui.studio import Studio

PINK = np.full((64, 64, 3), (250, 120, 140), np.uint8)


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    nudity._of_file.cache_clear()
    yield
    nudity._of_file.cache_clear()


@pytest.fixture
def sees_pink(monkeypatch: pytest.MonkeyPatch) -> None:
    """A classifier that takes pink for nude."""
    seer = nudity.Classifier("a seer", lambda image: float(np.mean(image[..., 0].astype(int) - image[..., 1] > 100)))
    monkeypatch.setattr(nudity, "installed", lambda: "a seer")
    monkeypatch.setattr(nudity, "find_classifier", lambda: seer)


def test_the_sentence(sees_pink: None) -> None:
    assert nudity.fault_of(PINK, "The picture") == (
        "The picture: shows nudity, says a seer (score 1.00, limit 0.60); ViTFace does not work on such material."
    )
    assert nudity.fault_of(np.full_like(PINK, 90), "The picture") == ""


def test_one_look_a_second(sees_pink: None, tmp_path: Path, make_video) -> None:  # type: ignore[no-untyped-def]
    clip = make_video(tmp_path / "clip.mp4", [np.full_like(PINK, 90)] * 15 + [PINK] * 10, 10)
    assert "clip.mp4, frame 20: shows nudity, says a seer" in nudity.fault([clip])


def test_it_is_asked_before_any_work(sees_pink: None, tmp_path: Path) -> None:
    host, picture = Host(tmp_path / "space"), tmp_path / "a.png"
    media.write_image(picture, PINK)
    tries = (
        lambda: steps.faceset(build(FacesetOptions, {"input": [picture], "output": tmp_path / "set"}), host),
        lambda: steps.swap(
            build(SwapOptions, {"model": tmp_path / "m", "input": picture, "output": tmp_path / "o.png"}), host
        ),
        lambda: Studio(Site(host.workspace, tmp_path / "out")).swap(PINK, {"model": "m"}),
    )
    for attempt in tries:
        with pytest.raises(InputError, match="shows nudity, says a seer"):
            attempt()
    assert not (tmp_path / "set").exists() and not (tmp_path / "o.png").exists()
    assert [one["task"] for one in audit.entries(host.workspace, "refused")] == ["nudity"] * 2


def test_without_one_doctor_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nudity, "installed", lambda: None)
    assert nudity.fault([tmp_path / "not even looked for.png"]) == ""
    said = facts.doctor(DoctorOptions(), Host(tmp_path / "space", "cpu"))
    assert said["not_safe_for_work_filter"] == "none is installed; material is not checked for nudity"
    monkeypatch.setattr(nudity, "installed", lambda: "nudenet")
    assert facts.doctor(DoctorOptions(), Host(tmp_path / "space", "cpu"))["not_safe_for_work_filter"] == "nudenet"


def made_classifier(folder: Path, labels: dict[int, str]) -> Path:
    """A tiny ViT of `transformers` that always says the last label."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    config = ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, image_size=32, patch_size=16,
        id2label=labels, label2id={name: k for k, name in labels.items()},
    )  # fmt: skip
    model = ViTForImageClassification(config)
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.linspace(-9, 9, len(labels)))
    model.save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def test_a_classifier_of_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(nudity.FOLDER, str(made_classifier(tmp_path / "strict", {0: "normal", 1: "nsfw"})))
    assert "says strict (VITFACE_NSFW_MODEL) (score 1.00" in nudity.fault_of(PINK, "x")
    monkeypatch.setenv(nudity.FOLDER, str(made_classifier(tmp_path / "mild", {0: "NSFW", 1: "normal"})))
    assert nudity.fault_of(PINK, "x") == ""
    monkeypatch.setenv(nudity.FOLDER, str(made_classifier(tmp_path / "cats", {0: "cat", 1: "dog"})))
    with pytest.raises(MissingDependencyError, match=r"no label of .*cats says what is not safe"):
        nudity.fault_of(PINK, "x")
    monkeypatch.setenv(nudity.FOLDER, str(tmp_path / "none"))
    with pytest.raises(MissingDependencyError, match=r"VITFACE_NSFW_MODEL: .*none holds no image classifier"):
        nudity.fault_of(PINK, "x")


@pytest.mark.optional
def test_nudenet_lets_portraits_through(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nudenet", reason="nudenet is not installed: pip install --no-deps nudenet")
    from itertools import islice

    from lib_vitface.assets import locate

    monkeypatch.delenv(nudity.FOLDER, raising=False)
    assert nudity.installed() == "nudenet"
    for name in ("sample_source", "sample_target", "sample_no_face"):
        (frame,) = islice(media.read_frames(locate(name)), 1)
        assert nudity.fault_of(frame.image, name) == ""
