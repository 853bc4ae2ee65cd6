# The web page and the HTTP service, without PyTorch and without root. See docs/serving.md.
#
#   docker build -t carmask .
#   docker run --rm -p 127.0.0.1:8000:8000 --read-only --cap-drop ALL carmask

FROM python:3.11-slim AS build
WORKDIR /build
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src ./src
RUN python -m venv /opt/carmask \
 && /opt/carmask/bin/pip install --no-cache-dir --disable-pip-version-check --constraint constraints.txt '.[serve]' \
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
