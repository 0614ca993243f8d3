"""Kernels for cards before Hopper, on whatever GPU there is: it passes for one of those."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from flexq import cuda

if not cuda.is_available():
    pytest.skip(f"no usable GPU: {cuda.why_not()}", allow_module_level=True)

pytestmark = pytest.mark.gpu

PROGRAM = """
import itertools, sys
import test_cuda as tests
from flexq import cuda

assert str(cuda.info()[0].capability) == sys.argv[1], cuda.info()
rows, groups = (1, 8, 13, 32, 70, 300), (32, 64, 128)
halves = (tests.torch.float16, tests.torch.bfloat16)
for m, group in itertools.product(rows, (*groups, 0)):
    tests.test_linear(1000, 1000, m, group)
for m, kernel in itertools.product((1, 8, 13, 70), ("small", "planes", "tile", "tile splits=3")):
    tests.test_every_family(kernel, m)
for kernel, kind in itertools.product(("small splits=2", "planes splits=2"), halves):
    tests.test_fused_quantization_is_the_same(kernel, kind, 8, False)
for k, first, per_row in itertools.product((512, 8192, 20480), (0, 1), (False, True)):
    tests.test_launches_that_quantize(8, per_row, first, k)
for group, (ends, count) in itertools.product(groups, tests.ENDS):
    for act_bits, per_row in ((16, False), (8, False), (8, True)):
        for kind in halves:
            tests.test_experts(act_bits, per_row, kind, group, 320, 640, ends, count)
for m, act_bits in ((1, 16), (4, 8), (16, 8), (40, 16)):
    tests.test_chains_of_launches(1024, m, act_bits)
print("all right")
"""


@pytest.mark.parametrize("older", [(8, 0), (8, 6)], ids=str)
def test_products_of_older_cards(older):
    if cuda.info()[0].capability <= older:
        pytest.skip("the GPU is as old")
    environment = os.environ | {"FLEXQ_CAPABILITY": "{}.{}".format(*older)}
    command = [sys.executable, "-c", PROGRAM, str(older)]
    folder = Path(__file__).parent
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert (run.stdout, run.returncode) == ("all right\n", 0), run.stderr
