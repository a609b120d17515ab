"""What is different from vendor to vendor, as data.

Any other S3-compatible server is `s3` with an endpoint. Sources, by the vendors' own numbers:

- AWS: S3 user guide (quotas, storage classes, tagging).
- Tencent COS: 436/7742, 436/7750, 436/7730; storage classes 436/33417; path style refused gobackup#233.
- Volcengine TOS: 6349/74823, 6349/74874, 6349/1545462; storage classes as its S3 interface names them 6349/147050;
  path style refused opendal#6549.
- Alibaba OSS: compatibility-with-amazon-s3 (virtual hosts alone, no object tagging); what is put through S3 gets the
  bucket's class whatever is asked for (gobackup, storages/oss); UNSIGNED-PAYLOAD taken stormkit#159.
- Huawei OBS: obs_04_0099; path style refused since 2023-12-30 while HeadBucket goes on answering 200,
  backup-restore-operator#973.
- Qiniu Kodo: kodo/4087 (no tagging, no `encoding-type`), kodo/4088 (hosts, regions, S3 names of buckets), kodo/6368.
- `list_url_encode`: the tables of rclone (`backend/s3/provider`), and the pages above. Version 1 of ListObjects is what
  all of them have.

None was tried live, so bodies are signed wherever nobody has reported that UNSIGNED-PAYLOAD is taken. CheckStorage
asks for storage class and tags and looks whether they arrived.
"""

import re
from collections.abc import Mapping

from roomtape.v1 import storage_pb2
from roomtape_service.storage.vendor import STEPS, Vendor

__all__ = ["STEPS", "VENDORS", "Vendor"]

_MIB = 1 << 20
_GIB = 1 << 30
_TIB = 1 << 40

_LABEL = r"[a-z0-9](?:[a-z0-9-]{1,61})[a-z0-9]"
_PLAIN_BUCKET = re.compile(_LABEL)
_DOTTED_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PLAIN_RULE = "3 to 63 lower-case letters, digits and `-`, a letter or digit at both ends"
_DOTTED_RULE = "3 to 63 lower-case letters, digits, `-` and `.`, a letter or digit at both ends"
_REGION = r"(?P<region>[a-z]{2}(?:-[a-z]+)+(?:-[0-9]+)?)"

_S3 = Vendor(
    name="s3",
    title="S3",
    domains=("amazonaws.com", "amazonaws.com.cn"),
    endpoint="",
    internal_endpoint="",
    path_style=False,
    path_style_allowed=True,
    payload_signing=False,
    checksum_calculation="when_required",
    part_md5=True,
    list_url_encode=True,
    min_part_bytes=5 * _MIB,
    max_part_bytes=5 * _GIB,
    max_parts=10_000,
    max_object_bytes=48 * _TIB,
    bucket_pattern=_DOTTED_BUCKET,
    bucket_rule=_DOTTED_RULE,
    region_example="eu-central-1",
    storage_classes=frozenset(
        {
            "STANDARD",
            "STANDARD_IA",
            "ONEZONE_IA",
            "INTELLIGENT_TIERING",
            "REDUCED_REDUNDANCY",
            "GLACIER_IR",
            "GLACIER",
            "DEEP_ARCHIVE",
        }
    ),
    has_tags=True,
    key_names=("access key id", "secret access key"),
    key_page="the IAM console under Security credentials",
    bucket_page="the S3 console",
    permissions={
        "put": "s3:PutObject (and s3:PutObjectTagging with tags)",
        "head": "s3:GetObject",
        "read": "s3:GetObject",
        "list": "s3:ListBucket (on the bucket itself)",
        "multipart": "s3:PutObject and s3:AbortMultipartUpload",
        "delete": "s3:DeleteObject",
    },
    wrong_endpoints=(
        (
            re.compile(r"(?:.+\.)?s3-website[.-].*\.amazonaws\.com(?:\.cn)?"),
            "that is the website host; leave `endpoint` empty",
        ),
        (
            re.compile(r"(?!.*\.vpce\.).+\.s3[.-](?:[a-z0-9.-]+\.)?amazonaws\.com(?:\.cn)?"),
            "leave the bucket out of the host, or leave `endpoint` empty",
        ),
    ),
    region_in_host=re.compile(
        rf"s3(?:-fips)?[.-](?:dualstack\.)?{_REGION}\.amazonaws\.com(?:\.cn)?",
    ),
)

