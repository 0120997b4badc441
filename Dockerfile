# The program, statically linked, for the architecture of the machine that builds it: the last stage needs nothing but it.
FROM rust:1.95-slim-bookworm AS build
WORKDIR /build
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential \
    && rm -rf /var/lib/apt/lists/*
# glibc, because musl's functions for memory cost CPU time per request.
ENV RUSTFLAGS="-C target-feature=+crt-static"
RUN rustc --print host-tuple > /target

# The dependencies have a layer of their own, which is built again only if Cargo.toml or Cargo.lock changes.
COPY .cargo .cargo
COPY Cargo.toml Cargo.lock build.rs ./
COPY policies/Cargo.toml policies/
RUN mkdir -p src benches/load benches/chain \
    && touch benches/chain/main.rs benches/load/main.rs \
    && echo '//! Replaced below.' | tee src/lib.rs policies/lib.rs > src/main.rs \
    && echo 'fn main() {}' >> src/main.rs \
    && cargo build --profile dist --locked --target "$(cat /target)"

COPY config config
COPY docs/frontend.md docs/
# `docker build --build-arg COMMIT=$(git rev-parse --short HEAD) .` makes `--version` name the commit.
ARG COMMIT
ENV IMGWIRE_GATE_COMMIT=$COMMIT
COPY policies policies
COPY src src
RUN touch src/lib.rs src/main.rs policies/lib.rs \
    && cargo build --profile dist --locked --target "$(cat /target)" --bin imgwire-gate \
    && install -D "target/$(cat /target)/dist/imgwire-gate" /root-of-image/usr/local/bin/imgwire-gate \
    && install -D -m 644 config/default.toml /root-of-image/etc/imgwire-gate/config.toml \
    && install -d -o 10001 -g 10001 /root-of-image/var/lib/imgwire-gate /root-of-image/var/lib/imgwire-gate/data \
    && install -d -m 1777 /root-of-image/tmp

# The authorities that sign certificates, the time zones and a DNS client are in the program.
FROM scratch
COPY --from=build /root-of-image /
WORKDIR /var/lib/imgwire-gate
VOLUME /var/lib/imgwire-gate/data
USER 10001:10001
EXPOSE 8080
ENV IMGWIRE_GATE_CONFIG=/etc/imgwire-gate/config.toml
HEALTHCHECK --interval=10s --timeout=3s --start-period=2s CMD ["/usr/local/bin/imgwire-gate", "health"]
ENTRYPOINT ["/usr/local/bin/imgwire-gate"]
CMD ["serve"]
