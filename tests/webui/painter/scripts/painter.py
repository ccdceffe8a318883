"""An extension for tests only: an always-on script that repaints finished pictures, as ADetailer does.

The prompt says what it does. "painted": the picture becomes the face in PAINTER_FACE, in the hook ADetailer uses (the random
checkpoint paints noise, in which there is no face to swap). "repainted": a corner is painted over in the very last hook.
"""

from __future__ import annotations

import os
from typing import Any

from modules import scripts
from PIL import Image


class Painter(scripts.Script):
    def title(self) -> str:
        return "Painter"

    def show(self, is_img2img: bool) -> Any:
        return scripts.AlwaysVisible

    def postprocess_image(self, p: Any, pp: Any, *_: Any) -> None:
        if "painted" in p.prompt:
            face = Image.open(os.environ["PAINTER_FACE"]).convert("RGB")
            pp.image = face.resize(pp.image.size)


class ZLatePainter(scripts.Script):
    def title(self) -> str:
        return "Late painter"

    def show(self, is_img2img: bool) -> Any:
        return scripts.AlwaysVisible

    def postprocess_image_after_composite(self, p: Any, pp: Any, *_: Any) -> None:
        if "repainted" in p.prompt:
            pp.image = pp.image.copy()
            pp.image.paste((10, 200, 10), (0, 0, 64, pp.image.height))
