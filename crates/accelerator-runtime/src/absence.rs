//! When to believe that there is no AcceleratorConfig.
//!
//! Everything of ours is removed then, so seeing none is not enough. A CRD that is deleted, to be made again, takes its
//! objects along one by one and is gone a moment later; then the API server cannot be asked any more.

use std::time::Duration;

use accelerator_api::ObservedConfig;
use kube::api::ListParams;
use kube::{Api, Client};
use tokio::time::Instant;

/// How long there must have been none before the API server is asked. Longer than the five seconds that it may take to
/// notice that a CRD under deletion has no objects left.
const ASK_AFTER: Duration = Duration::from_secs(10);

/// How often it is asked while there is reason to state.
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// How long a CRD that was gone has to be back before it is believed to have no objects: whoever made it again is about to
/// make them again.
const GRACE: Duration = Duration::from_mins(10);

/// Whether there is no AcceleratorConfig at all.
#[derive(Debug)]
pub struct AbsenceCheck {
    configs: Api<ObservedConfig>,
    state: AbsenceState,
}

/// What the API server said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ListResult {
    /// There is none.
    Empty,
    /// There are some, or it did not answer.
    Unclear,
    /// It knows no such resource.
    NoCrd,
}

/// How certain it is that there is no AcceleratorConfig. Pure: times and results are arguments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum AbsenceState {
    /// None has been seen since this process began to lead. It does not know what happened before: as with a CRD that
    /// was gone.
    #[default]
    Unseen,
    /// There is one.
    Present,
    /// None is known; to be asked for then.
    Unconfirmed { ask_at: Instant },
    /// The CRD was gone and may have come back without objects at that time; to be asked for then.
    CrdGone { back_since: Option<Instant>, ask_at: Instant },
    /// There is none.
    Confirmed,
}

impl AbsenceState {
    /// The state after it is known whether there is one.
    fn look(self, none_is_known: bool, now: Instant) -> Self {
        match self {
            _ if !none_is_known => Self::Present,
            Self::Unseen => Self::CrdGone { back_since: None, ask_at: now },
            Self::Present => Self::Unconfirmed { ask_at: now + ASK_AFTER },
            same => same,
        }
    }

    fn ask_at(self) -> Option<Instant> {
        match self {
            Self::Unconfirmed { ask_at } | Self::CrdGone { ask_at, .. } => Some(ask_at),
            Self::Unseen | Self::Present | Self::Confirmed => None,
        }
    }

    /// The state after a list.
    fn hear(self, answer: ListResult, now: Instant) -> Self {
        let ask_at = now + ASK_AGAIN;
        match (self, answer) {
            (_, ListResult::NoCrd) => Self::CrdGone { back_since: None, ask_at },
            (Self::Unconfirmed { .. }, ListResult::Empty) => Self::Confirmed,
            (Self::Unconfirmed { .. }, ListResult::Unclear) => Self::Unconfirmed { ask_at },
            (Self::CrdGone { back_since: Some(since), .. }, ListResult::Empty) if now >= since + GRACE => {
                Self::Confirmed
            }
            (Self::CrdGone { back_since, .. }, ListResult::Empty) => {
                Self::CrdGone { back_since: back_since.or(Some(now)), ask_at }
            }
            (Self::CrdGone { back_since, .. }, ListResult::Unclear) => Self::CrdGone { back_since, ask_at },
            (same, _) => same,
        }
    }
}

impl AbsenceCheck {
    /// Nothing known yet.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { configs: Api::all(client), state: AbsenceState::default() }
    }

    /// Forgets what was known: another replica leads, and sees what this one may miss.
    pub fn forget(&mut self) {
        self.state = AbsenceState::default();
    }

    /// Whether it is certain that there is none, given whether one is known. Asks the API server when it is time to.
    pub async fn look(&mut self, none_is_known: bool) -> bool {
        self.state = self.state.look(none_is_known, Instant::now());
        if self.state.ask_at().is_some_and(|at| at <= Instant::now()) {
            let answer = self.ask().await;
            self.state = self.state.hear(answer, Instant::now());
        }
        self.state == AbsenceState::Confirmed
    }

    /// When to look again even if nothing changes.
    #[must_use]
    pub fn due_at(&self) -> Option<Instant> {
        self.state.ask_at()
    }

    async fn ask(&self) -> ListResult {
        match self.configs.list_metadata(&ListParams::default().limit(1)).await {
            Ok(list) if list.items.is_empty() => ListResult::Empty,
            Err(kube::Error::Api(status)) if status.code == 404 => ListResult::NoCrd,
            _ => ListResult::Unclear,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hears these answers, each when it is time to ask; returns how long it took to be certain.
    fn certain_after(answers: &[ListResult]) -> Option<Duration> {
        certain(AbsenceState::Present, answers)
    }

    fn certain(before: AbsenceState, answers: &[ListResult]) -> Option<Duration> {
        let begun = Instant::now();
        let mut state = before.look(true, begun);
        for answer in answers.iter().chain(std::iter::repeat_n(answers.last()?, 1000)) {
            let now = state.ask_at()?;
            state = state.hear(*answer, now);
            if state == AbsenceState::Confirmed {
                return Some(now - begun);
            }
        }
        None
    }

    #[test]
    fn none_is_believed_when_the_api_server_says_so_a_while_later() {
        assert_eq!(certain_after(&[ListResult::Empty]), Some(ASK_AFTER));
        assert_eq!(certain_after(&[ListResult::Unclear, ListResult::Empty]), Some(ASK_AFTER + ASK_AGAIN));
        assert_eq!(certain_after(&[ListResult::Unclear]), None);
    }

    #[test]
    fn a_process_that_never_saw_one_gives_time_as_well() {
        assert_eq!(certain(AbsenceState::default(), &[ListResult::Empty]), Some(GRACE));
        assert_eq!(certain(AbsenceState::default(), &[ListResult::NoCrd, ListResult::Empty]), Some(ASK_AGAIN + GRACE));
    }

    #[test]
    fn a_crd_that_comes_back_without_objects_is_given_time() {
        assert_eq!(certain_after(&[ListResult::NoCrd]), None);
        let returned = ASK_AFTER + ASK_AGAIN;
        assert_eq!(certain_after(&[ListResult::NoCrd, ListResult::Empty]), Some(returned + GRACE));
        let gone_again = [ListResult::NoCrd, ListResult::Empty, ListResult::NoCrd, ListResult::Empty];
        assert_eq!(certain_after(&gone_again), Some(returned + ASK_AGAIN * 2 + GRACE));
    }

    #[test]
    fn one_that_appears_ends_all_doubt() {
        let now = Instant::now();
        for state in [AbsenceState::Unconfirmed { ask_at: now }, AbsenceState::Confirmed] {
            assert_eq!(state.look(false, now), AbsenceState::Present);
            assert_eq!(state.look(true, now), state);
        }
    }
}
