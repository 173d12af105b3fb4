//! The shell: reads a cluster or a bundle, prints, and ends with a code.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use accelerator_process::clock;
use anyhow::{Context, ensure};
use clap::CommandFactory;
use serde::Serialize;

use crate::args::{Access, Cli, CollectArgs, Command, ExplainArgs, ExplainOutput, StatusArgs, StatusOutput};
use crate::collect::{collect, read_facts};
use crate::explain::{State, explain, render};
use crate::read::{Reader, connect, for_bundle, for_status, for_subject};
use crate::status::{Filter, Summary, summarise, table};
use crate::style::Style;

/// How a command ends. 2 is the command line's, by clap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// As it should be, or done.
    Fine,
    /// Not as it should be.
    NotReady,
    /// The cluster or the bundle could not be read.
    Unreadable,
    /// What was asked for does not exist.
    NotFound,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(match code {
            Code::Fine => 0,
            Code::NotReady => 1,
            Code::Unreadable => 3,
            Code::NotFound => 4,
        })
    }
}

/// Carries a command out.
pub async fn run(cli: Cli) -> anyhow::Result<Code> {
    match cli.command {
        Command::Status(args) => status(&cli.access, &args).await,
        Command::Explain(args) => explain_subject(&cli.access, &args).await,
        Command::Collect(args) => collect_bundle(&cli.access, &args).await,
        Command::Completion { shell } => {
            let mut script = vec![];
            clap_complete::generate(shell, &mut Cli::command(), "kubectl-accelerator", &mut script);
            print(&String::from_utf8_lossy(&script))?;
            Ok(Code::Fine)
        }
    }
}

/// Tells why a command did not work, and with which code it ends.
#[must_use]
pub fn failed(error: &anyhow::Error) -> Code {
    // There is nobody left to tell when standard error is closed.
    let _ = writeln!(std::io::stderr(), "error: {error:#}");
    Code::Unreadable
}

async fn status(access: &Access, args: &StatusArgs) -> anyhow::Result<Code> {
    let interval = Duration::try_from(args.interval).context("--interval must not be negative")?;
    ensure!(interval >= Duration::from_secs(2), "--interval must be at least 2s");
    let reader = Reader::new(connect(access).await?);
    let filter = Filter { mode: args.mode, component: args.component.as_deref(), not_ready: args.not_ready };
    loop {
        let facts = match for_status(&reader, access, args.selector.as_deref(), clock::now()).await {
            // An API server that is away for a moment does not end a watch.
            Err(error) if args.watch && reader.has_answered() => {
                let _ = failed(&error);
                tokio::time::sleep(interval).await;
                continue;
            }
            facts => facts?,
        };
        let summary = summarise(&facts, filter);
        let text = shown(&summary, args.output)?;
        if !args.watch {
            print(&text)?;
            return Ok(if summary.ready { Code::Fine } else { Code::NotReady });
        }
        let clear = if std::io::stdout().is_terminal() { "\x1b[H\x1b[2J" } else { "" };
        print(&format!("{clear}{text}"))?;
        tokio::time::sleep(interval).await;
    }
}

fn shown(summary: &Summary, output: StatusOutput) -> anyhow::Result<String> {
    match output {
        StatusOutput::Table => Ok(table(summary, false, Style::of_stdout())),
        StatusOutput::Wide => Ok(table(summary, true, Style::of_stdout())),
        StatusOutput::Json => json(summary),
        StatusOutput::Yaml => yaml(summary),
    }
}

async fn explain_subject(access: &Access, args: &ExplainArgs) -> anyhow::Result<Code> {
    let facts = match &args.bundle {
        Some(path) => read_facts(path)?,
        None => for_subject(&Reader::new(connect(access).await?), access, &args.subject, clock::now()).await?,
    };
    let explanation = explain(&facts, &args.subject);
    print(&match args.output {
        ExplainOutput::Text => render(&explanation, facts.at, Style::of_stdout()),
        ExplainOutput::Json => json(&explanation)?,
        ExplainOutput::Yaml => yaml(&explanation)?,
    })?;
    Ok(match explanation.state {
        State::AsWanted => Code::Fine,
        State::Progressing | State::Blocked => Code::NotReady,
        State::NotFound => Code::NotFound,
    })
}

async fn collect_bundle(access: &Access, args: &CollectArgs) -> anyhow::Result<Code> {
    let reader = Reader::new(connect(access).await?);
    let progress = std::io::stderr().is_terminal();
    let tell = |step: &str| {
        if progress {
            let _ = write!(std::io::stderr(), "\r\x1b[K{step} ...");
        }
    };
    tell("reading the cluster");
    let facts = for_bundle(&reader, access, clock::now()).await?;
    let max_logs = usize::try_from(args.max_logs * 1024 * 1024).unwrap_or(usize::MAX);
    let written = collect(&reader, &facts, &args.output, max_logs, tell).await;
    if progress {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
    let written = written?;
    let size = std::fs::metadata(&args.output).map_or(0, |metadata| metadata.len());
    let missing = if written.missing > 0 {
        format!("; {} things could not be had, manifest.json says why", written.missing)
    } else {
        String::new()
    };
    print(&format!("{}: {} files, {} KiB{missing}\n", args.output.display(), written.files, size.div_ceil(1024)))?;
    Ok(Code::Fine)
}

fn json(value: &impl Serialize) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

fn yaml(value: &impl Serialize) -> anyhow::Result<String> {
    Ok(serde_saphyr::to_string(value)?)
}

/// Writes to standard output. Whoever reads only the beginning, as `head` does, is no error.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("could not write to standard output"),
    }
}
