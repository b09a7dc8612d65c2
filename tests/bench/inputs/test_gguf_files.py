"""GGUF files: which one is meant, what is said of a damaged one, and that the model is the same."""

import struct

import pytest
import torch
from tokenizers.normalizers import Replace, Sequence
from transformers import AutoTokenizer, Gemma3TextConfig

from bench.common.bounded import CAN_BOUND
from bench.common.errors import UserError
from bench.inputs import gguf_files, loader
from bench.inputs.gguf_files import find_gguf
from bench.inputs.gguf_metadata import Metadata
from bench.inputs.identity import contents_of
from bench.inputs.loader import load
from bench.inputs.locations import check_model_name, locate
from tests.helpers import gguf as helper
from tests.helpers.checkpoints import write_medusa1
from tests.helpers.gguf import HEADER, write_gguf
from tests.helpers.models import PROMPT, TINY, tiny_llama, tiny_tokenizer


def test_a_model_in_a_gguf_file_is_the_model(tmp_path):
    lm = tiny_llama(rms_norm_eps=1e-5)
    folder = tmp_path / "model"
    folder.mkdir()
    path = write_gguf(folder / "tiny.gguf", lm)
    expected = lm(PROMPT[None]).logits[0, -1]
    for name in (path, folder):
        check_model_name(str(name))
        loaded = load(str(name), device="cpu")
        logits = loaded.model.prefill(PROMPT, room=0).logits[-1]
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
        assert loaded.model.num_heads == 0 and loaded.model.vocab == TINY["vocab_size"]
        assert 2 in loaded.eos and loaded.tokenizer.chat_template == tiny_tokenizer().chat_template


def test_rotary_frequencies_stay_float32(tmp_path):
    """In bfloat16 they are another model's: a radian off after a thousand tokens."""
    path = str(write_gguf(tmp_path / "tiny.gguf", tiny_llama(rms_norm_eps=1e-5)))
    loaded = {dtype: load(path, "cpu", dtype).model.lm for dtype in ("float32", "bfloat16")}
    assert next(loaded["bfloat16"].parameters()).dtype == torch.bfloat16
    buffers = {dtype: dict(lm.named_buffers()) for dtype, lm in loaded.items()}
    assert any(name.endswith("inv_freq") for name in buffers["float32"])
    for name, buffer in buffers["float32"].items():
        assert torch.equal(buffers["bfloat16"][name], buffer)


LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
}  # fmt: skip


def divisors_of(scaled, plain):
    """What llama.cpp writes as rope_freqs.weight."""
    return plain.model.rotary_emb.inv_freq / scaled.model.rotary_emb.inv_freq


def scaling(kind, factor):
    def add(writer):
        writer.add_rope_scaling_type(gguf_package.RopeScalingType(kind))
        writer.add_rope_scaling_factor(factor)

    gguf_package = pytest.importorskip("gguf")
    return add


@pytest.mark.parametrize("way", ["llama3", "linear", "old linear", "none"])
def test_positions_are_scaled_as_the_file_says(tmp_path, way):
    plain = tiny_llama(rms_norm_eps=1e-5)
    linear = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
    further, entries, rope = None, None, plain.config.rope_parameters
    if way == "llama3":
        further = {"rope_freqs.weight": divisors_of(tiny_llama(rope_parameters=LLAMA3), plain)}
        rope = LLAMA3
        assert len(further["rope_freqs.weight"].unique()) > 2
    elif way == "old linear":
        entries, rope = (lambda writer: writer.add_float32("llama.rope.scale_linear", 4.0)), linear
    else:
        entries, rope = scaling(way, 4.0), linear if way == "linear" else rope
    expected = tiny_llama(rms_norm_eps=1e-5, rope_parameters=rope)
    loaded = load(str(write_gguf(tmp_path / "a.gguf", plain, further, entries)), device="cpu")
    logits = loaded.model.prefill(PROMPT, room=0).logits[-1]
    torch.testing.assert_close(logits, expected(PROMPT[None]).logits[0, -1], rtol=1e-4, atol=1e-4)
    assert not loaded.warnings
    changes = (logits - plain(PROMPT[None]).logits[0, -1]).abs().max() > 1e-3
    assert changes == (way != "none")


