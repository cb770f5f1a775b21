//! However the bytes of a connection come, the messages are the same; and what comes as HTTP/1 goes as the same HTTP/1.

use std::rc::Rc;

use proptest::prelude::*;

use super::{Mirror, block_on, serve, shown};
use crate::http::h1::{head, names::Lists};

/// The bytes in pieces, cut at these places.
pub(super) fn cut(bytes: &[u8], cuts: Vec<usize>) -> Vec<&[u8]> {
    let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect()
}

proptest! {
    #[test]
    fn any_split_reads_the_same(
        order in proptest::collection::vec(0_usize..5, 1..4),
        spoil in proptest::option::of((0_usize..400, any::<u8>())),
        cuts in proptest::collection::vec(0_usize..400, 0..8),
    ) {
        let requests = [
            "GET /1 HTTP/1.1\r\nHost: a\r\nX-Y: z\r\n\r\n",
            "POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nhello world",
            "POST /3 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nx: y\r\n\r\n",
            "\r\nPUT /4 HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc",
            "HEAD /5 HTTP/1.1\r\nHOST: b\r\n\r\n",
        ];
        let mut bytes: Vec<u8> = order.iter().flat_map(|which| requests[*which].bytes()).collect();
        if let Some((at, byte)) = spoil {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        let outcome = |pieces: &[&[u8]]| {
            let handler = Rc::new(Mirror::new());
            let (answer, ended) = block_on(serve(&handler, pieces));
            let seen = handler.seen.take();
            // Of what is malformed in two ways, either may be noticed first.
            let answer = answer.split("; hop=").next().unwrap_or_default().to_owned();
            (seen, answer, ended.map_err(|refusal| refusal.reason))
        };
        let whole = outcome(&[&bytes]);
        if spoil.is_none() {
            prop_assert_eq!(whole.0.len(), order.len());
        }
        prop_assert_eq!(outcome(&cut(&bytes, cuts)), whole);
    }

    #[test]
    fn names_survive_from_one_connection_to_the_next(
        fields in proptest::collection::vec(("[xX]-[a-cA-C]{1,2}", "[!-~]{0,5}"), 0..60),
    ) {
        let written: String = fields.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
        let head = format!("GET / HTTP/1.1\n{written}\n").replace('\n', "\r\n");
        let (request, _) = head::request(&head.into(), &mut Lists::default()).expect("well-formed");
        prop_assert_eq!(shown(request.headers()), written);
    }
}
