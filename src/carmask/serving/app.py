"""The service's routes, as a FastAPI application."""

import hmac
import re
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Form
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.templating import Jinja2Templates
from starlette.types import ASGIApp

from carmask import __version__
from carmask.serving.batches import BATCH_TYPES, BatchResponse
from carmask.serving.errors import (
    COMMON_ERRORS,
    SEGMENT_ERRORS,
    ClientDisconnected,
    ServiceError,
    as_service_error,
    describe_errors,
    error_response,
    internal_error,
    not_ready,
)
from carmask.serving.form import DESCRIBED_REQUEST, SegmentForm
from carmask.serving.metrics import CONTENT_TYPE, ServiceMetrics
from carmask.serving.middleware import REQUEST_ID, LimitMiddleware, RequestMiddleware
from carmask.serving.responses import RESULT_HEADERS, choose_media_type, describe_result
from carmask.serving.schemas import ModelInfo, Status
from carmask.serving.uploads import UploadRequest, take, while_connected
from carmask.serving.worker import PhotoTask, SegmentationWorker

bearer = HTTPBearer(auto_error=False, description="The service's token")
# A path of plain characters: it is shown in commands.
ROOT_PATH = re.compile(r"(/[\w.~-]+)+/?", re.ASCII)
# What browsers send along with requests to follow them through several programs.
_TRACING_HEADERS = ("traceparent", "tracestate", "baggage", "sentry-trace")


class ApiRoute(APIRoute):
    """A route below /v1. FastAPI reads a form before it runs dependencies; the token is checked before that."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap FastAPI's handler."""
        handle = super().get_route_handler()

        async def check_token_first(request: Request) -> Response:
            token = request.app.state.token
            if token is not None:
                credentials = await bearer(request)
                # Compared in a time that does not depend on how much of it is right.
                if credentials is None or not hmac.compare_digest(credentials.credentials.encode(), token.encode()):
                    message = "this service requires a token; send the header Authorization: Bearer TOKEN"
                    raise ServiceError(401, "unauthorized", message, {"WWW-Authenticate": "Bearer"})
            if request.query_params and request.method == "GET":
                raise ServiceError(400, "bad_request", "this address has no parameters; leave out what follows the ?")
            return await handle(UploadRequest(request.scope, request.receive))

        return check_token_first


health = APIRouter(tags=["health"], responses=describe_errors(*COMMON_ERRORS))
api = APIRouter(prefix="/v1", tags=["photos"], route_class=ApiRoute, responses=describe_errors(*COMMON_ERRORS))


@health.get("/healthz", summary="Whether the process is alive")
async def healthz() -> Status:
    """Always ok."""
    return Status(status="ok")


@health.get("/readyz", summary="Whether photos are accepted: the self-test passed and the network runs")
async def readyz(request: Request) -> Status:
    """Ready, or 503 with the reason."""
    worker = request.app.state.worker
    await worker.recover()
    if worker.problem is not None:
        raise not_ready(worker.problem)
    return Status(status="ready")


