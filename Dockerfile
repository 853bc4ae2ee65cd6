# The web page and the HTTP service, without PyTorch and without root. See docs/serving.md.
#
#   docker build -t carmask .
#   docker run --rm -p 127.0.0.1:8000:8000 --read-only --cap-drop ALL carmask

FROM python:3.11-slim AS build
WORKDIR /build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# Nothing is installed whose hash is not in one of these files. The second is for x86_64.
COPY deploy/requirements-build.lock deploy/requirements-serve.lock ./
RUN python -m venv /opt/build \
 && /opt/build/bin/pip install --require-hashes --requirement requirements-build.lock \
 && python -m venv /opt/carmask \
 && /opt/carmask/bin/pip install --require-hashes --requirement requirements-serve.lock
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
 && /opt/carmask/bin/pip install --no-deps --no-index dist/*.whl \
 && /opt/carmask/bin/pip uninstall --yes --quiet pip

FROM python:3.11-slim
COPY --from=build /opt/carmask /opt/carmask
ENV PATH=/opt/carmask/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
# A number, so that an orchestrator sees that it is not root; it owns nothing and can write nowhere.
USER 10001:10001
WORKDIR /
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
ENTRYPOINT ["carmask", "serve", "--host", "0.0.0.0", "--port", "8000"]
