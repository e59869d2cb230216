"""Debian's packages from a private apt: nothing is installed, nothing of this machine's apt is changed.

Each suite has its own lists and its own empty package status, under the cache directory; the mirrors are those that
this machine's apt takes Debian from. Packages are kept in one directory, so a second run fetches nothing.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"


def output_of(*command: object, cwd: Path | None = None) -> str:
    """Standard output of a command. Raises CalledProcessError when it fails; its complaints go to our stderr."""
    words = [str(word) for word in command]
    return subprocess.run(words, check=True, text=True, stdout=subprocess.PIPE, cwd=cwd).stdout


@dataclass(frozen=True, slots=True)
class Suite:
    """A suite of Debian (`bookworm`, `bookworm-backports`) and where its lists and packages are kept."""

    name: str
    cache: Path

    @property
    def _root(self) -> Path:
        return self.cache / "apt" / self.name

    @property
    def _packages(self) -> Path:
        return self.cache / "debs"

    def newest(self, package: str) -> Path:
        """The file of one package, without what it depends on."""
        (name,) = self._names("download", package)
        if not (self._packages / name).exists():
            try:
                self._apt("download", package)
            except subprocess.CalledProcessError:  # a newer one has replaced it since the lists were fetched
                self._apt("update")
                (name,) = self._names("download", package)
                self._apt("download", package)
        return self._packages / name

    def with_dependencies(self, packages: list[str]) -> list[Path]:
        """The files of these packages and of all that they depend on."""
        try:
            self._apt("--download-only", "-y", "install", *packages)
        except subprocess.CalledProcessError:
            self._apt("update")
            self._apt("--download-only", "-y", "install", *packages)
        return [self._packages / name for name in self._names("install", *packages)]

    def _names(self, *words: str) -> list[str]:
        """File names. apt does not list what lies in its archives already, so it is told of an empty directory."""
        listed = self._apt("--print-uris", *words, archives=self._root / "none")
        return re.findall(r"^'\S+' (\S+\.deb) ", listed, re.M)

    def _apt(self, *words: str, archives: Path | None = None) -> str:
        self._prepare()
        archives = archives or self._packages
        options = {
            "Dir::Etc::SourceList": self._root / "sources.list",
            "Dir::Etc::SourceParts": "-",
            "Dir::State::Lists": self._root / "lists",
            "Dir::State::Status": self._root / "status",
            "Dir::Cache::Archives": archives,
            "Dir::Cache::pkgcache": "",
            "Dir::Cache::srcpkgcache": "",
            "APT::Architecture": "amd64",
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "root",  # apt's own user may not read the directory that the clone lies in
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
        }
        return output_of(
            "apt-get", "-qq", *(f"-o{key}={value}" for key, value in options.items()), *words, cwd=archives
        )

    def _prepare(self) -> None:
        if (self._root / "sources.list").exists():
            return
        for directory in (
            self._packages / "partial",
            self._root / "none" / "partial",
            self._root / "lists" / "partial",
        ):
            directory.mkdir(parents=True, exist_ok=True)
        (self._root / "status").touch()
        (self._root / "sources.list").write_text(self._sources())
        try:
            self._apt("update")
        except BaseException:
            (self._root / "sources.list").unlink()
            raise

    def _sources(self) -> str:
        """The suite and its security updates, from where this machine's apt takes Debian."""
        template = "$(RELEASE) $(REPO_URI)"
        listed = output_of(
            "apt-get", "indextargets", "--format", template, "Created-By: Packages", "Origin: Debian"
        ).splitlines()
        known = dict(row.split() for row in listed)
        uris = [uri for name, uri in known.items() if "-security" not in name]
        if not uris:
            raise SystemExit("apt knows no mirror of Debian: name one in /etc/apt/sources.list and run apt-get update")
        wanted = [(uris[0], self.name)]
        if "-" not in self.name:
            wanted += [(uri, f"{self.name}-security") for name, uri in known.items() if "-security" in name][:1]
        return "".join(f"deb [signed-by={KEYS}] {uri} {name} main\n" for uri, name in wanted)
