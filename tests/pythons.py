"""
Runs the tests on every Python that `pyproject.toml` says is supported, one after the other: ``make pythons``.

``make pythons ARGS="3.14 3.15"`` chooses versions, and what follows ``--`` goes to pytest:
``make pythons ARGS="3.15 -- tests/unit"``. A version is looked for on the PATH, then among those of pyenv. What neither
has comes from Debian sid: its packages are fetched by apt and unpacked into ``.venv-pythons``, and patchelf makes the
interpreter use the C library that came with it. Nothing on the machine changes, and root is not needed.
``DEBIAN_MIRROR`` names a mirror of Debian; by default it is the one that apt uses already.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path

ROOT = Path(__file__).parent.parent
HOME = ROOT / ".venv-pythons"
PROJECT = ROOT / "pyproject.toml"
PINNED = ROOT / ".constraints.txt"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
PIP = ("-m", "pip", "--disable-pip-version-check")
INSTALL = (*PIP, "install", "--quiet", "--no-build-isolation")


class NotAvailable(Exception):
    """This version cannot be tried here; says why."""


def run(*command: str | Path) -> str:
    """Return what *command* prints; where it fails, the last line that it printed is the reason."""
    try:
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        msg = f"there is no {command[0]}"
        raise NotAvailable(msg) from error
    if result.returncode:
        lines = [line for line in result.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if re.match(r"E: |error|ERROR", line)]
        reason = (errors or lines or [f"exit status {result.returncode}"])[-1]
        msg = f"{Path(command[0]).name}: {reason}"
        raise NotAvailable(msg)
    return result.stdout


def supported() -> list[str]:
    """Return the versions that the classifiers name."""
    return re.findall(r'"Programming Language :: Python :: (3\.\d+)"', PROJECT.read_text(encoding="utf-8"))


def debian(version: str) -> Path:
    """Return the folder that Debian's Python *version* is unpacked in."""
    return HOME / f"debian-{version}"


def installed(version: str) -> Iterator[str | Path]:
    """Return the interpreters of *version* that this machine may have."""
    yield f"python{version}"
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from sorted(pyenv.glob(f"versions/{version}.*/bin/python"), reverse=True)
    yield debian(version) / "usr" / "bin" / f"python{version}"


def find(version: str) -> Path:
    """Return an interpreter of *version*. A name on the PATH may be a stub, so each is asked."""
    for each in installed(version):
        try:
            said = run(each, "-c", "import sys, venv; print(*sys.version_info[:2], sep='.'); print(sys.executable)")
        except NotAvailable:
            continue
        its_version, its_path = said.splitlines()
        if its_version == version:
            return Path(its_path)
    return unpack(version)


def mirror() -> str:
    """Return a mirror of Debian."""
    if named := os.environ.get("DEBIAN_MIRROR"):
        return named
    for line in run("apt-get", "indextargets", "--format", "$(LABEL) $(REPO_URI)", "Created-By: Packages").splitlines():
        label, _, uri = line.partition(" ")
        if label == "Debian":
            return uri
    msg = "not installed, and apt knows no mirror of Debian; name one in DEBIAN_MIRROR"
    raise NotAvailable(msg)


def unpack(version: str) -> Path:
    """Unpack Debian's Python *version*, with all that it depends on; return its interpreter."""
    if sys.platform != "linux":
        msg = "not installed"
        raise NotAvailable(msg)
    apt, root = debian(version) / "apt", debian(version)
    for folder in ("lists/partial", "archives/partial"):
        (apt / folder).mkdir(parents=True, exist_ok=True)
    (apt / "status").touch()  # nothing is installed, so that every dependency is fetched
    (apt / "sources.list").write_text(f"deb [signed-by={KEYRING}] {mirror()} sid main\n", encoding="utf-8")
    options = {
        "APT::Install-Recommends": "false",
        "Debug::NoLocking": "true",
        "Dir::Cache": apt,
        "Dir::Etc::PreferencesParts": "/dev/null",
        "Dir::Etc::SourceList": apt / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State": apt,
        "Dir::State::Status": apt / "status",
    }
    command = ["apt-get", "--quiet", *(f"--option={name}={value}" for name, value in options.items())]
    run(*command, "update")
    # The headers, for what has no wheel for so new a Python.
    run(*command, "install", "--yes", "--download-only", f"python{version}-dev", f"python{version}-venv")
    for package in (apt / "archives").glob("*.deb"):
        run("dpkg-deb", "--extract", package, root)
    python = root / "usr" / "bin" / f"python{version}"
    (loader,) = (root / "usr").glob("lib*/ld-linux*.so.*")
    (libraries,) = (root / "usr" / "lib").glob("*-linux-gnu*")
    patchelf = Path(sys.executable).parent / "patchelf"
    run(patchelf, "--set-interpreter", loader, "--force-rpath", "--set-rpath", libraries, python)
    return python


