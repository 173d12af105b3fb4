//! Logs, by the conventions of Kubernetes' structured logging: a constant message, capital first, and fields in
//! lowerCamelCase for what varies. A settled cluster is silent.

use std::io::IsTerminal;

use anyhow::Context;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::Options;
use crate::options::LogFormat;

/// Starts logging to standard error. `RUST_LOG`, if set, wins over the option.
pub(crate) fn init(options: &Options) -> anyhow::Result<()> {
    let directives = std::env::var(EnvFilter::DEFAULT_ENV).ok().filter(|text| !text.is_empty());
    // The client logs every server error that our own code already reports once, when trouble begins.
    let directives = directives.unwrap_or_else(|| format!("kube=error,{}", options.log_level));
    let filter = EnvFilter::try_new(&directives)
        .with_context(|| format!("could not read log level {directives:?}; use one like info, or info,kube=debug"))?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let lines = lines.with_ansi(std::io::stderr().is_terminal());
    let registry = tracing_subscriber::registry().with(filter);
    match options.effective_log_format() {
        LogFormat::Json => registry.with(lines.json().flatten_event(true).with_current_span(false)).try_init()?,
        LogFormat::Text => registry.with(lines).try_init()?,
    }
    Ok(())
}

/// An error and all its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
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
