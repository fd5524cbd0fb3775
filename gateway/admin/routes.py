"""Every address of the operator's pages."""

from starlette.routing import BaseRoute, Route

from gateway.admin import actions, batches, login, pages, rendering, settings

ADMIN_ROUTES: list[BaseRoute] = [
    Route("/", pages.lead_in),
    Route("/admin", pages.lead_in),
    Route("/admin/", pages.show_overview),
    Route("/admin/accounts", pages.show_accounts),
    Route("/admin/batches", batches.show_batches),
    Route("/admin/batches", batches.create_batch, methods=["POST"]),
    Route("/admin/batches/{id}", batches.show_batch),
    Route("/admin/batches/{id}/cancel", batches.cancel, methods=["POST"]),
    Route("/admin/batches/{id}/retry", batches.retry, methods=["POST"]),
    Route("/admin/accounts", actions.add_account, methods=["POST"]),
    Route("/admin/accounts/{email}/{action}", actions.act_on_account, methods=["POST"]),
    Route("/admin/keys", pages.show_keys),
    Route("/admin/keys", actions.create_key, methods=["POST"]),
    Route("/admin/keys/{id}/delete", actions.delete_key, methods=["POST"]),
    Route("/admin/settings", settings.show_settings),
    Route("/admin/settings/{name}", settings.change_setting, methods=["POST"]),
    Route("/admin/login", login.show_form),
    Route("/admin/login", login.sign_in, methods=["POST"]),
    Route("/admin/logout", login.sign_out, methods=["POST"]),
    Route("/admin/static/{name}", rendering.show_static),
]
