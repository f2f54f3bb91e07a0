"""Objects in a bucket of any S3 endpoint, through boto3."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from farm.errors import BadObject, StorageAway
from farm.storage import Data, check_key, check_range, check_readable

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

CONNECT_SECONDS = 5
ANSWER_SECONDS = 60
"""How long an endpoint may take to accept a connection and to answer; each request is tried three times."""


class S3Store:
    """Objects under a prefix of one bucket, through boto3 with its own ways of finding credentials. Safe across a fork."""

    def __init__(self, bucket: str, prefix: str = "", *, endpoint_url: str = "", region: str = "us-east-1") -> None:
        """Connects lazily. An empty `endpoint_url` is AWS."""
        self.bucket = bucket
        self.prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self.endpoint_url = endpoint_url
        self.region = region
        #: keys per listing request, 1000 at most
        self.page_keys = 1000
        self._client: tuple[int, S3Client] | None = None

    def __repr__(self) -> str:
        return f"S3Store('s3://{self.bucket}/{self.prefix}', endpoint_url={self.endpoint_url!r})"

    @property
    def client(self) -> S3Client:
        """This process's own client: its connections must not be shared over a fork."""
        if self._client is None or self._client[0] != os.getpid():
            self._client = (os.getpid(), self._connect())
        return self._client[1]

    def _connect(self) -> S3Client:
        patience = Config(
            connect_timeout=CONNECT_SECONDS,
            read_timeout=ANSWER_SECONDS,
            retries={"mode": "standard", "total_max_attempts": 3},
            tcp_keepalive=True,
            max_pool_connections=16,
            signature_version="s3v4",
            s3={"addressing_style": "path" if self.endpoint_url else "auto"},
            # endpoints other than AWS often know none of the newer checksums
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        session = boto3.Session()  # the default one is not safe for threads
        return session.client("s3", endpoint_url=self.endpoint_url or None, region_name=self.region, config=patience)

    def put(self, key: str, data: Data) -> None:
        name = self._name(key)
        with self._errors(key):
            self.client.put_object(Bucket=self.bucket, Key=name, Body=bytes(data))

    def put_if_absent(self, key: str, data: Data) -> bool:
        name = self._name(key)
        return self._if_absent(
            key, lambda: self.client.put_object(Bucket=self.bucket, Key=name, Body=bytes(data), IfNoneMatch="*")
        )

    def put_file(self, key: str, path: Path) -> bool:
        check_readable(path)
        if self.exists(key):
            return False
        name, transfer = self._name(key), TransferConfig(max_concurrency=4)
        if path.stat().st_size >= transfer.multipart_threshold:
            # several requests that become an object at once; not every endpoint knows a condition on the last of them
            with self._errors(key):
                self.client.upload_file(str(path), self.bucket, name, Config=transfer)
            return True
        with path.open("rb") as file:
            return self._if_absent(
                key, lambda: self.client.put_object(Bucket=self.bucket, Key=name, Body=file, IfNoneMatch="*")
            )

    def _if_absent(self, key: str, put: Callable[[], object]) -> bool:
        with self._errors(key):
            try:
                put()
            except ClientError as error:
                if _status(error) == HTTPStatus.PRECONDITION_FAILED:
                    return False
                raise
        return True

    def get(self, key: str) -> bytes:
        name = self._name(key)
        with self._errors(key):
            return self.client.get_object(Bucket=self.bucket, Key=name)["Body"].read()

    def get_range(self, key: str, start: int, length: int) -> bytes:
        check_range(start, length)
        name = self._name(key)
        if length == 0:
            self.size(key)
            return b""
        with self._errors(key):
            try:
                got = self.client.get_object(Bucket=self.bucket, Key=name, Range=f"bytes={start}-{start + length - 1}")
            except ClientError as error:
                if _status(error) == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                    return b""
                raise
            return got["Body"].read()

    @contextmanager
    def get_file(self, key: str) -> Iterator[Path]:
        name = self._name(key)
        with tempfile.TemporaryDirectory(prefix="farm-object-") as folder:
            path = Path(folder) / "object"
            with self._errors(key):
                self.client.download_file(self.bucket, name, str(path))
            yield path

    def exists(self, key: str) -> bool:
        try:
            self.size(key)
        except BadObject:
            return False
        return True

    def size(self, key: str) -> int:
        name = self._name(key)
        with self._errors(key):
            return self.client.head_object(Bucket=self.bucket, Key=name)["ContentLength"]

    def list(self, prefix: str = "") -> Iterator[str]:
        pages = self.client.get_paginator("list_objects_v2")
        with self._errors(prefix):
            for page in pages.paginate(
                Bucket=self.bucket, Prefix=self.prefix + prefix, PaginationConfig={"PageSize": self.page_keys}
            ):
                for entry in page.get("Contents", ()):
                    yield entry["Key"].removeprefix(self.prefix)

    def delete(self, key: str) -> None:
        name = self._name(key)
        with self._errors(key):
            self.client.delete_object(Bucket=self.bucket, Key=name)

    def presign(self, key: str, seconds: int) -> str:
        name = {"Bucket": self.bucket, "Key": self._name(key)}
        with self._errors(key):
            return self.client.generate_presigned_url("get_object", Params=name, ExpiresIn=seconds)

    def _name(self, key: str) -> str:
        return self.prefix + check_key(key)

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        where = f"s3://{self.bucket}/{self.prefix}{key}"
        try:
            yield
        except ClientError as error:
            raise _client_error(error, where, self.endpoint_url) from error
        except Boto3Error as error:  # upload_file wraps what went wrong in a text
            if isinstance(error.__context__, ClientError):
                raise _client_error(error.__context__, where, self.endpoint_url) from error
            raise StorageAway(f"object storage did not take or give {where}: {error}") from error
        except BotoCoreError as error:
            raise StorageAway(
                f"object storage {self.endpoint_url or 'AWS S3'} did not answer for {where}: {error}"
            ) from error
        except OSError as error:
            raise StorageAway(f"{where} cannot be kept on this machine's disk: {error.strerror}") from error


def _status(error: Any) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _client_error(error: Any, where: str, endpoint_url: str) -> BadObject | StorageAway:
    """What an S3 refusal means. Wrong keys or a missing bucket are mended outside of the work at hand, so a retry can help."""
    code, said = error.response.get("Error", {}).get("Code", ""), error.response.get("Error", {}).get("Message", "")
    if code == "NoSuchKey" or (code != "NoSuchBucket" and _status(error) == HTTPStatus.NOT_FOUND):
        return BadObject(f"there is no object {where}")
    hint = {
        "NoSuchBucket": "; make the bucket or mend FARM_STORAGE_URL",
        "InvalidAccessKeyId": "; check AWS_ACCESS_KEY_ID",
        "SignatureDoesNotMatch": "; check AWS_SECRET_ACCESS_KEY",
        "AccessDenied": "; check the keys and the bucket's policy",
    }.get(code, "")
    return StorageAway(f"object storage {endpoint_url or 'AWS S3'} refused {where}: {code} {said}{hint}")
