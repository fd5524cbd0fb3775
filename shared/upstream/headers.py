"""The headers of the web upstream's requests (protocol sheet 2), as a browser would send them.

Values that the site changes now and then are constants here, so that one edit follows it, and an
operator who can't wait for that edit has `SITE_HEADERS`.
"""

import time
import uuid
from collections.abc import Mapping

import httpx

FRONT_END_VERSION = "0.2.63"  # write endpoints refuse requests without it, misleadingly (2)
BX_V = "2.5.36"
CHROME_VERSION = "148"
USER_AGENT = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    f"Chrome/{CHROME_VERSION}.0.0.0 Safari/537.36"
)
ACCEPT_ENCODING = "gzip, deflate"  # what decoding.py reads


class SiteHeaders:
    """Builds the headers of every request to one site, whose pages live at `base_url`.

    `changed`: lower-case names and what they hold in place of ours; `""` leaves one out.
    """

    def __init__(self, base_url: str, *, host: str, changed: Mapping[str, str]) -> None:
        few = {"host": host, "user-agent": USER_AGENT, "accept-encoding": ACCEPT_ENCODING}
        browser = few | {
            "accept-language": "zh-CN,zh;q=0.9",
            "source": "web",
            "version": FRONT_END_VERSION,
            "bx-v": BX_V,
            "origin": base_url,
            "referer": base_url + "/",
            "sec-ch-ua": (
                f'"Chromium";v="{CHROME_VERSION}", "Google Chrome";v="{CHROME_VERSION}", '
                '"Not)A;Brand";v="24"'
            ),
            "sec-ch-ua-mobile": "?0",
            "sec-ch-ua-platform": '"Windows"',
            "sec-fetch-dest": "empty",
            "sec-fetch-mode": "cors",
            "sec-fetch-site": "same-origin",
        }
        json = {"content-type": "application/json"}
        stream = {"accept": "text/event-stream", "x-accel-buffering": "no"}
        agent = {name: value for name, value in changed.items() if name == "user-agent"}
        self._few = _changed(few | json | {"accept": "*/*"}, agent)
        self._plain = _changed(browser | json | {"accept": "*/*"}, changed)
        self._stream = _changed(browser | json | stream, changed)

    def few(self, *, token: str, cookies: str) -> httpx.Headers:
        """Sign-in and profile: hardly any (2)."""
        return _signed(self._few, token, cookies)

    def plain(self, *, token: str, cookies: str) -> httpx.Headers:
        return _timed(_signed(self._plain, token, cookies))

    def stream(self, *, token: str, cookies: str) -> httpx.Headers:
        """For completions."""
        return _timed(_signed(self._stream, token, cookies))


def _changed(ours: dict[str, str], changed: Mapping[str, str]) -> httpx.Headers:
    return httpx.Headers({name: value for name, value in (ours | {**changed}).items() if value})


def _signed(base: httpx.Headers, token: str, cookies: str) -> httpx.Headers:
    """Token as bearer and as cookie, both with the same value (1), site cookies verbatim (12)."""
    # A copy of Headers shares its entries; a told encoding spares the search for one (60 → 8 us).
    headers = httpx.Headers(base, encoding="utf-8")
    if token:
        headers["authorization"] = "Bearer " + token
        cookies = f"token={token}; {cookies}" if cookies else f"token={token}"
    if cookies:
        headers["cookie"] = cookies
    return headers


def _timed(headers: httpx.Headers) -> httpx.Headers:
    headers["timezone"] = _local_time()
    headers["x-request-id"] = str(uuid.uuid4())
    return headers


def _local_time() -> str:
    """As JavaScript prints it: `Tue Nov 03 2026 10:00:00 GMT+0800`."""
    return time.strftime("%a %b %d %Y %H:%M:%S GMT%z")
