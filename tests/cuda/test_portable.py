"""Portable CUDA rows hold nothing beyond sm_80, so that their PTX runs on every later card. That the
sources compile for sm_80 and as PTX, `make test` sees to itself (preset sm80)."""

import concurrent.futures
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(os.environ["SEACLIFF_SOURCE_DIR"])
SOURCES = ROOT / "src"
# Rows for one architecture are named after it; every other CUDA source is portable.
ONE_ARCHITECTURE = re.compile(r"(^|_)sm\d+\w*\.cuh?$")


def portable_sources():
    return [path for path in sorted(SOURCES.rglob("*.cu*")) if not ONE_ARCHITECTURE.search(path.name)]


def tool(name):
    """One of CUDA's tools: the system's, or that of a Python package (cuobjdump)."""
    packaged = pathlib.Path(sys.prefix).glob("lib/python*/site-packages/nvidia/*/bin")
    places = [os.environ["PATH"], "/usr/local/cuda/bin", *map(str, packaged)]
    found = shutil.which(name, path=os.pathsep.join(places))
    if found is None:
        pytest.skip(f"no {name}")
    return found


def run(*command, **options):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stderr}"
    return done.stdout


def assemble(ptx):
    """ptxas takes no instruction that the target lacks, in inline assembly neither."""
    assert re.findall(r"^\.target (\S+)$", ptx.read_text(), re.MULTILINE) == ["sm_80"], ptx
    run(tool("ptxas"), "-arch=sm_80", ptx, "-o", ptx.with_suffix(".cubin"))


@pytest.mark.parametrize("source", portable_sources(), ids=lambda path: str(path.relative_to(SOURCES)))
def test_sources_do_not_ask_for_the_architecture(source):
    assert "__CUDA_ARCH" not in source.read_text()


def cuda_binaries():
    """Builds with CUDA: the one under test, and those of make cuda and make gpu-pack."""
    paths = [pathlib.Path(os.environ["SEACLIFF_BINARY"])]
    paths += [ROOT / "build" / preset / "seacliff" for preset in ("cuda", "gpu-pack")]
    for path in dict.fromkeys(paths):
        if not path.exists():
            continue
        listed = subprocess.run([tool("cuobjdump"), "-lelf", path], text=True, capture_output=True)
        if ".cubin" in listed.stdout:
            yield path


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_binaries_hold_ptx_of_every_kernel_for_sm_80(tmp_path):
    binaries = list(cuda_binaries())
    if not binaries:
        pytest.skip("no build with CUDA (make cuda)")
    for number, binary in enumerate(binaries):
        folder = tmp_path / str(number)
        folder.mkdir()
        for what in ("-xptx", "-xelf"):
            run(tool("cuobjdump"), what, "all", binary.resolve(), cwd=folder)
        files = sorted(file for file in folder.glob("*.ptx") if not re.search(r"\.sm_\d+[a-z]", file.name))
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(assemble, files))
        entries = set(re.findall(r"\.entry (\w+)", "".join(file.read_text() for file in files)))

        # Machine code: architectures with a letter hold the rows that are theirs alone.
        for cubin in sorted(folder.glob(f"{binary.name}.*.cubin")):
            if not re.search(r"\.sm_\d+\.cubin$", cubin.name):
                continue
            usage = run(tool("cuobjdump"), "-res-usage", cubin)
            kernels = set(re.findall(r"Function (\w+):", usage))
            assert kernels <= entries, f"{binary}: {cubin.name}: no PTX of {kernels - entries}"
        assert entries, binary
