"""Secrets that are plainly such are blotted out of messages before they are kept.

What keys and tokens look like is known to `detect-secrets`; its guesses, by randomness or by what
stands before an equals sign, are left out: what people and coding agents said must stay readable.
What it doesn't know yet is added below. The same message always gives the same, so that what is
kept can be compared with what comes in. To be loaded by who redacts alone: the library takes a
third of a second. This module must not know what is done with messages.
"""

from __future__ import annotations

import functools
import importlib
import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from perry.sessions.models import Message, Session


class _Detector(NamedTuple):
    """A detector of the library: its module, its class, and what is near whatever it finds.

    `near` are expressions, each with a literal beginning, for which a text is looked through many
    times faster. With `is_inside` the group in the detector's pattern is the secret, else all that
    fits is. `instead` stands for the library's pattern where that takes time beyond all bounds.
    """

    module: str
    name: str
    near: tuple[str, ...]
    is_inside: bool = False
    instead: str = ""


_TOKEN = r"[A-Za-z0-9_-]"  # noqa: S105  # of what tokens are made
_PART = rf"{_TOKEN}+={{0,2}}"

# From where a run of signs begins, and only if all of it is there: each run is looked at once.
_JWT = rf"(?<!{_TOKEN})(?={_PART}\.{_TOKEN}){_TOKEN}*?(eyJ{_PART}\.{_PART}(?:\.{_TOKEN}+)?)"
# From the last beginning before what is inside of all of them.
_OPENAI = rf"sk-(?:(?!sk-){_TOKEN})*[A-Za-z0-9]{{20}}T3BlbkFJ[A-Za-z0-9]{{20}}{_TOKEN}*"

DETECTORS = (
    _Detector("aws", "AWSKeyDetector", ("A(?:KIA|SIA|BIA|CCA|3T)", "aws", "AWS"), is_inside=True),
    _Detector("azure_storage_key", "AzureStorageKeyDetector", ("AccountKey=",)),
    _Detector("basic_auth", "BasicAuthDetector", ("://",), is_inside=True),
    _Detector("discord", "DiscordBotTokenDetector", ("iscord", "ISCORD")),
    _Detector("github_token", "GitHubTokenDetector", ("gh[pousr]_",)),
    _Detector(
        "gitlab_token",
        "GitLabTokenDetector",
        ("gl(?:pat|dt|ft|soat|rt|cbt|imt|ptt|agent|oas)-", "GR1348941"),
    ),
    _Detector("jwt", "JwtTokenDetector", ("eyJ",), is_inside=True, instead=_JWT),
    _Detector("mailchimp", "MailchimpDetector", (r"-us\d",)),
    _Detector("openai", "OpenAIDetector", ("T3BlbkFJ",), instead=_OPENAI),
    _Detector("pypi_token", "PypiTokenDetector", ("pypi-Ag",)),
    _Detector("sendgrid", "SendGridDetector", (r"SG\.",)),
    _Detector("slack", "SlackDetector", ("xox[a-z]-", r"hooks\.slack")),
    _Detector("square_oauth", "SquareOAuthDetector", ("sq0csp-",)),
    _Detector("stripe", "StripeDetector", ("k_live_",)),
    _Detector("telegram_token", "TelegramBotTokenDetector", ("elegram", "ELEGRAM")),
    _Detector("twilio", "TwilioKeyDetector", ("wilio", "WILIO")),
)
"""What is taken of the library. The texts of Discord, Telegram and Twilio are their own names: what
only looks like one of their tokens is left alone where nobody speaks of them."""

_BEGIN = r"-{4,5} ?BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)? ?-{4,5}"
_END = _BEGIN.replace("BEGIN", "END")
_KEY_LINES = r"(?:(?:\s|\\n|\\r)+(?:\d+\W+)?[A-Za-z0-9+/]{24,}={0,2})+"

OWN = (
    # Up to its end; where that was cut off, the lines of it that are there, numbered or not.
    (
        "Private Key",
        rf"{_BEGIN}(?:(?:(?!{_BEGIN}).){{32,32768}}?{_END}|{_KEY_LINES})",
        "PRIVATE KEY",
    ),
    (
        "Private Key",
        r"PuTTY-User-Key-File-\d(?:(?!PuTTY-User-Key).){32,32768}?Private-MAC: ?\w+",
        "PuTTY-User-Key",
    ),
    ("Anthropic Token", rf"sk-ant-[a-z0-9]{{2,12}}-{_TOKEN}{{20,}}", "sk-ant-"),
    ("OpenAI Token", rf"sk-(?:proj|svcacct|admin)-{_TOKEN}{{20,}}", "sk-(?:proj|svcacct|admin)-"),
    ("GitHub Token", r"github_pat_\w{22,}", "github_pat_"),
    ("Google API Key", rf"AIza{_TOKEN}{{35}}", "AIza"),
    ("Hugging Face Token", r"\bhf_[A-Za-z0-9]{30,}", "hf_"),
    ("NPM Token", r"\bnpm_[A-Za-z0-9]{36}", "npm_"),
    ("Slack Token", r"xapp-\d-\w+-\d+-\w+", "xapp-"),
)
"""What the library doesn't know, or not whole: kind, expression, and what is near, as above."""

