//! Makes OCI archives of our images without a tool for containers.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use clap::Parser;
use images::{Architecture, LARGEST, Ours, oci, root};

/// Makes an OCI archive per image: the same bytes for the same sources and the same compiler
#[derive(Parser)]
struct Command {
    /// What the names of the images begin with
    #[arg(default_value = "ghcr.io/petasus-ai")]
    registry: String,

    /// Their tag
    #[arg(default_value = concat!("v", env!("CARGO_PKG_VERSION")))]
    tag: String,

    /// Architectures; several make one image for all of them [default: that of this machine]
    #[arg(long = "arch", value_enum, value_name = "ARCH")]
    architectures: Vec<Architecture>,

    /// The commit that is built, for the label org.opencontainers.image.revision
    #[arg(long)]
    revision: Option<String>,

    /// Where the archives go [default: `images` in cargo's target folder]
    #[arg(long)]
    output: Option<PathBuf>,
}

#[expect(clippy::print_stdout, reason = "a table for whoever asked")]
fn main() -> anyhow::Result<()> {
    let command = Command::parse();
    let executable = std::env::current_exe()?;
    let target = executable.ancestors().nth(2).context("this program is in no target folder of cargo")?;
    let architectures = match command.architectures {
        given if given.is_empty() => vec![Architecture::here()?],
        given => given,
    };
    let revision = command.revision.as_deref();
    let builds: Vec<_> = architectures
        .into_iter()
        .map(|one| Ours::build(root(), target, one, revision))
        .collect::<anyhow::Result<_>>()?;
    let output = command.output.unwrap_or_else(|| target.join("images"));
    std::fs::create_dir_all(&output).with_context(|| output.display().to_string())?;
    let mut too_large = vec![];
    for program in builds.first().into_iter().flat_map(Ours::programs) {
        let name = format!("{}/{program}:{}", command.registry, command.tag);
        let mut images = vec![];
        for build in &builds {
            images.extend(build.image(program, &name)?);
        }
        let archive = output.join(format!("{program}.tar"));
        for image in oci::write(&archive, &images)? {
            println!("{}@{} {} bytes {}", image.name, image.digest, image.compressed, archive.display());
            too_large.extend((image.compressed > LARGEST).then_some(image.name));
        }
    }
    ensure!(too_large.is_empty(), "more than {LARGEST} bytes each: {}", too_large.join(", "));
    Ok(())
}
