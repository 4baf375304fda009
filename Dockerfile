# Two images from one file:  --target worker  (users build theirs FROM it)  and  --target operator.
# Any base with Python 3.11 or newer as `python`, its venv module and CA certificates will do;
# production builds name it by digest: --build-arg BASE_IMAGE=docker.io/library/python@sha256:…
ARG BASE_IMAGE=docker.io/library/python:3.13-slim

FROM ${BASE_IMAGE} AS base
# The root file system is read-only in the cluster; pip has compiled what it installed.
ENV PATH=/opt/openworkflow/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
# Not root, and known by name to what asks for the user's.
RUN echo 'openworkflow:x:10001:10001::/app:/usr/sbin/nologin' >> /etc/passwd \
    && echo 'openworkflow:x:10001:' >> /etc/group

# Builds the wheel, with hashed tools that no later stage holds.
FROM base AS wheel
WORKDIR /src
COPY requirements/build.txt requirements/
RUN python -m venv /opt/openworkflow \
    && pip install --no-cache-dir --only-binary :all: --require-hashes -r requirements/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY worker worker
COPY operator operator
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .

# The dependencies come before the wheel: a change of the code leaves their layer as it is.
FROM base AS worker-environment
COPY requirements/worker.txt /requirements.txt
RUN python -m venv /opt/openworkflow \
    && pip install --no-cache-dir --only-binary :all: --require-hashes -r /requirements.txt
COPY --from=wheel /wheels /wheels
# Python before 3.12 puts setuptools into every environment.
RUN pip install --no-cache-dir --no-deps --no-index /wheels/*.whl && pip check \
    && pip uninstall --yes --quiet setuptools

FROM base AS operator-environment
COPY requirements/operator.txt /requirements.txt
RUN python -m venv /opt/openworkflow \
    && pip install --no-cache-dir --only-binary :all: --require-hashes -r /requirements.txt
COPY --from=wheel /wheels /wheels
# Users install into the worker, nobody into the operator: pip goes.
RUN pip install --no-cache-dir --no-deps --no-index /wheels/*.whl && pip check \
    && pip uninstall --yes --quiet setuptools pip

FROM base AS worker
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="OpenWorkflow worker" \
      org.opencontainers.image.description="Runs durable workflows from PostgreSQL; build yours from it" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=worker-environment /opt/openworkflow /opt/openworkflow
# Modules of this folder are what `openworkflow worker MODULE` imports.
WORKDIR /app
# By number, so that the kubelet can see that it is not root. The operator's pods use the same.
USER 10001:10001
EXPOSE 9090
STOPSIGNAL SIGTERM
ENTRYPOINT ["openworkflow"]
CMD ["worker"]

FROM base AS operator
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="OpenWorkflow operator" \
      org.opencontainers.image.description="Makes and scales a fleet of workers for each WorkflowNamespace" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=operator-environment /opt/openworkflow /opt/openworkflow
WORKDIR /app
USER 10001:10001
EXPOSE 8080
STOPSIGNAL SIGTERM
ENTRYPOINT ["openworkflow-operator"]
