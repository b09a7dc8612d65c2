"""Decoders made from their specs, with the files that their options name."""

import pytest

from bench.running.decoders import make_decoder


def test_a_tree_that_is_neither_a_name_nor_a_file_is_told_with_the_spec():
    says = "^decoder 'static:tree=mc_sim_7b_36': tree .* did you mean 'mc_sim_7b_63'"
    with pytest.raises(ValueError, match=says):
        make_decoder("static:tree=mc_sim_7b_36")


def test_a_named_tree_is_read_before_any_model(tmp_path, tiny_model):
    file = tmp_path / "deep.json"
    file.write_text("[[0],[0,0],[0,0,0],[0,0,0,0],[0,0,0,0,0]]")
    decoder = make_decoder(f"static:tree={file}")
    assert [len(path) for path in decoder.identity] == [1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="depth 5, but the model has 4 heads"):
        decoder.setup(tiny_model)
