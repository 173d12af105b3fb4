//! What may happen to the cluster, in any order.

use std::collections::BTreeSet;

use k8s_openapi::jiff::SignedDuration;
use proptest::prelude::*;

use super::machine::Cordon;
use super::world::World;
use crate::pods::Obstacle;
use crate::upgrade::{Action, IntOrPercent, Policy, Record};

/// Something that happens. Numbers choose a node.
#[derive(Clone, Debug)]
pub(super) enum Happening {
    /// Time passes.
    Time(i64),
    /// The controller plans and writes; `lives` requests are sent before it is killed, and every `refused`th is refused.
    Plan {
        lives: usize,
        refused: usize,
    },
    /// The same, and something else happens between the plan and its writes.
    Meanwhile(Box<Happening>),
    Ready(usize, bool),
    Reboot(usize),
    /// It belongs to another pool although it was not booted: another template, another family.
    ChangePool(usize),
    Cordon(usize, bool),
    Remove(usize),
    Add(usize),
    Skip(usize, bool),
    Request(usize),
    Version(u32),
    Limits(usize, usize),
    AutoUpgrade(bool),
    Paused(bool),
    JobsForEver(bool),
    Pod {
        node: usize,
        is_job: bool,
        is_guarded: bool,
        obstacle: Option<Obstacle>,
    },
    PodsEnd(usize),
    Labeler(bool),
    Crashes(usize, bool),
    Missing(bool),
    DeleteDriver(usize),
    RemoveLabel(usize),
    RemoveRecord(usize),
    /// The API server refuses to write it.
    Refuse(usize, bool),
    /// Its driver has no DaemonSet any more.
    Orphan(usize),
    /// DaemonSets are written when another version is wanted, or that is refused.
    Written(bool),
}

pub(super) fn happening() -> impl Strategy<Value = Happening> {
    use Happening::*;
    let node = 0..7_usize;
    let yes = any::<bool>();
    let obstacle =
        prop_oneof![8 => Just(None), 1 => Just(Some(Obstacle::EmptyDir)), 1 => Just(Some(Obstacle::Unmanaged))];
    let others = prop_oneof![
        (node.clone(), yes).prop_map(|(node, yes)| Ready(node, yes)),
        node.clone().prop_map(Reboot),
        node.clone().prop_map(ChangePool),
        (node.clone(), yes).prop_map(|(node, yes)| Cordon(node, yes)),
        node.clone().prop_map(Remove),
        node.clone().prop_map(Add),
        (node.clone(), yes).prop_map(|(node, yes)| Skip(node, yes)),
        node.clone().prop_map(Request),
        (1..4_u32).prop_map(Version),
        (1..4_usize, 1..100_usize).prop_map(|(parallel, unavailable)| Limits(parallel, unavailable)),
        yes.prop_map(AutoUpgrade),
        yes.prop_map(Paused),
        yes.prop_map(JobsForEver),
        (node.clone(), yes, yes, obstacle).prop_map(|(node, is_job, is_guarded, obstacle)| Pod {
            node,
            is_job,
            is_guarded,
            obstacle
        }),
        node.clone().prop_map(PodsEnd),
        yes.prop_map(Labeler),
        (node.clone(), yes).prop_map(|(node, yes)| Crashes(node, yes)),
        yes.prop_map(Missing),
        node.clone().prop_map(DeleteDriver),
        node.clone().prop_map(RemoveLabel),
        node.clone().prop_map(RemoveRecord),
        (node.clone(), yes).prop_map(|(node, yes)| Refuse(node, yes)),
        node.prop_map(Orphan),
        yes.prop_map(Written),
    ];
    let plan = {
        (prop_oneof![3 => Just(usize::MAX), 1 => 0..4_usize], prop_oneof![3 => Just(usize::MAX), 1 => 1..4_usize])
            .prop_map(|(lives, refused)| Plan { lives, refused })
    };
    prop_oneof![
        4 => prop_oneof![Just(5), Just(30), Just(120), Just(900)].prop_map(Time),
        4 => plan,
        1 => others.clone().prop_map(meanwhile),
        3 => others,
    ]
}

/// What happens between a plan and its writes. A node's version guards neither what is wanted (a node that is begun in vain goes back)
/// nor against a pod that comes in that moment, to a node that somebody uncordoned.
fn meanwhile(other: Happening) -> Happening {
    match other {
        Happening::Version(_) | Happening::AutoUpgrade(_) | Happening::Pod { .. } => other,
        other => Happening::Meanwhile(Box::new(other)),
    }
}

