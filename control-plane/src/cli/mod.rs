//! The `pillion` command line.

use std::{
    ffi::OsStr,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, builder::Resettable};

mod apply;
mod check;
mod client;
mod delete;
mod describe;
mod diagnose;
mod endpoints;
mod explain;
mod failure;
mod files;
mod get;
mod hops;
mod inject;
mod join;
mod server;
mod stat;
mod table;
mod tap;
mod tokens;
mod top;
mod words;

pub use failure::{Exit, Failure};

use crate::demo;
use client::Client;

/// A light service mesh: control plane and command line.
#[derive(Debug, Parser)]
#[command(name = "pillion", version, propagate_version = true, after_help = failure::EXIT_CODES)]
struct Cli {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: Command,
}

/// Which server, and by which right.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Connection")]
struct Connection {
    /// The control plane's API
    #[arg(
        long,
        global = true,
        env = "PILLION_SERVER",
        value_name = "URL",
        default_value = "http://127.0.0.1:15080"
    )]
    server: String,
    /// The token to change things and to watch live requests with; beyond loopback, to read with, too
    #[arg(long, global = true, env = "PILLION_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// A file with the token [default: admin.token in the server's default data directory]
    #[arg(long, global = true, env = "PILLION_TOKEN_FILE", value_name = "FILE", conflicts_with = "token")]
    token_file: Option<PathBuf>,
    /// PEM certificates to trust the server by, instead of the system's
    #[arg(long, global = true, env = "PILLION_CA_FILE", value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the control plane
    Server(Box<crate::config::ServerArgs>),
    /// Bring documents to what files say: all of them, or none
    Apply(apply::ApplyArgs),
    /// Show documents
    Get(get::GetArgs),
    /// Delete documents
    Delete(delete::DeleteArgs),
    /// Tell everything about one document in words
    Describe(describe::DescribeArgs),
    /// Look for what is wrong in the mesh, or soon will be
    Check(check::CheckArgs),
    /// Write all that is known of one workload into one file, for a bug report
    ///
    /// It holds what the control plane knows of the workload, of its services and of those it calls, with their documents and the
    /// values in force; what the sidecar itself says at its operators' port, where that can be reached from here; and what `pillion
    /// check` finds about it. Tokens, keys, annotations, and values of fields and headers that carry credentials are not in it;
    /// names, addresses and labels are.
    Diagnose(diagnose::DiagnoseArgs),
    /// Tell what becomes of a request, and why, by the code that sidecars run
    Explain(explain::ExplainArgs),
    /// Show how services, workloads or edges fared: success, requests, latency
    ///
    /// P50 to P99 are of all requests, also of those that a sidecar refused at once.
    Stat(stat::StatArgs),
    /// The same live, in place
    Top(top::TopArgs),
    /// Show requests live, as they end
    ///
    /// Needs a token with the role operator. What is told of requests besides, such as headers, is the MeshConfig's to say; queries
    /// are never told.
    Tap(Box<tap::TapArgs>),
    /// Show who serves a service, and what each caller's sidecar thinks of them
    Endpoints(endpoints::EndpointsArgs),
    /// Make, list and revoke tokens
    #[command(subcommand)]
    Token(tokens::TokenCommand),
    /// Put sidecars into a Compose file or Kubernetes manifests
    Inject(Box<inject::InjectArgs>),
    /// Wait for a server, apply documents, and write a join token for each of some workloads into a folder
    Join(join::JoinArgs),
    /// Run a whole mesh on this machine, with traffic, to look at or to check
    Demo(demo::DemoArgs),
    /// One instance of a sample service of the demo
    #[command(name = demo::sample::SUBCOMMAND, hide = true)]
    DemoService(Box<demo::sample::SampleArgs>),
    /// Ends what the demo started, should the demo be killed
    #[command(name = demo::guard::SUBCOMMAND, hide = true)]
    DemoGuard,
    /// Print the version
    Version,
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let command = without_empty_variables(Cli::command());
    let cli = Cli::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit());
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has seen enough.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        // It has said so at length.
        Err(Failure::Found(exit)) => exit.into(),
        Err(failure) => {
            let _ = writeln!(io::stderr(), "error: {failure}");
            failure.exit().into()
        }
    }
}

/// An empty environment variable is as unset: where a Compose file or a pipeline has nothing to put in, it sets that.
#[expect(
    clippy::disallowed_methods,
    reason = "arguments read their variables themselves; this asks which to leave alone"
)]
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let is_empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    let command = command.mut_args(|argument| match argument.get_env() {
        Some(name) if is_empty(name) => argument.env(Resettable::Reset),
        _ => argument,
    });
    command.mut_subcommands(without_empty_variables)
}

/// For the store and for compiling; the store has one at most that writes, and two that read. Every thread
/// more keeps memory of its own for what it has freed: with as many as tokio allows that is half of the whole.
const SERVER_BLOCKING_THREADS: usize = 4;

fn run(cli: Cli) -> Result<(), Failure> {
    let runtime = match cli.command {
        Command::Server(_) => tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .max_blocking_threads(SERVER_BLOCKING_THREADS)
            .build(),
        _ => tokio::runtime::Builder::new_current_thread().enable_all().build(),
    };
    let runtime = runtime.map_err(|error| Failure::Local(format!("cannot start: {error}")))?;
    runtime.block_on(async {
        let client = || Client::new(&cli.connection, default_data_dir().as_deref());
        match cli.command {
            Command::Server(args) => server::run(*args, default_data_dir()).await,
            Command::Apply(args) => apply::run(&args, &client()?).await,
            Command::Get(args) => get::run(&args, &client()?).await,
            Command::Delete(args) => delete::run(&args, &client()?).await,
            Command::Describe(args) => describe::run(&args, &client()?).await,
            Command::Check(args) => check::run(&args, &client()?).await,
            Command::Diagnose(args) => diagnose::run(&args, &client()?).await,
            Command::Explain(args) => explain::run(&args, &client()?).await,
            Command::Stat(args) => stat::run(&args, &client()?).await,
            Command::Top(args) => top::run(&args, &client()?).await,
            Command::Tap(args) => tap::run(&args, &client()?).await,
            Command::Endpoints(args) => endpoints::run(&args, &client()?).await,
            Command::Token(command) => tokens::run(&command, &client()?).await,
            Command::Inject(args) => inject::run(*args),
            Command::Join(args) => join::run(&args, &cli.connection).await,
            Command::Demo(args) => demo::run(args).await.map_err(|error| Failure::Local(error.to_string())),
            Command::DemoService(args) => {
                demo::sample::run(*args).await.map_err(|error| Failure::Local(error.to_string()))
            }
            Command::DemoGuard => {
                demo::guard::watch(io::stdin().lock());
                Ok(())
            }
            Command::Version => print(&format!("pillion {}\n", env!("CARGO_PKG_VERSION"))),
        }
    })
}

/// Writes a result for people or programs.
fn print(text: &str) -> Result<(), Failure> {
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes()).and_then(|()| output.flush()).map_err(Failure::Output)
}

/// Tells people what they should know, beside the result.
fn warn(text: &str) {
    // Who does not read it does not miss it.
    let _ = writeln!(io::stderr(), "warning: {text}");
}

/// `$XDG_DATA_HOME/pillion`, else `~/.local/share/pillion` (XDG Base Directory Specification).
#[expect(clippy::disallowed_methods, reason = "the one place that asks where the user's data is")]
fn default_data_dir() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_DATA_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
        .map(|data| data.join(Path::new("pillion")))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
