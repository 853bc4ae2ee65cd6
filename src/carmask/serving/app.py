"""The addresses of the service, and what answers at each."""

import asyncio
import hmac
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp

from carmask import __version__
from carmask.errors import CarmaskError
from carmask.serving import metrics as prometheus
from carmask.serving import openapi, refusals
from carmask.serving.docs import docs_page
from carmask.serving.envelope import Envelope
from carmask.serving.gate import Gate
from carmask.serving.metrics import Metrics
from carmask.serving.page import load_assets
from carmask.serving.readiness import self_test
from carmask.serving.refusals import Refusal, as_refusal
from carmask.serving.segment import ClientGone, segment
from carmask.serving.service import Service

_HEALTH = frozenset({"/healthz", "/readyz", "/metrics"})
_ADDRESSES = _HEALTH | {"/", "/docs", "/openapi.json", "/v1/model", "/v1/segment"}

# What nginx calls it when a client left; nobody gets to see it but the log.
_CLIENT_GONE = 499

_EXPOSED = ("X-Request-Id", "Retry-After", *openapi.RESULT_HEADERS)


@dataclass(frozen=True)
class Access:
    """Who may use the service. token: must be sent along, if there is one. origins: other sites whose pages may."""

    token: str | None = None
    origins: Sequence[str] = ()


def build_app(
    service: Service,
    metrics: Metrics,
    access: Access,
    *,
    is_logged: bool,
    on_tested: Callable[[CarmaskError | None], None],
) -> ASGIApp:
    """Put the service together. Its self-test begins with it; `on_tested` is told how that ends."""

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        testing = asyncio.create_task(_test(service, on_tested))
        yield
        testing.cancel()
        with suppress(asyncio.CancelledError):
            await testing
        service.close()

    app = FastAPI(
        title="carmask",
        version=__version__,
        description="Cuts vehicles out of photos. Nothing that is sent is kept.",
        docs_url=None,
        redoc_url=None,
        # They would lead to wherever the header Host says.
        redirect_slashes=False,
        lifespan=life,
    )
    _add_pages(app)
    app.include_router(_health(service, metrics))
    app.include_router(_api(service, metrics, access.token))
    _say_errors(app, metrics)
    gate = Gate(app, service.limits, metrics, always_open=_HEALTH)
    inner: ASGIApp = gate
    if access.origins:
        inner = CORSMiddleware(
            gate,
            allow_origins=access.origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization"],
            expose_headers=_EXPOSED,
        )
    metrics.ready.set_function(lambda: service.obstacle is None)
    return Envelope(inner, metrics, addresses=_ADDRESSES, is_logged=is_logged)


async def _test(service: Service, on_tested: Callable[[CarmaskError | None], None]) -> None:
    try:
        await self_test(service)
    except Exception as error:  # noqa: BLE001 - a service that cannot test itself says so and ends
        failure = error if isinstance(error, CarmaskError) else CarmaskError(f"the self-test failed: {error!r}")
        service.obstacle = str(failure)
        on_tested(failure)
    else:
        service.open()
        on_tested(None)


def _health(service: Service, metrics: Metrics) -> APIRouter:
    router = APIRouter(tags=["health"], responses=openapi.refusals_of(openapi.EVERYWHERE))
    yes = openapi.json_answer("Yes.", openapi.STATUS)

    @router.get("/healthz", summary="Whether the process answers", responses={200: yes})
    async def healthz() -> JSONResponse:
        return JSONResponse({"status": "ok"})

    @router.get("/readyz", summary="Whether photos can be cut out, by a self-test", responses={200: yes})
    async def readyz() -> JSONResponse:
        if service.obstacle is not None:
            raise refusals.not_ready(service.obstacle)
        return JSONResponse({"status": "ready"})

    @router.get(
        "/metrics",
        summary="Counters for Prometheus",
        response_class=Response,
        responses={200: {"description": "The counters.", "content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def counters() -> Response:
        return Response(metrics.text(), media_type=prometheus.CONTENT_TYPE)

    return router


def _api(service: Service, metrics: Metrics, token: str | None) -> APIRouter:
    described = openapi.refusals_of((*openapi.EVERYWHERE, *((401,) if token else ())))
    router = APIRouter(
        prefix="/v1", tags=["photos"], dependencies=[Depends(_guard(token))] if token else [], responses=described
    )
    limits = {"max_bytes": service.limits.max_bytes, "max_pixels": service.limits.max_pixels}
    model = JSONResponse({**service.segmenter.describe(), "limits": limits})

    told = openapi.json_answer("Its name, input, threshold and engine.", openapi.MODEL)

    @router.get("/model", summary="The network, and the limits", responses={200: told})
    async def show_model() -> JSONResponse:
        return model

    @router.post(
        "/segment",
        summary="Cut out one photo",
        response_class=Response,
        responses={**openapi.refusals_of(openapi.SEGMENT), 200: openapi.success_of_segment()},
        openapi_extra={"requestBody": openapi.form_of_segment()},
    )
    async def cut_out(request: Request) -> Response:
        try:
            return await segment(request, service)
        except ClientGone:
            metrics.clients_gone.inc()
            return Response(status_code=_CLIENT_GONE)

    return router


def _guard(token: str) -> Callable[..., Any]:
    bearer = HTTPBearer(auto_error=False, description="The token of the service's owner")

    async def guard(given: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> None:
        # Compared in a time that does not depend on how much of it is right.
        if given is None or not hmac.compare_digest(given.credentials.encode(), token.encode()):
            raise Refusal(
                401,
                "unauthorized",
                "this service wants a token; send the header Authorization: Bearer TOKEN",
                {"WWW-Authenticate": "Bearer"},
            )

    return guard


def _add_pages(app: FastAPI) -> None:
    assets = load_assets()

    async def page(request: Request) -> Response:
        return assets["index.html"].answer(request)

    async def asset(request: Request) -> Response:
        found = assets.get(request.path_params["name"])
        if found is None:
            raise HTTPException(404)
        return found.answer(request)

    async def docs(request: Request) -> Response:
        return HTMLResponse(docs_page(app.openapi(), str(request.base_url)), headers={"Cache-Control": "no-cache"})

    app.add_route("/", page, include_in_schema=False)
    app.add_route("/static/{name}", asset, include_in_schema=False)
    app.add_route("/docs", docs, include_in_schema=False)


def _say_errors(app: FastAPI, metrics: Metrics) -> None:
    async def refuse(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        refusal = as_refusal(error)
        metrics.refusals.labels(refusal.code).inc()
        return refusals.answer(refusal, request.state.request_id)

    async def fail(request: Request, _: Exception) -> Response:
        # It is raised once more afterwards, and stands in the log then.
        return refusals.answer(refusals.defect(), request.state.request_id)

    app.add_exception_handler(HTTPException, refuse)
    app.add_exception_handler(Exception, fail)
