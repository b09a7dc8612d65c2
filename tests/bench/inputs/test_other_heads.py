"""Checkpoints of Hydra and EAGLE as they are published, from the loader to the answers."""

import json

import pytest
import torch
from safetensors.torch import save_file

from bench.common.errors import UserError
from bench.inputs.loader import load
from bench.running.decoders import bind, make_decoder
from tests.helpers.checkpoints import write_base
from tests.helpers.commands import basics, bench
from tests.helpers.drafters import eagle_tensors, hydra_tensors

HYDRA = {
    "base_model_name_or_path": "../base",
    "hydra_head_arch": "mlp",
    "hydra_num_heads": 3,
    "hydra_num_layers": 2,
    "grounded_heads": True,
    "hidden_state_offset": 0,
}


@pytest.fixture
def hydra(tmp_path):
    write_base(tmp_path / "base")
    folder = tmp_path / "hydra"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(HYDRA))
    return folder


def tokens(run) -> dict[str, list]:
    rows = [json.loads(line) for line in (run / "turns.jsonl").read_text().splitlines()]
    by_decoder: dict[str, list] = {}
    for row in rows:
        by_decoder.setdefault(row["decoder"], []).append(row["token_ids"])
    return by_decoder


@pytest.mark.parametrize("plus_plus", [False, True])
def test_hydras_folder_is_a_model(hydra, questions, tmp_path, plus_plus):
    torch.save(hydra_tensors(plus_plus=plus_plus), hydra / "hydra_lm_head.pt")
    arguments = ["--decoder", "greedy,hydra:nodes=9", "--temperature", 0]
    assert bench(*basics(hydra, questions, tmp_path / "run"), *arguments) == 0
    found = tokens(tmp_path / "run")
    assert found["greedy"] == found["hydra:nodes=9"]


def test_eagles_file_is_named_by_the_option(hydra, questions, tmp_path):
    """Its published folder has the names of an ordinary model's files."""
    write_base(tmp_path / "base")
    torch.save(eagle_tensors(), tmp_path / "pytorch_model.bin")
    spec = f"eagle:nodes=9:path={tmp_path / 'pytorch_model.bin'}"
    arguments = ["--decoder", f"greedy,{spec}", "--temperature", 0.7]
    assert bench(*basics(tmp_path / "base", questions, tmp_path / "run"), *arguments) == 0
    found = tokens(tmp_path / "run")
    assert found["greedy"] == found[spec]


def test_files_beside_the_model_may_be_pickles_or_not(hydra):
    save_file(hydra_tensors(), hydra / "hydra_lm_head.safetensors")
    torch.save(eagle_tensors(), hydra / "eagle.bin")
    loaded = load(str(hydra), device="cpu")
    assert loaded.model.heads is None
    for spec in ("hydra", "eagle"):
        assert bind(spec, make_decoder(spec), loaded).max_nodes == 64


def test_weights_for_another_base_model_are_told(hydra, capsys):
    """Its own embedding in the file proves it. All that showed was low acceptance."""
    save_file(hydra_tensors(), hydra / "hydra_lm_head.safetensors")
    loaded = load(str(hydra), device="cpu")
    own = loaded.model.lm.get_input_embeddings().weight.detach()
    said = "'embed_tokens.weight' of"
    for copy, is_told in ((own.bfloat16(), False), (own.roll(1, 0), True)):
        save_file(eagle_tensors() | {"embed_tokens.weight": copy}, hydra / "eagle.safetensors")
        bind("eagle", make_decoder("eagle"), loaded)
        assert (said in capsys.readouterr().err) == is_told


@pytest.mark.parametrize("spec", ["hydra", "hydra:path={}/hydra_lm_head.safetensors"])
def test_heads_that_read_another_layer_are_refused(hydra, spec):
    (hydra / "config.json").write_text(json.dumps(HYDRA | {"hidden_state_offset": 1}))
    save_file(hydra_tensors(), hydra / "hydra_lm_head.safetensors")
    loaded = load(str(hydra), device="cpu")
    spec = spec.format(hydra)
    says = r"config\.json: hidden_state_offset is 1.*expected 0"
    with pytest.raises((UserError, ValueError), match=says):
        bind(spec, make_decoder(spec), loaded)


def test_what_does_not_fit_is_said_with_file_and_tensor(hydra):
    tensors = hydra_tensors()
    del tensors["hydra_mlp.1.0.linear.bias"]
    torch.save(tensors, hydra / "hydra_lm_head.pt")
    loaded = load(str(hydra), device="cpu")
    says = r"hydra_lm_head\.pt: tensor 'hydra_mlp\.1\.0\.linear\.bias' is missing"
    with pytest.raises(UserError, match=says):
        bind("hydra", make_decoder("hydra"), loaded)
    with pytest.raises(UserError, match=r"needs eagle\.safetensors, which is not beside the model"):
        bind("eagle", make_decoder("eagle"), loaded)
    with pytest.raises(UserError, match="has no Medusa heads"):
        bind("dynamic", make_decoder("dynamic"), loaded)


@pytest.mark.parametrize(
    ("spec", "file", "tensors"),
    [
        ("hydra", "hydra_lm_head", hydra_tensors()),
        ("eagle", "eagle", eagle_tensors()),
    ],
)
def test_weights_that_are_not_finite_or_not_one_are_refused(hydra, spec, file, tensors):
    """NaN scored. Of two files, the first was used without a word."""
    save_file(hydra_tensors(), hydra / "hydra_lm_head.safetensors")  # Else it has no heads.
    loaded = load(str(hydra), device="cpu")
    save_file(tensors, hydra / f"{file}.safetensors")
    name = sorted(each for each in tensors if "embed" not in each)[-1]
    wrong = {each: tensor.clone() for each, tensor in tensors.items()}
    wrong[name].view(-1)[-1] = torch.nan
    torch.save(wrong, hydra / f"{file}.bin")
    with pytest.raises(UserError, match=rf"{file}\.bin hold different tensors, such as '{name}'"):
        bind(spec, make_decoder(spec), loaded)
    (hydra / f"{file}.safetensors").unlink()
    with pytest.raises(UserError, match=rf"{file}\.bin: tensor '{name}' holds NaN or infinite"):
        bind(spec, make_decoder(spec), loaded)
