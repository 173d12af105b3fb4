//! When to believe that there is no AcceleratorConfig.
//!
//! It means that everything of ours goes, so seeing none is not enough. A CRD that is deleted, to be made again, takes its
//! objects along one by one and is gone a moment later; then there is nobody to ask.

use std::time::Duration;

use accelerator_api::ObservedConfig;
use kube::api::ListParams;
use kube::{Api, Client};
use tokio::time::Instant;

/// How long there must have been none before the API server is asked. Longer than the five seconds that it may take to
/// notice that a CRD under deletion has no objects left.
const ASK_AFTER: Duration = Duration::from_secs(10);

/// How often it is asked while there is reason to doubt.
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// How long a CRD that was gone may be back before its having no objects is taken at its word. Whoever made it again is
/// about to make them again.
const GRACE: Duration = Duration::from_mins(10);

/// Whether there is no AcceleratorConfig at all.
#[derive(Debug)]
pub struct AbsenceCheck {
    configs: Api<ObservedConfig>,
    doubt: Doubt,
}

/// What the API server said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// There is none.
    Empty,
    /// There are some, or it did not answer.
    Unclear,
    /// It knows no such resource.
    NoCrd,
}

/// How far from certain it is. Pure: times and answers go in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Doubt {
    /// None has been seen since this process began to lead. It does not know what happened before: as with a CRD that
    /// was gone.
    #[default]
    Unseen,
    /// There is one.
    Occupied,
    /// None is known; to be asked for then.
    Unconfirmed { ask_at: Instant },
    /// The CRD was gone and may have come back without objects at that time; to be asked for then.
    Bereft { back_since: Option<Instant>, ask_at: Instant },
    /// There is none.
    Confirmed,
}

impl Doubt {
    /// What follows from knowing one or none.
    fn look(self, none_is_known: bool, now: Instant) -> Self {
        match self {
            _ if !none_is_known => Self::Occupied,
            Self::Unseen => Self::Bereft { back_since: None, ask_at: now },
            Self::Occupied => Self::Unconfirmed { ask_at: now + ASK_AFTER },
            same => same,
        }
    }

    fn ask_at(self) -> Option<Instant> {
        match self {
            Self::Unconfirmed { ask_at } | Self::Bereft { ask_at, .. } => Some(ask_at),
            Self::Unseen | Self::Occupied | Self::Confirmed => None,
        }
    }

    /// What follows from an answer.
    fn hear(self, answer: Answer, now: Instant) -> Self {
        let ask_at = now + ASK_AGAIN;
        match (self, answer) {
            (_, Answer::NoCrd) => Self::Bereft { back_since: None, ask_at },
            (Self::Unconfirmed { .. }, Answer::Empty) => Self::Confirmed,
            (Self::Unconfirmed { .. }, Answer::Unclear) => Self::Unconfirmed { ask_at },
            (Self::Bereft { back_since: Some(since), .. }, Answer::Empty) if now >= since + GRACE => Self::Confirmed,
            (Self::Bereft { back_since, .. }, Answer::Empty) => {
                Self::Bereft { back_since: back_since.or(Some(now)), ask_at }
            }
            (Self::Bereft { back_since, .. }, Answer::Unclear) => Self::Bereft { back_since, ask_at },
            (same, _) => same,
        }
    }
}

impl AbsenceCheck {
    /// Nothing known yet.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { configs: Api::all(client), doubt: Doubt::default() }
    }

    /// Forgets what was known: another replica leads, and sees what this one may miss.
    pub fn forget(&mut self) {
        self.doubt = Doubt::default();
    }

    /// Whether it is certain that there is none, given whether one is known. Asks the API server when it is time to.
    pub async fn look(&mut self, none_is_known: bool) -> bool {
        self.doubt = self.doubt.look(none_is_known, Instant::now());
        if self.doubt.ask_at().is_some_and(|at| at <= Instant::now()) {
            let answer = self.ask().await;
            self.doubt = self.doubt.hear(answer, Instant::now());
        }
        self.doubt == Doubt::Confirmed
    }

    /// When to look again even if nothing changes.
    #[must_use]
    pub fn due_at(&self) -> Option<Instant> {
        self.doubt.ask_at()
    }

    async fn ask(&self) -> Answer {
        match self.configs.list_metadata(&ListParams::default().limit(1)).await {
            Ok(list) if list.items.is_empty() => Answer::Empty,
            Err(kube::Error::Api(status)) if status.code == 404 => Answer::NoCrd,
            _ => Answer::Unclear,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hears these answers, each when it is time to ask; returns how long it took to be certain.
    fn certain_after(answers: &[Answer]) -> Option<Duration> {
        certain(Doubt::Occupied, answers)
    }

    fn certain(before: Doubt, answers: &[Answer]) -> Option<Duration> {
        let begun = Instant::now();
        let mut doubt = before.look(true, begun);
        for answer in answers.iter().chain(std::iter::repeat_n(answers.last()?, 1000)) {
            let now = doubt.ask_at()?;
            doubt = doubt.hear(*answer, now);
            if doubt == Doubt::Confirmed {
                return Some(now - begun);
            }
        }
        None
    }

    #[test]
    fn none_is_believed_when_the_api_server_says_so_a_while_later() {
        assert_eq!(certain_after(&[Answer::Empty]), Some(ASK_AFTER));
        assert_eq!(certain_after(&[Answer::Unclear, Answer::Empty]), Some(ASK_AFTER + ASK_AGAIN));
        assert_eq!(certain_after(&[Answer::Unclear]), None);
    }

    #[test]
    fn a_process_that_never_saw_one_gives_time_as_well() {
        assert_eq!(certain(Doubt::default(), &[Answer::Empty]), Some(GRACE));
        assert_eq!(certain(Doubt::default(), &[Answer::NoCrd, Answer::Empty]), Some(ASK_AGAIN + GRACE));
    }

    #[test]
    fn a_crd_that_comes_back_without_objects_is_given_time() {
        assert_eq!(certain_after(&[Answer::NoCrd]), None);
        let returned = ASK_AFTER + ASK_AGAIN;
        assert_eq!(certain_after(&[Answer::NoCrd, Answer::Empty]), Some(returned + GRACE));
        let gone_again = [Answer::NoCrd, Answer::Empty, Answer::NoCrd, Answer::Empty];
        assert_eq!(certain_after(&gone_again), Some(returned + ASK_AGAIN * 2 + GRACE));
    }

    #[test]
    fn one_that_appears_ends_all_doubt() {
        let now = Instant::now();
        for doubt in [Doubt::Unconfirmed { ask_at: now }, Doubt::Confirmed] {
            assert_eq!(doubt.look(false, now), Doubt::Occupied);
            assert_eq!(doubt.look(true, now), doubt);
        }
    }
}
