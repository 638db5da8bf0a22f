"""Make text safe to show: without credentials, and unable to forge lines or terminal codes."""

from __future__ import annotations

import re

_LOCAL = "jsonl|sqlite|rejects|record|shadow|watch|replay|synthetic"
"""Schemes of files, the names of which may contain @. They take no user or password, but may be given one."""

_AUTHORIZATION = re.compile(r"(?i)(\b(?:authorization|cookie)[\"']?\s*[:=]\s*[\"']?)(?:Digest\b[^\n]*|[^\n\"'},]*)")
_HEADER_VALUE = re.compile(r"\b(Basic|Bearer)\s+(?=\S*(?:\d|=|[a-z][A-Z]))[\w+/=.~-]{6,}")
_START = r"(?<![^\s'\"(<=,\[{])"
_USER = re.compile(
    rf"""(?xi)
    {_START} (?! (?:{_LOCAL}): (?! [^\s/:@]+:[^\s/]*@ | //[^\s/:@]+:\S*@ ) | [a-z]:[\\/] )
    (?: (?P<scheme> [^\s:/@'"(<=,\[{{]+ ) : | (?= //[^\s/:@]+:\S{{0,512}}@ ) )
    (?! /* USER:PASSWORD@ ) (?P<slashes> /* )
    (?: \S{{0,512}}@ # up to the last @ of the word
      | [^\s/:@\[]+ : (?! \d+ (?: [/\s?#.,;:)'"] | $ ) ) [^\n@]{{1,128}} @ (?: \S{{0,512}}@ )?  # with a blank
    )
    """
)
_ADDRESS = re.compile(rf"(?i){_START}(?!(?:{_LOCAL}):)(?:[a-z][a-z0-9+.-]*:)//(?P<host>[^\s/?#]*)(?P<rest>\S*)")
_PATH_TOKEN = re.compile(r"(?<=/)(?=[\w.~%+-]*\d)(?=[\w.~%+-]*[A-Za-z])[\w.~%+-]{20,}")
_SCHEMES = re.compile(
    rf"(?i){_LOCAL}|v4l2|csi|genicam|(?:av\+)?(?:rtsps?|https?|mqtts?|rtmps?|tcp|udp|wss?|amqps?|postgres(?:ql)?|ftp|smb)"
)
_NAMES = (
    r"(?:passw(?:or)?d|passwort|passphrase|pwd|secret|token|credentials?|signature|api[-_]?key|access[-_]?key|"
    r"(?<![a-z])(?:auth|sig))"
)
_REFERENCE = r"\$\{\w{1,64}\}"
"""Stands for a secret and is none: `edgead.runtime.sources.uri` replaces it by a variable or the content of a file."""
_NAMED = re.compile(rf"(?i)({_NAMES}\s?=\s?[\"']?)(?!{_REFERENCE}(?:[\s&\"',;)]|$))(?:{_REFERENCE})*[^\s&\"',;)}}]+")
_NAMED_IN_JSON = re.compile(rf"(?i)({_NAMES}[\"']\s*:\s*[\"'])[^\"'\n]*")

_CLOSING = "'\")]}:,.;…"
"""Punctuation that may follow an address in a sentence."""

_known: dict[str, str] = {}


def remember_secret(value: str, shown: str) -> None:
    """Make `redact` replace a value wherever it occurs. Values under 6 characters are too common and are ignored.

    Args:
        value: the secret.
        shown: what is shown in its place, for instance ``"${CAMERA_PASSWORD}"``.
    """
    if len(value) >= 6:
        _known[value] = shown


def redact(text: str) -> str:
    """Return a text without the credentials in it: addresses, headers, tokens. It need not be a well-formed URI.

    Of an address, user and password, fragment, query values and long random words of the path are left out. It works by
    pattern, and rather hides too much: everything up to the last ``@`` of an address is taken for its password.
    """
    for value, shown in list(_known.items()):  # a copy: other threads may open sources
        text = text.replace(value, shown)
    if ":" not in text and "=" not in text and "asic" not in text and "earer" not in text:
        return text  # nothing of what follows can match: spares the hot path
    text = _AUTHORIZATION.sub(r"\1…", text)
    text = _HEADER_VALUE.sub(r"\1 …", text)
    text = _USER.sub(_without_user, text)
    text = _ADDRESS.sub(_without_query, text)
    text = _NAMED.sub(r"\1…", text)
    return _NAMED_IN_JSON.sub(r"\1…", text)


def _without_user(found: re.Match[str]) -> str:
    scheme = found["scheme"]
    if scheme is None:
        return str(found["slashes"])
    if found["slashes"] or _SCHEMES.fullmatch(scheme):
        return f"{scheme}:{found['slashes']}"
    return ""  # USER:PASSWORD@HOST


def _without_query(found: re.Match[str]) -> str:
    if not found["host"]:
        return found[0]
    head = found[0][: found.start("rest") - found.start()]
    whole = found["host"].rstrip(_CLOSING)
    host, colon, port = whole.rpartition(":")
    is_port = port.isdecimal() or port == "PORT"  # as our own messages write it
    if colon and not is_port and "@" not in host + port and not host.startswith("["):
        head = head.replace(f"{host}:{port}", f"{host}:…")  # USER:PASSWORD without a host
    rest, _, _ = found["rest"].partition("#")
    path, mark, query = rest.partition("?")
    path = _PATH_TOKEN.sub("…", path)
    return head + path + mark + "&".join(_without_value(part) for part in query.split("&"))


def _without_value(part: str) -> str:
    name, equals, value = part.partition("=")
    if not equals:
        name, value = "", name
    if re.fullmatch(rf"{_REFERENCE}[{re.escape(_CLOSING)}]*", value):
        return part
    closing = value[len(value.rstrip(_CLOSING)) :]  # belongs to the sentence
    return name + equals + "…" * bool(value) + closing.removeprefix("…")


def shown(text: str) -> str:
    """Return a text for a terminal or a log: without credentials and control characters, its further lines indented.

    The indent shows that they belong to the first: a name with a new line in it cannot pass for a message of its own.
    """
    return "\n  ".join(printable(line) for line in redact(text).split("\n"))


def printable(text: str) -> str:
    """Return a text as one line without control characters: no new lines, no terminal codes, no reversed writing."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape", "surrogatepass").decode("ascii")
        for character in text
    )
