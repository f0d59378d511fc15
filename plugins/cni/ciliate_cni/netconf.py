"""What a runtime hands a CNI plugin, parsed and validated: the network configuration and the environment."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ciliate_cni.errors import CniError, Code
from ciliate_cni.wire import Request

VERSIONS = ("0.3.1", "0.4.0", "1.0.0", "1.1.0")
_SINCE = {"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}
_CONTAINER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*\Z")
_SOUND_VERSION = re.compile(r"[0-9.]{1,16}\Z")
_INTERFACE_MAX = 15


class ValidAttachment(msgspec.Struct, rename={"container_id": "containerID"}):
    """An attachment that the runtime still has; all others of the network are garbage."""

    container_id: str
    ifname: str


class NetConf(msgspec.Struct, rename="camel"):
    """A network configuration, as far as this plugin reads it. Other keys are allowed, as CNI wants it."""

    cni_version: str = "0.3.1"
    name: str = ""
    type: str = ""
    mtu: int = 0  # 0: the agent's
    prev_result: dict[str, Any] | None = None
    valid_attachments: list[ValidAttachment] | None = msgspec.field(default=None, name="cni.dev/valid-attachments")


@dataclass(frozen=True)
class Call:
    """A checked call of one verb."""

    command: str
    conf: NetConf
    container_id: str = ""
    interface: str = ""
    netns: str = ""
    args: dict[str, str] = field(default_factory=dict)

    @property
    def attachment(self) -> str:
        """The attachment's name towards IPAM: <container id>/<interface>."""
        return f"{self.container_id}/{self.interface}"


def version_of(config: bytes) -> str:
    """The version to answer an error in: the configuration's if it is a readable one, else the latest."""
    try:
        version = msgspec.json.decode(config, type=NetConf).cni_version
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return VERSIONS[-1]
    return version if _SOUND_VERSION.match(version) else VERSIONS[-1]


def parse_call(request: Request) -> Call:
    """Check a request. Raises CniError: nothing else, whatever the bytes are."""
    command = _text("CNI_COMMAND", request.command)
    conf = _parse_conf(command, request.config)
    if command in ("ADD", "DEL", "CHECK"):
        return Call(
            command,
            conf,
            _container_id(request.container_id),
            _interface(request.interface),
            _text("CNI_NETNS", request.netns),
            _arguments(request.args),
        )
    if command in ("GC", "STATUS"):
        return Call(command, conf)
    raise CniError(Code.ENVIRONMENT, f"CNI_COMMAND is {command[:64]!r}; known are ADD, DEL, CHECK, GC, STATUS, VERSION")


def _parse_conf(command: str, config: bytes) -> NetConf:
    try:
        decoded = msgspec.json.decode(config)
        if not isinstance(decoded, dict):
            raise msgspec.DecodeError(f"it must be an object, not {type(decoded).__name__}")
        conf = msgspec.convert(decoded, NetConf)
    except msgspec.ValidationError as error:
        raise CniError(Code.CONFIGURATION, f"the network configuration is invalid: {error}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CniError(
            Code.DECODING,
            f"the network configuration is not a JSON object in UTF-8: {error}",
            f"{len(config)} bytes came on standard input",
        ) from error
    if conf.cni_version not in VERSIONS:
        raise CniError(
            Code.INCOMPATIBLE_VERSION,
            f"CNI version {conf.cni_version[:32]!r} is not supported",
            f"supported versions are {', '.join(VERSIONS)}",
        )
    since = _SINCE.get(command)
    if since is not None and VERSIONS.index(conf.cni_version) < VERSIONS.index(since):
        raise CniError(
            Code.INCOMPATIBLE_VERSION,
            f"{command} exists since CNI {since}, but the configuration's cniVersion is {conf.cni_version}",
        )
    if not conf.name:
        raise CniError(Code.CONFIGURATION, "the network configuration has no name")
    if conf.mtu and not 1280 <= conf.mtu <= 65535:
        raise CniError(Code.CONFIGURATION, f"mtu is {conf.mtu}; it must be 1280 to 65535, or absent")
    return conf


def _text(variable: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise CniError(Code.ENVIRONMENT, f"{variable} is not UTF-8: {value[:64]!r}") from error


def _container_id(value: bytes) -> str:
    text = _text("CNI_CONTAINERID", value)
    if not _CONTAINER_ID.match(text) or len(text) > 255:
        raise CniError(
            Code.ENVIRONMENT,
            f"CNI_CONTAINERID is {text[:64]!r}; it must be 1 to 255 letters, digits, '_', '.', '-', and begin with a"
            " letter or digit",
        )
    return text


def _interface(value: bytes) -> str:
    text = _text("CNI_IFNAME", value)
    sound = 0 < len(value) <= _INTERFACE_MAX and text not in (".", "..", "lo")
    if not sound or any(c in "/:" or c.isspace() or not c.isprintable() for c in text):
        raise CniError(
            Code.ENVIRONMENT,
            f"CNI_IFNAME is {text[:64]!r}; it must be an interface's name: 1 to {_INTERFACE_MAX} bytes without"
            " '/', ':' or spaces, and not 'lo'",
        )
    return text


def _arguments(value: bytes) -> dict[str, str]:
    """CNI_ARGS: K=V;K=V. Unknown keys are ignored, with or without IgnoreUnknown."""
    arguments: dict[str, str] = {}
    for pair in _text("CNI_ARGS", value).split(";"):
        if not pair:
            continue
        key, separator, argument = pair.partition("=")
        if not separator or not key:
            raise CniError(Code.ENVIRONMENT, f"CNI_ARGS has {pair[:64]!r}; it must be KEY=VALUE pairs joined by ';'")
        arguments[key] = argument
    return arguments
