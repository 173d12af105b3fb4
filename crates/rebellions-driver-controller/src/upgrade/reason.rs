//! Why a node is not done, and why a rollout stands still: one word each. `docs/guides/driver-upgrade.md` has a row for every one.

macro_rules! words {
    ($(#[$outer:meta])* $name:ident { $($(#[$inner:meta])* $variant:ident),+ $(,)? }) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$inner])* $variant),+
        }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The word that people see.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => stringify!($variant)),+
                }
            }
        }
    };
}

words! {
    /// Why a node is not done yet, or failed. The order is that in which they are shown, worst first.
    Reason {
        /// The driver's container ends again and again.
        DriverCrashes,
        /// The registry does not have the driver's image.
        DriverImageMissing,
        /// The driver's pod does not become ready.
        DriverNotReady,
        /// Fewer NPUs are allocatable than before.
        NpusMissing,
        /// The node stopped answering while its driver was replaced.
        NodeLost,
        /// The node's kubelet does not answer; its driver was not touched.
        NodeNotReady,
        /// The driver's pod does not end.
        DriverPodTerminating,
        /// There is no driver pod.
        DriverPodMissing,
        /// Components that use the driver do not step aside.
        DependentsStay,
        /// The API server refuses to write the node.
        WriteRefused,
        /// Pods did not leave in time.
        EvictionTimedOut,
        /// The policy forbids to evict a pod.
        PodNotEvictable,
        /// The node's pods could not be read.
        PodsUnknown,
        /// What the image's tag is made of is not known of the node.
        KernelUnknown,
        /// Somebody asked for an upgrade while the policy switches upgrades off.
        AutoUpgradeOff,
        /// Jobs are waited for.
        JobsRunning,
        /// Pods that use NPUs are leaving.
        EvictingPods,
        /// Components that use the driver are stepping aside.
        DependentsLeaving,
        /// The kubelet still reports NPUs of a device plugin that is gone.
        NpusLeaving,
        /// The new driver is being installed.
        DriverStarting,
        /// An admin keeps the node from being upgraded.
        Skipped,
        /// The rollout has paused itself.
        FailureThresholdExceeded,
        /// An admin has paused the rollout.
        Paused,
        /// As many nodes as allowed are unavailable.
        WaitingForBudget,
        /// The first node of its pool has to prove the driver.
        WaitingForFirstNode,
        /// As many nodes as allowed are under way.
        WaitingForTurn,
    }
}

impl Reason {
    /// The reason that a word stands for.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.as_str() == word)
    }

    /// Whether it is a failure of the new driver, of which too many pause the rollout. A pod that may not be evicted says
    /// nothing about the driver, and an image that does not exist was never run. What takes drivers away without the driver's
    /// fault, such as a quota that lets no pod be made, counts as well: going on would take away more.
    #[must_use]
    pub const fn speaks_against_driver(self) -> bool {
        matches!(
            self,
            Self::DriverCrashes | Self::DriverNotReady | Self::NpusMissing | Self::DriverPodMissing | Self::NodeLost
        )
    }
}

words! {
    /// Why a rollout stands still.
    Blocked {
        /// Too many nodes failed.
        FailureThresholdExceeded,
        /// The API server refuses to write the nodes that are left.
        WriteRefused,
        /// An admin has paused it.
        Paused,
        /// Nodes that are unavailable for other causes use up what may be unavailable.
        BudgetUsedUp,
        /// The registry does not have the image of any pool that is left.
        DriverImageMissing,
        /// No node that is left is ready.
        NodesNotReady,
        /// Every node that is left has failed and is tried again later.
        NodesFailed,
    }
}
