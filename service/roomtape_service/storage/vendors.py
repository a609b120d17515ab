"""What is different from vendor to vendor, as data.

Sources: AWS S3 user guide (quotas); Tencent COS 436/7742, 436/7750, 436/7730; Volcengine TOS 6349/74823, 6349/74874,
6349/1545462. None was tried live.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from roomtape.v1 import storage_pb2

__all__ = ["VENDORS", "Vendor"]

_MIB = 1 << 20
_GIB = 1 << 30
_TIB = 1 << 40


@dataclass(frozen=True, slots=True)
class Vendor:
    """A row of the table."""

    name: str
    """Its name for programs; part of what the database keeps."""
    title: str
    """Its name for people."""
    domains: tuple[str, ...]
    """Where its own endpoints are."""
    endpoint: str
    """URL with `{region}`; empty: botocore knows the vendor's own."""
    path_style: bool
    """Where the bucket stands unless settings say otherwise: in the path or in the host name."""
    path_style_allowed: bool
    """Whether it takes the bucket in the path at all."""
    payload_signing: bool
    """Whether bodies are signed over TLS too. UNSIGNED-PAYLOAD saves a SHA-256, where the vendor takes it."""
    checksum_calculation: str
    """botocore's `request_checksum_calculation`. The default sends aws-chunked trailers over TLS, which most refuse."""
    part_md5: bool
    """Whether Content-MD5 goes with each body, for the vendor to check."""
    min_part_bytes: int
    max_part_bytes: int
    max_parts: int
    max_object_bytes: int
    bucket_pattern: re.Pattern[str]
    bucket_rule: str
    """The pattern in words."""
    key_names: tuple[str, str]
    """What its console calls `access_key_id` and `secret_access_key`."""
    key_page: str
    """Where keys are found."""
    bucket_page: str
    """Where buckets are found."""
    permissions: Mapping[str, str]
    """For each step what the key must be allowed to."""
    wrong_endpoints: tuple[tuple[re.Pattern[str], str], ...] = field(default=())
    """Hosts that are the vendor's and do not speak S3, and what to write instead."""

    def owns(self, host: str) -> bool:
        """Whether the vendor itself answers at `host`; an empty one is the vendor's own."""
        name = host.partition(":")[0]
        return not name or any(name == domain or name.endswith(f".{domain}") for domain in self.domains)


_PLAIN_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")

VENDORS: Mapping[storage_pb2.StorageVendor.ValueType, Vendor] = {
    storage_pb2.STORAGE_VENDOR_S3: Vendor(
        name="s3",
        title="S3",
        domains=("amazonaws.com", "amazonaws.com.cn"),
        endpoint="",
        path_style=False,
        path_style_allowed=True,
        payload_signing=False,
        checksum_calculation="when_required",
        part_md5=True,
        min_part_bytes=5 * _MIB,
        max_part_bytes=5 * _GIB,
        max_parts=10_000,
        max_object_bytes=48 * _TIB,
        bucket_pattern=_PLAIN_BUCKET,
        bucket_rule="3 to 63 lower-case letters, digits, `-` and `.`, a letter or digit at both ends",
        key_names=("access key id", "secret access key"),
        key_page="the IAM console under Security credentials",
        bucket_page="the S3 console",
        permissions={
            "put": "s3:PutObject",
            "head": "s3:GetObject",
            "read": "s3:GetObject",
            "multipart": "s3:PutObject and s3:AbortMultipartUpload",
            "delete": "s3:DeleteObject",
        },
    ),
    storage_pb2.STORAGE_VENDOR_COS: Vendor(
        name="cos",
        title="Tencent Cloud COS",
        domains=("myqcloud.com", "tencentcos.cn"),
        endpoint="https://cos.{region}.myqcloud.com",
        path_style=False,
        # Refused with PathStyleDomainForbidden for buckets made since 2024.
        path_style_allowed=False,
        payload_signing=True,
        checksum_calculation="when_required",
        part_md5=True,
        min_part_bytes=1 * _MIB,
        max_part_bytes=5 * _GIB,
        max_parts=10_000,
        max_object_bytes=48 * _TIB,
        bucket_pattern=re.compile(r"[a-z0-9](?:[a-z0-9-]{0,48}[a-z0-9])?-[0-9]{8,12}"),
        bucket_rule="the name and the account's APPID, such as `recordings-1250000000`",
        key_names=("SecretId", "SecretKey"),
        key_page="the CAM console under API Keys",
        bucket_page="the COS console under Bucket List",
        permissions={
            "put": "name/cos:PutObject",
            "head": "name/cos:HeadObject",
            "read": "name/cos:GetObject",
            "multipart": "name/cos:InitiateMultipartUpload, name/cos:UploadPart, "
            "name/cos:CompleteMultipartUpload and name/cos:AbortMultipartUpload",
            "delete": "name/cos:DeleteObject",
        },
        wrong_endpoints=(
            (
                re.compile(r".+\.cos\.[a-z0-9-]+\.myqcloud\.com|.+\.file\.myqcloud\.com"),
                "leave the bucket out of the host: `https://cos.<region>.myqcloud.com`",
            ),
            (
                re.compile(r"(.+\.)?cos-website\..*"),
                "that is the website host; write `https://cos.<region>.myqcloud.com`",
            ),
        ),
    ),
    storage_pb2.STORAGE_VENDOR_TOS: Vendor(
        name="tos",
        title="Volcengine TOS",
        domains=("volces.com", "ivolces.com", "bytepluses.com", "ibytepluses.com"),
        endpoint="https://tos-s3-{region}.volces.com",
        path_style=False,
        # Refused with InvalidPathAccess.
        path_style_allowed=False,
        payload_signing=True,
        checksum_calculation="when_required",
        part_md5=True,
        # The vendor's minimum is not documented for its S3 interface.
        min_part_bytes=5 * _MIB,
        max_part_bytes=5 * _GIB,
        max_parts=10_000,
        max_object_bytes=48 * _TIB,
        bucket_pattern=re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]"),
        bucket_rule="3 to 63 lower-case letters, digits and `-`, a letter or digit at both ends",
        key_names=("Access Key ID", "Secret Access Key"),
        key_page="the console under Key Management",
        bucket_page="the TOS console under Buckets",
        permissions={
            "put": "tos:PutObject",
            "head": "tos:GetObject",
            "read": "tos:GetObject",
            "multipart": "tos:PutObject and tos:AbortMultipartUpload",
            "delete": "tos:DeleteObject",
        },
        wrong_endpoints=(
            (
                re.compile(r"(.+\.)?tos-(?!s3-)[a-z0-9-]+\.(i?volces|(i?bytepluses))\.com"),
                "that host does not speak S3; write `https://tos-s3-<region>.volces.com`",
            ),
            (
                re.compile(r".+\.tos-s3-[a-z0-9-]+\.(i?volces|(i?bytepluses))\.com"),
                "leave the bucket out of the host: `https://tos-s3-<region>.volces.com`",
            ),
        ),
    ),
}
