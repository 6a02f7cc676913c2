#!/usr/bin/env python3
"""The taste checks of the house (docs/architecture.md): one subcommand each, one ctest entry each.

Exit status 0: fine. 1: findings, one a line, as file:line: what. 77: what the check needs is not
here (ctest counts it as skipped). Python's standard library only.
"""

import argparse
import concurrent.futures
import functools
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
SKIPPED = 77
CODE = {".cc", ".h", ".cu", ".cuh"}
SMELL_LINES, MOST_LINES = 600, 1000


class Skip(Exception):
    """What the check needs is not on this machine."""


@functools.cache
def tracked():
    """Paths of what belongs to the project, relative to ROOT: tracked, or new and not ignored."""
    git = ["git", "-c", "safe.directory=*", "-C", str(ROOT), "ls-files", "-z"]
    try:
        listing = subprocess.run(git + ["--cached", "--others", "--exclude-standard"],
                                 capture_output=True, check=True).stdout.decode()
        names = [name for name in listing.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):  # an archive without its history
        names = [str(p.relative_to(ROOT)) for p in ROOT.rglob("*")]
        names = [n for n in names if n.split("/")[0] not in {"build", ".git", ".venv"}]
    return sorted(pathlib.Path(n) for n in set(names) if (ROOT / n).is_file())


def code(*folders):
    """C++ and CUDA files, in the folders named if any are."""
    return [p for p in tracked()
            if p.suffix in CODE and (not folders or p.parts[0] in folders)]


@functools.cache
def text(path):
    """A file's text; None for binary files."""
    data = (ROOT / path).read_bytes()
    return None if b"\0" in data[:8192] else data.decode("utf-8", "replace")


def lines(path):
    return enumerate((text(path) or "").split("\n"), 1)


def generated(path):
    return "generated" in "\n".join((text(path) or "").split("\n")[:5]).lower()


def grep(paths, pattern, why):
    """A finding for every line that matches."""
    for path in paths:
        for number, line in lines(path):
            if found := pattern.search(line):
                yield f"{path}:{number}: {found.group(0)}: {why}"


# ---- the checks: generators of findings ----------------------------------------------------------


def read_rooms():
    """src/rooms.txt -> {room: rooms it may include}."""
    rooms = {}
    for number, line in lines(pathlib.Path("src/rooms.txt")):
        line = line.split("#")[0].strip()
        if not line:
            continue
        room, _, below = line.partition(":")
        rooms[room.strip()] = (number, below.split())
    return rooms


def check_rooms(_):
    """Includes follow src/rooms.txt, and CMakeLists.txt links what src/rooms.txt says."""
    rooms = read_rooms()
    above = set()
    for room, (number, below) in rooms.items():
        for other in below:
            if other not in above:
                yield f"src/rooms.txt:{number}: {room} may not use {other}: it is not a room below"
        above.add(room)

    include = re.compile(r'^\s*#\s*include\s+"([^"]+)"')
    for path in code("src", "tools", "include"):
        if path.parts[0] == "include":
            room, allowed = "include", []
        else:
            room = path.parts[1] if path.parts[0] == "src" else "tools"
            if room not in rooms:
                yield f"{path}:1: {room} is not a room of src/rooms.txt"
                continue
            allowed = [room] + rooms[room][1] + (["hwy"] if room == "kernels" else [])
        for number, line in lines(path):
            found = include.match(line)
            if not found:
                continue
            target = found.group(1).split("/")[0]
            if target not in allowed + ["seacliff"]:
                yield f"{path}:{number}: {room} may not include \"{found.group(1)}\""

    linked = {}
    for found in re.finditer(r"sc_room\((\w+)((?:\s+[^\s)]+)*)\)", text(pathlib.Path("CMakeLists.txt"))):
        linked[found.group(1)] = [word for word in found.group(2).split() if word in rooms]
    reach = {}
    for room, direct in linked.items():  # lowest first, as CMake needs it
        reach[room] = set(direct).union(*(reach.get(other, set()) for other in direct))
    for room, (number, below) in rooms.items():
        if room == "tools":
            continue
        for other in sorted(set(linked.get(room, [])) - set(below)):
            yield f"CMakeLists.txt:1: {room} links {other}, which src/rooms.txt does not allow"
        for other in sorted(set(below) - reach.get(room, set())):
            yield f"src/rooms.txt:{number}: {room} may use {other}, which CMakeLists.txt does not link"