_COS = Vendor(
    name="cos",
    title="Tencent Cloud COS",
    domains=("myqcloud.com", "tencentcos.cn"),
    endpoint="https://cos.{region}.myqcloud.com",
    internal_endpoint="https://cos-internal.{region}.tencentcos.cn",
    path_style=False,
    # Refused with PathStyleDomainForbidden for buckets made since 2024.
    path_style_allowed=False,
    payload_signing=True,
    checksum_calculation="when_required",
    part_md5=True,
    list_url_encode=True,
    min_part_bytes=1 * _MIB,
    max_part_bytes=5 * _GIB,
    max_parts=10_000,
    max_object_bytes=48 * _TIB,
    bucket_pattern=re.compile(r"[a-z0-9](?:[a-z0-9-]{0,48}[a-z0-9])?-[0-9]{8,12}"),
    bucket_rule="the name and the account's APPID, such as `recordings-1250000000`",
    region_example="ap-guangzhou",
    storage_classes=frozenset(
        {
            "STANDARD",
            "STANDARD_IA",
            "INTELLIGENT_TIERING",
            "ARCHIVE",
            "DEEP_ARCHIVE",
            "MAZ_STANDARD",
            "MAZ_STANDARD_IA",
            "MAZ_INTELLIGENT_TIERING",
        }
    ),
    has_tags=True,
    key_names=("SecretId", "SecretKey"),
    key_page="the CAM console under API Keys",
    bucket_page="the COS console under Bucket List",
    permissions={
        "put": "name/cos:PutObject (and name/cos:PutObjectTagging with tags)",
        "head": "name/cos:HeadObject",
        "read": "name/cos:GetObject",
        "list": "name/cos:GetBucket",
        "multipart": "name/cos:InitiateMultipartUpload, name/cos:UploadPart, "
        "name/cos:CompleteMultipartUpload and name/cos:AbortMultipartUpload",
        "delete": "name/cos:DeleteObject",
    },
    wrong_endpoints=(
        (
            re.compile(r"(.+\.)?cos-website\..*"),
            "that is the website host; write `https://cos.<region>.myqcloud.com`",
        ),
        (
            re.compile(
                r".+\.cos(?:-internal)?\.[a-z0-9-]+\.(?:myqcloud\.com|tencentcos\.cn)|.+\.file\.myqcloud\.com"
            ),
            "leave the bucket out of the host: `https://cos.<region>.myqcloud.com`",
        ),
    ),
    wrong_regions=(
        (re.compile(r"cos\..*"), "leave `cos.` out: `ap-guangzhou`"),
        (
            re.compile(r"cn-(?:north|east|south|southwest)|tj|sh|gz|cd|bj|hk|sgp"),
            "that is the name of former interfaces; write it as `ap-guangzhou`",
        ),
    ),
    region_in_host=re.compile(
        rf"cos(?:-internal)?\.(?!accelerate\.){_REGION}\.(?:myqcloud\.com|tencentcos\.cn)"
    ),
)

