from __future__ import annotations

import pytest

from svp_portrait.svp_models.data.sources import outside_share
from svp_portrait.svp_models.face.crop import Square


@pytest.mark.parametrize(
    "square, share",
    [
        (Square(0, 0, 200), 0),
        (Square(-40, 40, 200), 0.2),
        (Square(412, 412, 200), 0.75),
        (Square(600, 0, 100), 1),
    ],
)
def test_the_share_of_the_square_that_is_outside(square, share):
    assert outside_share(square, 512, 512) == pytest.approx(share)
