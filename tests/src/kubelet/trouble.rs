//! What a test makes go wrong with pods of certain images on certain machines.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;

/// Something that goes wrong with every pod whose main image contains a text, on all machines or on some.
#[derive(Clone, Debug, PartialEq)]
pub struct Trouble {
    pub(super) kind: Kind,
    image: String,
    nodes: Vec<String>,
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    ImageMissing,
    Crash { exit_code: i32 },
    Slow(Duration),
    NeverReady,
}

impl Kind {
    /// Whether it is also about a container that has long been ready.
    pub(super) fn harms_what_runs(&self) -> bool {
        matches!(self, Self::Crash { .. } | Self::NeverReady)
    }
}

impl Trouble {
    fn new(kind: Kind, image: &str) -> Self {
        Self { kind, image: image.into(), nodes: vec![] }
    }

    /// The registry has no such image: init containers run, then the main one stays in
    /// `ImagePullBackOff`. What runs already runs on.
    #[must_use]
    pub fn image_missing(image: &str) -> Self {
        Self::new(Kind::ImageMissing, image)
    }

    /// The main container ends with this code half a second after each start: `CrashLoopBackOff`, restarts are counted.
    #[must_use]
    pub fn crash(image: &str, exit_code: i32) -> Self {
        Self::new(Kind::Crash { exit_code }, image)
    }

    /// The main container runs at once when it starts, and is ready only after this time.
    #[must_use]
    pub fn slow(image: &str, time: Duration) -> Self {
        Self::new(Kind::Slow(time), image)
    }

    /// The main container runs and is never ready.
    #[must_use]
    pub fn never_ready(image: &str) -> Self {
        Self::new(Kind::NeverReady, image)
    }

    /// Only on these machines.
    #[must_use]
    pub fn on<S: AsRef<str>>(self, nodes: &[S]) -> Self {
        Self { nodes: nodes.iter().map(|node| node.as_ref().to_owned()).collect(), ..self }
    }

    /// Whether it is about this pod.
    pub(super) fn hits(&self, pod: &Pod) -> bool {
        let Some(spec) = &pod.spec else { return false };
        let image = spec.containers.first().and_then(|container| container.image.as_deref()).unwrap_or_default();
        let node = spec.node_name.as_deref().unwrap_or_default();
        image.contains(&self.image) && (self.nodes.is_empty() || self.nodes.iter().any(|one| one == node))
    }
}
