"""Files in object stores as sources: listed once, and read where they are, without a copy on the disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, BinaryIO, cast

from understudy.data.find import is_glob
from understudy.data.inputs import InputFile, StreamView
from understudy.data.store import READ_AHEAD_BYTES, open_filesystem, store_errors


@dataclass(frozen=True)
class StoredObject:
    """A file in an object store. `version`: what the store gives to tell its versions apart, such as an ETag."""

    url: str
    size: int
    version: str

    def file(self) -> InputFile:
        return InputFile(self.url, PurePosixPath(self.url).name, self._open, size=self.size)

    def _open(self) -> BinaryIO:
        filesystem, path = open_filesystem(self.url)
        with store_errors(self.url):
            opened = filesystem.open(path, "rb", block_size=READ_AHEAD_BYTES)
        return cast(BinaryIO, _ObjectStream(self.url, opened))


class _ObjectStream(StreamView):
    """The bytes of an object. A failure of the network is none of the file's: reading can be tried again later."""

    def __init__(self, url: str, stream: Any) -> None:
        super().__init__(stream)
        self.url = url

    def readinto(self, buffer: Any) -> int:
        with store_errors(self.url):
            return super().readinto(buffer)

    def close(self) -> None:
        self.stream.close()
        super().close()


def list_objects(url: str) -> tuple[StoredObject, ...]:
    """The files behind a URL of a file, folder or glob, by name; hidden ones are left out.

    Raises:
        UnavailableError: the store cannot be reached.
        ValueError: there are none.
    """
    filesystem, path = open_filesystem(url)
    scheme = url.split("://")[0]
    with store_errors(url):
        if is_glob(path):
            found = filesystem.glob(path, detail=True)
        elif filesystem.isfile(path):
            found = {path: filesystem.info(path)}
        else:
            found = filesystem.find(path, detail=True)
    objects = []
    for name, about in sorted(found.items()):
        inside = name.lstrip("/").removeprefix(path.strip("/"))
        if about["type"] == "file" and not any(word.startswith(".") for word in inside.split("/")):
            version = next(
                (
                    str(about[key])
                    for key in ("ETag", "etag", "sha256", "md5Hash", "mtime", "created")
                    if about.get(key)
                ),
                "",
            )
            objects.append(StoredObject(f"{scheme}://{name.lstrip('/')}", int(about["size"] or 0), version))
    if not objects:
        raise ValueError(f"{url} holds no files: check the address")
    return tuple(objects)
