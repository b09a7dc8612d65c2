"""Checkpoints that ask for too much, or whose files lie: one line, little memory, little time."""

import json
import struct
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save_file

from bench.common.bounded import CAN_BOUND
from bench.common.errors import UserError
from bench.inputs import bounds
from bench.inputs.chat import Chat
from bench.inputs.loader import ATTENTION, load
from tests.helpers.checkpoints import write_base, write_medusa1, write_merged
from tests.helpers.models import tiny_heads


def forks(test):
    """For a test whose child must come to its bound soon."""
    test = pytest.mark.usefixtures("impatient")(test)
    return pytest.mark.skipif(not CAN_BOUND, reason="only Linux bounds a child")(test)


@pytest.fixture
def impatient(monkeypatch) -> None:
    monkeypatch.setattr(bounds, "SECONDS", 1.0)
    monkeypatch.setattr(bounds, "MEMORY", 256 << 20)


def edited(folder, file: str, **changes: object) -> str:
    """The folder, with changes in one of its JSON files."""
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return str(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_hidden_layers": 3_000_000},
        {"num_hidden_layers": 10**30},
        {"text_config": {"n_layer": 5_000}},
    ],
)
def test_more_layers_than_tensors_are_refused_before_they_are_made(tmp_path, changes):
    write_base(tmp_path)
    with pytest.raises(UserError, match=r"config.json of .*layer.*; its files hold \d+ tensors"):
        load(edited(tmp_path, "config.json", **changes), device="cpu")


def test_the_layers_of_a_pickle_are_bounded_too(tmp_path):
    lm = load(str(write_base(tmp_path)), device="cpu").model.lm
    torch.save(lm.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    assert load(str(tmp_path), device="cpu").model.num_heads == 0
    with pytest.raises(UserError, match="at most 10000 layers can be loaded"):
        load(edited(tmp_path, "config.json", num_hidden_layers=10_001), device="cpu")


@pytest.mark.parametrize("key", ["_attn_implementation", "attn_implementation"])
@pytest.mark.parametrize("chosen", ["org/kernel", "flash_attention_2", "eager", {"": "org/kernel"}])
def test_attention_is_of_our_choice_whatever_the_checkpoint_names(tmp_path, key, chosen):
    write_base(tmp_path)
    lm = load(edited(tmp_path, "config.json", **{key: chosen}), device="cpu").model.lm
    assert lm.config._attn_implementation == ATTENTION[0]


TEMPLATES = {
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}": "more than",
    "{{ 'a' * 40000000000 }}": "more than",
    "{{ 9 ** (9 ** 9) }}": "more than",
    "{{ 'ab' * 1000000 }}": "makes 2,000,000 characters",
    "{% if messages | length > 1 %}{{ 9 ** (9 ** 9) }}{% endif %}": "more than",
}