def test_what_is_not_read_of_a_file_is_told(tmp_path):
    lm = tiny_llama(rms_norm_eps=1e-5)
    longrope = {"rope_factors_long.weight": torch.ones(4)}
    for further, entries, says in (
        (None, scaling("yarn", 4.0), "holds llama.rope.scaling.type='yarn', which is not read"),
        (longrope, None, "holds rope_factors_long.weight, which is not read"),
        (
            None,
            lambda writer: writer.add_tokenizer_pre("deepseek-coder"),
            "its tokenizer splits text as 'deepseek-coder', which transformers does not read",
        ),
    ):
        loaded = load(str(write_gguf(tmp_path / "a.gguf", lm, further, entries)), device="cpu")
        assert [says in warning for warning in loaded.warnings] == [True]
    known = write_gguf(tmp_path / "a.gguf", lm, None, lambda made: made.add_tokenizer_pre("smollm"))
    assert not load(str(known), device="cpu").warnings


def test_divisors_of_another_model_are_refused(tmp_path):
    divisors = {"rope_freqs.weight": torch.full((3,), 2.0)}
    path = write_gguf(tmp_path / "a.gguf", tiny_llama(rms_norm_eps=1e-5), divisors)
    with pytest.raises(UserError, match=r"holds 'rope_freqs\.weight' with 3 numbers; expected one"):
        load(str(path), device="cpu")


def metadata_of(path, architecture, add):
    """Of a file of another architecture, without a model in it."""
    writer = pytest.importorskip("gguf").GGUFWriter(path, architecture)
    add(writer)
    writer.add_tensor("any", torch.ones(1).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return Metadata(path)


def test_positions_of_other_dimensions_are_told(tmp_path):
    """Phi-4 mini turns a part of them, which transformers does not read for its architecture."""
    lm = tiny_llama()
    turned = 2 * len(lm.model.rotary_emb.inv_freq)
    for dimensions, is_told in ((turned, False), (turned - 2, True)):
        metadata = metadata_of(
            tmp_path / "phi.gguf",
            "phi3",
            lambda writer, n=dimensions: writer.add_rope_dimension_count(n),
        )
        said = f"holds phi3.rope.dimension_count={dimensions}, which is not read"
        assert (said in "".join(metadata.warnings(lm))) == is_told


def test_a_scaling_is_of_the_layers_of_full_attention(tmp_path):
    """Those with a sliding window are not scaled. Gemma 3 has both kinds."""

    def add(writer):
        scaling("linear", 8.0)(writer)
        writer.add_rope_freq_base(1e6)

    config = Gemma3TextConfig()
    sliding = dict(config.rope_parameters["sliding_attention"])
    metadata_of(tmp_path / "gemma.gguf", "gemma3", add).complete(config)
    full = config.rope_parameters["full_attention"]
    assert (full["rope_type"], full["factor"], full["rope_theta"]) == ("linear", 8.0, 1e6)
    assert config.rope_parameters["sliding_attention"] == sliding


def test_biases_that_transformers_would_drop_are_refused(tmp_path):
    lm = tiny_llama(rms_norm_eps=1e-5)
    biases = {"blk.0.attn_q.bias": torch.ones(TINY["hidden_size"])}
    path = write_gguf(tmp_path / "a.gguf", lm, biases)
    with pytest.raises(UserError, match=r"holds 1 biases, such as 'blk\.0\.attn_q\.bias', that"):
        load(str(path), device="cpu")


def test_an_identity_is_of_the_file(tmp_path):
    path = write_gguf(tmp_path / "tiny.gguf", tiny_llama(rms_norm_eps=1e-5))
    first = load(str(path), device="cpu").identity
    write_gguf(path, tiny_llama(seed=5, rms_norm_eps=1e-5))
    assert load(str(path), device="cpu").identity != first


@pytest.mark.parametrize("base", ["../model", "../model/tiny.gguf"])
def test_heads_may_name_it_as_their_base_model(tmp_path, base):
    """A folder or a file. It was looked for as an ordinary checkpoint."""
    (tmp_path / "model").mkdir()
    path = write_gguf(tmp_path / "model" / "tiny.gguf", tiny_llama(rms_norm_eps=1e-5))
    name = write_medusa1(tmp_path / "heads", base)
    loaded = load(name, device="cpu")
    assert loaded.model.num_heads == 4 and loaded.where == name
    assert loaded.identity not in (load(str(path), device="cpu").identity, "")
    write_gguf(path, tiny_llama(seed=5, rms_norm_eps=1e-5))
    assert load(name, device="cpu").identity != loaded.identity


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"GGML" + HEADER[4:], "is not a GGUF file: it begins with b'GGML'"),
        (HEADER[:10], "is cut off: it has 10 bytes"),
        (b"GGUF" + struct.pack("<IQQ", 99, 0, 0), "GGUF version 99; expected 2 or 3"),
        (HEADER, "cannot be read"),
        (HEADER[:8] + struct.pack("<QQ", 1 << 60, 1 << 60), "cannot be read"),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path, content, says):
    pytest.importorskip("gguf")
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    with pytest.raises(UserError, match=says):
        load(str(path), device="cpu")


