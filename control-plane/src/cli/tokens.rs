//! `pillion token`.

use clap::{Args, Subcommand, ValueEnum};
use reqwest::Method;
use serde_json::{Value, json};

use super::{Client, Failure, print, table};
use crate::{
    token::{Created, Purpose, TokenInfo},
    web::TokenList,
};

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Make a join token for a workload, or an API token for people and tools
    Create(CreateArgs),
    /// List tokens, without their secrets
    List,
    /// End a token at once
    Revoke {
        /// The token's id: the second part of its text
        id: String,
    },
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("purpose").required(true).args(["service_account", "role"]))]
pub(super) struct CreateArgs {
    /// The workload's namespace; with --role, the only namespace that the token is for
    #[arg(long, required_unless_present = "role")]
    namespace: Option<String>,
    /// The workload's service account: makes a join token
    #[arg(long)]
    service_account: Option<String>,
    /// What the bearer may do: makes an API token
    #[arg(long, value_enum)]
    role: Option<RoleName>,
    /// How long it works, such as 1h [default: 1h for a join token, until revoked for an API token]
    #[arg(long)]
    ttl: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum RoleName {
    Viewer,
    Operator,
    Admin,
}

pub(super) async fn run(command: &TokenCommand, client: &Client) -> Result<(), Failure> {
    let path = |id: Option<&String>| -> Vec<String> {
        ["v1", "tokens"].into_iter().map(str::to_owned).chain(id.cloned()).collect()
    };
    match command {
        TokenCommand::Create(args) => {
            let answer = client.change(Method::POST, &path(None), &[], Some(&args.body())).await?;
            let created: Created = understood(answer)?;
            // Alone on its line, so that a script can take it as it is.
            print(&format!("{}\n", created.token))
        }
        TokenCommand::List => {
            let list: TokenList = understood(client.change(Method::GET, &path(None), &[], None).await?)?;
            print(&table::render(
                &["ID", "FOR", "CREATED", "EXPIRES"],
                &list.items.iter().map(row).collect::<Vec<_>>(),
            ))
        }
        TokenCommand::Revoke { id } => {
            client.change(Method::DELETE, &path(Some(id)), &[], None).await?;
            print(&format!("token {id} revoked\n"))
        }
    }
}

impl CreateArgs {
    fn body(&self) -> Value {
        let role = self.role.map(|role| match role {
            RoleName::Viewer => "viewer",
            RoleName::Operator => "operator",
            RoleName::Admin => "admin",
        });
        json!({
            "kind": if role.is_some() { "api" } else { "join" },
            "namespace": self.namespace,
            "serviceAccount": self.service_account,
            "role": role,
            "ttl": self.ttl,
        })
    }
}

fn understood<T: serde::de::DeserializeOwned>(answer: Value) -> Result<T, Failure> {
    serde_json::from_value(answer)
        .map_err(|error| Failure::Local(format!("the server's answer is not understood: {error}")))
}

fn row(info: &TokenInfo) -> Vec<String> {
    let purpose = match &info.purpose {
        Purpose::Join { namespace, service_account } => format!("join as {namespace}/{service_account}"),
        Purpose::Api { role, namespace: None } => format!("API, {}", role.name()),
        Purpose::Api { role, namespace: Some(namespace) } => format!("API, {} of {namespace}", role.name()),
    };
    let time = |milliseconds: u64| {
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_millis(milliseconds);
        humantime::format_rfc3339_seconds(time).to_string()
    };
    let expires = match (info.revoked_ms, info.expires_ms) {
        (Some(at), _) => format!("revoked {}", time(at)),
        (None, Some(at)) => time(at),
        (None, None) => "never".into(),
    };
    vec![info.id.clone(), purpose, time(info.created_ms), expires]
}
