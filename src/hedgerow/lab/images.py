"""Container images for the lab, made from Debian's packages and kept between runs.

A kept image is named after the digest of the script that makes it, so a changed script makes it anew.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from hedgerow.errors import HedgerowError, NotFound


@dataclass(frozen=True, slots=True)
class Image:
    name: str
    command: str
    """As in a Dockerfile's CMD."""


IMAGES = (Image("busybox", 'CMD ["sh"]'), Image("nginx", 'CMD ["nginx", "-g", "daemon off;"]'))


def checkout() -> Path:
    """The directory of the sources that this command runs from. Raises NotFound outside one."""
    top = Path(__file__).resolve().parents[3]
    if not (top / "packaging" / "image").exists():
        raise NotFound("the lab runs from a clone of the sources only", "git clone them, then make demo")
    return top


def command() -> str:
    """How this clone's `hedgerow` is called from within it, as can be pasted."""
    return ("sudo " if checkout().stat().st_uid else "") + "build/hedgerow"


def tar_of(image: Image, top: Path) -> Path:
    """Where the image lies, or will lie."""
    script = (top / "packaging" / "image").read_bytes()
    digest = hashlib.sha256(script + image.name.encode()).hexdigest()[:12]
    return top / "build" / "images" / f"{image.name}-{digest}.tar"


def make_missing(top: Path) -> None:
    """Makes every image that is not there, all at once, as the owner of the clone: nothing in it becomes root's.

    Raises HedgerowError with what apt said.
    """
    owner = top.stat()
    missing = [image for image in IMAGES if not tar_of(image, top).exists()]
    started = [
        (image, _start([str(top / "packaging" / "image"), image.name, str(tar_of(image, top))], owner))
        for image in missing
    ]
    for image, making in started:
        said, _ = making.communicate()
        if making.returncode:
            raise HedgerowError(f"image {image.name} cannot be made: {said.strip()}", "apt-get update, then again")


def _start(command: list[str], owner: os.stat_result) -> subprocess.Popen[str]:
    root = os.geteuid() == 0
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        user=owner.st_uid if root else None,
        group=owner.st_gid if root else None,
        extra_groups=[] if root else None,
    )
