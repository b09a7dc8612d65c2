"""The form of a request: what some endpoints refuse, and the form that they take instead."""

import re
from dataclasses import dataclass, replace

# What error messages say of a form.
_NO_SYSTEM = re.compile(
    r"system.{0,3}(?:role|prompt|message|instruction)|role\b.{0,40}\bsystem\b|"
    r"['\"`]system['\"`]|developer instruction|roles must alternate|only user.{0,40}roles",
    re.IGNORECASE,
)
_STREAM_ONLY = re.compile(
    r"\bstream\w*\W.{0,40}(?:only|must|enable|require)|(?:only|must|require).{0,40}\bstream",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True)
class Form:
    """How requests are written."""

    merged: bool = False  # The system prompt stands in front of the user's.
    streamed: bool = False

    def instead(self, said: str) -> "Form | None":
        """The form to try after an endpoint's error message. None: the form is not its reason."""
        if not self.streamed and _STREAM_ONLY.search(said):
            return replace(self, streamed=True)
        if not self.merged and _NO_SYSTEM.search(said):
            return replace(self, merged=True)
        return None

    def fields(self, system: str, user: str) -> dict[str, object]:
        """The fields of a request."""
        messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        if self.merged:
            messages = [{"role": "user", "content": f"{system}\n\n{user}"}]
        return {"messages": messages} | ({"stream": True} if self.streamed else {})

    def __str__(self) -> str:
        parts = ["the system prompt in front of the user's"] if self.merged else []
        return " and ".join([*parts, *(["a stream for the reply"] if self.streamed else [])])
