"""One URL to one file, its checksum verified and its transfer retried, by `pooch`.

A file without a published checksum is pinned by the one first seen, kept beside it in NAME.sha256.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from understudy.files import sha256_of

ATTEMPTS = 4
TIMEOUT_SECONDS = 30.0
GPT2_URL = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/"
GPT2_FILES = {
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
}
RETRIED_STATUS = (408, 425, 429, 500, 502, 503, 504)


class UnavailableError(ValueError):
    """A failure that may pass, such as a network away or a full disk: nothing done is lost."""


def download(
    url: str,
    target: Path,
    sha256: str | None = None,
    wait: Callable[[float], None] = time.sleep,
) -> str:
    """Fetch `url` into `target`, which appears only whole and checked; a good file already there is kept.

    Returns the SHA-256.

    A transfer that fails is tried again ATTEMPTS times in all, from its beginning, after 1, 2 and 4 seconds.

    Raises:
        UnavailableError: the server cannot be reached or keeps failing, or the disk is full.
        ValueError: the server refuses the file, or its checksum is wrong.
    """
    import pooch
    import requests

    pooch.get_logger().setLevel(logging.ERROR)
    pin = target.with_name(target.name + ".sha256")
    expected = sha256 or (pin.read_text("ascii").strip() if pin.is_file() else None)
    downloader = pooch.HTTPDownloader(timeout=TIMEOUT_SECONDS)
    try:
        if target.is_file() and expected is None:
            expected = sha256_of(target)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                pooch.retrieve(
                    url, f"sha256:{expected}" if expected else None, target.name, target.parent, downloader=downloader
                )
                break
            except requests.exceptions.RequestException as error:
                _refuse(error, url, attempt)
                wait(2.0 ** (attempt - 1))
            except ValueError as error:  # of pooch: another checksum; the file was removed
                since = "published" if sha256 else "seen at the first download"
                raise ValueError(
                    f"{url} does not have the checksum {since}, {expected}; it was removed: try again, and if it "
                    "repeats the file has changed at its source"
                ) from error
        seen = sha256_of(target)
        if expected is None:
            pin.write_text(seen + "\n", "ascii")
    except OSError as error:
        raise disk_problem(error, target.parent) from error
    return seen


def _refuse(error: Exception, url: str, attempt: int) -> None:
    """Raise unless the transfer is worth another attempt."""
    import requests

    response = getattr(error, "response", None)
    if response is not None and response.status_code not in RETRIED_STATUS:
        raise ValueError(
            f"{url} could not be fetched: the server answered {response.status_code} {response.reason}; fetch the "
            "file by other means and give its path instead"
        ) from error
    if isinstance(error, requests.exceptions.ConnectionError) and "resolve" in str(error).lower():
        # No name server answers: this machine is offline, and waiting would not change that.
        raise UnavailableError(
            f"{urlsplit(url).hostname} could not be reached for {url}: this machine seems to be offline; fetch the file "
            "on another machine and give its path instead"
        ) from error
    if attempt == ATTEMPTS:
        raise UnavailableError(
            f"{url} could not be fetched in {ATTEMPTS} attempts ({error}); run the same command again later, or fetch "
            "the file by other means and give its path instead"
        ) from error


def disk_problem(error: OSError, folder: Path) -> ValueError:
    """The error to show when reading or writing in `folder` failed."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UnavailableError(
            f"the disk is full: {folder} could not be written; free some space and run the same command again, it goes "
            "on from where it stopped"
        )
    return ValueError(f"{error.filename or folder} could not be used: {error.strerror or error}")


def fetch_gpt2_vocabulary(cache: Path) -> Path:
    """A folder with OpenAI's vocab.bpe and encoder.json, fetched once into `cache` and checked.

    Raises:
        UnavailableError: the network is away; the sentence names the file to fetch by other means.
    """
    folder = cache / "gpt2"
    for name, sha256 in GPT2_FILES.items():
        download(GPT2_URL + name, folder / name, sha256)
    return folder
