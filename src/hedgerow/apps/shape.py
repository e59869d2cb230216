"""The shape of an app definition as it comes in, old form and new. Pure.

Both forms are read by one model: what Marathon 1.5 and later know, and what was written before. Objects may hold keys
that nobody knows (Marathon ignores them; here they are named in a warning), a `null` is the same as nothing, and names
of a closed set are taken in any case. A wrong shape is answered with all its faults, in the words of Marathon's reader.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from hedgerow.errors import BadInput

_SEGMENT = r"(?:(?:[a-z0-9]|[a-z0-9][a-z0-9-]*[a-z0-9])\.)*(?:[a-z0-9]|[a-z0-9][a-z0-9-]*[a-z0-9])|\.\."
ID_PATTERN = rf"^/*(?:(?:{_SEGMENT})(?:/+(?:{_SEGMENT}))*)?/*$"
NAME_PATTERN = r"^[a-z0-9](?:[-a-z0-9_]*[a-z0-9])?$"
PORT_NAME_PATTERN = r"^[a-z0-9](?:[-a-z0-9]*[a-z0-9])?$"
MAX_INSTANCES = 1000
"""What the built-in scheduler is made for."""
MAX_PORTS = 100
"""Each is three variables of every task, and one without a number is drawn among 64,511."""
MAX_NUMBER = 1 << 31
"""Of CPUs, MiB and seconds. JSON's 1e999 reads as infinity, which no container can be given."""


@dataclass(frozen=True, slots=True)
class Fault:
    """`path` as Marathon writes it: `/container/portMappings(0)/name`, `/` for the whole."""

    path: str
    message: str


class BadApp(BadInput):
    """A definition that cannot be taken. `kind` is Marathon's: `Invalid JSON` or `Object is not valid`."""

    def __init__(self, kind: str, faults: tuple[Fault, ...]) -> None:
        super().__init__(f"{kind}: " + "; ".join(f"{fault.path}: {fault.message}" for fault in faults))
        self.kind = kind
        self.faults = faults


class NotJson(BadInput):
    """A body that is no JSON at all. `kind` and `details` are Marathon's."""

    def __init__(self, kind: str, details: str) -> None:
        super().__init__(f"{kind}: {details}", "send one JSON object")
        self.kind = kind
        self.details = details


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


Port = Annotated[int, Field(ge=0, le=65535)]
Protocol = Annotated[Literal["tcp", "udp", "udp,tcp"], BeforeValidator(_lower)]


