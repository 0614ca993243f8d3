"""Time packing a checkpoint beside copying it, in one run.

    python benches/pack/bench.py CHECKPOINT [--rounds 3] [--mlx PYTHON] [--out FILE.csv]
    python benches/pack/bench.py CHECKPOINT --kill

Every round runs every case once: `cp -r`, `flexq-pack` with several options, and, with `--mlx`,
MLX's 6-bit quantizer on the second shard (PYTHON is an interpreter that can import it). The
checkpoint is read once before, so that it is in the page cache; outputs are new files each time,
and what was written is on the disk before the next case begins. `--kill` instead kills a run
half-way, takes it up again and compares every byte with an uninterrupted run.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import os
import shutil
import signal
import statistics
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

MLX = """
import sys
import mlx.core as mx
out = {}
for name, w in mx.load(sys.argv[1]).items():
    parts = mx.quantize(w, group_size=128, bits=6) if w.ndim == 2 else [w]
    mx.eval(*parts)
    out |= {name + str(i): part for i, part in enumerate(parts)}
mx.save_safetensors(sys.argv[2], out)
"""


@dataclass
class Case:
    name: str
    command: list[str]
    input_bytes: int
    """Bytes read, for rates."""
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    output_bytes: int = 0

    def run(self, output: Path) -> None:
        """Run once into `output`, which is removed again."""
        start = time.perf_counter()
        process = subprocess.Popen(self.command)
        watch = threading.Thread(target=self.watch, args=(process.pid,))
        watch.start()
        _, status, usage = os.wait4(process.pid, 0)
        self.seconds.append(time.perf_counter() - start)
        watch.join()
        if status:
            raise SystemExit(f"{self.command} failed")
        self.cpu_seconds.append(usage.ru_utime + usage.ru_stime)
        self.output_bytes = size(output)
        remove(output)
        os.sync()

    def watch(self, pid: int) -> None:
        """Note the most memory of a process while it lives.

        Its resource usage would tell, but counts what it was forked from.
        """
        while True:
            try:
                status = Path(f"/proc/{pid}/status").read_text()
            except OSError:
                return
            fields = dict(line.split(":", 1) for line in status.splitlines())
            if "VmHWM" not in fields:
                return
            self.peak_bytes = max(self.peak_bytes, int(fields["VmHWM"].split()[0]) * 1024)
            time.sleep(0.01)


def size(path: Path) -> int:
    files = path.iterdir() if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def cases(checkpoint: Path, output: Path, binary: str, mlx: str | None) -> list[Case]:
    total = size(checkpoint)

    def pack(*options: str) -> list[str]:
        return [binary, "--quiet", "pack", *options, str(checkpoint), str(output)]

    found = [
        Case("cp -r", ["cp", "-r", str(checkpoint), str(output)], total),
        Case("pack", pack(), total),
        Case("pack --sync", pack("--sync"), total),
        Case("pack --scale-rule mse", pack("--scale-rule", "mse"), total),
        Case("pack --preset full", pack("--preset", "full"), total),
        Case("pack --threads 1", pack("--threads", "1"), total),
    ]
    if mlx:
        shard = sorted(checkpoint.glob("*.safetensors"))[1]
        file = output.with_suffix(".safetensors")
        found.append(Case("mlx 6-bit", [mlx, "-c", MLX, str(shard), str(file)], size(shard)))
    return found


def report(found: list[Case], out: Path | None) -> None:
    copy = statistics.median(found[0].seconds) / found[0].input_bytes
    rows = []
    for case in found:
        median = statistics.median(case.seconds)
        rows.append(
            {
                "case": case.name,
                "input_bytes": case.input_bytes,
                "output_bytes": case.output_bytes,
                "seconds": round(median, 3),
                "least_seconds": round(min(case.seconds), 3),
                "cpu_seconds": round(statistics.median(case.cpu_seconds), 3),
                "input_mb_per_second": round(case.input_bytes / median / 1e6),
                "time_per_byte_of_cp": round(median / case.input_bytes / copy, 3),
                "peak_mib": round(case.peak_bytes / 2**20, 1),
            }
        )
        print("  ".join(f"{value:>10}" for value in list(rows[-1].values())[1:]), case.name)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


def digests(directory: Path) -> dict[str, str]:
    found = {}
    for path in sorted(directory.iterdir()):
        with path.open("rb") as file:
            found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def kill(checkpoint: Path, output: Path, binary: str) -> None:
    """Kill a run when half of the shards are there, and resume it."""
    command = [binary, "--quiet", "pack", str(checkpoint), str(output)]
    whole = Case("whole", command, 0)
    subprocess.run(command, check=True)
    expected = digests(output)
    remove(output)
    shards = len(list(checkpoint.glob("*.safetensors")))
    process = subprocess.Popen(command)
    while len(list(output.glob("model-*.safetensors"))) < shards // 2:
        time.sleep(0.005)
    time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = len(list(output.glob("model-*.safetensors")))
    left = size(output)
    start = time.perf_counter()
    subprocess.run(command, check=True)
    seconds = time.perf_counter() - start
    same = digests(output) == expected
    print(f"killed with {finished} of {shards} shards and {left:,} bytes written")
    print(f"resumed in {seconds:.2f} s; every byte the same: {same}")
    remove(output)
    whole.run(output)
    print(f"uninterrupted: {whole.seconds[0]:.2f} s, peak {whole.peak_bytes / 2**20:.1f} MiB")
    if not same:
        raise SystemExit(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--binary", default="target/release/flexq-pack")
    parser.add_argument("--mlx", metavar="PYTHON")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--kill", action="store_true")
    arguments = parser.parse_args()
    output = arguments.checkpoint.with_name(arguments.checkpoint.name + "-out")
    remove(output)
    if arguments.kill:
        return kill(arguments.checkpoint, output, arguments.binary)
    for file in arguments.checkpoint.iterdir():
        with file.open("rb") as stream:
            while stream.read(1 << 24):
                pass
    os.sync()
    found = cases(arguments.checkpoint, output, arguments.binary, arguments.mlx)
    for _ in range(arguments.rounds):
        for case in found:
            file = case.name.startswith("mlx")
            case.run(output.with_suffix(".safetensors") if file else output)
    report(found, arguments.out)
    return None


if __name__ == "__main__":
    main()
