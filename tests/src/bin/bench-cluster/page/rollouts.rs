//! What a rollout by us costs beside the same by kubectl, in words.

use std::fmt::{Result, Write};

use crate::measure::{Run, Work};
use crate::rollout::{AFTER, BEFORE, OURS};

/// Why the first version of this page, before docs/adr/0020, told a ratio of 1.34 at 5,000 nodes.
const INTRODUCTION: &str = "\
The same DaemonSets on the same nodes are rolled out three times: by kubectl, by us, and by kubectl again, because events and history in\n\
etcd grow from each to the next. What makes, binds and plays the pods takes most of the machine in all three. Ours adds a status write\n\
of each program every few seconds, and a watch of its own pods for each controller while they are not ready. Until\n\
[ADR 20](adr/0020-diagnosis-by-watch.md) each controller also listed events every 15 s, for which the API server reads every event of the\n\
namespace from etcd: 141 such lists at 5,000 nodes. At 0.6 s of its processor time each, measured apart, that is some 85 s, about half of\n\
what 79 s more took on two processors when this page told a ratio of 1.34. The rest was not measured then; each line below tells it now.\n\n";

/// A line for each run that has all three.
pub fn rollouts(out: &mut String, runs: &[Run]) -> Result {
    write!(out, "\n## The rollout\n\n{INTRODUCTION}")?;
    for run in runs {
        let (Some(before), Some(ours), Some(after)) = (run.work(BEFORE), run.work(OURS), run.work(AFTER)) else {
            continue;
        };
        let server = |work: &Work| work.cpu_of("kube-apiserver");
        let lists = run.requests.iter().filter(|one| one.phase == OURS && one.request == "list events");
        writeln!(
            out,
            "- {} nodes, {}: {:.1} s by us, {:.1} and {:.1} s by kubectl before and after. The API server took {:.1} s of \
             processor time, and {:.1} and {:.1} s for kubectl's. Ours were {} requests, {} of them lists of events, and {:.1} MB of \
             answers; they took {:.1} s of processor time themselves.",
            run.nodes,
            run.components.join(", "),
            ours.seconds,
            before.seconds,
            after.seconds,
            server(ours),
            server(before),
            server(after),
            ours.requests,
            lists.map(|one| one.times).sum::<usize>(),
            ours.received_kb / 1e3,
            ours.own_cpu
        )?;
    }
    Ok(())
}
