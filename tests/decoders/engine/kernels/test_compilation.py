"""The kernels compile for GPUs, which needs none. Triton brings the assembler."""

import json
import subprocess
import sys

import pytest

from tests.helpers.kernels import NEEDS_TRITON, compiling
from tests.helpers.paths import ROOT

pytest.importorskip("triton", reason=NEEDS_TRITON)

SHARED_MEMORY = 99 << 10  # Bytes that a program can have on GPUs with little of it.
# Compiles every kernel, and prints the bytes of shared memory of each as JSON. In a process of its
# own, as kernels are either interpreted or compiled in a whole process.
COMPILE = """
import json, sys
import torch, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from decoders.engine.kernels import cache_rows, tree_attention

dtypes = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
capability, dtype, size, lanes, group = json.loads(sys.argv[1])
tensors = ("query", "keys", "values", "mask", "out", "new_keys", "new_values")
types = dict.fromkeys(tensors, f"*{dtype}")
types |= {"committed": "*i64", "slots": "*i64", "scale": "fp32"}
types |= dict.fromkeys(("sums", "largest", "weights"), "*fp32")
constants = {
    "GROUP": group, "SIZE": size, "ENTRIES": triton.next_power_of_2(size), "LANES": lanes,
    "SLOTS": tree_attention.SLOTS_AT_ONCE[dtypes[dtype]], "KEY_SIZE": size, "VALUE_SIZE": size,
}
found = {}
for kernel in (tree_attention._attend_part, tree_attention._add_parts, cache_rows._write):
    given = {name: constants[name] for name in kernel.arg_names if name in constants}
    signature = {
        name: "constexpr" if name in given else types.get(name, "i32") for name in kernel.arg_names
    }
    source = ASTSource(kernel, signature, given)
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32))
    assert compiled.asm["cubin"]
    found[kernel.__name__] = compiled.metadata.shared
print(json.dumps(found))
"""


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(
    ("dtype", "size", "lanes", "group"),
    [("fp16", 128, 16, 1), ("fp16", 128, 64, 1), ("bf16", 96, 64, 4), ("fp32", 64, 64, 3)],
)
def test_kernels_compile(capability, dtype, size, lanes, group):
    asked = json.dumps([capability, dtype, size, lanes, group])
    done = subprocess.run(
        [sys.executable, "-c", COMPILE, asked],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=compiling(),
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert max(found.values()) <= SHARED_MEMORY, found
