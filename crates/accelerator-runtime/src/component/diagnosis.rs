//! Where an operand stands, with the reason when it is not ready. Its pods are followed while, and only while, something
//! is not ready for longer than a rollout of one node takes, and events when a pod's status does not say why. After a
//! first look the cost grows with what changes, not with the number of nodes.

use std::sync::Arc;
use std::time::Duration;

use accelerator_operand::{Counts, Findings, Observation, PodProblems, observe};
use accelerator_process::clock;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::jiff::SignedDuration;
use kube::Client;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::pod_watch::{Extent, Target, pods, warnings};
use super::rotation::Rotation;
use crate::Shared;
use crate::follow::Task;

/// What is said of a DaemonSet whose pods are not looked at now: what else is said may be as old as its last turn.
const IN_TURN: &str = "; too many DaemonSets of this component are not ready at once: their pods are looked at in turn";

/// A rollout that goes well is over sooner than this; only then are pods followed.
const LOOK_AFTER: Duration = Duration::from_secs(5);
/// How long the first report after a start waits for a first look, so that it says no less than the one before.
const HOLD: Duration = Duration::from_secs(5);
/// How long Ready waits for a look at pods that may be ending.
const HOLD_READY: Duration = Duration::from_secs(30);
/// How long pods are followed after all was well again: so long first, and four times as long with each further look
/// within the longest, because a first look costs as much as there are pods.
const LINGER: Duration = Duration::from_secs(30);
const LONGEST_LINGER: Duration = Duration::from_mins(10);
/// How long a pod may stay unexplained, and one that is missing uncreated, before events are followed.
const ASK_EVENTS_AFTER: Duration = Duration::from_secs(8);
/// How long known problems may be fewer than the DaemonSet counts before all pods are listed.
const LIST_ALL_AFTER: Duration = Duration::from_secs(8);
/// How often whoever waits for its turn to look at pods asks for it.
const ASK_FOR_TURN: Duration = Duration::from_secs(5);
/// How often the time alone is asked what it changes, such as a pod that is overdue.
const AGE_EVERY: Duration = Duration::from_secs(15);

pub(super) struct Diagnosis {
    client: Client,
    namespace: String,
    /// Name of the DaemonSet.
    daemon_set: String,
    target: Target,
    /// Whose pods are looked at, of all the component's DaemonSets, and whether this one has to wait.
    rotation: Rotation,
    is_waiting: bool,
    listed: Shared<Option<Extent>>,
    /// Who follows the pods, and how much it was told to list.
    pods: Option<(Task, Extent)>,
    events: Option<Task>,
    /// Since when something is not ready, and since when all is well again.
    unready_since: Option<Instant>,
    well_since: Option<Instant>,
    linger: Linger,
    /// Since when fewer problems are known than there are, and since when pods are missing and none is made.
    short_since: Option<Instant>,
    missing_since: Option<Instant>,
    before: Option<Counts>,
    /// Until when nothing is said before pods have been looked at.
    hold_until: Option<Instant>,
    due: Option<Instant>,
}

impl Diagnosis {
    pub(super) fn new(
        client: Client,
        namespace: &str,
        daemon_set: &str,
        changed: Arc<Notify>,
        rotation: Rotation,
    ) -> Self {
        let target = Target { problems: Shared::new(PodProblems::new(daemon_set)), changed };
        Self {
            client,
            namespace: namespace.into(),
            daemon_set: daemon_set.into(),
            target,
            rotation,
            is_waiting: false,
            listed: Shared::new(None),
            pods: None,
            events: None,
            unready_since: None,
            well_since: None,
            linger: Linger::default(),
            short_since: None,
            missing_since: None,
            before: None,
            hold_until: None,
            due: None,
        }
    }

    /// There is nothing to look at.
    pub(super) fn rest(&mut self) {
        self.stop_following();
        self.rotation.leave(&self.daemon_set);
        self.is_waiting = false;
        self.target.problems = Shared::new(PodProblems::new(&self.daemon_set));
        (self.unready_since, self.well_since) = (None, None);
        (self.short_since, self.missing_since) = (None, None);
        (self.hold_until, self.due) = (None, None);
    }

    fn stop_following(&mut self) {
        (self.pods, self.events) = (None, None);
        self.listed = Shared::new(None);
    }

    /// This process leads no longer, and what it knows grows old.
    pub(super) fn forget(&mut self) {
        self.rest();
        self.before = None;
    }

