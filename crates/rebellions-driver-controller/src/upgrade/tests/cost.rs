//! What a plan costs in a large cluster, where nearly every node is as it should be. It is made after each event.

use std::time::Instant;

use super::scene::Scene;
use crate::upgrade::{IntOrPercent, State};

const NODES: usize = 5000;

/// `cargo test --release -p rebellions-driver-controller -- --ignored --nocapture plan_costs`
#[test]
#[ignore = "measures"]
#[expect(clippy::print_stdout, reason = "it is there to be read")]
fn plan_costs() {
    let scenes = || (0..NODES).map(|index| Scene::named(&format!("node-{index:04}")));
    let settled: Vec<Scene> = scenes().map(Scene::upgraded).collect();
    let mut waiting: Vec<Scene> = scenes().collect();
    waiting[0] = Scene::named("node-0000").upgraded();
    let mut policy = super::world::policy();
    policy.max_parallel = IntOrPercent::Percent(10);
    let full: Vec<Scene> = waiting.iter().enumerate().map(|(index, scene)| under_way(index, scene.clone())).collect();
    for (what, scenes) in [("settled", &settled), ("500 begun", &waiting), ("500 under way", &full)] {
        let members: Vec<_> = scenes.iter().map(Scene::member).collect();
        let fleet = super::scene::fleet(&policy, &members);
        let begun = Instant::now();
        let actions: usize = (0..20).map(|_| crate::upgrade::plan(&fleet).actions.len()).sum();
        println!("{NODES} nodes, {what}: {:?} a plan, {} actions", begun.elapsed() / 20, actions / 20);
    }
}

fn under_way(index: usize, scene: Scene) -> Scene {
    if index.is_multiple_of(10) { scene.under_way(State::Cordoned, 1).evicts(&["w1"]) } else { scene }
}
