"""The diffusion pass over one picture: what is asked for, what is taken of the answer, and what the guard lets through."""

from __future__ import annotations

from dataclasses import fields
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from grain import Grain, Melt
from tint import PlainDoor, Tint, options

from lib_vitface import media
from lib_vitface.assets import locate
from lib_vitface.errors import InputError
from lib_vitface.faces.analyse import Analyser
from lib_vitface.faces.detect import make_detector
from lib_vitface.faces.embed import cosine, make_embedder
from lib_vitface.faces.landmarks import MeshLandmarker
from lib_vitface.faces.parse import Hand
from lib_vitface.jobs import JobStore
from lib_vitface.options import build
from lib_vitface.swap.denoise import Guard, Redrawer, filled, redrawn, view_of
from lib_vitface.swap.denoise_settings import DenoiseOptions
from lib_vitface.swap.picture import swap_images
from lib_vitface.types import Face, Image, Pose, Redraw

FREE = {"denoise_likeness": 0, "denoise_drift": 100}  # the guard asks nothing


def chosen(**values: object) -> DenoiseOptions:
    return build(DenoiseOptions, {"denoise": 0.3, "denoise_size": 256, **values})


@pytest.fixture(scope="module")
def seen() -> tuple[Image, Face]:
    image = next(islice(media.read_frames(locate("sample_source")), 1)).image
    (face,) = Analyser(make_detector(), MeshLandmarker())(image)
    return image, face


def test_words_are_filled_in() -> None:
    assert filled("{prompt}, {view} of a face", prompt="", view="side view") == "side view of a face"
    assert filled("a {x}, b", prompt="p") == "a {x}, b", "what is not a word of ours stays"
    assert filled("{prompt}, sharp", prompt="me, <lora:me:0.7>") == "me, <lora:me:0.7>, sharp"
    assert [view_of(Pose(a, 0, 0)) for a in (-5, 35, -70)] == ["front view", "three-quarter view", "side view"]
    assert view_of(None) == "front view"


def test_every_option_reaches_the_pipeline(seen: tuple[Image, Face]) -> None:
    """Each changes what is asked for (those of checkpoint, video and guard have tests of their own)."""
    image, face = seen

    def asked(**values: object) -> Redraw:
        grain = Grain()
        drawer = Redrawer(chosen(**values), grain, ("red hair", "hat"))
        drawer.difference(drawer.region(image, face))
        return grain.asked[0]

    plain = asked()
    assert plain.prompt == "red hair, front view of a face, skin texture" and plain.negative == "hat, blurry, deformed"
    assert plain.image.shape == (256, 256, 3) and plain.mask.shape == (256, 256)
    values = {
        "denoise": 0.5, "denoise_steps": 3, "denoise_seed": 9, "denoise_prompt": "x", "denoise_negative": "y",
        "denoise_guidance": 2.0, "denoise_sampler": "DDIM", "denoise_schedule": "Karras", "denoise_control": "tile",
        "denoise_attention": True,
    }  # fmt: skip
    names = {"denoise": "strength"}
    for name, value in values.items():
        assert getattr(asked(**{name: value}), names.get(name, name.removeprefix("denoise_"))) == value
    assert asked(denoise_size=300).image.shape == (320, 320, 3)
    assert asked(denoise_padding=100).mask.mean() < 0.5 * plain.mask.mean()
    assert {f.name for f in fields(Redraw)} >= {"landmarks", "control"}