class Shape(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", alias_generator=to_camel)


class Network(Shape):
    name: str | None = Field(default=None, pattern=NAME_PATTERN, max_length=63)
    mode: Annotated[Literal["container", "container/bridge", "host"], BeforeValidator(_lower)] = "container"
    labels: dict[str, str] = {}


class Mapping(Shape):
    container_port: Port = 0
    host_port: Port | None = None
    service_port: Port = 0
    protocol: Protocol = "tcp"
    name: str | None = Field(default=None, pattern=PORT_NAME_PATTERN)
    labels: dict[str, str] = {}
    network_names: list[str] = []


class Definition(Shape):
    """A port of an app on the host's network."""

    port: Port = 0
    protocol: Protocol = "tcp"
    name: str | None = Field(default=None, pattern=PORT_NAME_PATTERN)
    labels: dict[str, str] = {}


class Docker(Shape):
    image: str | None = Field(default=None, min_length=1)
    force_pull_image: bool = False
    privileged: bool = False
    parameters: list[dict[str, Any]] = []
    credential: dict[str, Any] | None = None
    pull_config: dict[str, Any] | None = None
    network: Annotated[Literal["HOST", "BRIDGE", "USER", "NONE"], BeforeValidator(_upper)] | None = None
    port_mappings: list[Mapping] | None = Field(default=None, max_length=MAX_PORTS)


class Container(Shape):
    type: Annotated[Literal["DOCKER", "MESOS"], BeforeValidator(_upper)] = "DOCKER"
    docker: Docker | None = None
    volumes: list[dict[str, Any]] = []
    port_mappings: list[Mapping] | None = Field(default=None, max_length=MAX_PORTS)
    linux_info: dict[str, Any] | None = None


class DiscoveryPort(Shape):
    number: Port = 0
    name: str = Field(pattern=PORT_NAME_PATTERN)
    protocol: Protocol = "tcp"
    labels: dict[str, str] = {}


class Discovery(Shape):
    ports: list[DiscoveryPort] = Field([], max_length=MAX_PORTS)


class IpAddress(Shape):
    """`network` stands in DC/OS's prose only; Marathon never had it. Taken for `networkName`."""

    network_name: str | None = Field(default=None, min_length=1)
    network: str | None = Field(default=None, min_length=1)
    labels: dict[str, str] = {}
    groups: list[str] = []
    discovery: Discovery | None = None


class App(Shape):
    id: str = Field(pattern=ID_PATTERN, min_length=1)
    cmd: str | None = Field(default=None, min_length=1)
    args: list[str] = []
    container: Container | None = None
    env: dict[str, Any] = {}
    cpus: float = Field(1.0, ge=0, le=MAX_NUMBER)
    mem: float = Field(128.0, ge=0, le=MAX_NUMBER)
    disk: float = Field(0.0, ge=0, le=MAX_NUMBER)
    gpus: int = Field(0, ge=0)
    instances: int = Field(1, ge=0, le=MAX_INSTANCES)
    user: str | None = None
    labels: dict[str, str] = {}
    backoff_seconds: int = Field(1, ge=0, le=MAX_NUMBER)
    backoff_factor: float = Field(1.15, ge=1, le=MAX_NUMBER)
    max_launch_delay_seconds: int = Field(300, ge=0, le=MAX_NUMBER)
    task_kill_grace_period_seconds: int | None = Field(default=None, ge=0, le=MAX_NUMBER)
    networks: list[Network] | None = None
    port_definitions: list[Definition] | None = Field(default=None, max_length=MAX_PORTS)
    ports: list[Port] | None = Field(default=None, max_length=MAX_PORTS)
    ip_address: IpAddress | None = None
    accepted_resource_roles: list[str] | None = None
    check: dict[str, Any] | None = None
    constraints: list[list[str]] = []
    dependencies: list[str] = []
    executor: str = ""
    fetch: list[dict[str, Any]] = []
    health_checks: list[dict[str, Any]] = []
    kill_selection: Annotated[Literal["YOUNGEST_FIRST", "OLDEST_FIRST"], BeforeValidator(_upper)] = "YOUNGEST_FIRST"
    readiness_checks: list[dict[str, Any]] = Field([], max_length=1)
    require_ports: bool = False
    residency: dict[str, Any] | None = None
    resource_limits: dict[str, Any] | None = None
    role: str | None = None
    secrets: dict[str, Any] = {}
    tty: bool | None = None
    unreachable_strategy: Any = None
    upgrade_strategy: dict[str, float] | None = None
    uris: list[str] = []
    version: str | None = None
    version_info: dict[str, Any] | None = None


_WORDS = {
    "missing": "error.path.missing",
    "string_type": "error.expected.jsstring",
    "int_type": "error.expected.jsnumber",
    "int_from_float": "error.expected.int",
    "float_type": "error.expected.jsnumber",
    "bool_type": "error.expected.jsboolean",
    "dict_type": "error.expected.jsobject",
    "model_type": "error.expected.jsobject",
    "list_type": "error.expected.jsarray",
    "literal_error": "error.unknown.enum.literal",
    "string_pattern_mismatch": "error.pattern",
    "string_too_short": "error.minLength",
    "string_too_long": "error.maxLength",
    "too_long": "error.maxLength",
    "greater_than_equal": "error.min",
    "less_than_equal": "error.max",
    "finite_number": "error.expected.jsnumber",
}


def _path(location: tuple[int | str, ...]) -> str:
    return "".join(f"({part})" if isinstance(part, int) else f"/{part}" for part in location) or "/"


def _without_nulls(value: Any) -> Any:
    match value:
        case dict():
            return {key: _without_nulls(item) for key, item in value.items() if item is not None}
        case list():
            return [_without_nulls(item) for item in value]
        case _:
            return value


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is no JSON number")


def read_shape(body: bytes) -> App:
    """Raises NotJson, or BadApp with every fault of shape."""
    if not body.strip():
        raise NotJson("Please specify data in JSON format", "the body is empty")
    try:
        found = _without_nulls(json.loads(body, parse_constant=_no_constant))
        json.dumps(found, ensure_ascii=False).encode()  # half a surrogate pair is no text, and no store takes it
    except (ValueError, RecursionError) as error:
        raise NotJson("Invalid JSON", str(error)) from error
    try:
        return App.model_validate(found)
    except ValidationError as error:
        faults = (Fault(_path(each["loc"]), _WORDS.get(each["type"], each["msg"])) for each in error.errors())
        raise BadApp("Invalid JSON", tuple(faults)) from error


def unknown_keys(shape: BaseModel, path: str = "") -> Iterator[str]:
    """Keys that Marathon does not have, as paths: it would drop them without a word."""
    yield from (f"{path}/{key}" for key in shape.model_extra or {})
    for name, field in type(shape).model_fields.items():
        value, here = getattr(shape, name), f"{path}/{field.alias}"
        match value:
            case BaseModel():
                yield from unknown_keys(value, here)
            case list():
                for index, item in enumerate(value):
                    if isinstance(item, BaseModel):
                        yield from unknown_keys(item, f"{here}({index})")
