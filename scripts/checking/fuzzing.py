"""The fuzzer atheris, fed with one target."""

import inspect
import random
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

import bench.common.files
import bench.common.strict_json
import bench.common.validation
import bench.inputs.fitted
import bench.inputs.questions
import bench.reporting.sources
import bench.store.answer_files
import bench.store.run_folder
import bench.store.run_record
import bench.store.turn
import decoders.conditional.calibration
import decoders.draft_vocabulary
import decoders.static.rank_tree
import decoders.tree
import llm_judge.judgments
from bench.common.errors import UserError
from checking.mutation import mutate
from checking.targets import TARGETS

# The modules whose branches guide the fuzzer. Those of other modules would only distract it.
READERS: tuple[ModuleType, ...] = (
    bench.common.files,
    bench.common.strict_json,
    bench.common.validation,
    bench.inputs.fitted,
    bench.inputs.questions,
    bench.reporting.sources,
    bench.store.answer_files,
    bench.store.run_folder,
    bench.store.run_record,
    bench.store.turn,
    decoders.conditional.calibration,
    decoders.draft_vocabulary,
    decoders.static.rank_tree,
    decoders.tree,
    llm_judge.judgments,
)
BY_ATHERIS = 0.1  # Share of changes that atheris makes itself, without our mutator.


def fuzz(target: str, seconds: int, seed: int, corpus: Path) -> None:
    """Fuzz one of TARGETS. It ends the process, with its own status.

    seed: 0: another one each time. corpus: folder of inputs that reach something new. UserError
    where atheris is not installed.
    """
    try:
        import atheris  # An extra.
    except ImportError:
        raise UserError("the fuzzer atheris is not installed: pip install -e '.[fuzz]'") from None
    chosen = TARGETS[target]
    corpus.mkdir(parents=True, exist_ok=True)
    (corpus / "seed").write_bytes(chosen.sound_file())
    for module in READERS:
        for value in list(vars(module).values()):
            if inspect.isfunction(value) and value.__module__ == module.__name__:
                atheris.instrument_func(value)

    def mutator(data: bytes, max_size: int, seed: int) -> bytes:
        rng = random.Random(seed)
        is_its_own = rng.random() < BY_ATHERIS
        changed = atheris.Mutate(data, max_size) if is_its_own else mutate(data, rng)
        return changed[:max_size]

    with TemporaryDirectory() as folder:
        flags = (
            f"-max_total_time={seconds}",
            f"-seed={seed}",
            "-max_len=20000",
            "-timeout=20",
            "-rss_limit_mb=3000",
            f"-artifact_prefix={corpus}-",
            "-print_final_stats=1",
        )
        atheris.Setup(
            [sys.argv[0], *flags, str(corpus)],
            lambda data: chosen.feed(data, Path(folder)),
            custom_mutator=mutator,
        )
        atheris.Fuzz()
