"""Hidden states that are kept in a file."""

import pytest
import torch

from bench.common.errors import UserError
from bench.inputs.loader import load
from tests.helpers.checkpoints import write_base
from training.hidden_states import HiddenStates, KeptHiddenStates

EXAMPLES = [([1, 5, 6, 7], 2), ([1, 9], 1), ([1, 8, 8, 2, 4], 2)]
PADDED = torch.tensor([[1, 8, 8, 2, 4, 0], [1, 9, 0, 0, 0, 0]])  # Of examples 2 and 1.


@pytest.fixture
def model(tmp_path):
    return load(str(write_base(tmp_path / "base")), device="cpu").model


def kept(model, folder, identity="one", examples=EXAMPLES):
    return KeptHiddenStates(model, identity, examples, folder, autocast=False)


def test_kept_ones_are_the_models_and_are_made_once(model, tmp_path, monkeypatch, capsys):
    first = kept(model, tmp_path / "kept").of([2, 1], PADDED)
    expected = HiddenStates(model).of([2, 1], PADDED)
    torch.testing.assert_close(first[0, :5].float(), expected[0, :5], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(first[1, :2].float(), expected[1, :2], rtol=1e-3, atol=1e-3)
    assert first[1, 2:].eq(0).all()  # The padding.
    monkeypatch.setattr(type(model), "hidden_states_of", lambda *_: pytest.fail("made again"))
    again = kept(model, tmp_path / "kept")
    assert "2 of 3 answers so far" in capsys.readouterr().err
    assert again.of([1], PADDED[1:, :3]).equal(first[1:, :3])
    with pytest.raises(pytest.fail.Exception, match="made again"):
        again.of([1, 0], PADDED)  # Example 0 is not kept yet.


def test_another_model_or_other_answers_have_a_file_of_their_own(model, tmp_path, capsys):
    kept(model, tmp_path).of([2, 1], PADDED)
    capsys.readouterr()
    kept(model, tmp_path, identity="two")
    kept(model, tmp_path, examples=[*EXAMPLES[:2], ([1, 8, 8, 2, 5], 2)])
    assert capsys.readouterr().err.count("0 of 3 answers so far") == 2


def test_what_was_cut_off_is_made_again(model, tmp_path, monkeypatch):
    """A mark is written after its hidden states."""
    states = kept(model, tmp_path)
    monkeypatch.setattr(states._marks, "write", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        states.of([2, 1], PADDED)
    expected = HiddenStates(model).of([2, 1], PADDED)
    found = kept(model, tmp_path).of([2, 1], PADDED)
    torch.testing.assert_close(found[0, :5].float(), expected[0, :5], rtol=1e-3, atol=1e-3)


def test_too_little_room_and_numbers_too_large_are_told(model, tmp_path, monkeypatch):
    states = kept(model, tmp_path)
    huge = torch.full((2, 6, 32), 1e6)
    monkeypatch.setattr(type(model), "hidden_states_of", lambda *_: huge)
    with pytest.raises(UserError, match="do not fit into float16"):
        states.of([2, 1], PADDED)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("", (), {"free": 10}))
    with pytest.raises(UserError, match=r"take 0.00 GB, and .* has room for 0.00"):
        kept(model, tmp_path, identity="two")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file cannot be used: File exists"):
        kept(model, tmp_path / "file")


def test_a_file_that_was_cut_off_is_told(model, tmp_path):
    kept(model, tmp_path).of([2, 1], PADDED)
    (file,) = tmp_path.glob("*.f16")
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(UserError, match=r"f16 is cut off; remove it and .*\.done"):
        kept(model, tmp_path).of([2, 1], PADDED)