def check_sizes(_):
    """No source file over 1,000 lines; those over 600 are named. Generated tables are exempt."""
    for path in tracked():
        if path.suffix not in CODE | {".py", ".sh", ".cmake"} or generated(path):
            continue
        count = (text(path) or "").count("\n")
        if count > MOST_LINES:
            yield f"{path}:1: {count} lines, more than {MOST_LINES}"
        elif count > SMELL_LINES:
            print(f"{path}: {count} lines: a smell, not an error up to {MOST_LINES}")


def check_openings(_):
    """A source file opens with what it is; a header has its #pragma once, or Highway's guard."""
    for path in code():
        if not text(path).startswith("//"):
            yield f"{path}:1: does not open with a comment that says what it is"
        once = "HWY_TARGET_TOGGLE" if path.name.endswith("-inl.h") else "#pragma once"
        if path.suffix in {".h", ".cuh"} and once not in text(path):
            yield f"{path}:1: no {once}"


def tool(name, version):
    """The path of a clang tool of the version that the project supports."""
    for candidate in (f"{name}-{version}", name):
        path = shutil.which(candidate)
        if path is None:
            continue
        says = subprocess.run([path, "--version"], capture_output=True, text=True).stdout
        if re.search(rf"version {version}\.", says):
            return path
    raise Skip(f"{name} {version} is not installed")


def check_format(options):
    """clang-format 14 has nothing to change; --fix lets it."""
    formatter = tool("clang-format", 14)
    files = [str(ROOT / p) for p in code() if not generated(p)]
    mode = ["-i"] if options.fix else ["--dry-run", "-Werror"]
    for begin in range(0, len(files), 50):
        run = subprocess.run([formatter] + mode + files[begin:begin + 50],
                             capture_output=True, text=True)
        for line in run.stderr.split("\n"):
            if found := re.match(r"(.*?):(\d+):\d+: error: code should be clang-formatted", line):
                path = pathlib.Path(found.group(1)).relative_to(ROOT)
                yield f"{path}:{found.group(2)}: not as clang-format has it (make format)"


def check_tidy(options):
    """clang-tidy 14 (.clang-tidy) finds nothing in the .cc files of the build."""
    tidy = tool("clang-tidy", 14)
    if not (options.build / "compile_commands.json").exists():
        raise Skip(f"{options.build} has no compile_commands.json")
    files = [p for p in code("src", "tools") if p.suffix == ".cc" and not generated(p)]

    def run(path):
        command = [tidy, "-quiet", "-p", str(options.build), str(ROOT / path)]
        return subprocess.run(command, capture_output=True, text=True).stdout

    finding = re.compile(r"(.*?):(\d+):\d+: (?:warning|error): (.*)")
    seen = set()
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for output in pool.map(run, files):
            for line in output.split("\n"):
                found = finding.match(line)
                if found and line not in seen:
                    seen.add(line)
                    where = os.path.relpath(found.group(1), ROOT)
                    yield f"{where}:{found.group(2)}: {found.group(3)}"


def check_getenv(_):
    """The environment is read in src/config alone."""
    files = [p for p in code("src", "tools", "include") if p.parts[:2] != ("src", "config")]
    yield from grep(files, re.compile(r"\b(?:secure_)?getenv\b|\benviron\b"),
                    "only src/config reads the environment")


def check_ops(_):
    """Every op folder has its declaration, reference and check, and a row in the table."""
    kernels = pathlib.Path("src/kernels")
    table = text(kernels / "table.cc")
    folders = sorted({p.parts[2] for p in tracked() if p.parts[:2] == kernels.parts and len(p.parts) > 3})
    for folder in folders:
        if folder == "common":
            continue
        for name in ("op.h", "ref.cc", "check.cc"):
            if kernels / folder / name not in tracked():
                yield f"{kernels / folder}: has no {name}"
        if f'"{folder}"' not in table:
            yield f"{kernels / folder}: table.cc has no op \"{folder}\""


