"""README.md's decoder does what it says: its code is run as it stands there."""

import re
import runpy

from decoders.accept import Exact
from tests.helpers.paths import ROOT
from tests.helpers.steps import steps_of, tokens_of, turn

README = (ROOT / "README.md").read_text(encoding="utf-8")
[CODE] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_decoder_gives_greedys_tokens(tiny_model, tmp_path):
    (tmp_path / "repeat.py").write_text(CODE)
    decoder = runpy.run_path(str(tmp_path / "repeat.py"))["Repeat"](nodes=3)
    decoder.setup(tiny_model)
    steps = list(decoder.decode(*turn(40, Exact())))
    assert tokens_of(steps) == tokens_of(steps_of(tiny_model, "greedy", 40))
    assert {step.nodes for step in steps} == {3}
