"""`import flexq` needs numpy alone, wherever it is imported."""

import subprocess
import sys

BLOCKED = """
import sys

ALLOWED = {"numpy", "flexq"} | set(sys.stdlib_module_names)

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in ALLOWED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Block())
"""

USE = """
import tempfile
import numpy as np
import flexq

w = np.linspace(-1, 1, 4 * 256, dtype=np.float32).reshape(4, 256)
q = flexq.quantize(w)
bits = (w.view(np.uint32) >> 16).astype(np.uint16)
b = flexq.quantize(bits, dtype="bfloat16")
y = flexq.matmul(w, q, act_bits=8)
with tempfile.TemporaryDirectory() as folder:
    path = folder + "/m.safetensors"
    flexq.save_file({"w": q, "b": b, "plain": w}, path)
    tensors = flexq.load_file(path)
    assert tensors["w"] == q and tensors["b"] == b
    assert flexq.verify(path)["intact"]
    print(flexq.inspect(path)["method"], y.shape)
print([name for name in sys.modules if name.partition(".")[0] in ("torch", "ml_dtypes", "rich")])
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", BLOCKED + code]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_numpy_is_enough() -> None:
    done = run(USE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["flexq (4, 4)", "[]"]


def test_what_needs_more_says_so() -> None:
    done = run("import flexq.torch")
    assert done.returncode != 0
    assert "No module named 'torch'" in done.stderr
