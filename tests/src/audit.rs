//! The API server's audit log as a list of requests, to count who asked for what.

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

/// A request that the API server answered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Request {
    /// The service account's name, or the user's.
    pub user: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, …
    pub verb: String,
    /// `nodes`, `acceleratorconfigs/status`, …
    pub resource: String,
    /// The object, if it is about one.
    pub name: String,
    /// HTTP status.
    pub code: i64,
    /// What was sent, if the audit policy keeps it.
    pub body: String,
    /// When the API server got it.
    pub begun: Timestamp,
    /// When it had answered.
    pub ended: Timestamp,
}

impl Request {
    /// One of this user that was answered with 200.
    #[must_use]
    pub fn of(user: &str, verb: &str, resource: &str, name: &str, body: &Value) -> Self {
        Self {
            user: user.into(),
            verb: verb.into(),
            resource: resource.into(),
            name: name.into(),
            code: 200,
            body: body.to_string(),
            begun: Timestamp::UNIX_EPOCH,
            ended: Timestamp::UNIX_EPOCH,
        }
    }

    /// Whether it changes something, or tries to.
    #[must_use]
    pub fn is_write(&self) -> bool {
        matches!(self.verb.as_str(), "create" | "update" | "patch" | "delete" | "deletecollection")
    }

    /// What was sent, as JSON; null if the audit policy does not keep it.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    /// Whether it was carried out.
    #[must_use]
    pub fn has_succeeded(&self) -> bool {
        (200..300).contains(&self.code)
    }

    /// Whether it asks for an eviction.
    #[must_use]
    pub fn is_eviction(&self) -> bool {
        self.verb == "create" && self.resource == "pods/eviction"
    }

    /// Whether one of our programs sent it.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        crate::repository::programs().any(|program| program == self.user)
    }

    fn parse(line: &str) -> Option<Self> {
        let event: Value = serde_json::from_str(line).ok()?;
        let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let verb = text("/verb");
        // A watch is logged when it begins and when it ends.
        if (verb == "watch") != (text("/stage") == "ResponseStarted") {
            return None;
        }
        let user = text("/user/username");
        let user = user.rsplit(':').next().unwrap_or_default().to_owned();
        let resource = [text("/objectRef/resource"), text("/objectRef/subresource")];
        Some(Self {
            user,
            verb,
            resource: resource.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/"),
            name: text("/objectRef/name"),
            code: event.pointer("/responseStatus/code").and_then(Value::as_i64).unwrap_or(0),
            begun: text("/requestReceivedTimestamp").parse().unwrap_or_default(),
            ended: text("/stageTimestamp").parse().unwrap_or_default(),
            body: event.pointer("/requestObject").map(ToString::to_string).unwrap_or_default(),
        })
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {} -> {}", self.user, self.verb, self.resource, self.name, self.code)?;
        if self.body.is_empty() { Ok(()) } else { write!(f, " {}", self.body) }
    }
}

/// A place in the log. The API server writes a request there before it answers, so that what has been answered is there.
#[derive(Clone, Debug)]
pub struct Mark {
    log: PathBuf,
    offset: u64,
}

impl Mark {
    /// The end of the log as it is now.
    pub fn here(log: &Path) -> anyhow::Result<Self> {
        let offset = std::fs::metadata(log).map_or(0, |metadata| metadata.len());
        Ok(Self { log: log.into(), offset })
    }

    /// Every request since.
    pub fn requests(&self) -> anyhow::Result<Vec<Request>> {
        let mut file = File::open(&self.log)?;
        file.seek(SeekFrom::Start(self.offset))?;
        BufReader::new(file)
            .lines()
            .filter_map(|line| line.map(|line| Request::parse(&line)).transpose())
            .map(|line| Ok(line?))
            .collect()
    }

    /// Every write of our programs since. A leader's renewal of its lease is no change to the cluster.
    pub fn our_writes(&self) -> anyhow::Result<Vec<Request>> {
        let writes = |request: &Request| request.is_ours() && request.is_write() && request.resource != "leases";
        Ok(self.requests()?.into_iter().filter(writes).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_is_counted_once_and_a_user_by_its_last_name() {
        let line = |verb: &str, stage: &str| {
            format!(
                r#"{{"verb":"{verb}","stage":"{stage}","user":{{"username":"system:serviceaccount:accelerator-system:node-labeler"}},
                   "objectRef":{{"resource":"nodes","subresource":"status","name":"n"}},"responseStatus":{{"code":200}}}}"#
            )
        };
        let request = Request::parse(&line("patch", "ResponseComplete")).expect("a request");
        assert_eq!((request.user.as_str(), request.resource.as_str()), ("node-labeler", "nodes/status"));
        assert!(request.is_write() && request.is_ours());
        assert!(Request::parse(&line("watch", "ResponseStarted")).is_some());
        assert!(Request::parse(&line("watch", "ResponseComplete")).is_none());
    }
}