def make(version: str, environment: Path) -> str:
    """Make an environment for *version* with the package and what its tests need; return what is not as usual."""
    stamp = environment / ".made"
    interpreter = find(version)
    wanted = sha256(PROJECT.read_bytes() + PINNED.read_bytes() + bytes(interpreter)).hexdigest()
    if stamp.exists():
        made, _, remarks = stamp.read_text(encoding="utf-8").partition("\n")
        if made == wanted:
            return remarks
    run(interpreter, "-m", "venv", "--clear", "--without-pip", environment)
    python = environment / "bin" / "python"
    run(sys.executable, *PIP, "--python", python, "install", "--quiet", "--constraint", PINNED, "pip")
    unusual = []
    try:
        install(python, PINNED, "ecosystem")
    except NotAvailable:
        pins, loosened = loosen(python, environment)
        if loosened:
            unusual.append(f"not as pinned: {', '.join(loosened)}")
        try:
            install(python, pins, "ecosystem")
        except NotAvailable as error:
            install(python, pins, "test")
            unusual.append(f"without tests/ecosystem: {error}")
    remarks = "; ".join(unusual)
    stamp.write_text(f"{wanted}\n{remarks}", encoding="utf-8")
    return remarks


def install(python: Path, pins: Path, group: str) -> None:
    """Install the package and a dependency group. Wheels only: to build from source would need compilers."""
    run(python, *INSTALL, "--constraint", pins, "--only-binary", ":all:", "--group", "build")
    options = ("--constraint", pins, "--only-binary", ":all:", "--group", group)
    run(python, *INSTALL, *options, "--editable", ".[aws]")


def loosen(python: Path, environment: Path) -> tuple[Path, list[str]]:
    """Leave out the pins that this Python has no wheel for; return the rest, and the names of those left out."""
    pins = environment / "constraints.txt"
    lines = PINNED.read_text(encoding="utf-8").splitlines()
    loosened = []
    while True:
        pins.write_text("\n".join(lines), encoding="utf-8")
        try:
            run(python, *INSTALL, "--dry-run", "--no-deps", "--only-binary", ":all:", "--requirement", pins)
        except NotAvailable as error:
            if not (missing := re.search(r"No matching distribution found for ([^=\s]+)==", str(error))):
                raise
            loosened.append(missing[1])
            lines = [line for line in lines if not line.startswith(f"{missing[1]}==")]
        else:
            return pins, loosened


def test(version: str, arguments: Sequence[str]) -> tuple[bool | None, str]:
    """Run the tests on *version*; return whether they passed, None where they could not run, and a remark."""
    environment = HOME / version
    try:
        remarks = make(version, environment)
    except NotAvailable as error:
        return None, str(error)
    python = environment / "bin" / "python"
    log = environment / "pytest.log"
    full = run(python, "-c", "import platform; print(platform.python_version())").strip()
    left_out = ["--ignore=tests/ecosystem"] if "without tests/ecosystem" in remarks else []
    options = ["-o", f"cache_dir={environment / '.pytest_cache'}", *left_out]
    with log.open("w", encoding="utf-8") as file:
        command = [str(python), "-m", "pytest", *options, *(arguments or ["tests"])]
        status = subprocess.run(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
    last = log.read_text(encoding="utf-8").strip().rpartition("\n")[2].strip("= ")
    seen = [full, last, *([remarks] if remarks else []), *([str(log.relative_to(ROOT))] if status else [])]
    return status == 0, "; ".join(seen)


def main() -> int:
    """Try each version; fail where one fails, or none could be tried."""
    parser = argparse.ArgumentParser(description="Run the tests on every Python supported.")
    parser.add_argument("versions", nargs="*", metavar="VERSION", help="such as 3.14; by default all")
    own, _, for_pytest = " ".join(sys.argv[1:]).partition("--")
    versions = parser.parse_args(own.split()).versions or supported()
    # A shell ignores Ctrl-C for its jobs in the background, and what they start inherits that; some tests press it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    outcomes = []
    for version in versions:
        passed, remark = test(version, for_pytest.split())
        outcomes.append(passed)
        word = "not available" if passed is None else "passed" if passed else "failed"
        sys.stdout.write(f"{version:5} {word:13} {remark}\n")
        sys.stdout.flush()
    return int(False in outcomes or True not in outcomes)


if __name__ == "__main__":
    sys.exit(main())
