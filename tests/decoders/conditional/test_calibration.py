import json

import pytest

from decoders.conditional.calibration import Calibration


def test_a_calibration_is_read_back():
    made = Calibration(head_weight=((1.0, 0.5, 0.25, 0.2),), floor=0.01, coverage=(-0.1,))
    for calibration in (made, Calibration()):
        assert Calibration.parse(json.loads(json.dumps(calibration.content()))) == calibration


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[]", ""),
        ('{"flor": 1}', "flor"),
        ('{"floor": 0}', "above 0"),
        ('{"floor": "1"}', "finite"),
        ('{"floor": true}', "finite"),
        ('{"coverage": [0.0]}', "at most"),
        ('{"coverage": []}', "at most"),
        ('{"head_weight": [[1, 2]]}', "rows of 4"),
        ('{"head_weight": []}', "rows of 4"),
        ('{"head_weight": 3}', ""),
        ('{"beyond": 1}', "at most"),
        ('{"head_weight": [[1, 2, NaN]]}', "finite"),
        ('{"successor_weight": [0, 1, 2, 1e10]}', "at most 1e\\+09 from 0"),
    ],
)
def test_what_is_no_calibration_says_why(content, says):
    with pytest.raises(ValueError, match=f"^not a calibration: .*{says}"):
        Calibration.parse(json.loads(content))