@pytest.mark.skipif(not CAN_BOUND, reason="only Linux bounds a child")
def test_a_tokenizer_that_multiplies_its_text_is_refused(tmp_path, monkeypatch):
    """No GGUF file is known that asks for it. Which ones can is up to transformers."""
    path = write_gguf(tmp_path / "tiny.gguf", tiny_llama(rms_norm_eps=1e-5))
    made = AutoTokenizer.from_pretrained(tmp_path, gguf_file=path.name)
    made.backend_tokenizer.normalizer = Sequence([Replace("e", "e" * 64)] * 2)
    monkeypatch.setattr(gguf_files.AutoTokenizer, "from_pretrained", lambda *_, **__: made)
    with pytest.raises(UserError, match=r"the tokenizer of '.*tiny.gguf' makes [\d,]+ tokens of"):
        load(str(path), device="cpu")


def test_of_several_files_one_must_be_named(tmp_path):
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(HEADER)
    with pytest.raises(UserError, match=r"holds 2 GGUF files \(a.gguf, b.gguf\); name one of them"):
        find_gguf(str(tmp_path))


def test_an_ordinary_checkpoint_is_not_taken_for_one(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "also.gguf").write_bytes(HEADER)
    assert find_gguf(str(tmp_path)) is None
    assert find_gguf("org/model") is None and find_gguf(str(tmp_path / "none.gguf")) is None


def test_without_the_package_it_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.gguf").write_bytes(HEADER)
    monkeypatch.setattr(gguf_files, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"needs the package gguf: pip install 'medusa-bench\[gguf\]'"
    ):
        find_gguf(str(tmp_path / "a.gguf"))


def test_what_a_gguf_file_cannot_do_is_said(tmp_path):
    path = write_gguf(tmp_path / "tiny.gguf", tiny_llama(rms_norm_eps=1e-5))
    with pytest.raises(UserError, match="need a CUDA GPU"):
        load(str(path), device="cpu", load_in_8bit=True)


def test_a_file_that_lacks_a_tensor_is_refused(tmp_path, monkeypatch):
    """transformers fills it with random numbers, and goes on."""
    lm = tiny_llama(rms_norm_eps=1e-5)
    named = helper.named_for_gguf(lm)
    named.pop("blk.1.ffn_up.weight")
    monkeypatch.setattr(helper, "named_for_gguf", lambda lm: named)
    path = write_gguf(tmp_path / "tiny.gguf", lm)
    says = r"tiny.gguf' lack 1 tensors of the model, among them 'model.layers.1.mlp.up_proj.weight'"
    with pytest.raises(UserError, match=says):
        load(str(path), device="cpu")


