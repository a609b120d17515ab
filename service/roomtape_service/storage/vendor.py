"""What a row of the vendor table says."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["STEPS", "Vendor"]

STEPS = ("put", "head", "read", "list", "multipart", "delete")
"""What is done in a store; each needs permissions of its own."""


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
    internal_endpoint: str
    """The same as its own machines reach it, mostly without traffic charges; empty where it has none."""
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
    list_url_encode: bool
    """Whether listings take `encoding-type=url`, which keys need that XML can't hold."""
    min_part_bytes: int
    max_part_bytes: int
    max_parts: int
    max_object_bytes: int
    bucket_pattern: re.Pattern[str]
    bucket_rule: str
    """The pattern in words."""
    region_example: str
    storage_classes: frozenset[str]
    """What may be asked for when an object is put; empty where the bucket alone decides."""
    has_tags: bool
    """Whether an object can be put with tags."""
    key_names: tuple[str, str]
    """What its console calls `access_key_id` and `secret_access_key`."""
    key_page: str
    """Where keys are found."""
    bucket_page: str
    """Where buckets are found."""
    permissions: Mapping[str, str]
    """For each of `STEPS` what the key must be allowed to."""
    wrong_endpoints: tuple[tuple[re.Pattern[str], str], ...] = field(default=())
    """Hosts that are the vendor's and do not speak S3, and what to write instead."""
    wrong_regions: tuple[tuple[re.Pattern[str], str], ...] = field(default=())
    """Names of its regions that S3 signatures don't know, and what to write instead."""
    region_in_host: re.Pattern[str] | None = None
    """Finds `region` in an endpoint of its own."""

    def owns(self, host: str) -> bool:
        """Whether the vendor itself answers at `host`; an empty one is the vendor's own."""
        if not host:
            return True
        name = host.partition(":")[0]
        return any(name == domain or name.endswith(f".{domain}") for domain in self.domains)