def test_only_the_face_changes_and_light_stays(seen: tuple[Image, Face]) -> None:
    image, face = seen
    result, kept = redrawn(image, face, Redrawer(chosen(**FREE), Grain()), Guard(chosen(**FREE)))
    assert kept.amount == 1 and kept.likeness is None and kept.drift is None
    x0, y0, x1, y1 = face.box.astype(int)
    change = result.astype(float) - image
    assert not change[:, : x0 - 60].any() and not change[: y0 - 60].any() and not change[:, x1 + 60 :].any()
    middle = change[(3 * y0 + y1) // 4 : (y0 + 3 * y1) // 4, (3 * x0 + x1) // 4 : (x0 + 3 * x1) // 4]
    assert middle.std() > 7 and abs(middle.mean()) < 1.5, "the grain is there, its darkness is not"
    lit = chosen(**FREE, denoise_light=1)
    darker, _ = redrawn(image, face, Redrawer(lit, Grain()), Guard(lit))
    assert (darker.astype(float) - image)[y0 + 60 : y1 - 60, x0 + 60 : x1 - 60].mean() < -20


def test_strength_of_the_swap_scales_the_pass(seen: tuple[Image, Face]) -> None:
    image, face = seen
    drawer, guard = Redrawer(chosen(**FREE), Grain()), Guard(chosen(**FREE))
    whole, half, none = (redrawn(image, face, drawer, guard, (), s)[0].astype(float) - image for s in (1, 0.5, 0))
    inside = np.abs(whole) > 6
    assert 0.4 < np.abs(half[inside]).mean() / np.abs(whole[inside]).mean() < 0.6
    assert not none.any()


def test_a_frame_finer_than_the_square_keeps_its_detail(seen: tuple[Image, Face]) -> None:
    """A pipeline that changes nothing leaves a face that was shrunk to a quarter as it is, to the last bit."""
    image, face = seen
    still = Grain(0.0, 0.0)
    still.__class__ = type("Still", (Grain,), {"draw": lambda self, asked: asked.image})
    small = chosen(**FREE, denoise_size=64)
    assert (redrawn(image, face, Redrawer(small, still), Guard(small))[0] == image).all()


def test_hands_are_not_redrawn(seen: tuple[Image, Face]) -> None:
    image, face = seen
    middle = (face.box[:2] + face.box[2:]) / 2
    fan = np.stack([np.linspace(-30, 30, 21), np.tile([-25, 0, 25], 7)], axis=1)
    hand = Hand((middle + fan).astype(np.float32), 1.0)
    drawer, guard = Redrawer(chosen(**FREE), Grain()), Guard(chosen(**FREE))
    free, held = (redrawn(image, face, drawer, guard, hands)[0].astype(float) - image for hands in ((), (hand,)))
    y, x = middle[::-1].astype(int)
    part = np.s_[y - 8 : y + 8, x - 8 : x + 8]
    assert np.abs(free[part]).mean() > 5 > 1 > np.abs(held[part]).mean()


@pytest.mark.parametrize("likeness", [0.6, 0.9])
def test_the_guard_holds_its_bounds(seen: tuple[Image, Face], likeness: float) -> None:
    """Measured afterwards, by a network and a landmarker of their own."""
    image, face = seen
    values = chosen(denoise_likeness=likeness, denoise_drift=3.0, denoise_light=1)
    result, kept = redrawn(image, face, Redrawer(values, Melt()), Guard(values))
    assert 0 < kept.amount < 1
    embed, mark = make_embedder("sface"), MeshLandmarker()
    assert cosine(embed(image, face), embed(result, face)) >= likeness
    one, other = (mark(picture, face).landmarks for picture in (image, result))
    assert one is not None and other is not None
    eyes = np.linalg.norm(one[[33, 133], :2].mean(axis=0) - one[[263, 362], :2].mean(axis=0))
    assert np.linalg.norm((one - other)[:, :2], axis=1).mean() / eyes <= 0.031
    free = chosen(**FREE, denoise_light=1)
    ruined, _ = redrawn(image, face, Redrawer(free, Melt()), Guard(free))
    assert cosine(embed(image, face), embed(ruined, face)) < 0.5, "without the guard nobody would be known again"


def test_the_guard_keeps_as_much_as_it_may(seen: tuple[Image, Face]) -> None:
    image, face = seen
    strict, loose = (chosen(denoise_likeness=b, denoise_drift=100, denoise_light=1) for b in (0.95, 0.7))
    amounts = [redrawn(image, face, Redrawer(o, Melt()), Guard(o))[1] for o in (strict, loose)]
    assert 0 < amounts[0].amount < amounts[1].amount
    assert amounts[0].likeness is not None and 0.95 <= amounts[0].likeness < 0.99


def test_pictures_are_redrawn_too(seen: tuple[Image, Face], tmp_path: Path) -> None:
    media.write_image(tmp_path / "in.png", seen[0])
    made = {}
    for name, strength, denoiser in (("plain", 0, None), ("zero", 0, Grain()), ("drawn", 0.3, Grain())):
        values = {"input": tmp_path / "in.png", "output": tmp_path / f"{name}.png", "codec": "auto", **FREE}
        picked = options(tmp_path, **values, denoise=strength)
        result = swap_images(picked, Tint(), PlainDoor(), JobStore(tmp_path / "work"), denoiser=denoiser)  # type: ignore[arg-type]
        expected = {"pictures": 1, "held_back": 0, "left_out": 0} if strength else None
        assert result.get("denoise") == expected
        made[name] = (tmp_path / f"{name}.png").read_bytes()
        assert denoiser is None or len(denoiser.asked) == (strength > 0)
    assert made["plain"] == made["zero"] != made["drawn"]
    with pytest.raises(InputError, match="--denoise-checkpoint"):
        swap_images(options(tmp_path, **values, denoise=0.3), Tint(), PlainDoor(), JobStore(tmp_path / "work"))  # type: ignore[arg-type]
