//! What the README tells an admin to do, as it is written there.

use anyhow::{Context, ensure};
use node_suite::World;
use testbed::repository::root;
use testbed::say;

/// Runs every command of the sections that concern a cluster.
pub async fn run(world: &mut World) -> anyhow::Result<()> {
    let readme = std::fs::read_to_string(root().join("README.md"))?;
    for section in ["Install", "Use", "Remove"] {
        let commands = commands(&readme, section)?;
        ensure!(!commands.is_empty(), "the README has no commands under {section}");
        for command in commands {
            let said = world.shell(&command)?;
            ensure!(!said.errors.contains("Warning"), "{command}\n{}", said.errors);
            say(format!("    $ {command}"));
        }
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
