"""The committed PTX belongs to the committed kernels, whose numbers fit registers."""

import re
import subprocess
import sys
from pathlib import Path

KERNELS = Path(__file__).resolve().parents[1] / "kernels"

# Bytes stored and loaded again, outside the loop over K; in it only the second has one load and one
# store, of 311 instructions. The last is of groups of 32, for cards before Hopper.
SPILLS = {
    "flexq_sm90_s8b_n128_m256": 108,
    "flexq_sm90_s8b_n192_m128": 44,
    "flexq_sm90_s8r_n128_m256": 120,
    "flexq_sm90_s8r_n192_m128": 8,
    "flexq_sm90_s8r_near_n128_m256": 84,
    "flexq_grouped_s8_g32_m64": 16,
}


def test_ptx_is_current():
    build = [sys.executable, KERNELS / "build.py", "--digest"]
    run = subprocess.run(build, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout


def test_no_other_kernel_spills():
    report = (KERNELS / "REPORT.md").read_text()
    rows = re.findall(r"^\| \S+ \| `(\w+)` \| \d+ \| \d+ \| (\d+) \|$", report, re.MULTILINE)
    assert len(rows) > 100
    assert [row for row in rows if int(row[1]) > SPILLS.get(row[0], 0)] == []
