//! The options that every controller has.

use std::io::IsTerminal;
use std::net::SocketAddr;

use clap::{Args, ValueEnum};

/// Options that every controller has, each also from the environment.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Namespace that the operands live in
    #[arg(long, env = "OPERAND_NAMESPACE", default_value = "rebellions", value_name = "NAMESPACE")]
    pub operand_namespace: String,

    /// Address that /livez, /readyz and /metrics are served on; port 0 picks a free one and logs it
    #[arg(long, env = "ADMIN_ADDRESS", default_value = "0.0.0.0:8080", value_name = "IP:PORT")]
    pub admin_address: SocketAddr,

    /// Format of logs [default: text on a terminal, otherwise json]
    #[arg(long, env = "LOG_FORMAT", value_enum)]
    pub log_format: Option<LogFormat>,

    /// Level of logs: error, warn, info, debug or trace, or directives as in RUST_LOG, which also works
    #[arg(long, env = "LOG_LEVEL", default_value = "info", value_name = "LEVEL")]
    pub log_level: String,

    /// Context of the kubeconfig to use outside a cluster [default: the current one]
    #[arg(long, env = "KUBE_CONTEXT", value_name = "CONTEXT")]
    pub context: Option<String>,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line, for collectors.
    Json,
    /// For people.
    Text,
}

impl Options {
    /// The format asked for, or the one that fits whoever reads standard error.
    pub(crate) fn effective_log_format(&self) -> LogFormat {
        let fitting = if std::io::stderr().is_terminal() { LogFormat::Text } else { LogFormat::Json };
        self.log_format.unwrap_or(fitting)
    }
}
