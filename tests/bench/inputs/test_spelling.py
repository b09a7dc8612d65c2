"""Names of models and devices that are misspelled are told without torch."""

import pytest

from bench.common.errors import UserError
from bench.inputs.spelling import check_device_spelling, check_model_spelling


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("smolm2", "no model at 'smolm2'; did you mean 'smollm2'?"),
        ("SmolLM2", "did you mean 'smollm2'?"),
        ("Demo", "did you mean 'demo'?"),
        ("./nowhere", "model folder './nowhere' does not exist"),
        ("models/of/mine", "model folder 'models/of/mine' does not exist"),
        ("tiny.gguf", "model file 'tiny.gguf' does not exist"),
    ],
)
def test_a_misspelled_model(model, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as told:
        check_model_spelling(model)
    assert says in str(told.value)
    (tmp_path / model).mkdir(parents=True)
    check_model_spelling(model)


@pytest.mark.parametrize("model", ["demo", "smollm2", "gpt2", "hf/SmolLM2", "a/demo", "."])
def test_a_model_that_may_be_there(model):
    check_model_spelling(model)


def test_devices():
    for device in ("auto", "balanced", "cpu", "cuda", "cuda:12", "mps", "xpu:0"):
        check_device_spelling(device)
    for device in ("gpu", "cud", "cuda:", "cuda:x", "cuda:0 ", "balanced:1", ""):
        with pytest.raises(UserError, match=f"unknown device '{device}'; expected auto, balanced"):
            check_device_spelling(device)
