//! The findings as a page, and the comparison with the one that is checked in.

use std::fmt::Write as _;
use std::path::Path;

use super::{exchange::Finding, proxies::Proxy};

/// Set by `make reference`.
const UPDATE: &str = "PILLION_UPDATE_REFERENCE";

const PREFACE: &str = "# Who refuses what

Made by the test beside it (`make reference` writes it anew): messages that two readers could take differently, sent through a
pair of sidecars, and through Envoy and HAProxy as plain reverse proxies with nothing set that need not be.

*Refused* comes with the status that the sender was told; the connection ends with it. *Forwarded* came out as it was;
*normalised* came out whole, but without what was peculiar about it. Chunks, and data that is not as long as its length, are
noticed after the head may have gone: what comes out then is cut off, and never a whole message. An answer
that breaks amid its body is a 502 while its head has not gone, and is *cut off* after that; by the sidecars with a reset, so
that nobody can take what had come of it for all of it.

The sidecars refuse wherever RFC 9112 leaves the choice, with these exceptions. A repeated Content-Length of the same value
comes out once (RFC 9110 8.6); a chunk's extensions are read over (RFC 9112 7.1.1); fields that are no trailers are dropped
from among them (RFC 9110 6.5.1); of a target in absolute form and another Host, the target holds, and Host is written anew
(RFC 9112 3.2.2): a client of a forward proxy may mean that. An empty line before a connection's first request closes it,
because bytes like these are no HTTP yet; between two requests it is read over (RFC 9112 2.2).
";

/// The page that is being written.
pub(super) struct Table {
    names: Vec<String>,
    page: String,
}

impl Table {
    pub(super) fn new(proxies: &[Proxy]) -> Self {
        Self { names: proxies.iter().map(|proxy| proxy.name.clone()).collect(), page: PREFACE.into() }
    }

    /// A row for each case; the findings are by proxy.
    pub(super) fn section<'a>(
        &mut self,
        title: &str,
        cases: impl Iterator<Item = &'a str>,
        findings: &[Vec<Finding>],
    ) {
        let columns = "|---".repeat(self.names.len() + 1);
        let _ = writeln!(self.page, "\n## {title}\n\n| case | {} |\n{columns}|", self.names.join(" | "));
        for (index, name) in cases.enumerate() {
            let cells: Vec<&str> = findings.iter().map(|findings| findings[index].cell.as_str()).collect();
            let _ = writeln!(self.page, "| {name} | {} |", cells.join(" | "));
        }
    }

    /// Fails where the page that is checked in says something else. Of another version of a peer, only pillion's column counts.
    pub(super) fn compare(&self) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/framing/table.md");
        #[expect(clippy::disallowed_methods, reason = "how `make reference` asks for new pages")]
        let update = std::env::var_os(UPDATE).is_some();
        if update {
            std::fs::write(&path, &self.page).expect("the tests' folder can be written");
            return;
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        let peers = self.names.iter().all(|name| written.contains(&format!(" {name} |")));
        let columns = if peers { self.names.len() + 1 } else { 2 };
        let (found, written) = (cells(&self.page, columns), cells(&written, columns));
        let new: Vec<_> = found.iter().filter(|row| !written.contains(row)).collect();
        assert!(found == written, "`make reference` writes table.md anew; found:\n{new:#?}");
    }
}

/// The first so many cells of each row.
fn cells(page: &str, columns: usize) -> Vec<Vec<&str>> {
    let rows = page.lines().filter(|line| line.starts_with('|'));
    rows.map(|row| row.split(" | ").take(columns).map(|cell| cell.trim_matches(['|', ' '])).collect())
        .collect()
}
