//! What changes for a service's network as another container takes it over.

use super::Member;
use crate::inject::{Node, Object};

/// Links go to whoever has the network now.
pub(super) fn relinked(links: &Node, members: &[Member]) -> Node {
    let relink = |link: &Node| {
        let Some(text) = link.text() else { return link.clone() };
        let (name, alias) = text.split_once(':').unwrap_or((text, text));
        match members.iter().find(|member| member.name == name) {
            Some(member) => format!("{}:{alias}", member.holder()).into(),
            None => link.clone(),
        }
    };
    match links {
        Node::List(links) => Node::List(links.iter().map(relink).collect()),
        other => other.clone(),
    }
}

/// The networks, on each of which the service is found by its own names as before.
pub(super) fn aliased(networks: &Node, aliases: &[Option<&str>]) -> Node {
    let named: Vec<(String, Node)> = match networks {
        Node::List(names) => {
            names.iter().filter_map(|name| Some((name.text()?.to_owned(), Node::Null))).collect()
        }
        Node::Object(networks) => networks.clone().into_iter().collect(),
        _ => Vec::new(),
    };
    let with_aliases = |mut network: Node| {
        if network == Node::Null {
            network = Node::Object(Object::default());
        }
        if let Some(all) =
            network.object_mut().and_then(|it| it.or_set("aliases", Node::List(Vec::new())).list_mut())
        {
            for alias in aliases.iter().flatten().map(|alias| Node::from(*alias)) {
                if !all.contains(&alias) {
                    all.push(alias);
                }
            }
        }
        network
    };
    Node::Object(named.into_iter().map(|(name, network)| (name, with_aliases(network))).collect())
}

/// Kernel settings of the network namespace; the application keeps the others.
pub(super) fn move_sysctls(service: &mut Object, holder: &mut Object) {
    let (moved, kept) = match service.remove("sysctls") {
        Some(Node::Object(all)) => {
            let (moved, kept): (Vec<_>, Vec<_>) =
                all.into_iter().partition(|(name, _)| name.starts_with("net."));
            (Node::Object(moved.into_iter().collect()), Node::Object(kept.into_iter().collect()))
        }
        Some(Node::List(all)) => {
            let of_network = |node: &Node| node.text().is_some_and(|text| text.starts_with("net."));
            let (moved, kept) = all.into_iter().partition(of_network);
            (Node::List(moved), Node::List(kept))
        }
        _ => return,
    };
    for (to, sysctls) in [(holder, moved), (service, kept)] {
        if !sysctls.is_empty() {
            to.set("sysctls", sysctls);
        }
    }
}