_PLACEHOLDER = re.compile(r"[<{$%*].*|(?i:x+|password|pass(?:wd)?|pw|secret|token)")
"""What stands where a password would be in an example; only where any text could be one."""

_PASSES = 8
"""Times that a text is gone through: hardly any needs three; what is made to need more is slow."""

_SURROGATE = re.compile(r"[\ud800-\udfff]")


class Redactor:
    """Blots out secrets; gives back the very same object where there are none."""

    def __init__(self) -> None:
        self._rules = [*_own(), *_of_library()]
        self._searches = [near.search for rule in self._rules for near in rule.near]

    def __call__(self, message: Message) -> Message:
        """Blot out what a message says, and what a tool was given."""
        if not self._is_near(f"{message.content}\0{message.tool_input or ''}"):
            return message
        content = self.text(message.content)
        given = message.tool_input and self._json(message.tool_input)
        if content == message.content and given == message.tool_input:
            return message
        return msgspec.structs.replace(message, content=content, tool_input=given)

    def session(self, session: Session) -> Session:
        """Blot out what a session is shown by: its title and its first prompt."""
        title = self.text(session.title)
        prompt = session.first_prompt and self.text(session.first_prompt)
        if title == session.title and prompt == session.first_prompt:
            return session
        return msgspec.structs.replace(session, title=title, first_prompt=prompt)

    def text(self, text: str) -> str:
        """Put `[redacted: kind]` in place of each secret in a text."""
        for _ in range(_PASSES):  # what was blotted out may have hidden the end of another
            before = text
            for rule in self._rules:
                if rule.is_near(text):
                    text = rule.blot(text)
            if text == before:
                break
        return text

    def _is_near(self, text: str) -> bool:
        """Tell whether there may be any secret in a text: of most, this is all that is asked."""
        for search in self._searches:  # noqa: SIM110  # any() takes half as long again
            if search(text):
                return True
        return False

    def _json(self, text: str) -> str:
        """Blot out what is in JSON, so that it stays JSON; what only claims to be is a text."""
        if not self._is_near(text):
            return text
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return self.text(text)
        blotted = self._value(value)
        if blotted == value:
            return text
        # Half of a character can be in JSON only as an escape: it has no bytes of its own.
        told = json.dumps(blotted, ensure_ascii=False)
        return _SURROGATE.sub(lambda half: json.dumps(half.group())[1:-1], told)

    def _value(self, value: Any) -> Any:  # noqa: ANN401  # as JSON has it
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self._value(one) for one in value]
        if isinstance(value, dict):
            return {self.text(key): self._value(one) for key, one in value.items()}
        return value


@functools.cache
def redactor() -> Redactor:
    """Make what blots out the secrets in messages; once."""
    return Redactor()


class _Rule(msgspec.Struct, frozen=True):
    """What one kind of secret looks like; `is_real` rules out what only looks alike."""

    kind: str
    patterns: tuple[re.Pattern[str], ...]
    near: tuple[re.Pattern[str], ...]
    is_inside: bool = False
    is_real: Callable[[str], bool] | None = None

    def is_near(self, text: str) -> bool:
        """Tell whether such a secret may be in a text."""
        return any(near.search(text) for near in self.near)

    def blot(self, text: str) -> str:
        """Blot out all there are."""
        for pattern in self.patterns:
            text = pattern.sub(self._blotted, text)
        return text

    def _blotted(self, match: re.Match[str]) -> str:
        group = match.lastindex if self.is_inside and match.lastindex else 0
        whole, secret = match.group(), match.group(group)
        if group and _PLACEHOLDER.fullmatch(secret):
            return whole
        if self.is_real is not None and not self.is_real(secret):
            return whole
        start, end = (place - match.start() for place in match.span(group))
        return f"{whole[:start]}[redacted: {self.kind}]{whole[end:]}"


def _own() -> Iterator[_Rule]:
    for kind, pattern, near in OWN:
        yield _Rule(kind, (re.compile(pattern, re.DOTALL),), (re.compile(near),))


def _of_library() -> Iterator[_Rule]:
    for one in DETECTORS:
        module = importlib.import_module(f"detect_secrets.plugins.{one.module}")
        detector = getattr(module, one.name)
        yield _Rule(
            detector.secret_type,
            (re.compile(one.instead),) if one.instead else tuple(map(_greedy, detector.denylist)),
            tuple(map(re.compile, one.near)),
            one.is_inside,
            getattr(detector, "is_formally_valid", None),
        )


def _greedy(pattern: re.Pattern[str]) -> re.Pattern[str]:
    """Have a token that goes on beyond what a pattern asks for taken whole."""
    ends_apart = pattern.pattern.endswith(("@", "]"))  # a sign that no token has
    return pattern if ends_apart else re.compile(f"{pattern.pattern}{_TOKEN}*", pattern.flags)
