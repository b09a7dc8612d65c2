"""What libraries say while a model is loaded, in our words."""

import pytest

from bench.common.errors import UserError
from bench.inputs.load_errors import readable_errors


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("pytorch_model.bin or model.safetensors.", "no weights .* GGUF files, download one"),
        ("modeling_own.py.", "cannot be loaded: OSError"),
    ],
)
def test_a_repository_without_weights_may_hold_gguf_files(name, says):
    with pytest.raises(UserError, match=f"'org/tiny' .*{says}"), readable_errors("'org/tiny'"):
        raise OSError(f"org/tiny does not appear to have a file named {name}")
