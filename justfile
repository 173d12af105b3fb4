# Shortcuts. Nothing here is needed to build, test or run the project.

# What there is
_default:
    @just --list --unsorted

# Everything at work on a control plane of its own
demo *args:
    cargo demo -- {{args}}

# All tests, or those whose name contains a text
test *filter:
    cargo test {{filter}}

# The tests that need no cluster
test-pure:
    cargo test --workspace --exclude testbed && cargo test --package testbed --test pure

# A crash at every write of six workloads; about half an hour
crash-suite:
    cargo test --package testbed --test cluster -- --ignored --nocapture crash::

# A crash at every write of an upgrade of the driver; about five minutes
upgrade-suite:
    cargo test --package testbed --test cluster -- --ignored --nocapture driver_upgrade::

# Four hundred generated changes of the config
transition-suite:
    cargo test --package testbed --test cluster -- --ignored --nocapture transitions::

# The VFIO manager on a real kernel, in virtual machines with emulated NPUs; about a minute
vm-test *args:
    cargo run --package vm-suite -- {{args}}

# The operator on real nodes: kubelet, containerd and real pods; about ten minutes
node-test *args:
    cargo run --package node-suite -- {{args}}

# What it costs, beside a raw client; writes docs/performance.md
bench *args:
    cargo bench-cluster {{args}}

# Tests that take minutes each
long:
    cargo test --package testbed --test cluster -- --ignored faults::

# The recipe for a further component, carried out in a copy of the repository; a few minutes
sixth-component:
    cargo test --package testbed --test pure -- --ignored --nocapture sixth_component

# What has to pass before a change lands
check:
    .ci/run

# Format and lint
lint:
    cargo fmt && cargo clippy --workspace --all-targets -- -D warnings

# Rewrite every generated file: the CRD, the goldens, and the table of rights, for which kustomize is built the first time
generate:
    UPDATE_GOLDEN=1 cargo test --package testbed --test pure
    UPDATE_GOLDEN=1 cargo test --package testbed --test cluster -- the_table_of_rights

# An empty control plane to try things on by hand
control-plane *args:
    cargo run --package testbed --bin control-plane -- {{args}}

# The manifests of an overlay
render overlay="default":
    kubectl kustomize deploy/overlays/{{overlay}}

# Every image, built once; with docker, podman or buildah
images registry tag="v0.1.0" tool="docker":
    #!/bin/sh
    set -eu
    revision=$(git rev-parse HEAD)
    case "{{tool}}" in
        docker) set -- docker buildx build --provenance=false --load ;;
        # Without layers kept, the build would run once for each image.
        podman | buildah) set -- {{tool}} build --layers --timestamp 0 --identity-label=false ;;
        *) echo "the tool is docker, podman or buildah" >&2; exit 1 ;;
    esac
    for program in $(sed -n 's/^FROM image AS //p' Containerfile); do
        SOURCE_DATE_EPOCH=0 "$@" --file Containerfile --target "$program" --build-arg "REVISION=$revision" \
            --tag "{{registry}}/$program:{{tag}}" .
    done

# Every image as an OCI archive, without a tool for containers; --help tells of other architectures
image-archive *args:
    cargo run --package images -- --revision "$(git rev-parse HEAD)" {{args}}

# Every image that an installation can pull: of an overlay, and of files with its AcceleratorConfig and its nodes
image-list overlay="default" *args:
    #!/bin/sh
    set -eu
    # In a pipe its failure would pass unnoticed, and nothing installed reads like everything.
    rendered=$(kubectl kustomize deploy/overlays/{{overlay}})
    printf '%s\n' "$rendered" | cargo run --quiet --package testbed --bin image-list -- - {{args}}

# Each overlay as one file, install-OVERLAY.yaml: what a release ships
release-manifests folder="target/release-manifests":
    cargo run --package testbed --bin release-manifests -- {{folder}}

# The Helm chart, into an empty folder
chart folder="target/chart/accelerator-operator":
    cargo run --package testbed --bin chart -- {{folder}}

# Programs of the last release together with today's, a part switched at a time; ten minutes, and the first time what the old build takes
skew-suite:
    RUST_TEST_THREADS=2 cargo test --package testbed --test cluster -- --ignored --nocapture skew::

# Keep what this version promises, to compare the next one with: see releases/README.md
record-release version:
    RECORD_RELEASE={{version}} cargo test --package testbed --test pure -- what_is_kept
    RECORD_RELEASE={{version}} cargo test --package testbed --test cluster -- the_objects_of

# The samples for KubeVirt beside its published API types; needs Node.js
kubevirt-samples:
    cargo test --package testbed --test pure -- --ignored --nocapture kubevirt_types::

# Every image, built here and in a copy of the repository: the same digests; half an hour
image-suite:
    cargo test --package images --test reproducible -- --ignored --nocapture
