"""The kernels compile for GPUs, which needs none. Triton brings the assembler."""

import json
import subprocess
import sys

import pytest

from tests.helpers.kernels import NEEDS_TRITON, compiling
from tests.helpers.paths import ROOT

pytest.importorskip("triton", reason=NEEDS_TRITON)

SHARED_MEMORY = 99 << 10  # Bytes that a program can have on GPUs with little of it.
# Compute capability, dtype, size of a head, lanes at once, query heads for each head of keys, and
# the arguments that are 1: for these Triton compiles anew.
CASES = (
    (90, "fp16", 128, 16, 1, ["lanes", "nodes"]),
    (90, "fp16", 128, 64, 1, []),
    (80, "bf16", 96, 64, 4, ["parts"]),
    (80, "fp32", 64, 64, 3, []),
)
# Compiles every kernel for each case, and prints the bytes of shared memory of each as JSON. In a
# process of its own, as a whole process either interprets kernels or compiles them.
COMPILE = """
import json, sys
import torch, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from decoders.engine.kernels import cache_rows, tree_attention

dtypes = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
tensors = ("query", "keys", "values", "mask", "out", "new_keys", "new_values")
found = []
for capability, dtype, size, lanes, group, ones in json.loads(sys.argv[1]):
    types = dict.fromkeys(tensors, f"*{dtype}")
    types |= {"committed": "*i64", "slots": "*i64", "scale": "fp32"}
    types |= dict.fromkeys(("sums", "largest", "weights"), "*fp32")
    constants = {
        "GROUP": group, "SIZE": size, "ENTRIES": triton.next_power_of_2(size), "LANES": lanes,
        "SLOTS": tree_attention.SLOTS_AT_ONCE[dtypes[dtype]], "KEY_SIZE": size, "VALUE_SIZE": size,
    }
    constants |= dict.fromkeys(ones, 1)
    for kernel in (tree_attention._attend_part, tree_attention._add_parts, cache_rows._write):
        names = kernel.arg_names
        given = {name: constants[name] for name in names if name in constants}
        signature = {
            name: "constexpr" if name in given else types.get(name, "i32") for name in names
        }
        # Pointers and strides are multiples of 16, as in the models that matter.
        strides = ("_head", "_row", "_slot")
        attributes = {
            (number,): [["tt.divisibility", 16]] for number, name in enumerate(names)
            if signature[name].startswith("*") or name.endswith(strides)
        }
        source = ASTSource(kernel, signature, given, attributes)
        options = {"num_stages": tree_attention.STAGES}
        compiled = triton.compile(source, GPUTarget("cuda", capability, 32), options)
        assert compiled.asm["cubin"]
        found.append([kernel.__name__, capability, dtype, compiled.metadata.shared])
print(json.dumps(found))
"""


def test_kernels_compile(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", COMPILE, json.dumps(CASES)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=compiling() | {"TRITON_CACHE_DIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == 3 * len(CASES)
    assert not [each for each in found if each[-1] > SHARED_MEMORY]
