//! Which requests are harmed, and how.

use std::time::Duration;

use http::{Method, Request};
use hyper::body::Incoming;
use rustix::process::Signal;

/// What is done to a request, or to an open watch.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// It is sent on after a while.
    Delay(Duration),
    /// It is never answered.
    Hang,
    /// The connection ends before it is sent on. An event is swallowed.
    Drop,
    /// It is refused with this code, and `Retry-After` in seconds.
    Refuse(u16, Option<u32>),
    /// It is carried out, and the connection ends before the answer.
    LoseAnswer,
    /// It is carried out, and answered after a while.
    DelayAnswer(Duration),
    /// It is carried out, and the program gets a signal before the answer.
    SignalBeforeAnswer(Signal),
    /// It is carried out and answered, and the program gets a signal before it can send anything else.
    SignalAfterAnswer(Signal),
    /// A list is answered as it was the first time, as by an API server that has fallen behind.
    Replay,
    /// An open watch ends.
    Cut,
    /// An open watch says nothing any more, also when the rule has been taken away.
    Stall,
    /// An open watch is told that its version is too old.
    Expire,
}

/// The verb of an event of a watch, which RBAC has no name for.
pub(super) const EVENT: &str = "event";

/// Which requests, and what is done to them.
#[derive(Clone, Debug)]
pub struct Rule {
    /// `patch`, `list`, `watch`, …; `write` is any that changes something, `*` is any. `event` is an event of a watch.
    pub verb: &'static str,
    /// `nodes`, `daemonsets`, `acceleratorconfigs/status`, …; `*` is any.
    pub resource: &'static str,
    /// The object's name; `*` is any.
    pub name: &'static str,
    /// Requests of this kind that are left alone first.
    pub skip: usize,
    /// Requests that are hit then.
    pub times: usize,
    /// What is done.
    pub fault: Fault,
}

impl Rule {
    /// Every request of a kind, until the rule is taken away.
    #[must_use]
    pub const fn every(verb: &'static str, resource: &'static str, fault: Fault) -> Self {
        Self { verb, resource, name: "*", skip: 0, times: usize::MAX, fault }
    }

    /// The n-th request of a kind from now, counted from 1.
    #[must_use]
    pub const fn nth(n: usize, verb: &'static str, resource: &'static str, fault: Fault) -> Self {
        Self { verb, resource, name: "*", skip: n.saturating_sub(1), times: 1, fault }
    }

    /// Only those about this object.
    #[must_use]
    pub const fn of(self, name: &'static str) -> Self {
        Self { name, ..self }
    }

    pub(super) fn is_about(&self, seen: &Seen) -> bool {
        let verb = match self.verb {
            "*" => seen.verb != EVENT,
            "write" => seen.is_write(),
            verb => verb == seen.verb,
        };
        let is = |wanted: &str, found: &str| wanted == "*" || wanted == found;
        verb && is(self.resource, &seen.resource) && is(self.name, &seen.name)
    }

    /// Whether it ends, or silences, a watch that is open, whatever comes.
    pub(super) fn is_about_streams(&self) -> bool {
        self.verb != EVENT && matches!(self.fault, Fault::Cut | Fault::Stall | Fault::Expire)
    }
}

/// A request that came by, or an event of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// As RBAC names it.
    pub verb: &'static str,
    /// With its subresource.
    pub resource: String,
    /// The object, if it is about one.
    pub name: String,
}

impl Seen {
    pub(super) fn of(request: &Request<Incoming>) -> Self {
        let mut parts = request.uri().path().split('/').filter(|part| !part.is_empty()).skip(1).peekable();
        // Past the group and the version, or the version alone.
        if request.uri().path().starts_with("/apis/") {
            parts.next();
        }
        parts.next();
        let mut rest: Vec<_> = parts.collect();
        if rest.first() == Some(&"namespaces") && rest.len() > 2 {
            rest.drain(..2);
        }
        let name = rest.get(1).copied().unwrap_or_default().to_owned();
        let resource = [rest.first(), rest.get(2)].into_iter().flatten().copied().collect::<Vec<_>>().join("/");
        let query = request.uri().query().unwrap_or_default();
        let verb = match *request.method() {
            Method::GET if query.contains("watch=true") || query.contains("watch=1") => "watch",
            Method::GET if name.is_empty() || query.contains("limit=") => "list",
            Method::GET => "get",
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            _ => "delete",
        };
        Self { verb, resource, name }
    }

    /// An event of this watch.
    pub(super) fn event(&self, name: &str) -> Self {
        Self { verb: EVENT, resource: self.resource.clone(), name: name.to_owned() }
    }

    /// Whether it changes the cluster. Leases and events are talk.
    #[must_use]
    pub fn is_write(&self) -> bool {
        !matches!(self.verb, "get" | "list" | "watch" | EVENT) && !matches!(self.resource.as_str(), "leases" | "events")
    }
}