    /// When to look again although nothing changes.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.due
    }

    /// Where the operand stands; `None` when nothing new can be said before its pods have been looked at, for a few seconds
    /// at most.
    pub(super) fn observe(&mut self, live: &DaemonSet, now: Instant) -> Option<Observation> {
        let counts = Counts::of(live);
        let before = self.before.replace(counts);
        if self.is_waiting && counts.unready() == 0 && counts.missing() == 0 {
            // What was found in its last turn is over.
            self.rest();
        }
        let findings = self.findings(counts);
        let observation = observe(live, &findings);
        // Pods that nobody wanted are wanted again: they may be ending, and count as available until they have ended.
        let took_back = before.is_some_and(|old| old.misplaced > counts.misplaced && counts.desired > old.desired);
        if !(observation.is_about_pods() || took_back || !findings.is_empty() || self.is_holding(now)) {
            self.wind_down(now);
            return Some(observation);
        }
        self.well_since = None;
        if took_back {
            self.hold_until = Some(now + HOLD_READY);
        } else if before.is_none() && counts.unready() > 0 {
            self.hold_until = Some(now + HOLD);
        }
        let is_telling = counts.unready() > 0 || counts.missing() > 0 || self.pods.is_some();
        let since = keep_since(&mut self.unready_since, is_telling, now);
        let look_at = if self.hold_until.is_some() { Some(now) } else { since.map(|since| since + LOOK_AFTER) };
        self.due = if self.pods.is_none() { look_at } else { Some(now + AGE_EVERY) };
        if look_at.is_some_and(|at| at <= now) {
            let is_stuck = before.is_some_and(|old| old.current == counts.current);
            self.follow_in_turn(counts, is_stuck, took_back, now);
        }
        if self.is_holding(now) {
            self.due = self.hold_until;
            return None;
        }
        self.hold_until = None;
        let waits = if self.is_waiting { IN_TURN } else { "" };
        Some(Observation { message: observation.message + waits, ..observation })
    }

    /// Looks at pods, unless those of too many other DaemonSets are looked at.
    fn follow_in_turn(&mut self, counts: Counts, is_stuck: bool, all: bool, now: Instant) {
        if !self.rotation.has(&self.daemon_set, now) {
            self.stop_following();
            self.is_waiting = true;
            self.due = Some(now + ASK_FOR_TURN);
            return;
        }
        if std::mem::take(&mut self.is_waiting) {
            // What was found in the turn before may be over.
            self.target.problems = Shared::new(PodProblems::new(&self.daemon_set));
        }
        self.follow(counts, is_stuck, all, now);
    }

    /// Whether a first look is still waited for.
    fn is_holding(&self, now: Instant) -> bool {
        self.hold_until.is_some_and(|until| now < until) && self.listed.with(|listed| listed.is_none())
    }

    /// What has been found so far, also while pods are still being listed: that takes a while where there are thousands.
    fn findings(&self, counts: Counts) -> Findings {
        self.target.problems.with(|problems| problems.findings(counts.missing() > 0, clock::now()))
    }

    /// All is well: pods are followed for a little longer, in case it is not for long.
    fn wind_down(&mut self, now: Instant) {
        (self.unready_since, self.short_since, self.missing_since) = (None, None, None);
        let until = *self.well_since.get_or_insert(now) + self.linger.time;
        if self.pods.is_none() || until <= now || self.rotation.has_waiting() {
            self.linger.ended(self.pods.is_some(), now);
            self.rest();
        } else {
            self.due = Some(until);
        }
    }

    fn follow(&mut self, counts: Counts, is_stuck: bool, all: bool, now: Instant) {
        let known = self.findings(counts).pods();
        let is_listed = self.listed.with(|listed| listed.is_some());
        let is_short = is_listed && known < counts.unready();
        let short_since = keep_since(&mut self.short_since, is_short, now);
        let wants_all = all || short_since.is_some_and(|since| since + LIST_ALL_AFTER <= now);
        let extent = if wants_all { Extent::All } else { Extent::AtLeast(counts.unready().max(1)) };
        let has_all = self.listed.with(|listed| *listed == Some(Extent::All))
            || self.pods.as_ref().is_some_and(|(_, extent)| *extent == Extent::All);
        if self.pods.is_none() {
            self.linger.begin(now);
        }
        if self.pods.is_none() || (wants_all && !has_all) {
            self.listed = Shared::new(None);
            self.pods = Some((self.follow_pods(extent), extent));
        }
        let missing_since = keep_since(&mut self.missing_since, is_stuck && counts.missing() > 0, now);
        let is_stuck = missing_since.is_some_and(|since| since + ASK_EVENTS_AFTER <= now);
        let limit = clock::now() - SignedDuration::try_from(ASK_EVENTS_AFTER).unwrap_or_default();
        let is_unexplained = self.target.problems.with(|problems| problems.unexplained_since(limit));
        if self.events.is_none() && (is_stuck || is_unexplained) {
            let (client, namespace) = (self.client.clone(), self.namespace.clone());
            self.events = Some(Task::spawn(warnings(client, namespace, self.target.clone())));
        } else if self.events.is_none() {
            // What is unexplained now may have to be asked for soon.
            self.due = self.due.map(|due| due.min(now + ASK_EVENTS_AFTER / 2));
        }
    }

    fn follow_pods(&self, extent: Extent) -> Task {
        let (client, namespace, listed) = (self.client.clone(), self.namespace.clone(), self.listed.clone());
        let listed = move |extent| listed.with(|listed| *listed = Some(extent));
        Task::spawn(pods(client, namespace, self.daemon_set.clone(), extent, self.target.clone(), listed))
    }
}

impl Drop for Diagnosis {
    fn drop(&mut self) {
        self.rotation.leave(&self.daemon_set);
    }
}

