//! Logs, by the conventions of Kubernetes' structured logging: a constant message, capital first, and fields in
//! lowerCamelCase for what varies. What is settled is silent.

use std::io::IsTerminal;

use anyhow::Context;
use clap::{Args, ValueEnum};
use tracing::error;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The variable whose directives win over the option.
const DIRECTIVES: &str = "RUST_LOG";

/// How to log.
#[derive(Args, Clone, Debug)]
pub struct LogOptions {
    /// Format of logs [default: text on a terminal, otherwise json]
    #[arg(long, env = "LOG_FORMAT", value_enum, global = true)]
    pub log_format: Option<LogFormat>,

    /// Level of logs: error, warn, info, debug or trace, or directives as in RUST_LOG, which also works
    #[arg(long, env = "LOG_LEVEL", default_value = "info", value_name = "LEVEL", global = true)]
    pub log_level: String,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line, for collectors.
    Json,
    /// For people.
    Text,
}

impl LogOptions {
    /// Starts logging to standard error. `RUST_LOG`, if set, wins over the option. `quiet` are directives for libraries
    /// that say what our own code says already: `kube=off`.
    pub fn init(&self, quiet: &str) -> anyhow::Result<()> {
        let directives = std::env::var(DIRECTIVES).ok().filter(|text| !text.is_empty());
        let directives = directives.unwrap_or_else(|| format!("{quiet},{}", self.log_level));
        let filter = filter(&directives)?;
        let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
        let lines = lines.with_ansi(std::io::stderr().is_terminal());
        let registry = tracing_subscriber::registry().with(filter);
        match self.effective_format() {
            LogFormat::Json => registry.with(lines.json().flatten_event(true).with_current_span(false)).try_init()?,
            LogFormat::Text => registry.with(lines).try_init()?,
        }
        Ok(())
    }

    /// The format asked for, or the one that fits whoever reads standard error.
    fn effective_format(&self) -> LogFormat {
        let fitting = if std::io::stderr().is_terminal() { LogFormat::Text } else { LogFormat::Json };
        self.log_format.unwrap_or(fitting)
    }
}

/// Reads directives such as `info,kube=debug`. Not `EnvFilter`: that filters by the values of fields as well, and what it needs for that
/// (regular expressions) made every image larger.
fn filter(directives: &str) -> anyhow::Result<Targets> {
    let directives: Vec<_> = directives.split(',').filter(|one| !one.is_empty()).collect();
    let directives = directives.join(",");
    directives
        .parse()
        .with_context(|| format!("could not read log level {directives:?}; use one like info, or info,kube=debug"))
}

/// A panic is a line in the log like any other trouble, and ends the process instead of one of its parts.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        error!(err = %panic, "Panicked; ending");
        std::process::abort();
    }));
}

/// An error and all its causes on one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Many libraries repeat their cause in their own words.
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use tracing::level_filters::LevelFilter;

    use super::filter;

    #[test]
    fn directives_are_read_as_rust_log_has_them() {
        let table: &[(&str, &[(&str, LevelFilter)])] = &[
            ("warn", &[("kube", LevelFilter::WARN), ("node_labeler", LevelFilter::WARN)]),
            (",DEBUG,", &[("kube", LevelFilter::DEBUG)]),
            ("kube=error,info", &[("kube::client", LevelFilter::ERROR), ("node_labeler", LevelFilter::INFO)]),
            ("info,kube=off", &[("kube", LevelFilter::OFF), ("node_labeler", LevelFilter::INFO)]),
        ];
        for (directives, expected) in table {
            let filter = filter(directives).expect("directives");
            for (target, level) in *expected {
                let passing =
                    [tracing::Level::ERROR, tracing::Level::WARN, tracing::Level::INFO, tracing::Level::DEBUG];
                let last = passing.into_iter().rfind(|level| filter.would_enable(target, level));
                assert_eq!(last.map_or(LevelFilter::OFF, LevelFilter::from_level), *level, "{directives} {target}");
            }
        }
        let error = filter("kube=loud").expect_err("no level").to_string();
        assert_eq!(error, "could not read log level \"kube=loud\"; use one like info, or info,kube=debug");
    }
}
