# misure with the index's own PyTorch (4 GB, for NVIDIA GPUs); --build-arg TORCH_INDEX=<PyTorch's index of CPU wheels> makes it small.
# Extras are those of EXTRAS, which --build-arg replaces; left out: onnx, huggingface, monai, nnunet, captum, app, slurm, ray, wandb, bench, docs, dev.
#   docker build -t misure . && docker run --rm -v "$PWD:/work" --user "$(id -u):$(id -g)" misure plan profile=smoke
# Clusters without Docker (--nv: with the GPU; data and outputs are those of the folder it is started in):
#   docker save misure -o misure.tar && apptainer build misure.sif docker-archive:misure.tar
#   apptainer run --nv misure.sif reproduce profile=paper
ARG PYTHON=3.11

FROM python:${PYTHON} AS wheels
ARG TORCH_INDEX=
ARG EXTRAS=synapse,coco,reliability,report,images,parquet
COPY . /misure
RUN pip wheel --no-cache-dir --wheel-dir /wheels ${TORCH_INDEX:+--extra-index-url "${TORCH_INDEX}"} \
      --constraint /misure/constraints.txt "/misure[${EXTRAS}]"

FROM python:${PYTHON}-slim
ARG EXTRAS=synapse,coco,reliability,report,images,parquet
# hadolint ignore=DL3013
RUN --mount=type=bind,from=wheels,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-index --find-links /wheels "misure[${EXTRAS}]" \
    && useradd --uid 1000 misure && install --directory --owner misure /work
ENV HOME=/tmp
WORKDIR /work
USER 1000
ENTRYPOINT ["misure"]
CMD ["--help"]
