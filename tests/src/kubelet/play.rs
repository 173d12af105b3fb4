//! What a simulated kubelet does next with a pod. Pure.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use serde_json::Value;

use super::status::{self, Shown, is_ready};
use super::trouble::Kind;

/// How long a container that crashes runs each time.
const RUN: Duration = Duration::from_millis(500);
/// How long a kubelet waits after the first crash here; twice as long after each further one.
const FIRST_BACK_OFF: Duration = Duration::from_secs(1);
/// And at most.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(16);
/// How long a failed pull shows as `ErrImagePull` before it backs off.
const PULL: Duration = Duration::from_secs(1);

/// What is remembered of a pod.
#[derive(Clone, Debug, Default)]
pub struct Life {
    boot_id: String,
    trouble: Option<Kind>,
    /// When its containers began what they do now.
    begun: Timestamp,
    restarts: i32,
    crashes: i32,
    shown: Option<Shown>,
    ends_since: Option<Timestamp>,
    is_over: bool,
}

impl Life {
    fn is_ready(&self) -> bool {
        self.shown.as_ref().is_some_and(Shown::is_ready)
    }

    /// What was written did not arrive.
    pub fn forget_shown(&mut self) {
        self.shown = None;
        self.is_over = false;
    }
}

/// What is to be done.
#[derive(Debug, PartialEq)]
pub enum Next {
    /// Nothing until something changes.
    Nothing,
    /// Nothing before this time.
    Wait(Timestamp),
    /// Its status is patched, and looked at again at this time if there is one.
    Status(Value, Option<Timestamp>),
    /// Its containers have ended: the object goes.
    Remove,
}

/// What a kubelet does with a pod on a machine of this boot.
pub fn next(pod: &Pod, boot_id: &str, trouble: Option<&Kind>, life: &mut Life, now: Timestamp) -> Next {
    if pod.metadata.deletion_timestamp.is_some() {
        return end(pod, life, now);
    }
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return Next::Nothing;
    }
    if life.boot_id != boot_id {
        let is_reboot = !life.boot_id.is_empty();
        life.boot_id = boot_id.into();
        life.restarts += i32::from(is_reboot);
        (life.begun, life.shown) = (now, None);
    }
    // What is ready stays so when only a start would fail.
    let trouble = trouble.filter(|kind| kind.harms_what_runs() || !life.is_ready());
    if life.trouble.as_ref() != trouble {
        (life.begun, life.trouble) = (now, trouble.cloned());
        (life.restarts, life.crashes) = (life.restarts + life.crashes, 0);
    }
    let (shown, crashes, due) = wanted(pod, trouble, life, now);
    life.crashes = crashes;
    let is_shown = life.shown.as_ref() == Some(&shown) && is_ready(pod) == shown.is_ready();
    if is_shown {
        return due.map_or(Next::Nothing, Next::Wait);
    }
    let patch = status::patch(pod, &shown, life.restarts + crashes, now);
    life.shown = Some(shown);
    Next::Status(patch, due)
}

/// What is to be shown, how often its containers have crashed since `begun`, and when that changes by itself.
fn wanted(pod: &Pod, trouble: Option<&Kind>, life: &Life, now: Timestamp) -> (Shown, i32, Option<Timestamp>) {
    let begun = life.begun;
    if let Some(reason) = pod.labels().get("sim.test/fault") {
        return (Shown::Waiting { reason: reason.clone() }, 0, None);
    }
    if pod.labels().contains_key("sim.test/unready") {
        return (Shown::Running { ready: false }, 0, None);
    }
    let slow = match trouble {
        None if life.is_ready() => Duration::ZERO,
        None => annotated(pod, "sim.test/ready"),
        Some(Kind::Slow(time)) => *time,
        Some(Kind::NeverReady) => return (Shown::Running { ready: false }, 0, None),
        Some(Kind::ImageMissing) => {
            let due = begun + PULL;
            let backs_off = now >= due;
            return (Shown::ImageMissing { backs_off }, 0, (!backs_off).then_some(due));
        }
        Some(Kind::Crash { exit_code }) => return crashing(*exit_code, begun, now),
    };
    let due = begun + slow;
    let ready = now >= due;
    (Shown::Running { ready }, 0, (!ready).then_some(due))
}

