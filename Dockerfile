FROM rust:1.95-slim-bookworm AS build
WORKDIR /build
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential \
    && rm -rf /var/lib/apt/lists/*

# The dependencies in a layer of their own: it stays until Cargo.toml or Cargo.lock change.
COPY .cargo .cargo
COPY Cargo.toml Cargo.lock build.rs ./
COPY policies/Cargo.toml policies/
RUN mkdir -p src benches/load \
    && touch benches/chain.rs benches/load/main.rs \
    && echo '//! Replaced below.' | tee src/lib.rs policies/lib.rs > src/main.rs \
    && echo 'fn main() {}' >> src/main.rs \
    && cargo build --profile dist --locked

COPY config config
COPY docs/frontend.md docs/
# `docker build --build-arg COMMIT=$(git rev-parse --short HEAD) .` has `--version` name it.
ARG COMMIT
ENV IMGWIRE_GATE_COMMIT=$COMMIT
COPY policies policies
COPY src src
RUN touch src/lib.rs src/main.rs policies/lib.rs \
    && cargo build --profile dist --locked --bin imgwire-gate

FROM debian:bookworm-slim
COPY --from=build /build/target/dist/imgwire-gate /usr/local/bin/imgwire-gate
COPY config/default.toml /etc/imgwire-gate/config.toml
RUN mkdir -p /var/lib/imgwire-gate/data && chown -R 10001:10001 /var/lib/imgwire-gate
WORKDIR /var/lib/imgwire-gate
VOLUME /var/lib/imgwire-gate/data
USER 10001:10001
EXPOSE 8080
ENV IMGWIRE_GATE_CONFIG=/etc/imgwire-gate/config.toml
HEALTHCHECK --interval=10s --timeout=3s --start-period=2s CMD ["imgwire-gate", "health"]
ENTRYPOINT ["imgwire-gate"]
CMD ["serve"]
