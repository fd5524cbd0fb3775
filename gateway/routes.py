"""Every URL of the product on one page."""

from starlette.routing import BaseRoute, Route

from gateway.endpoints import health, models
from gateway.endpoints.chat import chat_handler

ROUTES: list[BaseRoute] = [
    Route("/v1/chat/completions", chat_handler("openai_chat"), methods=["POST"]),
    Route("/v1/models", models.list_models),
    Route("/v1/models/{id:path}", models.show_model),
    Route("/models", models.list_models_openly),
    Route("/verify", health.verify, methods=["POST"]),
    Route("/healthz", health.live),
    Route("/readyz", health.ready),
    Route("/metrics", health.show_metrics),
]
