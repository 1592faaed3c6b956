# The proxy, its sessions and the embedded engine in one image; ComfyUI instances are elsewhere, named by --backend.
#   docker build -t comfy-cluster .
#   docker run --init -p 8188:8188 -v comfy:/data comfy-cluster up --host 0.0.0.0 --backend http://10.0.0.5:8188
FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY proxy proxy
COPY backend_pool backend_pool
COPY user_sessions user_sessions
COPY templates templates
RUN python -m venv /opt/comfy-cluster && /opt/comfy-cluster/bin/pip install --no-cache-dir -c constraints.txt .

FROM python:3.12-slim
RUN useradd --uid 1000 --create-home comfy && install -d -o comfy -g comfy -m 0700 /data
COPY --from=build /opt/comfy-cluster /opt/comfy-cluster
ENV PATH=/opt/comfy-cluster/bin:$PATH COMFY_CLUSTER_DATA_DIR=/data
USER comfy
WORKDIR /home/comfy
VOLUME /data
EXPOSE 8188
# --init (or a pod's shared process namespace) reaps what sessions leave behind; SIGTERM drains and exits with 0.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s CMD ["python", "-c", \
    "import urllib.request as r; r.urlopen('http://127.0.0.1:8188/cluster/readyz', timeout=4)"]
ENTRYPOINT ["comfy-cluster"]
CMD ["up", "--host", "0.0.0.0"]
