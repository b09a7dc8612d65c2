"""The published question sets: downloaded once from a pinned commit, checked, and offline from then on.

    python -m bench.fetch                 which sets there are, and which are here
    python -m bench.fetch mt_bench        questions, reference answers and judge prompts of MT-Bench
    python -m bench.run --questions mt_bench    fetches what is not here yet

Files lie in the cache folder of the user, or in $MEDUSA_BENCH_CACHE. They come from $MEDUSA_BENCH_MIRROR, a base URL
(https://, http:// or file://) below which files lie as <repository>/<commit>/<path>, or else from GitHub. Every file is
checked against its sha256 whenever it is used; one that does not match is never used.
"""

import argparse
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from platformdirs import user_cache_path
from rich.table import Table

from bench.common.errors import UserError, exit_cleanly
from bench.common.files import write_atomically
from bench.common.terminal import print_table

CACHE, MIRROR = "MEDUSA_BENCH_CACHE", "MEDUSA_BENCH_MIRROR"
GITHUB = "https://raw.githubusercontent.com"
TIMEOUT_S = 30
BACKOFF_S = 0.5  # doubles with every further try
QUESTIONS, REFERENCE, PROMPTS = (
    "question.jsonl",
    "reference_answer/gpt-4.jsonl",
    "judge_prompts.jsonl",
)


@dataclass(frozen=True)
class Remote:
    """One file of a repository at one commit."""

    repository: str
    commit: str  # full hash
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

# Set name -> name in the set's folder -> where it comes from.
SETS: dict[str, dict[str, Remote]] = {
    "mt_bench": {
        QUESTIONS: _fastchat(
            "mt_bench/question.jsonl", "119565adbab82227089cefdb44c8d7e2cf04dc0a0ec233634c82e7d4e2a944f7"
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
        REFERENCE: _REFERENCE,  # its questions 81 to 160 are MT-Bench's
        PROMPTS: _PROMPTS,
    },
    "vicuna_bench": {
        QUESTIONS: Remote(
            "lm-sys/FastChat",
            "589532dcfa83700f950b9aa3983416c543afabc0",
            "fastchat/llm_judge/data/vicuna_bench/question.jsonl",
            "c248c5c98ba45bb0c2aadae2f270e643bd32679c6c306a3b2a503ac4254cdaa5",
        ),
        PROMPTS: _PROMPTS,
    },
}  # fmt: skip


def cache_folder() -> Path:
    given = os.environ.get(CACHE)
    return Path(given).expanduser() if given else user_cache_path("medusa-bench")


def fetched(name: str, file: str, download: bool = True) -> Path | None:
    """The file of a named set, in the cache and with the right digest.

    Where it is not there it is downloaded (UserError where that fails), or without `download` None is returned.
    """
    remote = SETS[name][file]
    path = cache_folder() / name / file
    if _is_right(path, remote):
        return path
    if not download:
        return None
    content = _read(remote, path)
    found = hashlib.sha256(content).hexdigest()
    if found != remote.sha256:
        raise UserError(
            f"{remote.url} is not the file that was expected: {len(content)} bytes with sha256 {found[:12]}..., "
            f"not {remote.sha256[:12]}...; nothing was kept. Try again, or set {MIRROR} to another source"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: {error.strerror}; set {CACHE} to another folder"
        ) from error
    return path


def _is_right(path: Path, remote: Remote) -> bool:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() == remote.sha256
    except OSError:
        return False


def _read(remote: Remote, path: Path) -> bytes:
    """The bytes behind a URL, whole; UserError says what to do where they cannot be had."""
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
            f"{MIRROR} is {os.environ.get(MIRROR)!r}; expected a URL that begins with https://, http:// or file://"
        )
    import requests  # late: a set that is already here needs no network library
    from urllib3.util import Retry

    with requests.Session() as session:
        # Connection failures, rate limits and server errors are tried again, after Retry-After where one is given.
        retry = Retry(
            3,
            backoff_factor=BACKOFF_S,
            status_forcelist=(429, 500, 502, 503, 504),
            raise_on_status=False,
        )
        for scheme in ("http://", "https://"):
            session.mount(scheme, requests.adapters.HTTPAdapter(max_retries=retry))
        try:
            response = session.get(remote.url, timeout=TIMEOUT_S)
        except requests.RequestException as error:
            # The pool's message has the whole address in it; what went wrong stands in the last of the tries.
            cause = getattr(error.args[0] if error.args else error, "reason", None) or error
            reason = " ".join(str(cause).split())[:300]
            raise UserError(
                f"{remote.url} cannot be downloaded ({type(error).__name__}: {reason}); {advice}"
            ) from error
    if response.status_code != 200:
        raise UserError(f"{remote.url} answered {response.status_code} {response.reason}; {advice}")
    return response.content


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m bench.fetch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("set", nargs="*", help=f"{', '.join(SETS)} (default: list them)")
    wanted = parser.parse_args().set
    for name in wanted:
        if name not in SETS:
            raise UserError(f"unknown set {name!r}; available: {', '.join(SETS)}")
    for name in wanted:
        for file in SETS[name]:
            print(fetched(name, file))
    if not wanted:
        table = Table(title=f"question sets, cached in {cache_folder()}", title_justify="left")
        for column in ("set", "file", "from", "here"):
            table.add_column(column, overflow="fold")
        for name, files in SETS.items():
            for file, remote in files.items():
                here = "yes" if fetched(name, file, download=False) else "no"
                table.add_row(name, file, f"{remote.repository}@{remote.commit[:10]}", here)
        print_table(table)


if __name__ == "__main__":
    exit_cleanly(main)
