"""Compile the kernels to the PTX that flexq-cuda embeds.

    python kernels/build.py            write crates/flexq-cuda/ptx/ and kernels/REPORT.md
    python kernels/build.py --check    compile again; fail unless that gives the committed files
    python kernels/build.py --digest   fail unless the sources are those of the committed files

The compilers are NVRTC and ptxas 12.4 from their Python packages (`nvidia-cuda-nvrtc-cu12`,
`nvidia-cuda-nvcc-cu12`), so the result does not depend on the machine. Each PTX file is then
marked with the lowest version that its instructions allow, which is what the oldest driver
must understand, and assembled with ptxas to prove it and to report registers and spills.
"""

from __future__ import annotations

import argparse
import ctypes
import gzip
import hashlib
import importlib.util
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

KERNELS = Path(__file__).resolve().parent
PTX = KERNELS.parent / "crates" / "flexq-cuda" / "ptx"
REPORT = KERNELS / "REPORT.md"
DIGEST = PTX / "SOURCES.sha256"
COMPILER = (12, 4)


@dataclass(frozen=True)
class Target:
    """An architecture and the lowest PTX version our instructions need on it."""

    arch: str
    ptx_version: str


SM80 = Target("80", "7.4")  # 7.4: prefetch size on asynchronous copies
SM90 = Target("90", "8.0")  # 8.0: barriers of clusters, dependent launch
SM90A = Target("90a", "8.0")  # 8.0: wgmma, setmaxnreg


def targets(source: Path) -> tuple[Target, ...]:
    """`sm90_*.cu` needs Hopper's own instructions; others use dependent launch where it exists."""
    if source.stem.startswith("sm90_"):
        return (SM90A,)
    if source.stem.startswith(("small_streamed_", "small_teams_")):  # bulk copies
        return (SM90,)
    return (SM80, SM90) if source.stem.startswith(("small_", "activations")) else (SM80,)


def digest() -> str:
    """A hash of everything the PTX depends on: sources, headers and this file."""
    files = [*KERNELS.glob("*.cu"), *KERNELS.glob("include/**/*.cuh"), Path(__file__)]
    total = hashlib.sha256()
    for path in sorted(files, key=lambda path: path.relative_to(KERNELS).as_posix()):
        total.update(path.relative_to(KERNELS).as_posix().encode() + b"\0" + path.read_bytes())
    return total.hexdigest() + "\n"


def package_file(package: str, *parts: str) -> Path:
    """A file inside an installed namespace package such as `nvidia.cuda_nvrtc`."""
    spec = importlib.util.find_spec(package)
    for root in (spec.submodule_search_locations or []) if spec else []:
        if (path := Path(root).joinpath(*parts)).exists():
            return path
    raise SystemExit(f"{package} is not installed; see CONTRIBUTING.md, section Kernels")


