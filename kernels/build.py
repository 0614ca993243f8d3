"""Compile the kernels to the PTX that flexq-cuda embeds.

    python kernels/build.py            write crates/flexq-cuda/ptx/*.ptx and kernels/REPORT.md
    python kernels/build.py --check    fail unless the committed files are what the sources give

The compilers are NVRTC and ptxas 12.4 from their Python packages (`nvidia-cuda-nvrtc-cu12`,
`nvidia-cuda-nvcc-cu12`), so the result does not depend on the machine. Each PTX file is then
marked with the lowest version that its instructions allow, which is what the oldest driver
must understand, and assembled with ptxas to prove it and to report registers and spills.
"""

from __future__ import annotations

import argparse
import ctypes
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
COMPILER = (12, 4)


@dataclass(frozen=True)
class Target:
    """An architecture and the lowest PTX version our instructions need on it."""

    arch: str
    ptx_version: str


SM80 = Target("80", "7.4")  # 7.4: prefetch size on asynchronous copies
SM90 = Target("90", "7.8")  # 7.8: programmatic dependent launch
SM90A = Target("90a", "8.0")  # 8.0: wgmma, setmaxnreg


def targets(source: Path) -> tuple[Target, ...]:
    """`sm90_*.cu` needs Hopper's own instructions; `small_*.cu` uses dependent launch if there."""
    if source.stem.startswith("sm90_"):
        return (SM90A,)
    return (SM80, SM90) if source.stem.startswith("small_") else (SM80,)


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
    stem = source.stem.removeprefix("sm90_")
    return f"{stem}.sm_{target.arch}.ptx", ptx, assemble(ptx, target)


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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    parser.add_argument("only", nargs="*", help="stems of sources to build (no report then)")
    options = parser.parse_args()
    sources = sorted(s for s in KERNELS.glob("*.cu") if not options.only or s.stem in options.only)
    jobs = [(source, target) for source in sources for target in targets(source)]
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda job: build(*job), jobs))

    files = {PTX / name: text for name, text, _ in results}
    if not options.only:
        files[REPORT] = report(results)
    else:
        print(report(results))
    if options.check:
        stale = [str(p) for p, t in files.items() if not p.exists() or p.read_text() != t]
        stale += [str(p) for p in PTX.glob("*.ptx") if p not in files and not options.only]
        print("stale: " + ", ".join(stale) if stale else "the committed PTX is current")
        return bool(stale)
    PTX.mkdir(parents=True, exist_ok=True)
    for path, text in files.items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
