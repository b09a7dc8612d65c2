"""What a configuration says of a run."""

import pytest

from bench.running.config import RunConfig


@pytest.mark.parametrize(
    ("category", "temperature"),
    [
        ("math", 0.0),
        ("Math", 0.0),
        (" STEM ", 0.1),
        ("Writing", 0.7),
        ("poems", 0.7),
        ("coding", 0.0),
        ("extraction", 0.0),
        ("reasoning", 0.0),
        ("humanities", 0.1),
        ("roleplay", 0.7),
    ],
)
def test_a_temperature_is_of_a_category_however_it_is_written(category, temperature):
    """Judging read such a category as we do, and sampling did not."""
    assert RunConfig().temperature_of(category) == temperature
    assert RunConfig(temperature=0.3).temperature_of(category) == 0.3
