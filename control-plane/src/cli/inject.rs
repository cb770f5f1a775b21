//! `pillion inject`.

use std::{
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use clap::Args;

use super::{Failure, print};
use crate::{
    inject::{self, Injected, Node, Options},
    resource::{DEFAULT_NAMESPACE, Fault, dns_label},
};

/// Put sidecars into a Compose file or Kubernetes manifests.
#[derive(Debug, Args)]
pub(super) struct InjectArgs {
    /// A Compose file, or Kubernetes manifests in YAML or JSON; - for standard input
    #[arg(short, long = "filename", required = true, value_name = "FILE|-")]
    filename: PathBuf,
    /// Where the result goes [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Take out what was put in, and nothing else
    #[arg(long, conflicts_with_all = ["services", "with_control_plane", "join_token_file", "control_plane"])]
    uninject: bool,
    /// The control plane's gRPC address [default: pillion.pillion-system.svc:15010 in Kubernetes; with --with-control-plane
    /// pillion:15010]
    #[arg(long, value_name = "HOST:PORT", value_parser = host_and_port)]
    control_plane: Option<String>,
    /// Compose: put a control plane into the file, which gives every service its identity
    #[arg(long, conflicts_with_all = ["join_token_file", "control_plane"])]
    with_control_plane: bool,
    /// Compose: a file with a join token (`pillion token create`) that user 15000 may read; {service} in it stands for
    /// the service's name
    #[arg(long, value_name = "FILE", requires = "control_plane")]
    join_token_file: Option<String>,
    /// Compose: the mesh's namespace for the file's services
    #[arg(long, value_name = "NAME", default_value = DEFAULT_NAMESPACE, value_parser = namespace)]
    namespace: String,
    /// Compose: write a Service document for each service to this file, for `pillion apply`
    #[arg(long, value_name = "FILE")]
    services: Option<PathBuf>,
    /// The sidecar's image
    #[arg(long, value_name = "IMAGE", default_value_t = Options::default().proxy_image)]
    proxy_image: String,
    /// The image that installs the redirection
    #[arg(long, value_name = "IMAGE", default_value_t = Options::default().redirect_image)]
    redirect_image: String,
    /// The control plane's image
    #[arg(long, value_name = "IMAGE", default_value_t = Options::default().control_plane_image)]
    control_plane_image: String,
}

pub(super) fn run(args: InjectArgs) -> Result<(), Failure> {
    let name = if args.filename == Path::new("-") {
        "standard input".to_owned()
    } else {
        args.filename.display().to_string()
    };
    let refused =
        |faults: Vec<Fault>| Failure::Faults(faults.iter().map(|fault| placed(&name, fault)).collect());
    let text =
        read(&args.filename).map_err(|error| Failure::Usage(format!("cannot read {name}: {error}")))?;
    let documents = inject::text::read(&text).map_err(|fault| refused(vec![fault]))?;
    if documents.is_empty() {
        return Err(Failure::Usage(format!("there is no document in {name}")));
    }
    if args.uninject {
        let documents = inject::uninject(documents).map_err(refused)?;
        return write(args.output.as_deref(), &documents);
    }
    let options = Options {
        proxy_image: args.proxy_image,
        redirect_image: args.redirect_image,
        control_plane_image: args.control_plane_image,
        control_plane: args.control_plane,
        namespace: args.namespace,
        join_token_file: args.join_token_file,
        with_control_plane: args.with_control_plane,
    };
    let Injected { documents, services, notes } = inject::inject(documents, &options).map_err(refused)?;
    for note in notes {
        let _ = writeln!(io::stderr(), "note: {note}");
    }
    if let Some(file) = &args.services {
        write(Some(file), &services)?;
    }
    write(args.output.as_deref(), &documents)
}

fn write(file: Option<&Path>, documents: &[Node]) -> Result<(), Failure> {
    let text = inject::text::write(documents);
    match file {
        None => print(&text),
        Some(file) => std::fs::write(file, text)
            .map_err(|error| Failure::Local(format!("cannot write {}: {error}", file.display()))),
    }
}

fn placed(file: &str, fault: &Fault) -> String {
    match (fault.line, fault.column) {
        (Some(line), Some(column)) => format!("{file}:{line}:{column}: {fault}"),
        _ => format!("{file}: {fault}"),
    }
}

fn read(file: &Path) -> io::Result<String> {
    if file == Path::new("-") {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text)?;
        return Ok(text);
    }
    std::fs::read_to_string(file)
}

fn host_and_port(text: &str) -> Result<String, String> {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<std::num::NonZeroU16>().is_ok() => {
            Ok(text.to_owned())
        }
        _ => Err("is not HOST:PORT".into()),
    }
}

fn namespace(text: &str) -> Result<String, String> {
    dns_label(text).map(|()| text.to_owned())
}