class Nvrtc:
    """The four NVRTC calls that turn a source into PTX."""

    def __init__(self) -> None:
        self.lib = ctypes.CDLL(str(package_file("nvidia.cuda_nvrtc", "lib", "libnvrtc.so.12")))
        major, minor = ctypes.c_int(), ctypes.c_int()
        self.lib.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
        if (major.value, minor.value) != COMPILER:
            raise SystemExit(f"NVRTC {major.value}.{minor.value} found, {COMPILER} is pinned")

    def compile(self, source: Path, target: Target) -> str:
        program = ctypes.c_void_p()
        self.lib.nvrtcCreateProgram(
            ctypes.byref(program), source.read_bytes(), source.name.encode(), 0, None, None
        )
        options = [
            f"--gpu-architecture=compute_{target.arch}",
            "--std=c++17",
            "--device-as-default-execution-space",
            f"--include-path={KERNELS / 'include'}",
        ]
        array = (ctypes.c_char_p * len(options))(*(o.encode() for o in options))
        status = self.lib.nvrtcCompileProgram(program, len(options), array)
        if status != 0:
            raise SystemExit(f"{source.name}:\n{self._text(program, 'ProgramLog')}")
        return self._text(program, "PTX")

    def _text(self, program: ctypes.c_void_p, what: str) -> str:
        size = ctypes.c_size_t()
        getattr(self.lib, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        getattr(self.lib, f"nvrtcGet{what}")(program, buffer)
        return buffer.value.decode()


@dataclass(frozen=True)
class Usage:
    """What ptxas says of one kernel."""

    kernel: str
    registers: int
    stack: int
    spill: int


def assemble(ptx: str, target: Target) -> list[Usage]:
    """Assemble with ptxas; registers, stack and spilled bytes of each kernel."""
    ptxas = package_file("nvidia.cuda_nvcc", "bin", "ptxas")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(ptx)
        command = [str(ptxas), "-v", f"-arch=sm_{target.arch}", str(source)]
        run = subprocess.run(
            [*command, "-o", str(source.with_suffix(".cubin"))], capture_output=True, text=True
        )
    if run.returncode != 0:
        raise SystemExit(f"ptxas: {run.stderr[:2000]}")
    pattern = re.compile(
        r"Compiling entry function '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, "
        r"(\d+) bytes spill loads.*?Used (\d+) registers",
        re.DOTALL,
    )
    return [
        Usage(name, int(registers), int(stack), int(stores) + int(loads))
        for name, stack, stores, loads, registers in pattern.findall(run.stderr)
    ]


def build(source: Path, target: Target) -> tuple[str, str, list[Usage]]:
    """File name, PTX text and resource usage for one source and target."""
    ptx = Nvrtc().compile(source, target)
    ptx = re.sub(r"^\.version .*$", f".version {target.ptx_version}", ptx, flags=re.MULTILINE)
    ptx = re.sub(r"^\s*\.pragma \"used_bytes_mask.*\n", "", ptx, flags=re.MULTILINE)  # a hint, 8.3
    return f"{source.stem}.sm_{target.arch}.ptx", ptx, assemble(ptx, target)


def report(results: list[tuple[str, str, list[Usage]]]) -> str:
    lines = [
        "# Registers and spills",
        "",
        f"Written by `kernels/build.py`; NVRTC and ptxas {COMPILER[0]}.{COMPILER[1]}.",
        "",
        "| file | kernel | registers | stack bytes | spilled bytes |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for name, _, kernels in results:
        lines += [
            f"| {name} | `{u.kernel}` | {u.registers} | {u.stack} | {u.spill} |" for u in kernels
        ]
    return "\n".join(lines) + "\n"


def read(path: Path) -> str:
    return gzip.decompress(path.read_bytes()).decode()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    parser.add_argument("--digest", action="store_true", help="compare the sources alone")
    options = parser.parse_args()
    if options.digest:
        current = DIGEST.exists() and DIGEST.read_text() == digest()
        print("current" if current else "stale: run `make ptx`")
        return not current
    jobs = [(s, target) for s in sorted(KERNELS.glob("*.cu")) for target in targets(s)]
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda job: build(*job), jobs))

    texts = {PTX / f"{name}.gz": text for name, text, _ in results}
    if options.check:
        stale = [p for p, text in texts.items() if not p.exists() or read(p) != text]
        stale += [p for p in PTX.glob("*.gz") if p not in texts]
        stale += [] if DIGEST.exists() and DIGEST.read_text() == digest() else [DIGEST]
        stale += [] if REPORT.exists() and REPORT.read_text() == report(results) else [REPORT]
        print("stale: " + ", ".join(p.name for p in stale) if stale else "current")
        return bool(stale)
    PTX.mkdir(parents=True, exist_ok=True)
    for old in set(PTX.glob("*.gz")) - texts.keys():
        old.unlink()
    for path, text in texts.items():
        if not path.exists() or read(path) != text:
            path.write_bytes(gzip.compress(text.encode(), mtime=0))
    REPORT.write_text(report(results))
    DIGEST.write_text(digest())
    return 0


if __name__ == "__main__":
    sys.exit(main())
