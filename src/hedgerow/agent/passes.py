"""Passes: who may join a network that is for apps only (`attach: apps`): instances that the controller assigned to us.

Podman tells the CNI plug-in the name of a container, for our runner's the instance's id, and only root reaches the
plug-in's socket. Docker makes containers for whoever may speak to dockerd, with any option they like. So there the
runner gives the container a pass, which only this agent can make: a digest of instance and incarnation, keyed with the
agent's own private key. It is made anew rather than kept, so an agent that was killed meanwhile still knows it.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hedgerow.errors import BadInput, Refused
from hedgerow.model.app import Instance, InstanceId
from hedgerow.model.network import Network

INSTANCE_OPTION = "hedgerow.instance"
PASS_OPTION = "hedgerow.pass"


class Passes:
    """`secret` is what only this agent has; `assigned` are the instances that are ours to run, as of now."""

    def __init__(self, secret: bytes, assigned: Callable[[], Mapping[InstanceId, Instance]]) -> None:
        self._key = hashlib.sha256(b"hedgerow passes\0" + secret).digest()
        self._assigned = assigned

    def options(self, instance: Instance) -> dict[str, str]:
        """For the instance's container on Docker, which hands them to our network driver and to nobody's label."""
        return {INSTANCE_OPTION: instance.id, PASS_OPTION: self._pass(instance)}

    def admit(self, network: Network, name: str) -> None:
        """A container of an engine that only root can ask. Raises Refused."""
        if network.spec.attach == "apps" and self._instance(network, name) is None:
            raise _refusal(network)

    def admit_with_options(self, network: Network, options: Mapping[str, Any]) -> None:
        """A container with options that anybody may have chosen. Raises Refused."""
        if network.spec.attach != "apps":
            return
        name, shown = options.get(INSTANCE_OPTION), options.get(PASS_OPTION)
        instance = self._instance(network, name) if isinstance(name, str) else None
        # Compared as bytes: text that is no ASCII would be an error of its own.
        if (
            instance is None
            or not isinstance(shown, str)
            or not hmac.compare_digest(shown.encode("utf-8", "replace"), self._pass(instance).encode())
        ):
            raise _refusal(network)

    def _instance(self, network: Network, name: str) -> Instance | None:
        """The one of that id, if it is to run on the network."""
        instance = self._assigned().get(InstanceId(name))
        return instance if instance is not None and instance.launch.network == network.name else None

    def _pass(self, instance: Instance) -> str:
        return hmac.new(self._key, f"{instance.id}\0{instance.incarnation}".encode(), "sha256").hexdigest()


def read_secret(certificates: Path) -> bytes:
    """The agent's private key. Raises BadInput."""
    path = certificates / "agent.key"
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}", "issue the agent a certificate") from error


def _refusal(network: Network) -> Refused:
    return Refused(
        f"network {network.name} is for apps only, and this container is none of an app that runs here",
        "run it as an app (hedgerow app run FILE), or write attach: anyone and apply that",
    )
