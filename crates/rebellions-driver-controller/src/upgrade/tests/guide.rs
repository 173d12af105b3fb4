//! The admin's guide explains every word that people can see.

use crate::upgrade::{Blocked, Reason, State};

const GUIDE: &str = include_str!("../../../../../docs/guides/driver-upgrade.md");

#[test]
fn the_guide_has_a_row_for_every_reason_and_state() {
    let events = ["Started", "Done", "Failed", "Ended", "RecordLost"].map(|event| format!("DriverUpgrade{event}"));
    let reasons = Reason::ALL.iter().map(|reason| reason.as_str());
    let blocked = Blocked::ALL.iter().map(|reason| reason.as_str());
    let states = State::ALL.iter().map(|state| state.as_str()).chain(["Waiting", "Evicted"]);
    for word in reasons.chain(blocked).chain(states).chain(events.iter().map(String::as_str)) {
        assert!(GUIDE.lines().any(|line| line.starts_with(&format!("| `{word}` |"))), "{word} has no row");
    }
}

/// And no word that they cannot see any more.
#[test]
fn every_reason_is_a_word_of_its_own() {
    for reason in Reason::ALL {
        assert_eq!(Reason::parse(reason.as_str()), Some(*reason));
    }
    assert_eq!(Reason::parse("Other"), None);
}
