//! Over anything that may happen: limits hold, what is ours is undone and nothing else, and what can be done is done.

use proptest::prelude::*;

use super::machine::Cordon;
use super::model::{Happening, happening};
use super::world::World;
use crate::upgrade::State;

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    /// Each request is checked by the world itself.
    #[test]
    fn whatever_happens_limits_hold_and_everything_is_done_in_the_end(happenings in proptest::collection::vec(happening(), 0..80)) {
        let mut world = World::new(6);
        world.version = 2;
        for what in &happenings {
            world.happen(what);
        }
        let cordoned = admins(&world);
        world.heal();
        world.settle();
        prop_assert_eq!(admins(&world), cordoned);
    }

    /// Switched off in the middle of anything, everything is undone at once.
    #[test]
    fn switched_off_in_the_middle_nothing_of_ours_is_left(happenings in proptest::collection::vec(happening(), 0..60)) {
        let mut world = World::new(6);
        world.version = 2;
        for what in &happenings {
            world.happen(what);
        }
        world.nodes.values_mut().for_each(|machine| machine.refuses = false);
        world.happen(&Happening::AutoUpgrade(false));
        world.act(usize::MAX, usize::MAX, None);
        for (name, node) in &world.nodes {
            prop_assert!(node.cordon != Cordon::Ours && node.view.record.is_none() && node.view.state.is_none(), "{}", name);
            prop_assert!(node.paused_until.is_none(), "{}", name);
        }
        prop_assert!(world.plan().actions.is_empty());
    }
}

fn admins(world: &World) -> Vec<String> {
    let cordoned = world.nodes.iter().filter(|(_, node)| node.cordon == Cordon::Admins);
    cordoned.map(|(name, _)| name.clone()).collect()
}

impl World {
    /// Runs until every node has what it should and nothing is left to do.
    fn settle(&mut self) {
        for _ in 0..600 {
            self.tick(30);
            self.act(usize::MAX, usize::MAX, None);
            if self.is_settled() {
                return;
            }
        }
        let plan = self.plan();
        let nodes: Vec<_> = self
            .nodes
            .values()
            .map(|node| (&node.view.name, node.view.state, &node.view.record, &node.drivers))
            .collect();
        panic!("nothing goes on: {plan:#?}\n{nodes:?}");
    }

    pub(super) fn is_settled(&self) -> bool {
        let plan = self.plan();
        let is_done = self.nodes.values().all(|node| {
            node.runs(&self.digest(&node.wants))
                && node.view.record.is_none()
                && node.cordon != Cordon::Ours
                && node.paused_until.is_none()
                && node.view.state.is_none_or(|state| matches!(state, State::Done | State::Skipped))
                && !node.view.is_requested
        });
        is_done && plan.actions.is_empty() && plan.follow.is_empty() && plan.due.is_none()
    }
}

#[test]
fn a_clean_upgrade_costs_four_writes_and_two_events_a_node() {
    let mut world = World::new(6);
    assert!(world.is_settled(), "{:#?}", world.plan());
    world.version = 2;
    for index in 0..6 {
        world.add_pod(&format!("n{index}"), false, false, None);
    }
    world.settle();
    assert!(world.writes.values().all(|writes| *writes == 4), "{:?}", world.writes);
    assert_eq!(world.writes.len(), 6);
    assert_eq!(world.events.len(), 12, "{:?}", world.events);
}
