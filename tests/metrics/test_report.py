"""Contact sheets, the gallery of moments, and the page."""

from __future__ import annotations

import base64
import html.parser
import re
from collections.abc import Callable
from fractions import Fraction

import cv2
import numpy as np
import pytest

from lib_vitface.metrics.alignment import FramePair
from lib_vitface.metrics.gallery import Gallery
from lib_vitface.metrics.observation import Sighting
from lib_vitface.metrics.report import contact_sheet, html_report
from lib_vitface.metrics.source import SourceFace
from lib_vitface.types import Face, Floats, Image, Pose

Heads = Callable[..., Floats]


def plain(value: int, height: int = 40, width: int = 60) -> Image:
    return np.full((height, width, 3), value, dtype=np.uint8)


def test_contact_sheet_places_every_picture() -> None:
    sheet = contact_sheet([[plain(10), plain(20)], [plain(30, 80, 80)]], ["first", "二"], cell_px=80)
    assert sheet.dtype == np.uint8 and sheet.shape == (2 * (26 + 80), 240, 3)  # 60 x 40 doubled is 120 wide
    assert (sheet[26:106, :120] == 10).all() and (sheet[26:106, 120:240] == 20).all()
    assert (sheet[132:212, :80] == 30).all() and (sheet[132:212, 80:] == 255).all()
    assert (sheet[:26] < 128).any() and (sheet[106:132] < 128).any()  # the labels


def test_contact_sheet_with_titles_and_without_labels() -> None:
    row = [plain(50, 96, 96)] * 3
    sheet = contact_sheet([row, row], ["", ""], columns=["source", "target", "result"], cell_px=96)
    assert sheet.shape == (26 + 2 * 96, 288, 3)
    assert all((sheet[:26, 96 * i : 96 * (i + 1)] < 128).any() for i in range(3))
    narrow = contact_sheet([[plain(50, 20, 30)]], ["a label far longer than the picture is wide"], cell_px=20)
    assert narrow.shape == (46, 30, 3)


def test_contact_sheet_of_nothing_is_refused() -> None:
    for rows, labels in (([], []), ([[]], ["a"]), ([[plain(1)]], ["a", "b"])):
        with pytest.raises(ValueError, match="no contact sheet"):
            contact_sheet(rows, labels)


@pytest.fixture()
def sighting(frontal_face: Face) -> Callable[[float], Sighting]:
    def at(time_s: float) -> Sighting:
        grey = plain(int(time_s), 400, 400)
        return Sighting(FramePair(int(time_s * 25), Fraction(time_s), grey, grey), frontal_face, frontal_face)

    return at


def test_gallery_keeps_spread_and_worst_moments(sighting: Callable[[float], Sighting]) -> None:
    gallery = Gallery(4, 100.0)
    rng = np.random.default_rng(0)
    badness = rng.random(100)
    for time, value in enumerate(badness):
        gallery.offer(sighting(time), {"identity": value})
    assert [s.time_s for s in gallery.even] == [0, 25, 50, 75]
    stretches = [max(range(a, b), key=badness.__getitem__) for a, b in ((0, 13), (13, 25), (25, 38), (38, 50))]
    stretches += [max(range(a, b), key=badness.__getitem__) for a, b in ((50, 63), (63, 75), (75, 88), (88, 100))]
    expected = sorted(stretches, key=lambda t: -badness[t])[:4]
    assert [strip.time_s for _, strip in gallery.worst("identity")] == expected
    assert [value for value, _ in gallery.worst("identity")] == [badness[t] for t in expected]
    assert all(abs(float(s.result.mean()) - s.time_s) < 0.5 for s in gallery.even)
    assert gallery.worst("flicker") == []


class _Wellformed(html.parser.HTMLParser):
    """Fails where tags of the page do not close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in {"meta", "img", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_page_is_whole_and_escapes_names(sighting: Callable[[float], Sighting]) -> None:
    gallery = Gallery(2, 4.0)
    for time in range(4):
        gallery.offer(sighting(time), {"identity": -0.5, "landmarks": 0.01, "flicker": 1.0})
    thumbnails = [plain(200, 192, 192), plain(10, 192, 192)]
    source = [
        SourceFace(np.ones(4, np.float32), {}, Pose(y, 0, 0), t) for y, t in zip((40, 2), thumbnails, strict=True)
    ]
    bins = [{"yaw_deg": [0, 15], "frames": 2, "source_cosine": 0.5, "target_cosine": 0.25}]
    found = {
        "mode": "swap",
        "source": "<me> & you",
        "target": "t.mp4",
        "result": "r.mp4",
        "scorer": "dlib",
        "frames": {"scored": 2, "paired": 4, "without_face_in_target": 0, "face_lost_in_result": 1},
        "identity": {"by_yaw": bins, "ceiling": 0.9, "floor": None, "source_cosine": 0.51234},
        "aims": [{"name": "flicker_ratio", "value": None, "aim": "<= 1.2", "met": None}],
    }
    names = ["source_cosine", "target_cosine", "landmark_distance"]
    columns = {
        "time_s": [0.0, 1.0],
        "frame": [0, 1],
        "lost_s": [0.5],
        "flicker_frame": [1],
        **{n: [0.1, None] for n in names},
    }
    columns |= {"flicker_result": [1.0], "flicker_target": [0.5]}
    page = html_report(found, columns, gallery, source)
    parser = _Wellformed()
    parser.feed(page)
    assert (
        parser.open == [] and "<me> & you" in parser.text and "0.5123" in parser.text and "not measured" in parser.text
    )
    pictures = re.findall(r"data:image/jpeg;base64,([^\"]+)", page)
    assert len(pictures) == 4  # moments, and the worst by three measures
    sheet = cv2.imdecode(np.frombuffer(base64.b64decode(pictures[0]), np.uint8), cv2.IMREAD_COLOR)
    assert sheet.shape == (26 + 2 * (26 + 192), 3 * 192, 3)
    assert abs(float(sheet[60:200, 20:180].mean()) - 10) < 2  # the source face turned most alike
