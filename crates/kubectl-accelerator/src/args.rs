//! The command line.

use std::path::PathBuf;

use accelerator_api::contract::COMPONENTS;
use clap::{Args, Parser, Subcommand, ValueEnum};
use k8s_openapi::jiff::SignedDuration;

use crate::explain::Subject;

const EXAMPLES: &str = "\
Examples:
  kubectl accelerator status                            what runs where, the worst first
  kubectl accelerator status --not-ready -o wide        only what is not as it should be, every node by name
  kubectl accelerator explain node/npu-17               what is, what should be, what keeps it, what to do
  kubectl accelerator explain component/driver
  kubectl accelerator explain config
  kubectl accelerator collect -o bundle.tar.gz          everything for support, in one file
  kubectl accelerator explain config --bundle bundle.tar.gz

Exit codes:
  0  as it should be, or done
  1  not as it should be: something is on its way, or somebody has to act
  2  the command line was not understood
  3  the cluster or the bundle could not be read
  4  what was asked for does not exist";

/// What runs on nodes with accelerators, why not, and everything for support. Reads, and never writes.
#[derive(Debug, Parser)]
#[command(name = "kubectl-accelerator", bin_name = "kubectl accelerator", version, after_help = EXAMPLES)]
pub struct Cli {
    /// How to reach the cluster.
    #[command(flatten)]
    pub access: Access,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// How to reach the cluster.
#[derive(Args, Clone, Debug)]
pub struct Access {
    /// Kubeconfig to use [default: KUBECONFIG, else ~/.kube/config]
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Context of the kubeconfig [default: the current one]
    #[arg(long, global = true, value_name = "CONTEXT")]
    pub context: Option<String>,

    /// Namespace of the controllers
    #[arg(short, long, global = true, default_value = "accelerator-system", value_name = "NAMESPACE")]
    pub namespace: String,

    /// Namespace of the operands
    #[arg(long, global = true, default_value = "rebellions", value_name = "NAMESPACE")]
    pub operand_namespace: String,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show nodes and components: all alike in one line, exceptions by name, the worst first
    #[command(
        after_help = "Example:\n  kubectl accelerator status -l topology.kubernetes.io/zone=a --mode container --component driver"
    )]
    Status(StatusArgs),
    /// Tell why a node, a component or the config is as it is
    #[command(
        after_help = "Examples:\n  kubectl accelerator explain node/npu-17\n  kubectl accelerator explain component/device-plugin\n  kubectl accelerator explain config\n  kubectl accelerator explain node/npu-17 --bundle bundle.tar.gz"
    )]
    Explain(ExplainArgs),
    /// Write one file for support: objects, logs, metrics and explanations, without secrets
    #[command(
        after_help = "Example:\n  kubectl accelerator collect -o bundle.tar.gz\n\nEnvironment values and annotations of others are left out; manifest.json in the file lists what is inside and what could not be read."
    )]
    Collect(CollectArgs),
    /// Print a completion script
    #[command(after_help = "Example:\n  source <(kubectl-accelerator completion bash)")]
    Completion {
        /// For this shell
        shell: clap_complete::Shell,
    },
}

/// What to show of the status.
#[derive(Args, Clone, Debug)]
pub struct StatusArgs {
    /// Only nodes with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub selector: Option<String>,

    /// Only nodes in this mode
    #[arg(long, value_enum)]
    pub mode: Option<Mode>,

    /// Only this component
    #[arg(long, value_parser = component_names())]
    pub component: Option<String>,

    /// Only nodes that are not as they should be
    #[arg(long)]
    pub not_ready: bool,

    /// How to show it
    #[arg(short, long, value_enum, default_value_t = StatusOutput::Table)]
    pub output: StatusOutput,

    /// Show it again and again, until Ctrl-C
    #[arg(short, long)]
    pub watch: bool,

    /// How often to read with --watch; at least 2s
    #[arg(long, default_value = "10s", value_name = "DURATION")]
    pub interval: SignedDuration,
}

/// What to explain.
#[derive(Args, Clone, Debug)]
pub struct ExplainArgs {
    /// node/NAME, component/NAME, config or config/NAME
    pub subject: Subject,

    /// Explain what a bundle of `collect` says, without a cluster
    #[arg(long, value_name = "FILE")]
    pub bundle: Option<PathBuf>,

    /// How to print it
    #[arg(short, long, value_enum, default_value_t = ExplainOutput::Text)]
    pub output: ExplainOutput,
}

/// Where a bundle goes.
#[derive(Args, Clone, Debug)]
pub struct CollectArgs {
    /// File to write; it must not exist
    #[arg(short, long, value_name = "FILE.tar.gz")]
    pub output: PathBuf,

    /// The most of logs, in MiB, before they are packed
    #[arg(long, default_value_t = 32, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1024))]
    pub max_logs: u64,
}

/// A mode of nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// NPUs go to pods
    Container,
    /// NPUs go to virtual machines
    VmPassthrough,
    /// Nodes with NPUs and no mode, with one that is unknown, or left as they are
    None,
}

/// How to show a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StatusOutput {
    /// A table that fits a screen
    Table,
    /// A table with every node that is not as it should be, and every cause
    Wide,
    /// For programs
    Json,
    /// For programs
    Yaml,
}

/// How to print an explanation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExplainOutput {
    /// For people
    Text,
    /// For programs
    Json,
    /// For programs
    Yaml,
}

fn component_names() -> clap::builder::PossibleValuesParser {
    COMPONENTS.map(|component| component.name).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        assert!(parse("x status -l a=b --mode container --component driver --not-ready -o json").is_ok());
        assert!(parse("x explain node/n-1 --bundle f --context c").is_ok());
        assert!(parse("x collect").is_err(), "a bundle goes to a file that somebody names");
        let error = parse("x explain pod/n-1").expect_err("not a subject");
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("node/NAME"), "{error}");
    }
}