fn crashing(exit_code: i32, begun: Timestamp, now: Timestamp) -> (Shown, i32, Option<Timestamp>) {
    let (mut crashes, mut at, mut back_off) = (0, begun, FIRST_BACK_OFF);
    loop {
        at += RUN;
        if now < at {
            return (Shown::Running { ready: false }, crashes, Some(at));
        }
        at += back_off;
        if now < at {
            return (Shown::CrashLoop { exit_code }, crashes, Some(at));
        }
        crashes += 1;
        back_off = (back_off * 2).min(LONGEST_BACK_OFF);
    }
}

/// A pod that is being deleted.
fn end(pod: &Pod, life: &mut Life, now: Timestamp) -> Next {
    if life.is_over || pod.annotations().contains_key("sim.test/stuck") {
        return Next::Nothing;
    }
    let due = *life.ends_since.get_or_insert(now) + annotated(pod, "sim.test/term");
    if now < due {
        return Next::Wait(due);
    }
    // Who looks at it longer sees that nothing runs any more.
    if !pod.finalizers().is_empty() && life.shown != Some(Shown::Ended) {
        life.shown = Some(Shown::Ended);
        return Next::Status(status::patch(pod, &Shown::Ended, life.restarts, now), Some(now));
    }
    life.is_over = true;
    Next::Remove
}

