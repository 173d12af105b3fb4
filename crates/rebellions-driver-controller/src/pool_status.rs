//! What the status says of pools.

use std::collections::BTreeMap;

use accelerator_api::{PoolStatus, Reason, count};

use crate::pods::DriverPod;
use crate::pools::{Pool, Pools, Target};

/// The most pools that a status has.
const POOLS: usize = 100;

/// The most nodes that a message names.
const NAMED: usize = 3;

/// An entry per pool, in the order of names: of more than a hundred those with something missing first.
#[must_use]
pub fn statuses(pools: &Pools, pods: &[&DriverPod]) -> Vec<PoolStatus> {
    let by_node = running(pods);
    let named = pools.wanted.iter().filter(|pool| pool.name.is_some());
    let mut statuses: Vec<_> = named.map(|pool| status(pool, &by_node)).collect();
    statuses.sort_by(|one, other| (one.message.is_empty(), &one.name).cmp(&(other.message.is_empty(), &other.name)));
    statuses.truncate(POOLS);
    statuses.sort_by(|one, other| one.name.cmp(&other.name));
    statuses
}

/// The most telling reason why nodes are without the driver that they need, if it is one of pools.
#[must_use]
pub fn problem(pools: &Pools, pods: &[&DriverPod]) -> Option<(Reason, String)> {
    let by_node = running(pods);
    let missing: Vec<_> = pools.wanted.iter().filter_map(|pool| missing_image(pool, &by_node)).collect();
    if !missing.is_empty() {
        return Some((Reason::DriverImageMissing, missing.join("; ")));
    }
    [Reason::KernelUnknown, Reason::FamilyUnknown, Reason::DriverImageMissing].into_iter().find_map(|wanted| {
        let mut by_cause: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (node, target) in &pools.targets {
            if let Target::Unknown(reason, why) = target
                && *reason == wanted
            {
                by_cause.entry(why).or_default().push(node);
            }
        }
        let causes: Vec<_> = by_cause.into_iter().map(|(why, nodes)| format!("{}: {why}", names(&nodes))).collect();
        (!causes.is_empty()).then(|| (wanted, causes.join("; ")))
    })
}

/// The pod of each node that is not about to go.
pub(crate) fn running<'a>(pods: &[&'a DriverPod]) -> BTreeMap<&'a str, &'a DriverPod> {
    pods.iter().filter(|pod| !pod.is_terminating).map(|pod| (pod.node.as_str(), *pod)).collect()
}

fn status(pool: &Pool, by_node: &BTreeMap<&str, &DriverPod>) -> PoolStatus {
    let pods = || pool.nodes.iter().map(|node| (node, by_node.get(node.as_str())));
    let is_updated = |pod: Option<&&DriverPod>| pod.is_some_and(|pod| pod.install == pool.digest);
    let is_ready = |pod: Option<&&DriverPod>| is_updated(pod) && pod.is_some_and(|pod| pod.is_ready);
    let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let updated = pods().filter(|(_, pod)| is_updated(*pod)).count();
    let ready = pods().filter(|(_, pod)| is_ready(*pod)).count();
    let message = missing_image(pool, by_node).unwrap_or_else(|| {
        let not_ready = pods().filter(|(_, pod)| is_updated(*pod) && !is_ready(*pod));
        let not_ready: Vec<_> = not_ready
            .map(|(node, pod)| match pod.and_then(|pod| pod.problem.as_deref()) {
                Some(problem) => format!("{node} ({problem})"),
                None => node.clone(),
            })
            .collect();
        let others = pool.nodes.len() - updated;
        let outdated = (others > 0).then(|| format!("the wanted driver is not on {}", of(others, pool.nodes.len())));
        let not_ready: Vec<_> = not_ready.iter().map(String::as_str).collect();
        let waits = (!not_ready.is_empty()).then(|| format!("not ready: {}", names(&not_ready)));
        outdated.into_iter().chain(waits).collect::<Vec<_>>().join("; ")
    });
    PoolStatus {
        name: pool.name.clone().unwrap_or_default(),
        image: pool.history.current.image.clone(),
        desired: number(pool.nodes.len()),
        updated: number(updated),
        ready: number(ready),
        message,
    }
}

/// What is to be said when nodes of a pool wait for an image that does not exist.
fn missing_image(pool: &Pool, by_node: &BTreeMap<&str, &DriverPod>) -> Option<String> {
    let waits = |node: &str| by_node.get(node).is_some_and(|pod| pod.install == pool.digest && pod.is_image_missing);
    let nodes: Vec<_> = pool.nodes.iter().map(String::as_str).filter(|node| waits(node)).collect();
    let image = &pool.history.current.image;
    (!nodes.is_empty())
        .then(|| format!("the registry does not have the image {image}, which is needed on {}", names(&nodes)))
}

/// `a`, `3 nodes: a, b, c` or `4 nodes: a, b, c, …`.
pub(crate) fn names(nodes: &[&str]) -> String {
    if nodes.len() <= 1 {
        return nodes.concat();
    }
    let more = if nodes.len() > NAMED { ", …" } else { "" };
    let named = nodes.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
    format!("{}: {named}{more}", count(i64::try_from(nodes.len()).unwrap_or(i64::MAX), "node"))
}

