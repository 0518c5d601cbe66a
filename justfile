# One verb for each task. `just` lists them.
set shell := ["bash", "-euo", "pipefail", "-c"]

_list:
    @just --list --unsorted

# The release binary: target/release/sidegate
build:
    cargo build --release --locked --bin sidegate

# All tests: `just test`, or those whose names contain a word: `just test drain`
test *filter:
    cargo test --workspace {{filter}}

# Format, lints, and the documentation's own links
lint:
    cargo fmt --all -- --check
    cargo clippy --workspace --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# Licences and known defects of the dependencies (cargo install --locked cargo-deny)
audit:
    cargo deny check

# The documentation of the code, in the browser
docs:
    cargo doc --workspace --no-deps --open

# A shop with its mesh on this machine; --once checks it and ends
demo *args:
    cargo run --release -- demo {{args}}

# Cost of single steps (criterion): `just bench routes`
bench *name:
    cargo bench {{ if name == "" { "--benches" } else { "--bench " + name } }}

# Side by side with Envoy and others; see benches/compare/README.md
compare peers="envoy_log,haproxy,ours" scenarios="h1,h2" rounds="5":
    cargo build --release --locked --bin sidegate
    python3 benches/compare/bench.py run -r {{rounds}} -p {{peers}} -s {{scenarios}} -o benches/compare/out/rows.jsonl
    python3 benches/compare/bench.py table benches/compare/out/rows.jsonl --ref envoy_log

# What a running proxy executes, for the linker to put together: link/resident.ld, made again after larger changes (valgrind)
resident:
    SIDEGATE_PLAIN_LINK=1 cargo build --release --locked --bin sidegate
    python3 benches/compare/resident.py target/release/sidegate

# Real peers on loopback: curl, nghttp2, gRPC, WebSocket, nginx, Envoy, interception
interop *only:
    cargo build --release --locked --bin sidegate
    tests/interop/run {{only}}

# One parser of outside bytes, for some seconds (cargo +nightly, cargo-fuzz): `just fuzz head 60`
fuzz target seconds="60":
    cargo +nightly fuzz run {{target}} -- -max_total_time={{seconds}}

# The container image
image tag="sidegate:dev":
    docker build -t {{tag}} .

# All that a change has to pass, as a new machine would run it
ci:
    .ci/run