/// A time that an annotation of a pod gives; none is zero.
fn annotated(pod: &Pod, key: &str) -> Duration {
    let time = pod.annotations().get(key).and_then(|text| text.parse::<SignedDuration>().ok());
    time.and_then(|time| Duration::try_from(time).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(change: impl FnOnce(&mut Value)) -> Pod {
        let mut pod = serde_json::json!({
            "metadata": {"name": "p", "namespace": "rebellions", "uid": "u", "labels": {}, "annotations": {}},
            "spec": {"nodeName": "n-0.sim", "initContainers": [{"name": "manager"}],
                     "containers": [{"name": "main", "image": "registry/driver:3.1"}]},
        });
        change(&mut pod);
        serde_json::from_value(pod).expect("a pod")
    }

    /// What a pod shows at each of these times, in milliseconds, as `state` or `state*restarts`.
    fn seen(pod: &Pod, trouble: Option<&Kind>, times: &[i64]) -> Vec<String> {
        let mut life = Life::default();
        let mut pod = pod.clone();
        let at = |millis| Timestamp::from_millisecond(millis).expect("a time");
        times
            .iter()
            .map(|time| match next(&pod, "boot", trouble, &mut life, at(*time)) {
                Next::Status(patch, _) => {
                    pod.status = serde_json::from_value(patch["status"].clone()).expect("a status");
                    let status = &patch["status"]["containerStatuses"][0];
                    let state = status["state"]["waiting"]["reason"].as_str().unwrap_or("Running");
                    let ready = if status["ready"] == true { "+" } else { "" };
                    format!("{state}{ready}*{}", status["restartCount"])
                }
                other => format!("{other:?}").split('(').next().unwrap_or_default().to_owned(),
            })
            .collect()
    }

    #[test]
    fn a_pod_runs_at_once_or_when_its_time_has_come() {
        assert_eq!(seen(&pod(|_| {}), None, &[0, 1]), ["Running+*0", "Nothing"]);
        let later = pod(|pod| pod["metadata"]["annotations"]["sim.test/ready"] = "1500ms".into());
        assert_eq!(seen(&later, None, &[0, 1499, 1500]), ["Running*0", "Wait", "Running+*0"]);
        let slow = Kind::Slow(Duration::from_secs(2));
        assert_eq!(seen(&pod(|_| {}), Some(&slow), &[0, 2000]), ["Running*0", "Running+*0"]);
        assert_eq!(seen(&pod(|_| {}), Some(&Kind::NeverReady), &[0, 99_000]), ["Running*0", "Nothing"]);
    }

    #[test]
    fn an_image_that_is_missing_backs_off_and_a_crash_is_counted_ever_more_rarely() {
        let missing = Some(&Kind::ImageMissing);
        assert_eq!(seen(&pod(|_| {}), missing, &[0, 1000, 9000]), ["ErrImagePull*0", "ImagePullBackOff*0", "Nothing"]);
        let crash = Some(&Kind::Crash { exit_code: 1 });
        let expected = ["Running*0", "CrashLoopBackOff*0", "Running*1", "CrashLoopBackOff*1", "Wait", "Running*2"];
        assert_eq!(seen(&pod(|_| {}), crash, &[0, 500, 1500, 2000, 3999, 4000]), expected);
    }

    #[test]
    fn a_pod_that_ends_goes_unless_something_keeps_it() {
        let deleted = |pod: &mut Value| pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        assert_eq!(seen(&pod(deleted), None, &[0, 1]), ["Remove", "Nothing"]);
        let slowly = pod(|pod| {
            deleted(pod);
            pod["metadata"]["annotations"]["sim.test/term"] = "2s".into();
        });
        assert_eq!(seen(&slowly, None, &[0, 2000]), ["Wait", "Remove"]);
        let stuck = pod(|pod| {
            deleted(pod);
            pod["metadata"]["annotations"]["sim.test/stuck"] = "true".into();
        });
        assert_eq!(seen(&stuck, None, &[0, 99_000]), ["Nothing", "Nothing"]);
        let finalized = pod(|pod| {
            deleted(pod);
            pod["metadata"]["finalizers"] = serde_json::json!(["example.com/keep"]);
        });
        assert_eq!(seen(&finalized, None, &[0, 1, 2]), ["Running*0", "Remove", "Nothing"]);
    }

    #[test]
    fn what_is_ready_stays_so_until_it_starts_again_unless_it_crashes() {
        let later = pod(|pod| pod["metadata"]["annotations"]["sim.test/ready"] = "1s".into());
        let (mut life, mut pod, slow) = (Life::default(), later, Kind::Slow(Duration::from_secs(9)));
        let mut seen = |boot: &str, trouble: Option<&Kind>, seconds| {
            let now = Timestamp::from_second(seconds).expect("a time");
            if let Next::Status(patch, _) = next(&pod, boot, trouble, &mut life, now) {
                pod.status = serde_json::from_value(patch["status"].clone()).expect("a status");
            }
            is_ready(&pod)
        };
        assert!(!seen("1", None, 0) && seen("1", None, 1));
        for harmless in [&slow, &Kind::ImageMissing] {
            assert!(seen("1", Some(harmless), 2) && seen("1", None, 3));
        }
        assert!(!seen("2", Some(&slow), 10) && !seen("2", Some(&slow), 18) && seen("2", Some(&slow), 19));
        assert!(seen("2", Some(&slow), 20));
        assert!(!seen("2", Some(&Kind::Crash { exit_code: 1 }), 21));
    }

    #[test]
    fn a_reboot_starts_containers_again() {
        let (mut life, pod) = (Life::default(), pod(|_| {}));
        let now = Timestamp::UNIX_EPOCH;
        for (boot, restarts) in [("one", 0), ("two", 1), ("three", 2)] {
            let Next::Status(patch, None) = next(&pod, boot, None, &mut life, now) else {
                panic!("it starts at boot {boot}");
            };
            assert_eq!(patch["status"]["containerStatuses"][0]["restartCount"], restarts);
        }
    }
}
