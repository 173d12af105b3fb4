//! See `--help`.

use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;

use accelerator_process::{Signals, admin, log_panics};
use anyhow::{Context, anyhow};
use clap::Parser;
use clap::error::ErrorKind;
use rebellions_vfio_manager::agent::Agent;
use rebellions_vfio_manager::commands::{self, Outcome};
use rebellions_vfio_manager::decide::Goal;
use rebellions_vfio_manager::give_back::give_back;
use rebellions_vfio_manager::options::{Command, Common, Options};
use rebellions_vfio_manager::publish::Publisher;
use rustix::process::{WaitOptions, getpid, wait};
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

fn main() -> ExitCode {
    let options = Options::try_parse().unwrap_or_else(|error| explain(&error));
    match apply(options) {
        Ok(outcome) => outcome.into(),
        Err(error) => {
            // Without a backtrace: it is for people.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The error comes last, because the status of a component quotes the last line of a container that died.
fn explain(error: &clap::Error) -> ! {
    let code = error.exit_code();
    let _ = error.print();
    if error.use_stderr() {
        let text = error.to_string();
        let line = match error.kind() {
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => "error: a command is missing",
            _ => text.lines().next().unwrap_or_default(),
        };
        let _ = writeln!(std::io::stderr(), "{line}");
    }
    std::process::exit(code)
}

fn apply(Options { command, common, log }: Options) -> anyhow::Result<Outcome> {
    log.init("hyper=warn")?;
    match command {
        Command::Run(admin) => run(&common, admin.admin_address).map(|()| Outcome::Done),
        Command::Status { json } => commands::status(&common, json),
        Command::Check { json, agent, admin } => commands::check(&common, json, agent.then_some(admin.admin_address)),
        Command::Bind(how) => commands::once(&common, Goal::Bind, how),
        Command::GiveBack(how) => give_back(&common, how),
    }
}

fn run(common: &Common, admin_address: SocketAddr) -> anyhow::Result<()> {
    log_panics();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(supervise(common, admin_address));
    // Threads that are stuck in the kernel are not waited for.
    runtime.shutdown_background();
    if outcome.is_ok() {
        info!("Stopped");
    }
    outcome
}

async fn supervise(common: &Common, admin_address: SocketAddr) -> anyhow::Result<()> {
    let signals = Signals::listen()?;
    let worker = common.worker();
    let (publisher, endpoint) = Publisher::new(worker.records.clone());
    let listener = admin::bind(admin_address).await?;
    info!(version = env!("CARGO_PKG_VERSION"), adminAddress = %listener.local_addr()?, "Started");
    let agent = Agent { worker, modules: common.modules(), when_none: common.when_none, publisher };
    tokio::select! {
        outcome = agent.run(signals) => outcome,
        ended = admin::serve(listener, move |path: &str| endpoint.answer(path)) => ended.and(Err(anyhow!("the admin server ended"))),
        ended = reap() => ended.and(Err(anyhow!("the kernel no longer tells of children"))),
    }
}

/// Reaps orphans: the first process of a container inherits them.
async fn reap() -> anyhow::Result<()> {
    let mut children = signal(SignalKind::child()).context("could not wait for children")?;
    if getpid().as_raw_nonzero().get() != 1 {
        return std::future::pending().await;
    }
    while children.recv().await.is_some() {
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
    }
    Ok(())
}
