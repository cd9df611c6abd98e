"""Images inside a page."""

from __future__ import annotations

import base64
import io
from html import escape

import numpy as np
from jaxtyping import Float
from PIL import Image

_LEVELS = 255


def image(pixels: Float[np.ndarray, "c h w"], alternative: str) -> str:
    """An image as an element that holds its own PNG file.

    Args:
        pixels: values in [0, 1], of one channel or three; what lies beyond is clipped.
        alternative: plain text for those who do not see it.
    """
    levels = np.rint(np.clip(pixels, 0, 1) * _LEVELS).astype(np.uint8)
    stored = io.BytesIO()
    Image.fromarray(levels[0] if len(levels) == 1 else levels.transpose(1, 2, 0)).save(stored, format="PNG")
    source = f"data:image/png;base64,{base64.b64encode(stored.getvalue()).decode('ascii')}"
    return f'<img src="{source}" alt="{escape(alternative)}">'
