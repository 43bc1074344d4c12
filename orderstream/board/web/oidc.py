"""OIDC: signing in with an account of the company's own provider.

Law: the provider says who somebody is, and the board says what they may: an account must have been made here first, under the login
that the provider vouches for (a verified e-mail address, or `preferred_username` where an installation trusts it). The first sign-in
binds provider and subject to it, after which a renamed address changes nothing. Code flow with PKCE, state and nonce, by authlib.
"""

from __future__ import annotations

import logging
import warnings
from typing import Any

import httpx
from authlib.common.errors import AuthlibBaseError
from fastapi import Request
from fastapi.responses import Response
from joserfc.errors import JoseError
from starlette.concurrency import run_in_threadpool

from orderstream.board.store import answering
from orderstream.board.web import accounts
from orderstream.board.web.language import N_
from orderstream.board.web.site import RefusedError, let_in, site_of
from orderstream.settings import Settings

logger = logging.getLogger(__name__)
FAILED = N_("Signing in with the company account did not work. Please try again; if it stays so, tell an administrator.")
UNKNOWN = N_("Your company account is fine, but there is no account here for it. Ask an administrator to make one.")


def configured(settings: Settings) -> bool:
    """Whether there is a provider."""
    return settings.oidc_issuer is not None and settings.oidc_client_id is not None


def _client(request: Request) -> Any:
    settings = site_of(request).settings
    if not configured(settings):
        raise RefusedError(N_("There is nothing at this address. It may have been merged or was mistyped."), 404)
    state = request.app.state
    if not hasattr(state, "oidc"):
        with warnings.catch_warnings():
            # a library of its, which it is about to leave
            warnings.simplefilter("ignore")
            from authlib.integrations.starlette_client import OAuth  # noqa: PLC0415  only where there is a provider
        secret = settings.oidc_client_secret
        state.oidc = OAuth()
        state.oidc.register(
            "provider",
            client_id=settings.oidc_client_id,
            client_secret=None if secret is None else secret.get_secret_value(),
            server_metadata_url=str(settings.oidc_issuer).rstrip("/") + "/.well-known/openid-configuration",
            client_kwargs={"scope": "openid profile email", "code_challenge_method": "S256", "timeout": 10, "trust_env": False},
        )
    return state.oidc.create_client("provider")


async def start(request: Request, to: str) -> Response:
    """To the provider, with state, nonce and a challenge that only we can answer."""
    client = _client(request)
    request.session["to"] = to
    public = (site_of(request).settings.public_url or str(request.base_url)).rstrip("/")
    try:
        answer: Response = await client.authorize_redirect(request, f"{public}/oidc/back")
    except (httpx.HTTPError, AuthlibBaseError, RuntimeError, ValueError) as error:
        logger.warning("the OIDC provider was not reached: %s", type(error).__name__)
        raise RefusedError(FAILED, 502) from None
    return answer


async def back(request: Request) -> Response:
    """The provider's answer: checked by signature, issuer, audience, time and nonce, and then against our accounts."""
    client = _client(request)
    try:
        token = await client.authorize_access_token(request)
    except (httpx.HTTPError, AuthlibBaseError, JoseError, RuntimeError, ValueError, KeyError) as error:
        # the reason may hold what the provider said of somebody
        logger.warning("signing in by OIDC failed: %s", type(error).__name__)
        raise RefusedError(FAILED, 403) from None
    claims = token.get("userinfo") or {}
    if not claims.get("sub") or not claims.get("iss"):
        raise RefusedError(FAILED, 403)
    return await run_in_threadpool(_admit, request, claims, request.session.pop("to", "/"))


def _admit(request: Request, claims: dict[str, Any], to: str) -> Response:
    site = site_of(request)
    login = claims.get("email") if claims.get("email_verified") is True else None
    if login is None and site.settings.oidc_trust_username:
        login = claims.get("preferred_username")
    with answering(), site.pool.connection() as db:
        person = accounts.of_subject(db, f"{claims['iss']}|{claims['sub']}", login)
        if person is None:
            raise RefusedError(UNKNOWN, 403)
        return let_in(site, request, db, person, "oidc", to)
