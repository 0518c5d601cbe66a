# Both images can be replaced, for a mirror or another base: docker build --build-arg BASE=... .
ARG BUILDER=rust:1.95-bookworm
ARG BASE=debian:12-slim

FROM ${BUILDER} AS build
WORKDIR /src
COPY . .
# The caches outlive a build, so the binary is copied out of them.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin sidegate \
 && install -D -m 0755 target/release/sidegate /out/sidegate

FROM ${BASE}
LABEL org.opencontainers.image.title="sidegate" \
      org.opencontainers.image.description="A service-mesh sidecar proxy: Istio's YAML in, a tower stack out." \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /out/sidegate /usr/local/bin/sidegate
# Istio's uid for its proxy: interception rules tell the proxy's own traffic by it.
USER 1337:1337
# Nothing is written: the root may be read-only. Configuration is mounted at /etc/sidegate.
EXPOSE 15001 15006 15021 15090
HEALTHCHECK --interval=5s --timeout=2s --start-period=5s \
    CMD ["/usr/local/bin/sidegate", "probe"]
ENTRYPOINT ["/usr/local/bin/sidegate"]
CMD ["run", "--config", "/etc/sidegate"]
