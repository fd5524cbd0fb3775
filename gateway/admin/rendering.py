"""Page objects → HTML answers, with the headers every page has; the stylesheet and the icon.

A page is one Struct that holds everything its template shows: templates compute nothing, and what
must not be seen is masked before it gets here. Autoescape is on for every template.

Knows: Jinja2, headers. Does not know: what the pages say.
"""

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import jinja2
import msgspec
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from gateway.admin import filters
from gateway.resources import resources_of
from shared.errors import NotFound

_HERE: Final = Path(__file__).parent
_TYPES: Final = {".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}

# No script at all: the pages have none, so an injected one has nowhere to run.
_POLICY: Final = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
_COMMON: Final = {"x-content-type-options": "nosniff", "referrer-policy": "same-origin"}
_PAGE: Final = {**_COMMON, "content-security-policy": _POLICY, "cache-control": "no-store"}


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """What the frame around every page needs.

    Args:
        csrf_token: of the session; empty = nobody is signed in by a session, forms aren't shown.
        now: the moment, epoch seconds, against which the page's moments are told.
    """

    csrf_token: str = ""
    now: float = msgspec.field(default_factory=time.time)


def csrf_token_of(request: Request) -> str:
    """The token the request's page puts into its forms."""
    session = resources_of(request).gate.sessions.of(request)
    return "" if session is None else session.csrf_token


def render(
    template: str, page: Page, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """The page as an answer.

    Args:
        template: its name without the ending.
    """
    html = _templates.get_template(f"{template}.html").render(page=page)
    return Response(
        html,
        status_code=status,
        headers={**_PAGE, **(headers or {})},
        media_type="text/html",
    )


def lead_to(address: str) -> Response:
    """The browser goes on with a GET of `address`, a path of ours."""
    return RedirectResponse(address, status_code=303, headers=_PAGE)


async def show_static(request: Request) -> Response:
    """`GET /admin/static/{name}`: for ever in a cache under its version, never under another's.

    In a rolling update an old process may be asked for the file of a new page.
    """
    name = request.path_params["name"]
    if name not in _STATIC:
        raise NotFound(f"There is nothing at {request.url.path}")
    right = request.query_params.get("v") == _version(name)
    kept = "public, max-age=31536000, immutable" if right else "no-cache"
    headers = {**_COMMON, "cache-control": kept, "content-type": _TYPES[Path(name).suffix]}
    return Response(_STATIC[name], headers=headers)


def static_address(name: str) -> str:
    """`admin.css` → `/admin/static/admin.css?v=0a1b2c3d`."""
    return f"/admin/static/{name}?v={_version(name)}"


def _version(name: str) -> str:
    return hashlib.sha256(_STATIC[name]).hexdigest()[:8]


def _read_static() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (_HERE / "static").iterdir()}


def _open_templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        auto_reload=False,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters.FILTERS
    environment.globals["static_address"] = static_address
    return environment


_STATIC: Final = _read_static()
_templates: Final = _open_templates()