/// How long pods are followed after all was well, so that a pod that fails again and again is not looked for each time.
#[derive(Clone, Copy, Debug)]
struct Linger {
    time: Duration,
    ended_at: Option<Instant>,
}

impl Default for Linger {
    fn default() -> Self {
        Self { time: LINGER, ended_at: None }
    }
}

impl Linger {
    /// Pods begin to be followed.
    fn begin(&mut self, now: Instant) {
        let is_again = self.ended_at.is_some_and(|at| now < at + LONGEST_LINGER);
        self.time = if is_again { (self.time * 4).min(LONGEST_LINGER) } else { LINGER };
    }

    /// Pods are followed no longer, if they `were`.
    fn ended(&mut self, were: bool, now: Instant) {
        if were {
            self.ended_at = Some(now);
        }
    }
}

/// Since when something holds, kept in `since`.
fn keep_since(since: &mut Option<Instant>, holds: bool, now: Instant) -> Option<Instant> {
    if holds {
        since.get_or_insert(now);
    } else {
        *since = None;
    }
    *since
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A pod is not ready for ten seconds in every `period`. Returns how often pods are looked for in an hour.
    fn looks(period: u64) -> usize {
        let (start, mut linger, mut well_since, mut looks) = (Instant::now(), Linger::default(), None, 0);
        let mut is_followed = false;
        for second in 0..3600 {
            let now = start + Duration::from_secs(second);
            if second % period < 10 {
                if !is_followed {
                    linger.begin(now);
                    looks += 1;
                }
                (is_followed, well_since) = (true, None);
            } else if *well_since.get_or_insert(now) + linger.time <= now {
                linger.ended(is_followed, now);
                is_followed = false;
            }
        }
        looks
    }

    fn diagnosis(name: &str, rotation: &Rotation) -> Diagnosis {
        let config = kube::Config::new(http::Uri::from_static("http://127.0.0.1:1"));
        let client = Client::try_from(config).expect("a client");
        Diagnosis::new(client, "rebellions", name, Arc::default(), rotation.clone())
    }

    /// A kernel for which the driver does not work, times many kernels.
    #[tokio::test]
    async fn the_pods_of_a_few_daemon_sets_are_watched_at_once_and_the_others_say_so() {
        let rotation = Rotation::default();
        let mut all: Vec<_> = (0..20).map(|number| diagnosis(&format!("d{number:02}"), &rotation)).collect();
        let mut live: DaemonSet = serde_json::from_value(json!({
            "metadata": {"generation": 1},
            "spec": {"selector": {}, "template": {}},
            "status": {"observedGeneration": 1, "desiredNumberScheduled": 2, "currentNumberScheduled": 2, "updatedNumberScheduled": 2,
                       "numberReady": 1, "numberAvailable": 1, "numberUnavailable": 1, "numberMisscheduled": 0},
        }))
        .expect("a DaemonSet");
        let mut followed = std::collections::BTreeSet::new();
        let begun = Instant::now();
        for second in 0..240 {
            let time = begun + Duration::from_secs(second);
            let seen: Vec<_> = all.iter_mut().filter_map(|one| one.observe(&live, time)).collect();
            let now: Vec<_> = all.iter().filter(|one| one.pods.is_some()).map(|one| one.daemon_set.clone()).collect();
            assert!(now.len() <= 8, "{now:?}");
            if second > 20 {
                assert_eq!(seen.iter().filter(|one| one.message.ends_with(IN_TURN)).count(), 20 - now.len());
            }
            followed.extend(now);
        }
        assert_eq!(followed.len(), 20, "each has a turn");
        let status = live.status.as_mut().expect("a status");
        (status.number_ready, status.number_available, status.number_unavailable) = (2, Some(2), None);
        for second in 240..280 {
            let time = begun + Duration::from_secs(second);
            let seen: Vec<_> = all.iter_mut().filter_map(|one| one.observe(&live, time)).collect();
            assert!(seen.iter().all(|one| !one.message.ends_with(IN_TURN)));
        }
        assert!(all.iter().all(|one| one.pods.is_none()) && !rotation.has_waiting());
    }

    #[tokio::test]
    async fn what_is_found_is_told_while_pods_are_still_listed() {
        let diagnosis = diagnosis("rebellions-driver", &Rotation::default());
        let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n"}, "status": {"phase": "Running"}});
        let pod: accelerator_operand::PodView = serde_json::from_value(pod).expect("a pod");
        diagnosis.target.problems.with(|known| known.apply(&pod, clock::now()));
        assert!(diagnosis.listed.with(|listed| listed.is_none()));
        assert_eq!(diagnosis.findings(Counts::of(&DaemonSet::default())).pods(), 1);
    }

    #[test]
    fn pods_are_looked_for_ever_less_often_while_one_fails_again_and_again() {
        assert_eq!(looks(60), 2);
        assert_eq!(looks(180), 3);
        assert_eq!(looks(20), 1);
        assert_eq!(looks(1800), 2, "what is rare is followed only for a moment");
    }
}
