//! `kubectl accelerator`.

use std::process::ExitCode;

use clap::Parser;
use kubectl_accelerator::args::Cli;
use kubectl_accelerator::commands;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    match commands::run(cli).await {
        Ok(code) => code.into(),
        Err(error) => commands::failed(&error).into(),
    }
}