impl World {
    /// Lets it happen.
    pub(super) fn happen(&mut self, what: &Happening) {
        match what {
            Happening::Time(seconds) => self.tick(*seconds),
            Happening::Plan { lives, refused } => self.act(*lives, *refused, None),
            Happening::Meanwhile(other) => self.act(usize::MAX, usize::MAX, Some(other)),
            Happening::Add(node) => self.add_node(*node),
            Happening::Remove(node) => drop(self.nodes.remove(&format!("n{node}"))),
            Happening::Version(version) => self.version = *version,
            Happening::Limits(parallel, unavailable) => {
                self.policy.max_parallel = IntOrPercent::Int(*parallel);
                self.policy.max_unavailable = IntOrPercent::Percent(*unavailable);
            }
            Happening::AutoUpgrade(is_on) => self.policy.auto_upgrade = *is_on,
            Happening::Paused(is_paused) => self.policy.paused = *is_paused,
            Happening::JobsForEver(for_ever) => {
                self.policy.job_timeout = (!for_ever).then_some(SignedDuration::from_mins(10));
            }
            Happening::Pod { node, is_job, is_guarded, obstacle } => {
                self.add_pod(&format!("n{node}"), *is_job, *is_guarded, *obstacle);
            }
            Happening::Labeler(is_up) => self.labeler = *is_up,
            Happening::Written(is_written) => self.is_written = *is_written,
            Happening::Missing(is_missing) => {
                let image = self.digest("a");
                if *is_missing {
                    self.missing.insert(image)
                } else {
                    self.missing.remove(&image)
                };
            }
            to_node => self.happen_to_node(to_node),
        }
    }

    fn happen_to_node(&mut self, what: &Happening) {
        use Happening::*;
        let (Ready(node, _)
        | Reboot(node)
        | ChangePool(node)
        | Cordon(node, _)
        | Skip(node, _)
        | Request(node)
        | PodsEnd(node)
        | Crashes(node, _)
        | DeleteDriver(node)
        | RemoveLabel(node)
        | RemoveRecord(node)
        | Refuse(node, _)
        | Orphan(node)) = what
        else {
            return;
        };
        let Some(machine) = self.nodes.get_mut(&format!("n{node}")) else { return };
        match what {
            Ready(_, is_ready) => machine.view.is_ready = *is_ready,
            Reboot(_) => {
                machine.wants = if machine.wants == "a" { "b" } else { "a" }.into();
                machine.view.kernel = Some(format!("{}+", machine.view.kernel.as_deref().unwrap_or_default()));
            }
            ChangePool(_) => machine.wants = if machine.wants == "a" { "b" } else { "a" }.into(),
            Cordon(_, is_cordoned) => machine.admin_cordons(*is_cordoned),
            Skip(_, is_skipped) => machine.view.is_skipped = *is_skipped,
            Request(_) => machine.view.is_requested = true,
            PodsEnd(_) => machine.pods.clear(),
            Crashes(_, crashes) => machine.crashes = *crashes,
            DeleteDriver(_) => machine.drivers.clear(),
            RemoveLabel(_) => machine.view.state = None,
            Refuse(_, refuses) => machine.refuses = *refuses,
            Orphan(_) => machine.orphan(),
            // Whose the cordon is, nobody knows any more.
            _ => {
                machine.view.record = None;
                if machine.cordon == super::machine::Cordon::Ours {
                    machine.cordon = super::machine::Cordon::Admins;
                }
            }
        }
        machine.touch();
    }

    /// The controller plans once and carries it out.
    pub(super) fn act(&mut self, lives: usize, refused: usize, meanwhile: Option<&Happening>) {
        let plan = self.plan();
        self.nodes.values_mut().for_each(|machine| machine.forget_refusal(&plan));
        if let Some(other) = meanwhile {
            self.happen(other);
        }
        for (index, action) in plan.actions.iter().take(lives).enumerate() {
            // What happened meanwhile is found by the version of the node; pods are guarded by their identity alone.
            if (index + 1) % refused != 0 && (meanwhile.is_none() || matches!(action, Action::Patch { .. })) {
                self.request(action);
            }
        }
    }

    /// Everything that stood in the way is gone.
    pub(super) fn heal(&mut self) {
        let cordoned = self.nodes.values().filter(|node| node.cordon == Cordon::Admins).count();
        let max_unavailable = IntOrPercent::Int(cordoned + 1);
        self.policy = Policy { max_unavailable, ..super::world::policy() };
        (self.labeler, self.missing, self.is_written) = (true, BTreeSet::new(), true);
        for machine in self.nodes.values_mut() {
            machine.refuses = false;
            (machine.view.is_ready, machine.view.is_skipped, machine.crashes) = (true, false, false);
            machine.pods.retain(|pod| pod.obstacle.is_none());
            for pod in &mut machine.pods {
                (pod.is_guarded, pod.is_job) = (false, false);
            }
            machine.touch();
        }
    }
}

impl super::machine::Machine {
    fn admin_cordons(&mut self, is_cordoned: bool) {
        if self.view.is_unschedulable == is_cordoned {
            return;
        }
        self.view.is_unschedulable = is_cordoned;
        // Who lifts a cordon of ours and makes one before we have looked cannot be told from us.
        let claims = self.view.record.as_ref().is_some_and(|record: &Record| record.cordoned);
        self.cordon = match (is_cordoned, claims) {
            (false, _) => Cordon::Nobody,
            (true, true) => Cordon::Ours,
            (true, false) => Cordon::Admins,
        };
    }
}
