"""The control route `/_sim/…` on the same port: scripts, accounts, configuration, counts (README.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from tests.simulator.connection import Exchange, Response, json_response
from tests.simulator.script import to_action

if TYPE_CHECKING:
    from tests.simulator.state import State


def control(state: State, exchange: Exchange) -> Response:
    """Answer one control request; a wrong one is a 400 that says what is accepted."""
    verb, path = exchange.request.method, exchange.request.path.removeprefix("/_sim")
    try:
        answer = _dispatch(state, exchange, verb, path)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        return json_response({"error": f"{type(error).__name__}: {error}"}, 400)
    if answer is None:
        return json_response({"error": f"no control route {verb} {path}"}, 404)
    return answer if isinstance(answer, Response) else json_response(answer)


def _dispatch(state: State, exchange: Exchange, verb: str, path: str) -> Any:
    given = _given(exchange)
    match verb, path.rstrip("/"):
        case "POST", "/next":
            actions = [to_action(one) for one in (given if isinstance(given, list) else [given])]
            for action in actions:
                state.playbook.add(action)
            return {"queued": len(state.playbook.queue)}
        case "DELETE", "/next":
            state.playbook.queue.clear()
            return {"queued": 0}
        case "GET", "/next":
            return {"data": [msgspec.to_builtins(one) for one in state.playbook.queue]}
        case "POST", "/scripts":
            state.playbook.write(given["name"], given["steps"])
            return {"name": given["name"], "steps": len(given["steps"])}
        case "POST", "/accounts":
            return _accounts(state, given)
        case "GET", "/accounts":
            return {"data": [shown(one) for one in state.accounts]}
        case "POST", "/revoke":
            return _revoke(state, given)
        case "POST", "/chats":
            return _old_chats(state, given)
        case "POST", "/config":
            return msgspec.to_builtins(state.configure(given))
        case "GET", "/config":
            return msgspec.to_builtins(state.config)
        case "POST", "/reset":
            state.clear()
            return {"reset": True}
        case "GET", "/stats":
            return stats(state, exchange.request.query)
        case "GET", "":
            return {"simulator": True}
    return None


def _given(exchange: Exchange) -> Any:
    body = exchange.request.body
    return msgspec.json.decode(body) if body.strip() else {}


def _accounts(state: State, given: Any) -> dict[str, Any]:
    """One account or a list: `{"email", "password", "state", "cli", "quota": {"t2v": 3}, "remove": true}`."""
    for one in given if isinstance(given, list) else [given]:
        fields = dict(one)
        if fields.pop("remove", False):
            state.accounts.remove(fields["email"])
        else:
            state.accounts.change(fields)
    return {"accounts": len(state.accounts)}


def _old_chats(state: State, given: dict[str, Any]) -> dict[str, Any]:
    """Unlock every chat (`{"unlock": true}`), so that a test need not wait out the lock."""
    if given.get("unlock"):
        state.chats.unlock()
    return {"chats": state.chats.counts()}


def _revoke(state: State, given: dict[str, Any]) -> dict[str, int]:
    """Drop web tokens, or with `"lane": "cli"` the portal's, of one account or of all."""
    emails = [given["email"]] if given.get("email") else [one.email for one in state.accounts]
    if given.get("lane") == "cli":
        for email in emails:
            state.devices.revoke(email, refresh_too=bool(given.get("refresh_too")))
        return {"revoked": len(emails)}
    return {"revoked": sum(state.accounts.revoke(email) for email in emails)}


def shown(account: Any) -> dict[str, Any]:
    names = ("email", "id", "state", "cli", "quota", "settings")
    return {name: getattr(account, name) for name in names}


def stats(state: State, query: dict[str, str]) -> dict[str, Any]:
    """Everything counted; `?requests=N&operation=NAME` adds the last N requests as they came."""
    answer = state.stats.as_json()
    answer["chats"] = state.chats.counts()
    answer["queued"] = len(state.playbook.queue)
    wanted = int(query.get("requests", "50"))
    recorded = state.stats.recorded(query.get("operation") or None)
    answer["last_requests"] = recorded[-wanted:] if wanted else []
    return answer
