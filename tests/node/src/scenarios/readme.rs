//! What the README tells an admin to do, as it is written there.

use anyhow::{Context, ensure};
use node_suite::World;
use testbed::repository::root;

/// What may stay on a node's disk when everything has been removed is listed here, one path a line in a block.
const LEFT: &str = "docs/guides/install.md";

/// Runs every command of the sections that concern a cluster.
pub async fn run(world: &mut World) -> anyhow::Result<()> {
    let readme = std::fs::read_to_string(root().join("README.md"))?;
    for section in ["Install", "Use", "Remove"] {
        let commands = commands(&readme, section)?;
        ensure!(!commands.is_empty(), "the README has no commands under {section}");
        for command in commands {
            if command.starts_with("kubectl wait") {
                only_the_missing_npus_are_missing(world).await?;
            }
            if command.starts_with("kubectl delete -k") {
                world.cluster.expect_operands(&[]).await;
                for node in &world.nodes {
                    world.cluster.expect_deployed(&node.name, &[]).await;
                }
            }
            let said = world.shell(&command)?;
            ensure!(!said.errors.contains("Warning"), "{command}\n{}", said.errors);
        }
    }
    let left = world.shell("kubectl get crd,namespaces,clusterroles,clusterrolebindings -o name")?.out;
    let ours = left.lines().filter(|name| name.contains("accelerator") || name.contains("rebellions"));
    ensure!(ours.clone().next().is_none(), "left in the cluster: {:?}", ours.collect::<Vec<_>>());
    only_what_is_told_is_left(world)
}

/// A node of this suite has no NPUs to bind, and the condition says so. As a node for pods it can do without.
async fn only_the_missing_npus_are_missing(world: &World) -> anyhow::Result<()> {
    let node = "node-2";
    world.cluster.expect_condition("default", "RebellionsVfioManagerReady", "False/PodsNotReady").await;
    testbed::eventually("the condition to name the node and the cause", async || {
        let condition = world.cluster.condition("default", "RebellionsVfioManagerReady").await;
        testbed::Wait::until(condition, |words| words.contains(node) && words.contains("no NPU"))
    })
    .await;
    world.cluster.set_mode(node, Some("container")).await?;
    Ok(())
}

/// What an installation leaves on a node is a promise, and in the documentation.
fn only_what_is_told_is_left(world: &World) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(root().join(LEFT))?;
    let (_, rest) = text.split_once("\n## What stays on a node\n").context("the guide does not tell what stays")?;
    let told: Vec<_> = rest.lines().filter_map(|line| line.strip_prefix("- `")?.split('`').next()).collect();
    for node in &world.nodes {
        let mut left = node.left()?;
        // A folder on the way to what is told of is told of, too.
        left.retain(|path| !told.iter().any(|one| path.starts_with(one) || one.starts_with(path.as_str())));
        ensure!(left.is_empty(), "{} has {left:?}, which {LEFT} does not tell of", node.name);
    }
    Ok(())
}

/// The commands in a section's blocks: lines that begin with a prompt, without their comments.
fn commands(readme: &str, section: &str) -> anyhow::Result<Vec<String>> {
    let (_, rest) = readme.split_once(&format!("\n## {section}\n")).with_context(|| format!("no section {section}"))?;
    let section = rest.split("\n## ").next().unwrap_or_default();
    let lines = section.lines().filter_map(|line| line.strip_prefix("$ "));
    Ok(lines.map(|line| line.split(" # ").next().unwrap_or_default().trim_end().to_owned()).collect())
}
