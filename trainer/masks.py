"""Where a fake differs from its original: a mask by structural similarity of two aligned crops. Knows pixels only.

Wang et al., "Image quality assessment: from error visibility to structural similarity" (2004). Letters: S crop side.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

WINDOW_PX = 7
"""Side of the window in which means and variances are taken."""
CHANGED_ABOVE = 0.15
"""1 - s above which a pixel counts as manipulated, after averaging over `AVERAGE_PX`.

99 % of the pixels of one picture encoded twice (x264, crf 23 against another; the sample portrait) lie below .074 for crf 18, .112 for
28, .267 for 33, .465 for 40: masks of strongly compressed sets (FaceForensics++ c40) hold noise.
"""
AVERAGE_PX = 15
"""Side of the box that 1 - s is averaged over: grain differs in points, a manipulation in areas."""
SMALLEST_AREA = 0.01
"""Connected parts whose outline holds a smaller share of the crop are dropped: 500 of 224 x 224 px, about what one
changed point becomes by window and average."""


def dissimilarity(real: NDArray[np.uint8], fake: NDArray[np.uint8]) -> NDArray[np.float32]:
    """1 - s of two (S, S, 3) uint8 crops, averaged over colours and clipped: (S, S) float32 in [0, 1].

    s itself lies in [-1, 1]; 1 - s unclipped would reach 2 and wrap around where it is stored as 8 bits.
    """
    from skimage.metrics import structural_similarity

    _, s = structural_similarity(real, fake, win_size=WINDOW_PX, full=True, channel_axis=2, data_range=255)
    return np.asarray((1 - s.mean(axis=2)).clip(0, 1), np.float32)


def manipulated(real: NDArray[np.uint8], fake: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(S, S) bool, True where the fake differs from its original by more than their encodings do; small parts dropped, holes filled.

    Skin without structure looks alike in any two faces, so a swapped cheek would be a hole.
    """
    averaged = cv2.blur(dissimilarity(real, fake), (AVERAGE_PX, AVERAGE_PX))
    changed = (averaged > CHANGED_ABOVE).astype(np.uint8)
    outlines, _ = cv2.findContours(changed, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    mask = np.zeros_like(changed)
    for outline in outlines:
        if cv2.contourArea(outline) >= SMALLEST_AREA * changed.size:
            cv2.drawContours(mask, [outline], -1, 1, cv2.FILLED)
    return mask.astype(np.bool_)
