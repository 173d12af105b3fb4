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

# One image per program
images registry tag="v0.1.0":
    for program in node-labeler rebellions-vfio-manager $(ls crates | grep -- '-controller$'); do \
        docker build --build-arg PROGRAM=$program -t {{registry}}/$program:{{tag}} -f Containerfile . || exit 1; done
