"""The cpu rows compile for 64-bit ARM (NEON). Headers of Highway and fmt are the same for every
machine, so the cross compiler gets those of this one; nothing is linked or run."""

import concurrent.futures
import os
import pathlib
import re
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(os.environ.get("SEACLIFF_SOURCE_DIR", pathlib.Path(__file__).parents[2]))
COMPILER = "aarch64-linux-gnu-g++"
HEADERS = ["hwy", "fmt"]


def sources():
    """Everything that Highway compiles for several instruction sets, and what it stands on."""
    found = [p for p in sorted((ROOT / "src/kernels").rglob("*.cc"))
             if "hwy/" in p.read_text() and not p.name.endswith("_test.cc")]
    return found + [ROOT / "src/base/threads.cc", ROOT / "src/base/cpus.cc"]


def definitions():
    """Those of CMakeLists.txt: which of Highway's targets are built."""
    text = (ROOT / "CMakeLists.txt").read_text()
    block = re.search(r"target_compile_definitions\(sc_kernels PRIVATE ([^\n]*\n[^\n]*)", text).group(1)
    found = re.findall(r'"?(HWY_\w+=(?:\([^)]*\)|\w+))', block)
    assert any(d.startswith("HWY_DISABLED_TARGETS=") for d in found), block
    return ["-D" + d for d in found]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_cpu_rows_compile_for_aarch64(tmp_path):
    if shutil.which(COMPILER) is None:
        pytest.skip(f"there is no {COMPILER} (packages.txt [slow]: g++-aarch64-linux-gnu)")
    for name in HEADERS:
        (tmp_path / name).symlink_to(pathlib.Path("/usr/include") / name)

    def compile_one(source):
        command = [COMPILER, "-std=c++20", "-O2", "-Wall", "-Wextra", "-Wshadow", "-ffp-contract=off",
                   *definitions(), "-isystem", tmp_path, "-I", ROOT / "src", "-I", ROOT / "include",
                   "-c", source, "-o", tmp_path / (source.parent.name + "_" + source.stem + ".o")]
        run = subprocess.run(command, capture_output=True, text=True)
        return "" if run.returncode == 0 and not run.stderr else f"{source}:\n{run.stderr}"

    rows = [s for s in sources() if s.name == "cpu.cc"]
    assert rows
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        wrong = [text for text in pool.map(compile_one, sources()) if text]
    assert not wrong, "\n".join(wrong)
