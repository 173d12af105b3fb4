//! Prints every image that an installation can pull, one a line: for registries that are to serve it.

use std::io::Read;

use anyhow::Context;
use clap::Parser;
use rebellions_driver_controller::image_tag::Variable;
use rebellions_driver_controller::node::NodeView;
use serde_json::Value;
use testbed::image_list::{image_list, kind};

/// Prints every image that an installation can pull: of the workloads in these files, and of the operands that its
/// AcceleratorConfig asks for
#[derive(Parser)]
struct Command {
    /// YAML or JSON with what is installed: what an overlay renders to, an AcceleratorConfig, nodes as `kubectl get nodes -o
    /// json` prints them; - is standard input
    #[arg(value_name = "FILE")]
    files: Vec<String>,

    /// A kernel of nodes whose driver is to be listed, such as 5.15.0-130-generic
    #[arg(long)]
    kernel: Vec<String>,

    /// An operating system of such nodes, such as ubuntu22.04
    #[arg(long)]
    os: Vec<String>,

    /// An architecture of such nodes, such as amd64
    #[arg(long)]
    arch: Vec<String>,

    /// A family of NPUs of such nodes, such as atom
    #[arg(long)]
    family: Vec<String>,
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a list for a pipe, and what it lacks beside it")]
fn main() -> anyhow::Result<()> {
    let command = Command::parse();
    let objects = command.files.iter().map(|file| read(file)).collect::<anyhow::Result<Vec<_>>>()?.concat();
    let list = image_list(&objects, &command.kinds())?;
    for note in list.notes {
        eprintln!("{note}");
    }
    for image in list.images {
        println!("{image}");
    }
    Ok(())
}

impl Command {
    /// Every combination of what was given; none when nothing was.
    fn kinds(&self) -> Vec<NodeView> {
        let given = |variable| match variable {
            Variable::Family => &self.family,
            Variable::Os => &self.os,
            Variable::Kernel => &self.kernel,
            Variable::Arch => &self.arch,
        };
        if Variable::ALL.into_iter().all(|variable| given(variable).is_empty()) {
            return vec![];
        }
        let mut combinations: Vec<Vec<(Variable, &String)>> = vec![vec![]];
        for variable in Variable::ALL.into_iter().filter(|variable| !given(*variable).is_empty()) {
            let longer = |before: Vec<_>| {
                given(variable).iter().map(move |value| [before.clone(), vec![(variable, value)]].concat())
            };
            combinations = combinations.into_iter().flat_map(longer).collect();
        }
        let value = |known: &[(Variable, &String)], variable| {
            known.iter().find(|(one, _)| *one == variable).map(|(_, value)| (*value).clone())
        };
        combinations.iter().map(|known| kind(|variable| value(known, variable))).collect()
    }
}

fn read(file: &str) -> anyhow::Result<Vec<Value>> {
    let mut text = String::new();
    if file == "-" {
        std::io::stdin().read_to_string(&mut text)?;
    } else {
        text = std::fs::read_to_string(file).with_context(|| format!("could not read {file}"))?;
    }
    serde_saphyr::from_multiple(&text).with_context(|| format!("{file} is neither YAML nor JSON"))
}