@health.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={200: {"description": "The metrics.", "content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def get_metrics(request: Request) -> Response:
    """All metrics as text."""
    return Response(request.app.state.metrics.text(), media_type=CONTENT_TYPE)


@api.get(
    "/model",
    summary="The network and the limits of a request",
    responses={**describe_errors(400), 200: {"model": ModelInfo}},
)
async def get_model(request: Request) -> JSONResponse:
    """Describe the network."""
    return JSONResponse(request.app.state.model)


@api.post(
    "/segment",
    summary="Segment a photo, or several",
    response_class=Response,
    responses={**describe_errors(*SEGMENT_ERRORS), 200: describe_result()},
    openapi_extra=DESCRIBED_REQUEST,
)
async def segment(request: Request, form: Annotated[SegmentForm, Form(media_type="multipart/form-data")]) -> Response:
    """Segment photos. When the client disconnects, the rest of the work is dropped."""
    is_batch = len(form.file) > 1
    offers = list(BATCH_TYPES) if is_batch else form.media_types()
    media_type = choose_media_type(",".join(request.headers.getlist("accept")), offers)
    background = await take(form.background_file) if form.background_file else None
    mask = await take(form.mask_file) if form.mask_file else None
    tasks = [
        PhotoTask(
            form=form,
            photo=await take(file),
            background=background,
            mask=mask,
            media_type=form.media_types()[0] if is_batch else media_type,
            request_id=request.state.request_id,
        )
        for file in form.file
    ]
    worker: SegmentationWorker = request.app.state.worker
    if is_batch:
        return BatchResponse(tasks, worker, request.app.state.metrics, media_type)
    return await while_connected(request.receive, worker.segment(tasks[0]))


def build_app(
    worker: SegmentationWorker,
    metrics: ServiceMetrics,
    *,
    token: str | None = None,
    origins: Sequence[str] = (),
    log_requests: bool = False,
    root_path: str = "",
) -> ASGIApp:
    """Build the application.

    token: clients must send it, if it is set. origins: sites whose pages may use it, too. root_path: the path below
    which a proxy puts the service.
    """
    app = _describe_app(has_token=token is not None, root_path=root_path)
    limits = worker.limits
    app.state.worker, app.state.metrics, app.state.token = worker, metrics, token
    request_limits = {"max_bytes": limits.max_bytes, "max_pixels": limits.max_pixels}
    app.state.model = {**worker.segmenter.describe(), "limits": request_limits}
    metrics.ready.set_function(lambda: worker.problem is None)
    _add_pages(app, root_path)
    app.add_exception_handler(HTTPException, _on_error)
    app.add_exception_handler(RequestValidationError, _on_error)
    app.add_exception_handler(Exception, _on_bug)
    # Not app.add_middleware: FastAPI answers bugs outside of that, and these responses need the headers too.
    wrapped: ASGIApp = LimitMiddleware(app, limits, metrics)
    if origins:
        wrapped = CORSMiddleware(
            wrapped,
            allow_origins=origins,
            allow_methods=["GET", "HEAD", "POST"],
            allow_headers=["Authorization", REQUEST_ID, *_TRACING_HEADERS],
            expose_headers=(REQUEST_ID, "Retry-After", *RESULT_HEADERS),
        )
    return RequestMiddleware(wrapped, metrics, log_requests=log_requests)


def _describe_app(*, has_token: bool, root_path: str = "") -> FastAPI:
    app = FastAPI(
        title="carmask",
        version=__version__,
        description="Cuts vehicles out of photos. Nothing that is sent is stored.",
        docs_url=None,
        redoc_url=None,
        # Not `root_path`: with it static files are not found where the proxy removes the path.
        servers=[{"url": root_path}] if root_path else None,
        # Redirects would go to wherever the Host header says.
        redirect_slashes=False,
    )
    app.include_router(health)
    if has_token:
        app.include_router(api, dependencies=[Depends(bearer)], responses=describe_errors(401))
    else:
        app.include_router(api)
    return app


def describe_api() -> dict[str, Any]:
    """The OpenAPI description of a service that requires no token."""
    return _describe_app(has_token=False).openapi()


class _PageFiles(StaticFiles):
    """The web page's files. A browser asks each time whether it has the newest ones."""

    def file_response(self, *args: Any, **keywords: Any) -> Response:
        response = super().file_response(*args, **keywords)
        response.headers["Cache-Control"] = "no-cache"
        return response


def _add_pages(app: FastAPI, root_path: str) -> None:
    files = _PageFiles(packages=[("carmask.serving", "static")])
    templates = Jinja2Templates(Path(__file__).parent)

    async def page(request: Request) -> Response:
        return await files.get_response("index.html", request.scope)

    async def docs(request: Request) -> Response:
        # Not FastAPI's own page: that loads Swagger UI from another server.
        prefix = request.headers.get("x-forwarded-prefix", "")
        path = prefix if ROOT_PATH.fullmatch(prefix) else root_path
        known = {"api": app.openapi(), "base": f"{str(request.base_url).rstrip('/')}{path.rstrip('/')}/"}
        return templates.TemplateResponse(request, "docs.html", known, headers={"Cache-Control": "no-cache"})

    app.add_route("/", page, include_in_schema=False)
    app.add_route("/docs", docs, include_in_schema=False)
    app.mount("/static", files)


async def _on_error(request: Request, error: Exception) -> Response:
    service_error = as_service_error(error)
    if service_error.status_code == 405:
        # StaticFiles does not say what it allows.
        allowed = {"OPTIONS", *(service_error.headers or {}).get("Allow", "GET").split(", ")}
        allow = ", ".join(sorted(allowed | {"HEAD"} if "GET" in allowed else allowed))
        if request.method == "OPTIONS":
            return Response(status_code=204, headers={"Allow": allow})
        service_error.headers = {"Allow": allow}
    elif request.method == "OPTIONS" and request.url.path in ("*", "/*"):
        return Response(status_code=204, headers={"Allow": "GET, HEAD, OPTIONS, POST"})
    metrics: ServiceMetrics = request.app.state.metrics
    if isinstance(service_error, ClientDisconnected):
        metrics.clients_gone.inc()
    else:
        metrics.errors.labels(service_error.code).inc()
    return error_response(service_error, request.state.request_id)


async def _on_bug(request: Request, _: Exception) -> Response:
    # The exception is raised again after this, and RequestMiddleware logs it.
    return error_response(internal_error(), request.state.request_id)
