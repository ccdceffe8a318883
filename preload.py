"""Flags that the WebUI reads before it starts. Nothing but argparse may be imported here."""

from __future__ import annotations

import argparse


def preload(parser: argparse.ArgumentParser) -> None:
    """Called by the WebUI with its own parser."""
    parser.add_argument(
        "--vitface-dir",
        default=None,
        help="Folder of ViTFace's models, facesets, jobs and keys; by default models/vitface of the WebUI.",
    )
    parser.add_argument(
        "--vitface-allow",
        action="append",
        default=[],
        metavar="DIR",
        help="A further folder that ViTFace may read from and write to; may be given more than once.",
    )
