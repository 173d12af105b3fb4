//! Where a node's upgrade stands.

/// The values of the label [`accelerator_api::contract::DRIVER_UPGRADE_STATE_LABEL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// No new pod is scheduled to the node; jobs are waited for and pods that use NPUs are evicted.
    Cordoned,
    /// No pod uses an NPU. Dependents step aside and the driver's pod is replaced.
    Restarting,
    /// The new driver runs. Dependents are back, and as many NPUs as before have to become allocatable.
    Validating,
    /// The wanted driver runs.
    Done,
    /// It did not work out; the record says why and when it is tried again.
    Failed,
    /// An admin keeps the node from being upgraded.
    Skipped,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Cordoned, Self::Restarting, Self::Validating, Self::Done, Self::Failed, Self::Skipped];

    /// The label's value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cordoned => "Cordoned",
            Self::Restarting => "Restarting",
            Self::Validating => "Validating",
            Self::Done => "Done",
            Self::Failed => "Failed",
            Self::Skipped => "Skipped",
        }
    }

    /// The state that a label value stands for; `None` for anything else, such as the vendor's values.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == value)
    }

    /// Whether the node's driver is being replaced: from the cordon on until it is done or has failed.
    #[must_use]
    pub const fn is_under_way(self) -> bool {
        matches!(self, Self::Cordoned | Self::Restarting | Self::Validating)
    }
}