@forks
@pytest.mark.parametrize("template", TEMPLATES)
def test_a_template_that_does_not_end_is_refused(tmp_path, template):
    write_base(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(template)
    with pytest.raises(UserError, match=f"the chat template of .*{TEMPLATES[template]}"):
        load(str(tmp_path), device="cpu")


@forks
@pytest.mark.parametrize("part", ["normalizer", "decoder"])
@pytest.mark.parametrize("times", [2, 6])
def test_a_tokenizer_that_multiplies_its_text_is_refused(tmp_path, part, times):
    write_base(tmp_path)
    one = {"type": "Replace", "pattern": {"String": "e"}, "content": "e" * 64}
    steps = {"type": "Sequence", f"{part}s": [one] * times}
    folder = edited(tmp_path, "tokenizer.json", **{part: steps})
    with pytest.raises(UserError, match=r"the tokenizer of .*(more than|makes [\d,]+ tokens)"):
        load(folder, device="cpu")


@forks
def test_a_tokenizer_that_panics_is_one_line(tmp_path, capfd):
    """The panic itself would print pages."""
    write_base(tmp_path)
    charsmap = {"type": "Precompiled", "precompiled_charsmap": "AAAA"}
    with pytest.raises(UserError, match="it fails with PanicException: Pre"):
        load(edited(tmp_path, "tokenizer.json", normalizer=charsmap), device="cpu")
    assert "panicked" not in capfd.readouterr().err


EOS = [([[1], 2], None), ({"a": 1}, None), ("</s>", None), ("7", {2, 7}), (None, {2})]


@pytest.mark.parametrize(("eos", "ends"), EOS)
def test_what_ends_an_answer_is_a_token_id(tmp_path, eos, ends):
    write_base(tmp_path)
    folder = edited(tmp_path, "generation_config.json", eos_token_id=eos)
    if ends is not None:
        assert load(folder, device="cpu").eos == ends
        return
    with pytest.raises(UserError):
        load(folder, device="cpu")


def test_where_a_window_begins_is_no_number_of_layers(tmp_path):
    write_base(tmp_path)
    folder = edited(tmp_path, "config.json", max_window_layers=5000)
    assert load(folder, device="cpu").model.num_heads == 0


def test_an_ordinary_checkpoint_is_within_all_bounds(tmp_path):
    loaded = load(str(write_merged(tmp_path)), device="cpu")
    assert Chat.of(loaded.tokenizer).prompt(["hello"], [])


# --- Files of heads -------------------------------------------------------------------------------


def one_element_each(names) -> dict[str, torch.Tensor]:
    return {name: torch.zeros(1) for name in names}


HEADS = {
    "3,000 heads of one element": one_element_each(f"{i}.0.weight" for i in range(3000)),
    "60,000 blocks of one element": one_element_each(f"0.{i}.weight" for i in range(60_000)),
    "a name of 4,400 digits": one_element_each(["9" * 4400 + ".0.weight"]),
    "mapped projections without heads": one_element_each(
        [*(f"lm_heads.{i}.weight" for i in range(3000)), "blocks.0.layers.0.weight"]
    )
    | {"token_map": torch.zeros(1, dtype=torch.long)},
}


@pytest.mark.parametrize("what", HEADS)
def test_names_alone_take_no_memory(tmp_path, what, monkeypatch):
    write_base(tmp_path / "base")
    folder = write_medusa1(tmp_path / "heads", "../base", "safetensors")
    save_file(HEADS[what], tmp_path / "heads" / "medusa_lm_head.safetensors")
    zeros = torch.zeros

    def small(*size, **options):
        made = zeros(*size, **options)
        assert made.numel() < 1_000_000, "memory was taken"
        return made

    monkeypatch.setattr(torch, "zeros", small)
    with pytest.raises(UserError, match="do not fit its base model"):
        load(folder, device="cpu")


def pickled(path, tensors) -> None:
    torch.save(tensors, path)


def compressed(path) -> None:
    plain = path.with_suffix(".plain")
    torch.save(tiny_heads().published(), plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for each in source.infolist():
            made.writestr(each.filename, source.read(each))
    plain.unlink()


FILES = {
    "one element, expanded": (
        lambda path: pickled(path, {"0.0.linear.weight": torch.zeros(1).expand(4096, 4096)}),
        r"its tensors would take 67,108,864",
    ),
    "one tensor, 500 times": (
        lambda path: pickled(path, dict.fromkeys(map(str, range(500)), torch.zeros(1000))),
        "would take 2,000,000",
    ),
    "tensors without content": (
        lambda path: pickled(path, {"0.0.linear.weight": torch.zeros(4, 4, device="meta")}),
        "expected named dense tensors alone",
    ),
    "a compressed file": (compressed, "is compressed, and would take"),
    "a length that lies": (
        lambda path: path.write_bytes(struct.pack("<Q", 1 << 40) + b"{}"),
        "is not a plain tensor file|is damaged|cannot be loaded",
    ),
}


@pytest.mark.parametrize("what", FILES)
def test_a_pickle_that_claims_more_than_it_holds_is_refused(tmp_path, what):
    write, says = FILES[what]
    write_base(tmp_path / "base")
    folder = write_medusa1(tmp_path / "heads", "../base")
    write(tmp_path / "heads" / "medusa_lm_head.pt")
    with pytest.raises(UserError, match=says):
        load(folder, device="cpu")


def test_heads_in_a_pickle_beside_the_model_are_bounded_too(tmp_path):
    """Medusa-2, as torch saves it: one element that claims to be a whole projection."""
    write_merged(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    assert load(str(tmp_path), device="cpu").model.num_heads == 4
    tensors["medusa_head.0.1.weight"] = torch.zeros(1).expand(20_000, 20_000)
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"its tensors would take 1,6\d\d,\d{3},\d{3}"):
        load(str(tmp_path), device="cpu")


@forks
def test_a_template_that_multiplies_parts_alone_is_refused(tmp_path):
    """It fails on messages that are texts, and would be given lists of parts."""
    template = (
        "{% if messages[0].content is string %}{{ raise_exception('no texts') }}{% endif %}"
        "{% for _ in range(99999) %}{{ messages[0].content[0].text }}{% endfor %}"
    )
    write_base(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(template)
    with pytest.raises(UserError, match=r"the chat template of .* makes"):
        load(str(tmp_path), device="cpu")