fn of(some: usize, all: usize) -> String {
    format!("{some} of {}", count(i64::try_from(all).unwrap_or(i64::MAX), "node"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::install::{History, Install};
    use crate::pool::PoolKey;

    fn pool(name: &str, nodes: &[&str]) -> Pool {
        let current = Install { image: format!("r.io/d:{name}"), ..Install::default() };
        let digest = current.digest();
        let history = History { current, ..History::default() };
        let key = PoolKey { kernel: Some(name.into()), ..PoolKey::default() };
        Pool {
            key,
            name: Some(name.into()),
            history,
            digest,
            nodes: nodes.iter().map(|node| (*node).to_owned()).collect(),
        }
    }

    fn pod(node: &str, pool: &Pool) -> DriverPod {
        DriverPod { node: node.into(), install: pool.digest.clone(), is_ready: true, ..DriverPod::default() }
    }

    fn entry(pool: &Pool, pods: &[DriverPod]) -> (i64, i64, i64, String) {
        let pools = Pools { wanted: vec![pool.clone()], ..Pools::default() };
        let status = statuses(&pools, &pods.iter().collect::<Vec<_>>()).remove(0);
        (status.desired, status.updated, status.ready, status.message)
    }

    #[test]
    fn a_pool_counts_nodes_with_the_wanted_driver() {
        let pool = pool("k", &["a", "b", "c"]);
        let other = DriverPod { install: "old".into(), ..pod("b", &pool) };
        let starting = DriverPod { is_ready: false, problem: Some("CrashLoopBackOff: x".into()), ..pod("c", &pool) };
        let all = [pod("a", &pool), pod("b", &pool), pod("c", &pool)];
        assert_eq!(entry(&pool, &all), (3, 3, 3, String::new()));
        let message = "the wanted driver is not on 1 of 3 nodes; not ready: c (CrashLoopBackOff: x)";
        assert_eq!(entry(&pool, &[pod("a", &pool), other, starting]), (3, 2, 1, message.into()));
        assert_eq!(entry(&pool, &[]), (3, 0, 0, "the wanted driver is not on 3 of 3 nodes".into()));
        let ending = DriverPod { is_terminating: true, ..pod("a", &pool) };
        assert_eq!(entry(&pool, &[ending]).1, 0);
    }

    #[test]
    fn an_image_that_does_not_exist_is_named_with_the_nodes_that_need_it() {
        let (bad, good) = (pool("bad", &["a", "b", "c", "d"]), pool("good", &["e"]));
        let missing = |node: &str| DriverPod { is_ready: false, is_image_missing: true, ..pod(node, &bad) };
        let pods = [missing("a"), missing("b"), missing("c"), missing("d"), pod("e", &good)];
        let pods: Vec<_> = pods.iter().collect();
        let pools = Pools { wanted: vec![bad.clone(), good], ..Pools::default() };
        let message = "the registry does not have the image r.io/d:bad, which is needed on 4 nodes: a, b, c, …";
        assert_eq!(problem(&pools, &pods), Some((Reason::DriverImageMissing, message.into())));
        let messages: Vec<_> = statuses(&pools, &pods).into_iter().map(|one| one.message).collect();
        assert_eq!(messages, [message, ""]);
        assert_eq!(problem(&pools, &[]), None, "it heals by itself");
        let outdated = DriverPod { install: "other".into(), ..missing("a") };
        assert_eq!(problem(&pools, &[&outdated]), None, "the image before");
    }

    #[test]
    fn nodes_of_which_too_little_is_known_are_named_by_cause() {
        let unknown = |reason, why: &str| Target::Unknown(reason, why.into());
        let targets = [
            ("a".to_owned(), unknown(Reason::KernelUnknown, "its kernel is not known")),
            ("b".to_owned(), unknown(Reason::KernelUnknown, "its kernel is not known")),
            ("c".to_owned(), unknown(Reason::FamilyUnknown, "it has two")),
            ("d".to_owned(), Target::Nothing),
        ];
        let mut pools = Pools { targets: targets.into(), ..Pools::default() };
        let message = "2 nodes: a, b: its kernel is not known";
        assert_eq!(problem(&pools, &[]), Some((Reason::KernelUnknown, message.into())));
        pools.targets.retain(|node, _| node == "c" || node == "d");
        assert_eq!(problem(&pools, &[]), Some((Reason::FamilyUnknown, "c: it has two".into())));
    }

    #[test]
    fn of_more_than_a_hundred_those_with_something_missing_are_kept() {
        let wanted: Vec<_> = (0..120).map(|index| pool(&format!("p{index:03}"), &["n"])).collect();
        let bad = pool("z", &["m"]);
        let ready: Vec<_> = wanted[..1].iter().map(|pool| pod("n", pool)).collect();
        let pools = Pools { wanted: wanted.into_iter().chain([bad]).collect(), ..Pools::default() };
        let statuses = statuses(&pools, &ready.iter().collect::<Vec<_>>());
        assert_eq!(statuses.len(), 100);
        assert!(statuses.is_sorted_by(|one, other| one.name < other.name));
        assert!(statuses.iter().all(|one| one.name != "p000"), "nothing is missing there");
    }
}
