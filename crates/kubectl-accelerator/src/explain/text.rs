//! An explanation as a short text for people.

use std::fmt::Write;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::finding::{Explanation, Finding, State, Weight};
use crate::style::{Colour, Style};

/// How wide the column of headings is.
const HEADING: usize = 11;

/// How many further findings a text has before it only counts.
const FURTHER: usize = 10;

/// The text of an explanation, as of this time.
#[must_use]
pub fn render(explanation: &Explanation, now: Timestamp, style: Style) -> String {
    let (words, colour) = match explanation.state {
        State::AsWanted => ("is as it should be", Colour::Green),
        State::Progressing => ("is on its way", Colour::Yellow),
        State::Blocked => ("is not as it should be, and somebody has to act", Colour::Red),
        State::NotFound => ("was not found", Colour::Red),
    };
    let mut text = format!("{} {}\n", explanation.subject, style.paint(colour, words));
    let mut section = |heading: &str, lines: &[String]| {
        for (index, line) in lines.iter().enumerate() {
            let heading = if index == 0 { heading } else { "" };
            let _ = writeln!(text, "{heading:HEADING$} {line}");
        }
    };
    if !explanation.wanted.is_empty() {
        section("should be", std::slice::from_ref(&explanation.wanted));
    }
    let width = explanation.found.iter().map(|line| line.name.len()).max().unwrap_or(0);
    let found =
        explanation.found.iter().map(|line| format!("{:width$}  {}", line.name, line.text).trim_end().to_owned());
    section("is", &found.collect::<Vec<_>>());
    if let Some(cause) = &explanation.cause {
        section("because", std::slice::from_ref(&cause.what));
        section("since", &cause.since.map(|since| moment(since, now)).into_iter().collect::<Vec<_>>());
        let nothing = || vec!["nothing: it goes on by itself".to_owned()];
        let todo = if cause.todo.is_empty() && cause.weight == Weight::Passes { nothing() } else { cause.todo.clone() };
        section("do", &todo);
    }
    let also: Vec<_> = explanation.also.iter().take(FURTHER).map(|finding| further(finding, now)).collect();
    section("also", &also);
    if explanation.also.len() > FURTHER {
        section("", &[format!("and {} more", explanation.also.len() - FURTHER)]);
    }
    section("not known", &explanation.unknown);
    text
}

fn further(finding: &Finding, now: Timestamp) -> String {
    let since = finding.since.map(|since| format!(" (since {})", moment(since, now))).unwrap_or_default();
    let todo = if finding.todo.is_empty() { String::new() } else { format!("; {}", finding.todo.join("; ")) };
    format!("{}{since}{todo}", finding.what)
}

fn moment(time: Timestamp, now: Timestamp) -> String {
    format!("{}, {} ago", Timestamp::from_second(time.as_second()).unwrap_or(time), ago(now.duration_since(time)))
}

/// A duration as kubectl writes ages: `45s`, `12m`, `5h`, `3d`.
#[must_use]
pub fn ago(duration: SignedDuration) -> String {
    match duration.as_secs().max(0) {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7200 => format!("{}m", seconds / 60),
        seconds @ 7200..172_800 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86_400),
    }
}