_TOS = Vendor(
    name="tos",
    title="Volcengine TOS",
    domains=("volces.com", "ivolces.com", "bytepluses.com", "ibytepluses.com"),
    endpoint="https://tos-s3-{region}.volces.com",
    internal_endpoint="https://tos-s3-{region}.ivolces.com",
    path_style=False,
    # Refused with InvalidPathAccess.
    path_style_allowed=False,
    payload_signing=True,
    checksum_calculation="when_required",
    part_md5=True,
    list_url_encode=True,
    # The vendor's minimum is not documented for its S3 interface.
    min_part_bytes=5 * _MIB,
    max_part_bytes=5 * _GIB,
    max_parts=10_000,
    max_object_bytes=48 * _TIB,
    bucket_pattern=_PLAIN_BUCKET,
    bucket_rule=_PLAIN_RULE,
    region_example="cn-beijing",
    storage_classes=frozenset({"STANDARD", "STANDARD_IA", "GLACIER_IR"}),
    has_tags=True,
    key_names=("Access Key ID", "Secret Access Key"),
    key_page="the console under Key Management",
    bucket_page="the TOS console under Buckets",
    permissions={
        "put": "tos:PutObject (and tos:PutObjectTagging with tags)",
        "head": "tos:GetObject",
        "read": "tos:GetObject",
        "list": "tos:ListBucket",
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
    wrong_regions=((re.compile(r"tos-.*"), "leave `tos-` out: `cn-beijing`"),),
    region_in_host=re.compile(rf"tos-s3-{_REGION}\.(?:i?volces|i?bytepluses)\.com"),
)

_OSS = Vendor(
    name="oss",
    title="Alibaba Cloud OSS",
    domains=("aliyuncs.com",),
    endpoint="https://s3.oss-{region}.aliyuncs.com",
    internal_endpoint="https://s3.oss-{region}-internal.aliyuncs.com",
    path_style=False,
    # Refused with SecondLevelDomainForbidden.
    path_style_allowed=False,
    payload_signing=False,
    checksum_calculation="when_required",
    part_md5=True,
    list_url_encode=True,
    min_part_bytes=100 << 10,
    max_part_bytes=5 * _GIB,
    max_parts=10_000,
    max_object_bytes=48 * _TIB,
    bucket_pattern=_PLAIN_BUCKET,
    bucket_rule=_PLAIN_RULE,
    region_example="cn-hangzhou",
    storage_classes=frozenset(),
    has_tags=False,
    key_names=("AccessKey ID", "AccessKey Secret"),
    key_page="the RAM console under AccessKey",
    bucket_page="the OSS console under Buckets",
    permissions={
        "put": "oss:PutObject",
        "head": "oss:GetObject",
        "read": "oss:GetObject",
        "list": "oss:ListObjects",
        "multipart": "oss:PutObject and oss:AbortMultipartUpload",
        "delete": "oss:DeleteObject",
    },
    wrong_endpoints=(
        (
            re.compile(r"(?!s3\.oss-)[^.]+\.(?:s3\.)?oss-[a-z0-9-]+\.aliyuncs\.com"),
            "leave the bucket out of the host: `https://s3.oss-<region>.aliyuncs.com`",
        ),
    ),
    wrong_regions=((re.compile(r"oss-.*"), "leave `oss-` out: `cn-hangzhou`"),),
    region_in_host=re.compile(
        r"(?:s3\.)?oss-(?!accelerate)(?P<region>[a-z0-9-]+?)(?:-internal)?\.aliyuncs\.com",
    ),
)

_OBS = Vendor(
    name="obs",
    title="Huawei Cloud OBS",
    domains=("myhuaweicloud.com", "myhuaweicloud.eu"),
    endpoint="https://obs.{region}.myhuaweicloud.com",
    # Its own machines find the internal addresses under the same names.
    internal_endpoint="",
    path_style=False,
    # Refused since 2023-12-30, except by private deployments, which are `s3` with an endpoint.
    path_style_allowed=False,
    payload_signing=True,
    checksum_calculation="when_required",
    part_md5=True,
    # Markers come back encoded and lists begin again.
    list_url_encode=False,
    min_part_bytes=100 << 10,
    max_part_bytes=5 * _GIB,
    max_parts=10_000,
    max_object_bytes=48 * _TIB,
    bucket_pattern=_DOTTED_BUCKET,
    bucket_rule=_DOTTED_RULE,
    region_example="cn-north-4",
    storage_classes=frozenset({"STANDARD", "STANDARD_IA", "GLACIER", "DEEP_ARCHIVE"}),
    has_tags=False,
    key_names=("Access Key ID (AK)", "Secret Access Key (SK)"),
    key_page="the console under My Credentials, Access Keys",
    bucket_page="the OBS console under Buckets",
    permissions={
        "put": "obs:object:PutObject",
        "head": "obs:object:GetObject",
        "read": "obs:object:GetObject",
        "list": "obs:bucket:ListBucket",
        "multipart": "obs:object:PutObject and obs:object:AbortMultipartUpload",
        "delete": "obs:object:DeleteObject",
    },
    wrong_endpoints=(
        (
            re.compile(r"(?:.+\.)?obs-website\..*"),
            "that is the website host; write `https://obs.<region>.myhuaweicloud.com`",
        ),
        (
            re.compile(r".+\.obs\.[a-z0-9-]+\.myhuaweicloud\.(?:com|eu)"),
            "leave the bucket out of the host: `https://obs.<region>.myhuaweicloud.com`",
        ),
    ),
    wrong_regions=((re.compile(r"obs[.-].*"), "leave `obs.` out: `cn-north-4`"),),
    region_in_host=re.compile(rf"obs\.{_REGION}\.myhuaweicloud\.(?:com|eu)"),
)

_KODO = Vendor(
    name="kodo",
    title="Qiniu Kodo",
    domains=("qiniucs.com",),
    endpoint="https://s3.{region}.qiniucs.com",
    internal_endpoint="",
    path_style=False,
    path_style_allowed=True,
    payload_signing=True,
    checksum_calculation="when_required",
    part_md5=True,
    list_url_encode=False,
    # Limits are documented for its own interface alone (at least 1 MiB).
    min_part_bytes=5 * _MIB,
    max_part_bytes=5 * _GIB,
    max_parts=10_000,
    max_object_bytes=5 * _TIB,
    bucket_pattern=_PLAIN_BUCKET,
    bucket_rule="the bucket's S3 name, which is not its Kodo name: the console shows it in the bucket's overview, "
    f"first in the S3 domain ({_PLAIN_RULE})",
    region_example="cn-east-1",
    storage_classes=frozenset(
        {"STANDARD", "LINE", "INTELLIGENT_TIERING", "GLACIER_IR", "GLACIER", "DEEP_ARCHIVE"}
    ),
    has_tags=False,
    key_names=("AccessKey", "SecretKey"),
    key_page="the portal under Key Management",
    bucket_page="the Kodo console under Bucket Management",
    permissions={
        "put": "s3:PutObject",
        "head": "s3:GetObject",
        "read": "s3:GetObject",
        "list": "s3:ListBucket",
        "multipart": "s3:PutObject and s3:AbortMultipartUpload",
        "delete": "s3:DeleteObject",
    },
    wrong_endpoints=(
        (
            re.compile(r".*\.(?:qiniup|qiniuapi|qiniuio|qbox|clouddn|qnssl)\.(?:com|me)"),
            "that host does not speak S3; write `https://s3.<region>.qiniucs.com`",
        ),
        (
            re.compile(r".+\.s3[.-][a-z0-9-]+\.qiniucs\.com"),
            "leave the bucket out of the host: `https://s3.<region>.qiniucs.com`",
        ),
    ),
    wrong_regions=(
        (
            re.compile(r"z[0-2]|na0|as0"),
            "that is the region of Kodo's own interface; its S3 regions are `cn-east-1` (z0), `cn-north-1` (z1), "
            "`cn-south-1` (z2), `us-north-1` (na0) and `ap-southeast-1` (as0)",
        ),
    ),
    region_in_host=re.compile(rf"s3[.-]{_REGION}\.qiniucs\.com"),
)

VENDORS: Mapping[storage_pb2.StorageVendor.ValueType, Vendor] = {
    storage_pb2.STORAGE_VENDOR_S3: _S3,
    storage_pb2.STORAGE_VENDOR_COS: _COS,
    storage_pb2.STORAGE_VENDOR_TOS: _TOS,
    storage_pb2.STORAGE_VENDOR_OSS: _OSS,
    storage_pb2.STORAGE_VENDOR_OBS: _OBS,
    storage_pb2.STORAGE_VENDOR_KODO: _KODO,
}
