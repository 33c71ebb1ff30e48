# cclseg on any processor. From the folder of the checkout:
#
#   docker build -f deploy/cpu.Dockerfile -t cclseg .
#   docker run --read-only --tmpfs /tmp --tmpfs /run/cclseg:uid=10001 --cap-drop ALL \
#     -p 127.0.0.1:8080:8080 cclseg rtsp://10.0.0.7/live

FROM python:3.12-slim-bookworm AS build

# The compiler builds the correlation operator into the package.
RUN apt-get update && \
    apt-get install --yes --no-install-recommends g++ && \
    rm -rf /var/lib/apt/lists/*

WORKDIR /src
COPY pyproject.toml README.md LICENSE build_native.py ./
COPY sdk ./sdk
COPY export ./export
COPY trainer ./trainer
RUN python -m venv /opt/cclseg && \
    /opt/cclseg/bin/pip install --no-cache-dir ".[cpu,geo,serve]"

FROM python:3.12-slim-bookworm

RUN apt-get update && \
    apt-get install --yes --no-install-recommends \
      gstreamer1.0-libav gstreamer1.0-plugins-bad gstreamer1.0-plugins-base \
      gstreamer1.0-plugins-good gstreamer1.0-plugins-ugly gstreamer1.0-tools && \
    rm -rf /var/lib/apt/lists/*

RUN useradd --system --uid 10001 --groups video --home-dir /data --create-home cclseg && \
    install --directory --owner cclseg /run/cclseg

COPY --from=build /opt/cclseg /opt/cclseg
ENV PATH=/opt/cclseg/bin:$PATH XDG_CACHE_HOME=/tmp PYTHONFAULTHANDLER=1

USER cclseg
WORKDIR /data
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=20s --start-period=5m --retries=3 \
  CMD ["cclseg", "doctor", "--health", "/run/cclseg/health.json"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["cclseg", "--log-json", "predict", "--health", "/run/cclseg/health.json", "--serve", "0.0.0.0:8080"]
CMD ["--help"]
