# The workers of the reference application and the demonstration, in one image: docker build -t trunkline-worker .
#
#   --build-arg PYTHON_IMAGE=...   another base: Debian or Ubuntu with Python 3.11 or later
#   --build-arg EXTRAS=...         the extras of the bus to install
#   --build-arg PIP_INDEX_URL=...  another package index, which only the first stage uses

ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS build
ARG EXTRAS=transcription,documents,metrics,postgres,store
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
# The environment has no pip, because the container does not install packages.
RUN python3 -m venv /opt/pip && python3 -m venv --without-pip /opt/trunkline
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
# Dependencies have a separate layer, which a change of the code does not rebuild.
RUN mkdir bus && touch bus/__init__.py \
    && /opt/pip/bin/pip --python /opt/trunkline/bin/python install --no-cache-dir --disable-pip-version-check \
        --constraint constraints.txt ".[${EXTRAS}]"
COPY bus bus
RUN /opt/pip/bin/pip --python /opt/trunkline/bin/python install --no-cache-dir --disable-pip-version-check \
        --no-deps --force-reinstall .

FROM ${PYTHON_IMAGE}
# A numeric user shows an orchestrator that it is not root. Only this user reads the documents.
RUN groupadd --gid 10001 trunkline \
    && useradd --uid 10001 --gid 10001 --home-dir /app --no-create-home --shell /usr/sbin/nologin trunkline \
    && install --directory --mode=0700 --owner=10001 --group=10001 /documents /stores
COPY --from=build /opt/trunkline /opt/trunkline
WORKDIR /app
COPY contracts contracts
COPY workers workers
COPY examples/data examples/data
COPY scripts/definitions.py definitions.json ./
# No port is open unless BUS_HEALTH_PORT is set.
ENV PATH=/opt/trunkline/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    BUS_HEALTH_HOST=0.0.0.0 \
    DOCUMENTS_FOLDER=/documents
USER 10001:10001
CMD ["bus", "run", "workers.transcription:router"]
