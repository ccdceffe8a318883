"""ViTFace: a digital clone of one's own face, in video and generated pictures, always marked as synthetic."""

__version__ = "0.1.0"
