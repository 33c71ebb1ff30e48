# cclseg on a Jetson with JetPack 7 (Thor, Orin). On the Jetson, from the folder of the checkout:
#
#   docker build -f deploy/jetpack7.Dockerfile -t cclseg .
#   docker run --runtime nvidia --cap-drop ALL -p 127.0.0.1:8080:8080 \
#     --device /dev/video0 --volume /tmp/argus_socket:/tmp/argus_socket cclseg csi://0
#
# From JetPack 7 on, Jetsons run the same images as ARM servers. This one has CUDA 13.0 and TensorRT
# 10.13 of JetPack 7.0 and 7.1; for 7.2, or another driver, name a later one: --build-arg RELEASE=...

ARG RELEASE=25.09-py3
FROM nvcr.io/nvidia/tensorrt:${RELEASE}

RUN apt-get update && \
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
      g++ gstreamer1.0-libav gstreamer1.0-plugins-bad gstreamer1.0-plugins-base \
      gstreamer1.0-plugins-good gstreamer1.0-plugins-ugly gstreamer1.0-tools \
      python3-venv && \
    rm -rf /var/lib/apt/lists/*

WORKDIR /src
COPY pyproject.toml README.md LICENSE build_native.py ./
COPY sdk ./sdk
COPY export ./export
COPY trainer ./trainer
# The environment sees the system's packages, since TensorRT is one of them.
RUN python3 -m venv --system-site-packages /opt/cclseg && \
    /opt/cclseg/bin/pip install --no-cache-dir ".[cpu,geo,gpu,serve,trt]"

RUN useradd --system --uid 10001 --groups video --home-dir /data --create-home cclseg && \
    install --directory --owner cclseg /run/cclseg

ENV PATH=/opt/cclseg/bin:$PATH XDG_CACHE_HOME=/tmp PYTHONFAULTHANDLER=1

USER cclseg
WORKDIR /data
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=20s --start-period=15m --retries=3 \
  CMD ["cclseg", "doctor", "--health", "/run/cclseg/health.json"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["cclseg", "--log-json", "predict", "--health", "/run/cclseg/health.json", "--serve", "0.0.0.0:8080"]
CMD ["--help"]
