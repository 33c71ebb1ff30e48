# cclseg on a Jetson with JetPack 6 (Orin). On the Jetson, from the folder of the checkout:
#
#   docker build -f deploy/jetpack6.Dockerfile -t cclseg .
#   docker run --runtime nvidia --cap-drop ALL -p 127.0.0.1:8080:8080 \
#     --device /dev/video0 --volume /tmp/argus_socket:/tmp/argus_socket cclseg csi://0
#
# The image has CUDA 12.6 and TensorRT 10.3 of JetPack 6.2; the runtime "nvidia" adds the driver, the
# decoders and nvarguscamerasrc of the device.

FROM nvcr.io/nvidia/l4t-jetpack:r36.4.0

RUN apt-get update && \
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
      g++ gstreamer1.0-libav gstreamer1.0-plugins-bad gstreamer1.0-plugins-base \
      gstreamer1.0-plugins-good gstreamer1.0-plugins-ugly gstreamer1.0-tools \
      python3-libnvinfer python3-venv && \
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
