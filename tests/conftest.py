import json
import signal
import sys
from pathlib import Path

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.decoders import ByteLevel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from decoders.heads import MedusaHeads
from decoders.model import Model

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared" / "data"
sys.path.insert(0, str(ROOT / "scripts"))  # the scripts import each other as siblings, as they do when they are run
transformers.logging.set_verbosity_error()
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # in a shell's background; what is tested would ignore Ctrl-C, too
    signal.signal(signal.SIGINT, signal.default_int_handler)
torch.set_num_threads(1)  # tiny models: a second thread only adds waiting

TINY = dict(
    vocab_size=101, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=160, pad_token_id=0, bos_token_id=1, eos_token_id=2,
)  # fmt: skip


QUESTIONS = [
    {"question_id": 1, "category": "math", "turns": ["1 + 1?", "And twice?"]},
    {"question_id": 2, "category": "writing", "turns": ["A line, please.", "Another."]},
    {"question_id": 7, "category": "stem", "turns": ["Why is it dark at night?"]},
]


@pytest.fixture
def mt_bench() -> Path:
    """The real MT-Bench files; users do not have them."""
    if not (SHARED / "mt_bench" / "fastchat" / "question.jsonl").exists():
        pytest.skip("the real MT-Bench questions are not here (../shared/data/mt_bench)")
    return SHARED / "mt_bench" / "fastchat"


def randomise(module: torch.nn.Module, seed: int = 0, std: float = 0.35) -> torch.nn.Module:
    """Random weights that are large enough for varied, confident and unconfident, predictions."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, std, generator=generator)
    return module


def tiny_heads(heads: int = 4, hidden: int = 32, vocab: int = 101, seed: int = 1) -> MedusaHeads:
    return randomise(MedusaHeads(heads, hidden, vocab), seed)


def tiny_llama(seed: int = 0, **changes) -> LlamaForCausalLM:
    return randomise(LlamaForCausalLM(LlamaConfig(**{**TINY, **changes})), seed)


@pytest.fixture
def tiny_model() -> Model:
    return Model(tiny_llama(), tiny_heads())


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-free tokenizer of 101 entries: four specials, the printable ASCII characters and newline."""
    characters = [chr(c) for c in range(33, 127)]
    vocab = {token: at for at, token in enumerate(["<pad>", "<s>", "</s>", "<unk>", *characters, "Ġ", "Ċ"])}
    bpe = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>"))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}{{ m['role'][0] + ':' + m['content'] + '\n' }}{% endfor %}a:"
    )
    return tokenizer


def write_base(folder: Path, seed: int = 0, **changes) -> Path:
    tiny_llama(seed, **changes).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def write_merged(folder: Path, heads: int = 4, max_shard_size: str = "5GB", **changes) -> Path:
    """A Medusa-2 checkpoint: the model with medusa_head.* beside it, in as many shards as the size asks for."""
    lm = tiny_llama(**changes)
    lm.medusa_head = torch.nn.ModuleDict()  # saved by transformers itself, so the index is the real thing
    state = lm.state_dict() | {f"medusa_head.{k}": v.clone() for k, v in tiny_heads(heads).published().items()}
    lm.save_pretrained(folder, state_dict=state, max_shard_size=max_shard_size)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> str:
    """The folder of a tiny Medusa-2 checkpoint, to be left as it is."""
    return str(write_merged(tmp_path_factory.mktemp("model") / "tiny"))


@pytest.fixture
def questions(tmp_path) -> str:
    """A file of three questions with five turns."""
    file = tmp_path / "three.jsonl"
    file.write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS))
    return str(file)
