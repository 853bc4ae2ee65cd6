"""The log as JSON lines, and W3C's trace context."""

import json
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from service_process import FORM, form, running

from carmask.serving.log import LOG, set_up_log, take_over_trace

TRACE_ID, PARENT_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE_ID}-{PARENT_ID}-01"


def test_every_line_is_an_object_and_tells_the_trace(bright: Path, photo: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    options = ("-m", bright, "--engine", "onnxruntime", "--device", "cpu", "--log-format", "json")
    with running(*options, errors=log) as service:
        headers = {"Content-Type": FORM, "traceparent": TRACEPARENT, "X-Request-Id": "r-1"}
        assert service.ask("POST", "/v1/segment?kind=mask", form(file=photo), headers).status == 200
        service.get("/a%C3%A9%22%0A\\", traceparent="00-nonsense")
        assert service.stop() == 0
    lines = [json.loads(line) for line in log.read_text(encoding="ascii").splitlines()]
    first, second = (line for line in lines if "status" in line)
    assert first["duration_ms"] > 0
    assert abs(datetime.fromisoformat(first["time"]) - datetime.now(UTC)) < timedelta(minutes=10)
    known = {"client": "127.0.0.1", "method": "POST", "path": "/v1/segment", "status": 200, "request_id": "r-1"}
    assert {**first, **known, "level": "info", "trace_id": TRACE_ID, "parent_id": PARENT_ID} == first
    assert first["traceparent"] == f"00-{TRACE_ID}-{first['span_id']}-01"
    assert first["span_id"] != PARENT_ID
    assert (second["status"], "trace_id" in second) == (404, False)
    assert all({"time", "level", "message"} <= line.keys() for line in lines)
    assert lines[-1]["message"] == "stopped"


def test_the_command_s_own_warnings_are_logged_with_quiet_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--quiet` leaves out requests, and `RequestMiddleware` sees to that."""
    for log in (LOG, logging.getLogger("uvicorn.error"), logging.getLogger("python_multipart")):
        for attribute, value in (("handlers", []), ("level", log.level), ("propagate", log.propagate)):
            monkeypatch.setattr(log, attribute, value)
    set_up_log("json")
    LOG.warning("everyone can use this service")
    assert json.loads(capsys.readouterr().err)["message"] == "everyone can use this service"


hexadecimal = st.text("0123456789abcdef", max_size=33)


@given(st.tuples(hexadecimal, hexadecimal, hexadecimal, hexadecimal).map("-".join) | st.text("0f-", max_size=60))
@example(TRACEPARENT)
@example(TRACEPARENT + "-more")
@example("01" + TRACEPARENT[2:] + "-more")
@example("ff" + TRACEPARENT[2:])
@example(f"00-{'0' * 32}-{PARENT_ID}-01")
@example(f"00-{TRACE_ID}-{'0' * 16}-01")
def test_a_trace_is_taken_over_as_opentelemetry_does(traceparent: str) -> None:
    propagation = pytest.importorskip("opentelemetry.trace.propagation.tracecontext")
    trace = pytest.importorskip("opentelemetry.trace")
    context = propagation.TraceContextTextMapPropagator().extract({"traceparent": traceparent})
    expected = trace.get_current_span(context).get_span_context()
    found = take_over_trace(traceparent)
    assert (found is not None) == expected.is_valid
    if found is not None:
        assert (int(found.trace_id, 16), int(found.parent_id, 16)) == (expected.trace_id, expected.span_id)
