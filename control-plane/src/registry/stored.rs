//! How a workload is kept in the store: a message of its own, so that fields can be added.

use pillion_api::wire;
use pillion_certs::spiffe::SpiffeId;
use prost::Message;

use crate::compile::Workload;

#[derive(Clone, PartialEq, Message)]
struct Stored {
    #[prost(message, optional, tag = "1")]
    hello: Option<wire::Hello>,
    #[prost(string, tag = "2")]
    spiffe_id: String,
}

pub(super) fn encode(workload: &Workload) -> Vec<u8> {
    let stored = Stored { hello: Some(workload.hello.clone()), spiffe_id: workload.spiffe_id.clone() };
    stored.encode_to_vec()
}

/// What was stored; the text says what is wrong with it.
pub(super) fn decode(bytes: &[u8]) -> Result<Workload, String> {
    let stored = Stored::decode(bytes).map_err(|error| error.to_string())?;
    let id: SpiffeId = stored.spiffe_id.parse().map_err(|fault| format!("{}: {fault}", stored.spiffe_id))?;
    let hello = stored.hello.ok_or("it has no hello")?;
    Ok(Workload { hello, spiffe_id: stored.spiffe_id, namespace: id.namespace().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::state::tests::workload;

    #[test]
    fn what_is_encoded_comes_back() {
        let workload = workload("payments-3", true);
        assert_eq!(decode(&encode(&workload)), Ok(workload));
    }

    #[test]
    fn what_is_damaged_is_refused() {
        assert!(decode(b"\xff\xff").is_err());
        assert!(decode(b"").is_err());
    }
}
