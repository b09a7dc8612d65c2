"""The published question sets: downloaded once from a pinned commit, and read offline from then on.

Every file is checked against its sha256 whenever it is used. `python -m bench.fetch --help` says
where files lie and where they come from.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from platformdirs import user_cache_path

from bench.common.errors import UserError
from bench.common.files import digest_of, write_atomically, writing
from bench.common.strangers import message_of

# Environment variables: the folder of the cache, and where files are downloaded from.
CACHE, MIRROR = "MEDUSA_BENCH_CACHE", "MEDUSA_BENCH_MIRROR"
GITHUB = "https://raw.githubusercontent.com"
TIMEOUT_S = 30
TRIES_AGAIN = 3
BACKOFF_S = 0.5  # Doubles with every further try.
TRANSIENT = (429, 500, 502, 503, 504)  # Statuses after which a download is tried again.

# The files of a set, by their names in its folder.
QUESTIONS = "question.jsonl"
REFERENCE = "reference_answer/gpt-4.jsonl"
PROMPTS = "judge_prompts.jsonl"


@dataclass(frozen=True)
class Remote:
    """One file of a repository at one commit."""

    repository: str
    commit: str  # Its full hash.
    path: str
    sha256: str

    @property
    def url(self) -> str:
        base = os.environ.get(MIRROR) or GITHUB
        return f"{base.rstrip('/')}/{quote(f'{self.repository}/{self.commit}/{self.path}')}"


def _fastchat(path: str, sha256: str) -> Remote:
    commit = "0e6d3e4beaab66f4d3f93db72541a4abab8af28d"
    return Remote("lm-sys/FastChat", commit, f"fastchat/llm_judge/data/{path}", sha256)


_REFERENCE = _fastchat(
    "mt_bench/reference_answer/gpt-4.jsonl",
    "f957a5bc977badb66885ec970e6cd08527845780313f0995764260e5777b9b3f",
)
_PROMPTS = _fastchat(
    "judge_prompts.jsonl", "fd283293406d024f44c174b094ef48031d0687a4682fd3a56b29b138f80281b6"
)

# Name of a set -> name of a file in its folder -> where the file comes from.
SETS: dict[str, dict[str, Remote]] = {
    "mt_bench": {
        QUESTIONS: _fastchat(
            "mt_bench/question.jsonl",
            "119565adbab82227089cefdb44c8d7e2cf04dc0a0ec233634c82e7d4e2a944f7",
        ),
        REFERENCE: _REFERENCE,
        PROMPTS: _PROMPTS,
    },
    "spec_bench": {
        QUESTIONS: Remote(
            "hemingkx/Spec-Bench",
            "fd2c1cd7d2201ef71db4c5f4e455008f017967bf",
            "data/spec_bench/question.jsonl",
            "4b6d33e79484f9841c487ee87d1cf6aa8c6066f61d5d482ff09e5a007fafdf04",
        ),
        REFERENCE: _REFERENCE,  # Questions 81 to 160 are MT-Bench's.
        PROMPTS: _PROMPTS,
    },
    "vicuna_bench": {
        QUESTIONS: Remote(
            "lm-sys/FastChat",
            "589532dcfa83700f950b9aa3983416c543afabc0",
            "fastchat/llm_judge/data/vicuna_bench/question.jsonl",
            "c248c5c98ba45bb0c2aadae2f270e643bd32679c6c306a3b2a503ac4254cdaa5",
        ),
        REFERENCE: Remote(  # Of coding and maths, questions 61 to 70.
            "lm-sys/FastChat",
            "09ee334fd8c6fd095312f64fc386de5a1a212ad6",
            "fastchat/llm_judge/data/vicuna_bench/reference_answer/gpt-4.jsonl",
            "f7542dc25a5a869b32197486f5699a14eb5682ab3c7264518402399ec09ab470",
        ),
        PROMPTS: _PROMPTS,
    },
}


def cache_folder() -> Path:
    """The folder that holds a folder for each set."""
    given = os.environ.get(CACHE)
    return Path(given).expanduser() if given else user_cache_path("medusa-bench")


def fetched(name: str, file: str, download: bool = True) -> Path | None:
    """The path of a set's file in the cache, with the right digest.

    A file that is not there is downloaded; UserError where that fails. Without `download`, None is
    returned instead.
    """
    remote = SETS[name][file]
    path = cache_folder() / name / file
    if _is_right(path, remote):
        return path
    if not download:
        return None
    content = _download(remote, path)
    found = hashlib.sha256(content).hexdigest()
    if found != remote.sha256:
        raise UserError(
            f"{remote.url} is not the file that was expected: {len(content)} bytes with sha256 "
            f"{found[:12]}..., not {remote.sha256[:12]}...; nothing was kept. Try again, or set "
            f"{MIRROR} to another source"
        )
    with writing(path, f"set {CACHE} to another folder"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    return path


def _is_right(path: Path, remote: Remote) -> bool:
    try:
        return digest_of(path) == remote.sha256
    except OSError:
        return False


def _download(remote: Remote, path: Path) -> bytes:
    """The content of a file, for `path`. If the download fails, UserError says what to do."""
    advice = f"try again, put the file at {path} yourself, or set {MIRROR} to a reachable copy"
    try:
        parts = urlsplit(remote.url)
    except ValueError as error:
        raise UserError(f"{MIRROR} is {os.environ.get(MIRROR)!r}: {error}") from None
    if parts.scheme == "file":
        try:
            return Path(unquote(parts.path)).read_bytes()
        except OSError as error:
            raise UserError(f"{remote.url} cannot be read: {error.strerror}; {advice}") from error
    if parts.scheme not in ("http", "https"):
        raise UserError(
            f"{MIRROR} is {os.environ.get(MIRROR)!r}; expected a URL that begins with https://, "
            "http:// or file://"
        )
    return _get(remote.url, advice)


def _get(url: str, advice: str) -> bytes:
    """The content at an http URL. `advice` ends the message of a UserError."""
    import requests  # Imported here: a set that is in the cache needs no network library.
    from urllib3.util import Retry

    with requests.Session() as session:
        # A failed connection and a transient status are tried again, after Retry-After if given.
        retry = Retry(
            TRIES_AGAIN,
            backoff_factor=BACKOFF_S,
            status_forcelist=TRANSIENT,
            raise_on_status=False,
        )
        for scheme in ("http://", "https://"):
            session.mount(scheme, requests.adapters.HTTPAdapter(max_retries=retry))
        try:
            response = session.get(url, timeout=TIMEOUT_S)
        except requests.RequestException as error:
            # The pool's message repeats the address. The last try's reason says what went wrong.
            cause = getattr(error.args[0] if error.args else error, "reason", None) or error
            raise UserError(
                f"{url} cannot be downloaded ({type(error).__name__}: {message_of(cause)}); "
                f"{advice}"
            ) from error
    if response.status_code != 200:
        raise UserError(f"{url} answered {response.status_code} {response.reason}; {advice}")
    return response.content