def test_a_part_of_a_split_file_is_told(tmp_path):
    pytest.importorskip("gguf")
    part, whole = (tmp_path / f"a-00001-of-{parts:05}.gguf" for parts in (3, 1))
    for path in (part, whole):
        path.write_bytes(HEADER)
    with pytest.raises(UserError, match="is one of 3 parts of a GGUF file; join them"):
        check_model_name(str(part))
    assert find_gguf(str(whole)).path == whole


@pytest.mark.skipif(gguf_files.GgufConfig is None, reason="transformers always dequantises")
def test_weights_are_dequantised_whatever_is_installed(tmp_path, monkeypatch):
    """With the package kernels, transformers would keep them packed."""
    asked, original = {}, gguf_files.AutoModelForCausalLM.from_pretrained

    def watched(*where, **given):
        asked.update(given)
        return original(*where, **given)

    monkeypatch.setattr(gguf_files.AutoModelForCausalLM, "from_pretrained", watched)
    load(str(write_gguf(tmp_path / "tiny.gguf", tiny_llama(rms_norm_eps=1e-5))), device="cpu")
    assert asked["quantization_config"].dequantize


def test_an_attention_that_is_not_known_is_refused(tmp_path, monkeypatch):
    lm = tiny_llama(rms_norm_eps=1e-5)
    path = write_gguf(tmp_path / "tiny.gguf", lm)
    lm.config._attn_implementation = "org/kernel"
    monkeypatch.setattr(loader, "load_gguf", lambda *_: (lm, tiny_tokenizer()))
    with pytest.raises(UserError, match=r"tiny.gguf' chooses its own attention, 'org/kernel'"):
        load(str(path), device="cpu")


def test_a_file_of_the_same_name_in_the_current_folder_is_not_read(tmp_path, monkeypatch):
    """Its weights were, under the name and the digest of the file that was asked for."""
    for folder, seed in (("here", 3), ("there", 0)):
        (tmp_path / folder).mkdir()
        write_gguf(tmp_path / folder / "tiny.gguf", tiny_llama(seed, rms_norm_eps=1e-5))
    monkeypatch.chdir(tmp_path / "here")
    expected = tiny_llama(rms_norm_eps=1e-5)(PROMPT[None]).logits[0, -1]
    for name in ("../there/tiny.gguf", "../there"):
        logits = load(name, device="cpu").model.prefill(PROMPT, room=0).logits[-1]
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


def test_a_file_has_its_own_tokenizer_whatever_lies_beside_it(tmp_path):
    """As in the folder that a file was converted from. Its tokenizer.json alone was read."""
    path = write_gguf(tmp_path / "tiny.gguf", tiny_llama(rms_norm_eps=1e-5))
    other = tiny_tokenizer()
    other.chat_template = "other"
    other.add_tokens(["<other>"])
    other.save_pretrained(tmp_path)
    tokenizer = load(str(path), device="cpu").tokenizer
    assert tokenizer.chat_template == tiny_tokenizer().chat_template
    assert "<other>" not in tokenizer.get_vocab() and "ab" in tokenizer.get_vocab()


@pytest.mark.parametrize("name", ["eagle.safetensors", "hydra_lm_head.pt", "medusa_tree.json"])
def test_what_decoders_read_beside_a_file_belongs_to_the_model(tmp_path, name):
    """A run was resumed with other heads. Another model in the folder is no part of this one."""
    path = write_gguf(tmp_path / "tiny.gguf", tiny_llama(rms_norm_eps=1e-5))

    def identities() -> tuple[str, str]:
        located = locate(str(path))
        return located.identity(), located.identity(contents_of)

    alone = identities()
    (tmp_path / "another.gguf").write_bytes(HEADER)
    (tmp_path / "notes.json").write_text("{}")
    assert identities() == alone
    (tmp_path / name).write_bytes(b"1")
    first = identities()
    (tmp_path / name).write_bytes(b"2")
    assert first != alone and all(a != b for a, b in zip(first, identities(), strict=True))
