"""Every URL of the product on one page."""

from starlette.routing import BaseRoute, Route

from gateway.admin.routes import ADMIN_ROUTES
from gateway.api import accounts, backup, batches, keys, overview, requests, settings, usage
from gateway.endpoints import health, models, responses
from gateway.endpoints.chat import chat_handler
from gateway.endpoints.count_tokens import count_tokens

ROUTES: list[BaseRoute] = [
    # what callers use
    Route("/v1/chat/completions", chat_handler("openai_chat"), methods=["POST"]),
    Route("/v1/messages", chat_handler("anthropic_messages"), methods=["POST"]),
    Route("/v1/messages/count_tokens", count_tokens, methods=["POST"]),
    Route("/v1/responses", responses.create, methods=["POST"]),
    Route("/v1/responses/{id}", responses.show),
    Route("/v1/responses/{id}", responses.delete, methods=["DELETE"]),
    Route("/v1/responses/{id}/cancel", responses.cancel, methods=["POST"]),
    Route("/v1/responses/{id}/input_items", responses.list_input_items),
    Route("/v1/models", models.list_models),
    Route("/v1/models/{id:path}", models.show_model),
    Route("/models", models.list_models_openly),
    Route("/verify", health.verify, methods=["POST"]),
    # what operators use
    Route("/healthz", health.live),
    Route("/readyz", health.ready),
    Route("/metrics", health.show_metrics),
    *ADMIN_ROUTES,  # `/` and `/admin/…`, the operator's pages
    Route("/api/accounts", accounts.list_accounts),
    Route("/api/accounts", accounts.create_account, methods=["POST"]),
    Route("/api/accounts/refresh", accounts.refresh_accounts, methods=["POST"]),
    Route("/api/accounts/{email}", accounts.show_account),
    Route("/api/accounts/{email}", accounts.change_account, methods=["PATCH"]),
    Route("/api/accounts/{email}", accounts.delete_account, methods=["DELETE"]),
    Route("/api/accounts/{email}/refresh", accounts.refresh_account, methods=["POST"]),
    Route("/api/accounts/{email}/reset", accounts.reset_account, methods=["POST"]),
    Route("/api/overview", overview.show_overview),
    Route("/api/usage", usage.list_usage),
    Route("/api/requests", requests.list_requests),
    Route("/api/batches", batches.list_batches),
    Route("/api/batches", batches.create_batch, methods=["POST"]),
    Route("/api/batches/{id}", batches.show_batch),
    Route("/api/batches/{id}/results", batches.list_results),
    Route("/api/batches/{id}/events", batches.watch),
    Route("/api/batches/{id}/cancel", batches.cancel, methods=["POST"]),
    Route("/api/batches/{id}/retry", batches.retry, methods=["POST"]),
    Route("/api/keys", keys.list_keys),
    Route("/api/keys", keys.create_key, methods=["POST"]),
    Route("/api/keys/{id}", keys.change_key, methods=["PATCH"]),
    Route("/api/keys/{id}", keys.delete_key, methods=["DELETE"]),
    Route("/api/settings", settings.show_settings),
    Route("/api/settings", settings.change_settings, methods=["PATCH"]),
    Route("/api/settings/audit", settings.list_changes),
    Route("/api/export", backup.export, methods=["POST"]),
    Route("/api/import", backup.import_archive, methods=["POST"]),
]
