"""Which URLs a webhook may have."""

from ipaddress import ip_network

import pytest

from roomtape_service.rules.webhooks import url_problem
from roomtape_service.webhooks.guard import AddressGuard

NOBODY = AddressGuard()
LOCAL = AddressGuard([ip_network("127.0.0.0/8"), ip_network("::1/128"), ip_network("10.1.0.0/16")])


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.com",
        "https://hooks.example.com/a/b?c=d&e=%20",
        "HTTPS://Hooks.Example.COM:8443/",
        "https://hooks.example.com.",
        "https://xn--bcher-kva.example/",
        "https://a_b.example/",
        "https://93.184.216.34/",
        "https://[2606:4700::6810:84e5]:443/",
        "https://a/",
        "https://127.0.0.1.example.com/",
        "https://localhost.example.com/",
        "https://h/" + "a" * 2037,
    ],
)
def test_good_urls(url: str) -> None:
    assert url_problem(url, http=False, allows=NOBODY.allows) is None


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("", "is not https://"),
        ("hooks.example.com", "is not https://"),
        ("/events", "is not https://"),
        ("https:///events", "is not https://"),
        ("https:hooks.example.com", "is not https://"),
        ("ftp://hooks.example.com/", "is not https://"),
        ("file:///etc/passwd", "is not https://"),
        ("unix:///run/docker.sock", "is not https://"),
        ("javascript:alert(1)", "is not https://"),
        ("http://hooks.example.com/", "does not allow"),
        ("https://user@hooks.example.com/", "user name"),
        ("https://user:password@hooks.example.com/", "user name"),
        ("https://@hooks.example.com/", "user name"),
        ("https://93.184.216.34@127.0.0.1/", "user name"),
        ("https://hooks.example.com/#part", "fragment"),
        ("https://hooks.example.com/#", "fragment"),
        ("https://hooks.example.com:0/", "port 0"),
        ("https://hooks.example.com:65536/", "is no URL"),
        ("https://hooks.example.com:port/", "is no URL"),
        ("https://[::1/", "is no URL"),
        ("https://hooks.example.com/a b", "characters"),
        ("https://hooks.example.com/\n", "characters"),
        ("https://hooks.example.com\\@127.0.0.1/", "characters"),
        ("https://bücher.example/", "characters"),
        ("https://hooks.example.com/\x00", "characters"),
        (" https://hooks.example.com/", "characters"),
        ("https://h/" + "a" * 2039, "has 2049 characters"),
        ("https://127.0.0.1/", "webhook_allowed_networks"),
        ("https://127.1.2.3:8443/", "public Internet"),
        ("https://10.0.0.1/", "public Internet"),
        ("https://169.254.169.254/latest/meta-data/", "public Internet"),
        ("https://0.0.0.0/", "public Internet"),
        ("https://[::1]/", "public Internet"),
        ("https://[::]/", "public Internet"),
        ("https://[fe80::1]/", "public Internet"),
        ("https://[fd00::1]/", "public Internet"),
        ("https://[::ffff:127.0.0.1]/", "public Internet"),
        ("https://[64:ff9b::7f00:1]/", "public Internet"),
        ("https://[fe80::1%25eth0]/", "no name"),
        ("https://localhost/", "webhook_allowed_networks"),
        ("https://LOCALHOST.:8443/", "server itself"),
        ("https://a.localhost/", "server itself"),
        ("https://127.1/", "half an address"),
        ("https://2130706433/", "half an address"),
        ("https://0x7f000001/", "half an address"),
        ("https://0x7f.1/", "half an address"),
        ("https://0177.0.0.01/", "half an address"),
        ("https://1.2.3.4.5/", "half an address"),
        ("https://127%2e0.0.1/", "no name"),
        ("https://a..b/", "no name"),
        ("https://.a/", "no name"),
        ("https://-a.example/", "no name"),
        ("https://" + "a" * 64 + ".example/", "no name"),
        ("https://" + "a." * 127 + "a/", "no name"),
        ("https://a,b.example/", "no name"),
    ],
)
def test_bad_urls(url: str, told: str) -> None:
    problem = url_problem(url, http=False, allows=NOBODY.allows)
    assert problem is not None
    assert told in problem
    assert "password" not in problem or "leave it out" in problem


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8080/",
        "http://localhost:8080/",
        "https://[::1]/",
        "http://10.1.2.3/",
        "http://[::ffff:127.0.0.1]/",
    ],
)
def test_what_the_operator_allows(url: str) -> None:
    assert url_problem(url, http=True, allows=LOCAL.allows) is None
    assert url_problem(url, http=True, allows=NOBODY.allows) is not None
    assert url_problem("http://10.2.0.1/", http=True, allows=LOCAL.allows) is not None