def check_c_header(_):
    """include/seacliff/kernels.h is C99."""
    header = pathlib.Path("include/seacliff/kernels.h")
    if header not in tracked():
        raise Skip(f"{header} does not exist yet")
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise Skip("no C compiler")
    run = subprocess.run([compiler, "-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror",
                          "-fsyntax-only", "-x", "c", "-I", str(ROOT / "include"), str(ROOT / header)],
                         capture_output=True, text=True)
    if run.returncode != 0:
        yield run.stderr.replace(str(ROOT) + "/", "").strip()


def check_token_ids(_):
    """No id of a special token stands in src: they come from the tokenizer, by their text."""
    files = [p for p in code("src") if not generated(p)]
    yield from grep(files, re.compile(r"(?<![\w.])128['_]?\d{3}(?![\w.])"), "a numeric token id")


def check_paths(_):
    """No tracked text file has a path of the machine it was written on."""
    places = ["/root" + "/", "/home" + "/"]
    if len(ROOT.parts) > 2:
        places += [f"{ROOT}/", f"{ROOT.parent}/shared"]
    pattern = re.compile(r"(?<![\w.])(?:" + "|".join(re.escape(p) for p in places) + r")")
    files = [p for p in tracked() if p.suffix != ".safetensors" and text(p) is not None]
    yield from grep(files, pattern, "a path of one machine")


PRINTED = re.compile(r"(<!-- ((?:seacliff|python3) [^\n]*?) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def check_docs(options):
    """Printed tables in README.md and docs/ are what the binary prints; --fix writes them anew.

    A table stands between `<!-- seacliff show settings -->` and `<!-- end -->`; the command runs
    in the repository's root. A script (`<!-- python3 bench/table.py ... -->`) prints Markdown.
    """
    if options.binary is None or not options.binary.exists():
        raise Skip("no binary")
    binary = options.binary.resolve()

    def printed(found):
        program, *arguments = shlex.split(found.group(2))
        command = [str(binary) if program == "seacliff" else sys.executable, *arguments]
        run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        if run.returncode != 0:
            raise RuntimeError(f"`{found.group(2)}`: {run.stderr.strip()}")
        body = "\n".join(line.rstrip() for line in run.stdout.rstrip("\n").split("\n"))
        if program == "seacliff":
            body = f"```text\n{body}\n```"
        return f"{found.group(1)}{body}\n{found.group(4)}"

    for path in tracked():
        if path.suffix != ".md" or path.parts[0] not in {"README.md", "docs"}:
            continue
        now = text(path)
        try:
            fresh = PRINTED.sub(printed, now)
        except RuntimeError as error:
            yield f"{path}:1: {error}"
            continue
        if fresh == now:
            continue
        if options.fix:
            (ROOT / path).write_text(fresh)
            print(f"{path}: refreshed")
        else:
            yield f"{path}:1: a printed table is stale (make docs)"


def main():
    checks = {name[len("check_"):]: f for name, f in globals().items() if name.startswith("check_")}
    parser = argparse.ArgumentParser(description="Taste checks of the Seacliff tree.")
    parser.add_argument("check", choices=sorted(checks) + ["all"])
    parser.add_argument("--fix", action="store_true", help="format, docs: change the files")
    parser.add_argument("--binary", type=pathlib.Path, help="the seacliff binary (docs)")
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build/cpu",
                        help="a configured build folder (tidy)")
    options = parser.parse_args()

    status = 0
    for name, check in checks.items():
        if options.check not in (name, "all"):
            continue
        try:
            findings = list(check(options))
        except Skip as skip:
            print(f"{name}: skipped: {skip}")
            status = status or SKIPPED
            continue
        for finding in findings:
            print(finding)
        print(f"{name}: {len(findings)} findings" if findings else f"{name}: fine")
        if findings:
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
